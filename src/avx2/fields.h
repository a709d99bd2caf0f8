/* AVX2: the integers of packed weights (src/weights.h) to vectors of f32. Same names and semantics in every ISA folder. */
#ifndef ATTN_FIELDS_H
#define ATTN_FIELDS_H

#include <string.h>

#include "attn/attn.h"
#include "load.h"

/* VF32_N lanes of 32 bits, or of four bytes each. */
typedef __m256i vbytes;

ATTN_INLINE vbytes v_bytes(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* One vector of pairs of bf16: the first values, the second ones. */
ATTN_INLINE vf32 v_load_bf16_first(const void *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(v_bytes(p), 16));
}
ATTN_INLINE vf32 v_load_bf16_second(const void *p) {
    return _mm256_castsi256_ps(_mm256_and_si256(v_bytes(p), _mm256_set1_epi32((int)0xffff0000)));
}

/* Of each byte: its low or high half; bits 2j and 2j + 1 as bits 4 and 5 (j in [0, 4), a constant). */
ATTN_INLINE vbytes v_bytes_low(vbytes x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
ATTN_INLINE vbytes v_bytes_high(vbytes x) { return v_bytes_low(_mm256_srli_epi32(x, 4)); }
ATTN_INLINE vbytes v_bytes_two(vbytes x, int j) {
    x = j < 2 ? _mm256_slli_epi32(x, 4 - 2 * j) : _mm256_srli_epi32(x, 2 * j - 4);
    return _mm256_and_si256(x, _mm256_set1_epi8(0x30));
}
ATTN_INLINE vbytes v_bytes_or(vbytes a, vbytes b) { return _mm256_or_si256(a, b); }
ATTN_INLINE vbytes v_bytes_minus(vbytes x, int by) { return _mm256_sub_epi8(x, _mm256_set1_epi8((char)by)); }

/* Byte j of each lane (signed; j a constant) times 2^24, exactly. */
ATTN_INLINE vf32 v_byte(vbytes x, int j) {
    const int a = (int)(0x00808080u + ((unsigned)j << 24)), b = a + 0x04000000, c = a + 0x08000000,
              d = a + 0x0c000000;
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(x, _mm256_setr_epi32(a, b, c, d, a, b, c, d)));
}
/* Of VF32_N rows `row` bytes apart: the binary16 at the start of each. */
ATTN_INLINE uint16_t v_word(const char *p) {
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return x;
}
ATTN_INLINE __m128i v_rows_words(const char *p, ptrdiff_t row) {
    __m128i x = _mm_insert_epi16(_mm_setzero_si128(), v_word(p), 0);
    x = _mm_insert_epi16(x, v_word(p + row), 1);
    x = _mm_insert_epi16(x, v_word(p + 2 * row), 2);
    x = _mm_insert_epi16(x, v_word(p + 3 * row), 3);
    x = _mm_insert_epi16(x, v_word(p + 4 * row), 4);
    x = _mm_insert_epi16(x, v_word(p + 5 * row), 5);
    x = _mm_insert_epi16(x, v_word(p + 6 * row), 6);
    return _mm_insert_epi16(x, v_word(p + 7 * row), 7);
}
ATTN_INLINE vf32 v_rows_f16(const char *p, ptrdiff_t row) { return _mm256_cvtph_ps(v_rows_words(p, row)); }

/* Of such rows 16 bytes: x[i] has bytes 4 i to 4 i + 3, a row a lane. */
ATTN_INLINE void v_rows_quads(const char *p, ptrdiff_t row, vbytes x[4]) {
    vbytes r[4];
    ATTN_UNROLL for (int i = 0; i < 4; i++) {
        const __m128i lo = _mm_loadu_si128((const __m128i *)(const void *)(p + i * row));
        const __m128i hi = _mm_loadu_si128((const __m128i *)(const void *)(p + (i + 4) * row));
        r[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(lo), hi, 1);
    }
    const __m256i a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpacklo_epi32(r[2], r[3]);
    const __m256i c = _mm256_unpackhi_epi32(r[0], r[1]), d = _mm256_unpackhi_epi32(r[2], r[3]);
    x[0] = _mm256_unpacklo_epi64(a, b);
    x[1] = _mm256_unpackhi_epi64(a, b);
    x[2] = _mm256_unpacklo_epi64(c, d);
    x[3] = _mm256_unpackhi_epi64(c, d);
}

/* Each lane shifted right and masked. */
ATTN_INLINE vbytes v_lane_bits(vbytes x, int shift, uint32_t mask) {
    return _mm256_and_si256(_mm256_srl_epi32(x, _mm_cvtsi32_si128(shift)), _mm256_set1_epi32((int)mask));
}
ATTN_INLINE vbytes v_lane_up4(vbytes x) { return _mm256_slli_epi32(x, 4); }
/* Lanes of numbers below 2^24 to f32, exactly. */
ATTN_INLINE vf32 v_lane_f32(vbytes x) { return _mm256_cvtepi32_ps(x); }

#endif
