/* AVX2: columns of VF32_N rows. Same names and semantics in every ISA folder; tests/vec checks each one. */
#ifndef ATTN_COLUMNS_H
#define ATTN_COLUMNS_H

#include "load.h"

/* At once: the insertions of half a vector take no shuffle. */
enum { VF32_COLUMNS = 4 };
typedef __m256i vcolumns; /* two columns of values of 16 bits */

/* x[i]: column i of VF32_N rows of floats, `row` bytes apart. */
ATTN_INLINE void v_load_columns(const char *p, ptrdiff_t row, vf32 x[VF32_COLUMNS]) {
    vf32 r[4], t[4];
    ATTN_UNROLL for (int i = 0; i < 4; i++) {
        const char *at = p + i * row;
        r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps((const float *)(const void *)at)),
                                    _mm_loadu_ps((const float *)(const void *)(at + 4 * row)), 1);
    }
    ATTN_UNROLL for (int i = 0; i < 4; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    x[0] = _mm256_shuffle_ps(t[0], t[2], 0x44);
    x[1] = _mm256_shuffle_ps(t[0], t[2], 0xee);
    x[2] = _mm256_shuffle_ps(t[1], t[3], 0x44);
    x[3] = _mm256_shuffle_ps(t[1], t[3], 0xee);
}

/* y[i]: columns 2i and 2i + 1 of VF32_N rows. */
ATTN_INLINE void v_load_columns_f16(const char *p, ptrdiff_t row, vcolumns y[VF32_COLUMNS]) {
    __m256i r[4], t[4];
    ATTN_UNROLL for (int i = 0; i < 4; i++) {
        const char *at = p + i * row;
        r[i] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)at)),
            _mm_loadu_si128((const __m128i *)(const void *)(at + 4 * row)), 1);
    }
    ATTN_UNROLL for (int i = 0; i < 4; i += 2) {
        t[i] = _mm256_unpacklo_epi16(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi16(r[i], r[i + 1]);
    }
    y[0] = _mm256_unpacklo_epi32(t[0], t[2]);
    y[1] = _mm256_unpackhi_epi32(t[0], t[2]);
    y[2] = _mm256_unpacklo_epi32(t[1], t[3]);
    y[3] = _mm256_unpackhi_epi32(t[1], t[3]);
    ATTN_UNROLL for (int i = 0; i < 4; i++) y[i] = _mm256_permute4x64_epi64(y[i], 0xd8);
}
ATTN_INLINE vf32 v_column_f16(vcolumns y, int second) {
    return _mm256_cvtph_ps(second ? _mm256_extracti128_si256(y, 1) : _mm256_castsi256_si128(y));
}

/* Pairs of a row stay together: the halves of a lane. */
ATTN_INLINE void v_load_columns_bf16(const char *p, ptrdiff_t row, vcolumns y[VF32_COLUMNS]) {
    vf32 x[VF32_COLUMNS];
    v_load_columns(p, row, x);
    ATTN_UNROLL for (int i = 0; i < VF32_COLUMNS; i++) y[i] = _mm256_castps_si256(x[i]);
}
ATTN_INLINE vf32 v_column_bf16(vcolumns y, int second) {
    return _mm256_castsi256_ps(second ? _mm256_and_si256(y, _mm256_set1_epi32((int)0xffff0000))
                                      : _mm256_slli_epi32(y, 16));
}

#endif
