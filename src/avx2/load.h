/* AVX2: values of the other types to vectors of f32 and back. Same names and semantics in every ISA folder. */
#ifndef ATTN_LOAD_H
#define ATTN_LOAD_H

#include "vec.h"

#include <stdint.h>
#include <string.h>

/* n <= 8 values of two bytes, then zeros. */
ATTN_INLINE __m128i v_load_u16_tail(const uint16_t *p, size_t n) {
    uint16_t x[VF32_N] = {0};
    memcpy(x, p, n * sizeof *x);
    return _mm_loadu_si128((const __m128i *)(const void *)x);
}
ATTN_INLINE void v_store_u16_tail(uint16_t *p, __m128i x, size_t n) {
    uint16_t to[VF32_N];
    _mm_storeu_si128((__m128i *)(void *)to, x);
    memcpy(p, to, n * sizeof *to);
}

/* VF32_N values, or n of them (the lanes from n on are 0), exactly. */
ATTN_INLINE vf32 v_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
ATTN_INLINE vf32 v_load_f16_tail(const uint16_t *p, size_t n) {
    return _mm256_cvtph_ps(v_load_u16_tail(p, n));
}
ATTN_INLINE vf32 v_bf16_to_f32(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
ATTN_INLINE vf32 v_load_bf16(const uint16_t *p) {
    return v_bf16_to_f32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
ATTN_INLINE vf32 v_load_bf16_tail(const uint16_t *p, size_t n) {
    return v_bf16_to_f32(v_load_u16_tail(p, n));
}

/* Rounded to nearest even; a NaN stays one, quiet. */
ATTN_INLINE void v_store_f16(uint16_t *p, vf32 x) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
ATTN_INLINE void v_store_f16_tail(uint16_t *p, vf32 x, size_t n) {
    v_store_u16_tail(p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), n);
}
ATTN_INLINE __m128i v_f32_to_bf16(vf32 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    const __m256i y = _mm256_srli_epi32(
        _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(up), _mm256_castsi256_ps(quiet), nan)), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
}
ATTN_INLINE void v_store_bf16(uint16_t *p, vf32 x) {
    _mm_storeu_si128((__m128i *)(void *)p, v_f32_to_bf16(x));
}
ATTN_INLINE void v_store_bf16_tail(uint16_t *p, vf32 x, size_t n) {
    v_store_u16_tail(p, v_f32_to_bf16(x), n);
}

/* VF32_N signed bytes; the low or the high halves of VF32_N bytes, from 0 to 15. */
ATTN_INLINE vf32 v_load_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
ATTN_INLINE vf32 v_load_low4(const uint8_t *p) {
    const __m128i x = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_and_si128(x, _mm_set1_epi8(15))));
}
ATTN_INLINE vf32 v_load_high4(const uint8_t *p) {
    const __m128i x = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_and_si128(_mm_srli_epi16(x, 4), _mm_set1_epi8(15))));
}

/* What the 16 values of four bits less 8 become when they are scaled (here: the scale); VF32_N of them, of the low or high
 * halves of bytes. */
ATTN_INLINE vf32 v_scaled4(vf32 scale) { return scale; }
ATTN_INLINE vf32 v_load_scaled4(vf32 scaled, const uint8_t *p, int high) {
    return v_mul(v_sub(high ? v_load_high4(p) : v_load_low4(p), v_set1(8.0f)), scaled);
}

/* The binary16 at p, of which eight bytes may be read, in every lane. */
ATTN_INLINE vf32 v_f16_everywhere(const void *p) {
    return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)p)));
}
/* One binary16. */
ATTN_INLINE float v_f16(uint16_t x) { return _cvtsh_ss(x); }
ATTN_INLINE uint16_t v_to_f16(float x) { return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

#endif
