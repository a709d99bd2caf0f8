/*
 * AVX2 + FMA vectors of f64: what the table of rotary embedding needs. Same names and semantics in every ISA
 * folder; tests/vec checks each one.
 */
#ifndef ATTN_VEC64_H
#define ATTN_VEC64_H

#include "vec.h"

typedef __m256d vf64;
enum { VF64_N = 4 };

ATTN_INLINE vf64 v64_set1(double x) { return _mm256_set1_pd(x); }
ATTN_INLINE vf64 v64_load(const double *p) { return _mm256_loadu_pd(p); }
ATTN_INLINE vf64 v64_add(vf64 a, vf64 b) { return _mm256_add_pd(a, b); }
ATTN_INLINE vf64 v64_sub(vf64 a, vf64 b) { return _mm256_sub_pd(a, b); }
ATTN_INLINE vf64 v64_mul(vf64 a, vf64 b) { return _mm256_mul_pd(a, b); }
ATTN_INLINE vf64 v64_fma(vf64 a, vf64 b, vf64 c) { return _mm256_fmadd_pd(a, b, c); } /* a*b + c */
ATTN_INLINE vf64 v64_fms(vf64 a, vf64 b, vf64 c) { return _mm256_fmsub_pd(a, b, c); } /* a*b - c */
ATTN_INLINE vf64 v64_round(vf64 x) { /* to the nearest integer, halves to even */
    return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* sin and cos of pi x. */
ATTN_INLINE void v64_sincospi(vf64 x, vf64 *sin, vf64 *cos) {
    const Sleef___m256d_2 r = Sleef_finz_sincospid4_u35avx2(x);
    *sin = r.x;
    *cos = r.y;
}

/* Each rounded to f32: VF64_N floats. */
ATTN_INLINE void v64_store_f32(float *p, vf64 x) { _mm_storeu_ps(p, _mm256_cvtpd_ps(x)); }
/* a0 b0 a1 b1 ...: 2 VF64_N floats. */
ATTN_INLINE void v64_store_pairs(float *p, vf64 a, vf64 b) {
    const __m128 x = _mm256_cvtpd_ps(a), y = _mm256_cvtpd_ps(b);
    _mm_storeu_ps(p, _mm_unpacklo_ps(x, y));
    _mm_storeu_ps(p + 4, _mm_unpackhi_ps(x, y));
}

#endif
