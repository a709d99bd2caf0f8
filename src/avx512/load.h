/* AVX-512: values of the other types to vectors of f32 and back. Same names and semantics in every ISA folder. */
#ifndef ATTN_LOAD_H
#define ATTN_LOAD_H

#include "vec.h"

#include <stdint.h>

/* VF32_N values, or n of them (the lanes from n on are 0), exactly. */
ATTN_INLINE vf32 v_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
ATTN_INLINE vf32 v_load_f16_tail(const uint16_t *p, size_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1u), p));
}
ATTN_INLINE vf32 v_bf16_to_f32(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
ATTN_INLINE vf32 v_load_bf16(const uint16_t *p) {
    return v_bf16_to_f32(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
ATTN_INLINE vf32 v_load_bf16_tail(const uint16_t *p, size_t n) {
    return v_bf16_to_f32(_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1u), p));
}

/* Rounded to nearest even; a NaN stays one, quiet. */
ATTN_INLINE void v_store_f16(uint16_t *p, vf32 x) {
    _mm256_storeu_si256((__m256i *)(void *)p,
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
ATTN_INLINE void v_store_f16_tail(uint16_t *p, vf32 x, size_t n) {
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1u),
                             _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
ATTN_INLINE __m256i v_f32_to_bf16(vf32 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(up, nan, quiet), 16));
}
ATTN_INLINE void v_store_bf16(uint16_t *p, vf32 x) {
    _mm256_storeu_si256((__m256i *)(void *)p, v_f32_to_bf16(x));
}
ATTN_INLINE void v_store_bf16_tail(uint16_t *p, vf32 x, size_t n) {
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1u), v_f32_to_bf16(x));
}

/* VF32_N signed bytes; the low or the high halves of VF32_N bytes, from 0 to 15. */
ATTN_INLINE vf32 v_load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
ATTN_INLINE vf32 v_load_low4(const uint8_t *p) {
    const __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_and_si128(x, _mm_set1_epi8(15))));
}
ATTN_INLINE vf32 v_load_high4(const uint8_t *p) {
    const __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_and_si128(_mm_srli_epi16(x, 4), _mm_set1_epi8(15))));
}

/* What the 16 values of four bits less 8 become when they are scaled; VF32_N of them, of the low or high halves of bytes. */
ATTN_INLINE vf32 v_scaled4(vf32 scale) {
    return v_mul(_mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7), scale);
}
ATTN_INLINE vf32 v_load_scaled4(vf32 scaled, const uint8_t *p, int high) {
    const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm512_permutexvar_ps(high ? _mm512_srli_epi32(x, 4) : x, scaled);
}

/* The binary16 at p, of which eight bytes may be read, in every lane. */
ATTN_INLINE vf32 v_f16_everywhere(const void *p) {
    return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)p)));
}
/* One binary16. */
ATTN_INLINE float v_f16(uint16_t x) { return _cvtsh_ss(x); }
ATTN_INLINE uint16_t v_to_f16(float x) { return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

#endif
