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

enum {
    DOTS_MR = 6,   /* by DOTS_NV vectors: 12 sums, 12 results, 2 of weights, 2 scales, 1 of x: 29 registers */
    DOTS_NV = 2,   /* two outputs' bytes feed six rows: 8 loads for 12 dot products */
    DOTS_FEW = 18, /* rows that take all types from where they lie: three strips */
    DOTS_WIDE = 2, /* rows that take a whole panel at once */
    /* Products are of unsigned weights: of q8_0; of q4_0 and Q6_K. */
    DOTS_SIGNED_8 = 0,
    DOTS_SIGNED_LESS = 0,
    DOTS_HALVES_8 = 0 /* x has 8 bits for all of them */
};
/* F(X, mr) for the heights of a strip. */
#define DOTS_ROWS(F, X) F(X, 1) F(X, 2) F(X, 3) F(X, 4) F(X, 5) F(X, 6)

/* After a row's products of a quad: not needed here. */
#define DOTS_FENCE ((void)0)

/* The four bytes, or the number, at p in every lane; p may have any alignment. */
ATTN_INLINE vint v_int_at(const void *p) {
    int x;
    memcpy(&x, p, sizeof x);
    return _mm512_set1_epi32(x);
}
ATTN_INLINE vint v_int_zero(void) { return _mm512_setzero_si512(); }

/* The sums of a unit, from integers on; plus, in each lane, the four products of a byte of w and one at x. w has `bits` bits
 * where it is not signed; it is the unit's quad number `quad`, and all of them come, in order. */
typedef vint vsum;
ATTN_INLINE vsum v_sum(vint from) { return from; }
ATTN_INLINE vsum v_sum_dot(int bits, int quad, vsum sum, vbytes w, const char *x) {
    (void)bits;
    (void)quad;
    return _mm512_dpbusd_epi32(sum, w, v_int_at(x));
}
ATTN_INLINE vf32 v_sum_f32(int bits, vsum sum) {
    (void)bits;
    return _mm512_cvtepi32_ps(sum);
}
ATTN_INLINE void v_bytes_store(void *p, vbytes x) { _mm512_storeu_si512(p, x); }

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
ATTN_INLINE vf32 v_bf16_dot(vf32 sum, vint x, vbytes w) {
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w);
}
#endif

#endif
