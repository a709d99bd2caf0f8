/* AVX-512: columns of VF32_N rows. Same names and semantics in every ISA folder; tests/vec checks each one. */
#ifndef ATTN_COLUMNS_H
#define ATTN_COLUMNS_H

#include "load.h"

/* At once: the insertions of half a row take no shuffle, and beside 8 rows' products there is hardly room for one. */
enum { VF32_COLUMNS = 8 };
typedef __m512i vcolumns; /* two columns of values of 16 bits */

/* x[i]: column i of VF32_N rows of floats, `row` bytes apart. */
ATTN_INLINE void v_load_columns(const char *p, ptrdiff_t row, vf32 x[VF32_COLUMNS]) {
    vf32 r[8], t[8];
    ATTN_UNROLL for (int i = 0; i < 8; i++) { /* rows i and i + 4 of the first eight, then of the others */
        const char *at = p + (i / 4 * 8 + i % 4) * row;
        r[i] = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps((const float *)(const void *)at)),
                                  _mm256_loadu_ps((const float *)(const void *)(at + 4 * row)), 1);
    }
    ATTN_UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    /* r[i]: columns i and i + 4 of four rows, then of four more */
    ATTN_UNROLL for (int i = 0; i < 8; i += 4) {
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    ATTN_UNROLL for (int i = 0; i < 4; i++) {
        x[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        x[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    }
}

/* y[i]: columns 2i and 2i + 1 of VF32_N rows. */
ATTN_INLINE void v_load_columns_f16(const char *p, ptrdiff_t row, vcolumns y[VF32_COLUMNS]) {
    const __m512i first = _mm512_set_epi64(13, 9, 5, 1, 12, 8, 4, 0),
                  last = _mm512_set_epi64(15, 11, 7, 3, 14, 10, 6, 2);
    __m512i r[8], t[8];
    ATTN_UNROLL for (int i = 0; i < 8; i++) {
        const char *at = p + (i / 4 * 8 + i % 4) * row;
        r[i] =
            _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)at)),
                               _mm256_loadu_si256((const __m256i *)(const void *)(at + 4 * row)), 1);
    }
    ATTN_UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi16(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi16(r[i], r[i + 1]);
    }
    /* r[i]: columns 2i, 2i + 1 and 2i + 8, 2i + 9 of four rows, then of four more */
    ATTN_UNROLL for (int i = 0; i < 8; i += 4) {
        r[i] = _mm512_unpacklo_epi32(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi32(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi32(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi32(t[i + 1], t[i + 3]);
    }
    ATTN_UNROLL for (int i = 0; i < 4; i++) {
        y[i] = _mm512_permutex2var_epi64(r[i], first, r[i + 4]);
        y[i + 4] = _mm512_permutex2var_epi64(r[i], last, r[i + 4]);
    }
}
ATTN_INLINE vf32 v_column_f16(vcolumns y, int second) {
    return _mm512_cvtph_ps(second ? _mm512_extracti64x4_epi64(y, 1) : _mm512_castsi512_si256(y));
}

/* Pairs of a row stay together: the halves of a lane. */
ATTN_INLINE void v_load_columns_bf16(const char *p, ptrdiff_t row, vcolumns y[VF32_COLUMNS]) {
    vf32 x[VF32_COLUMNS];
    v_load_columns(p, row, x);
    ATTN_UNROLL for (int i = 0; i < VF32_COLUMNS; i++) y[i] = _mm512_castps_si512(x[i]);
}
ATTN_INLINE vf32 v_column_bf16(vcolumns y, int second) {
    return _mm512_castsi512_ps(second ? _mm512_and_si512(y, _mm512_set1_epi32((int)0xffff0000))
                                      : _mm512_slli_epi32(y, 16));
}

#endif
