/* AVX-512: the integers of packed weights (src/weights.h) to vectors of f32. Same names and semantics in every ISA folder. */
#ifndef ATTN_FIELDS_H
#define ATTN_FIELDS_H

#include "attn/attn.h"
#include "load.h"

/* One vector of pairs of bf16: the first values, the second ones. */
ATTN_INLINE vf32 v_load_bf16_first(const void *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
ATTN_INLINE vf32 v_load_bf16_second(const void *p) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32((int)0xffff0000)));
}

/* VF32_N lanes of 32 bits, or of four bytes each. */
typedef __m512i vbytes;

ATTN_INLINE vbytes v_bytes(const void *p) { return _mm512_loadu_si512(p); }
/* Of each byte: its low or high half; bits 2j and 2j + 1 as bits 4 and 5 (j in [0, 4), a constant). */
ATTN_INLINE vbytes v_bytes_low(vbytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
ATTN_INLINE vbytes v_bytes_high(vbytes x) { return v_bytes_low(_mm512_srli_epi32(x, 4)); }
ATTN_INLINE vbytes v_bytes_two(vbytes x, int j) {
    x = j < 2 ? _mm512_slli_epi32(x, (unsigned)(4 - 2 * j)) : _mm512_srli_epi32(x, (unsigned)(2 * j - 4));
    return _mm512_and_si512(x, _mm512_set1_epi8(0x30));
}
ATTN_INLINE vbytes v_bytes_or(vbytes a, vbytes b) { return _mm512_or_si512(a, b); }
ATTN_INLINE vbytes v_bytes_minus(vbytes x, int by) { return _mm512_sub_epi8(x, _mm512_set1_epi8((char)by)); }

/*
 * Byte j of each lane (signed; j a constant) times 2^24, exactly. The ends need no shuffle, for which Zen 4 has but one
 * unit beside the multipliers'.
 */
ATTN_INLINE vf32 v_byte(vbytes x, int j) {
    const int to_top = (int)(0x00808080u + ((unsigned)j << 24));
    if (j == 0) return _mm512_cvtepi32_ps(_mm512_slli_epi32(x, 24));
    if (j == 3) return _mm512_cvtepi32_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xff000000)));
    return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(
        x, _mm512_set4_epi32(to_top + 0x0c000000, to_top + 0x08000000, to_top + 0x04000000, to_top)));
}
/* Each lane shifted right and masked. */
ATTN_INLINE vbytes v_lane_bits(vbytes x, int shift, uint32_t mask) {
    return _mm512_and_si512(_mm512_srl_epi32(x, _mm_cvtsi32_si128(shift)), _mm512_set1_epi32((int)mask));
}
ATTN_INLINE vbytes v_lane_up4(vbytes x) { return _mm512_slli_epi32(x, 4); }
/* Lanes of numbers below 2^24 to f32, exactly. */
ATTN_INLINE vf32 v_lane_f32(vbytes x) { return _mm512_cvtepi32_ps(x); }

#endif
