/*
 * AVX-512 dot products: int8 (AVX512_VNNI) and, where the compiler's flags have it, bf16 (AVX512_BF16). What the tiers of
 * src/avx512 add to vec.h, load.h and fields.h.
 */
#ifndef ATTN_DOTS_H
#define ATTN_DOTS_H

#if !defined(__AVX512VNNI__)
#error "compile the tiers of src/avx512 with the flags of their rows in src/meson.build"
#endif

#include <string.h>

#include "fields.h"

/* Sums of 32 bits. */
typedef __m512i vint;

/* The four bytes, or the number, at p in every lane; p may have any alignment. */
ATTN_INLINE vint v_int_at(const void *p) {
    int x;
    memcpy(&x, p, sizeof x);
    return _mm512_set1_epi32(x);
}
ATTN_INLINE vint v_int_zero(void) { return _mm512_setzero_si512(); }
/* Each lane plus its four products of a byte of u, unsigned, and one of s, signed. */
ATTN_INLINE vint v_int_dot(vint sum, vbytes u, vint s) { return _mm512_dpbusd_epi32(sum, u, s); }
ATTN_INLINE vf32 v_int_f32(vint x) { return _mm512_cvtepi32_ps(x); }
ATTN_INLINE void v_bytes_store(void *p, vbytes x) { _mm512_storeu_si512(p, x); }
/* Signed bytes plus 128. */
ATTN_INLINE vbytes v_bytes_flip(vbytes x) { return _mm512_xor_si512(x, _mm512_set1_epi8((char)0x80)); }

/* x * by to 16 signed bytes, to nearest even; their sum. |x * by| < 128. */
ATTN_INLINE int v_store_i8(int8_t *to, vf32 x, float by) {
    const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(x, v_set1(by)));
    _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(q));
    return _mm512_reduce_add_epi32(q);
}
/* The largest magnitude of 32 values, or NaN where one is not finite. */
ATTN_INLINE float v_most_of_32(const float *x) {
    const vf32 a = v_abs(v_load(x)), b = v_abs(v_load(x + 16)), most = v_set1(__FLT_MAX__);
    const __mmask16 bad = _mm512_cmp_ps_mask(a, most, _CMP_NLE_UQ) | _mm512_cmp_ps_mask(b, most, _CMP_NLE_UQ);
    return bad ? __builtin_nanf("") : _mm512_reduce_max_ps(_mm512_max_ps(a, b));
}

#if defined(__AVX512BF16__)
/* Each lane plus its two products of bf16: the second ones' first (Intel's manual), each rounded to nearest even; subnormal
 * numbers count as zero and become it. */
ATTN_INLINE vf32 v_bf16_dot(vf32 sum, vint a, vint b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
#endif

#endif
