/* AVX2: the integers of packed weights (src/weights.h) to vectors of f32. Same names and semantics in every ISA folder. */
#ifndef ATTN_FIELDS_H
#define ATTN_FIELDS_H

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
/* Each lane shifted right and masked. */
ATTN_INLINE vbytes v_lane_bits(vbytes x, int shift, uint32_t mask) {
    return _mm256_and_si256(_mm256_srl_epi32(x, _mm_cvtsi32_si128(shift)), _mm256_set1_epi32((int)mask));
}
ATTN_INLINE vbytes v_lane_up4(vbytes x) { return _mm256_slli_epi32(x, 4); }
/* Lanes of numbers below 2^24 to f32, exactly. */
ATTN_INLINE vf32 v_lane_f32(vbytes x) { return _mm256_cvtepi32_ps(x); }

#endif
