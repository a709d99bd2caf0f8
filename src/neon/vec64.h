/*
 * NEON vectors of f64: what the table of rotary embedding needs. Same names and semantics in every ISA
 * folder; tests/vec checks each one.
 */
#ifndef ATTN_VEC64_H
#define ATTN_VEC64_H

#include "vec.h"

typedef float64x2_t vf64;
enum { VF64_N = 2 };

ATTN_INLINE vf64 v64_set1(double x) { return vdupq_n_f64(x); }
ATTN_INLINE vf64 v64_load(const double *p) { return vld1q_f64(p); }
ATTN_INLINE vf64 v64_add(vf64 a, vf64 b) { return vaddq_f64(a, b); }
ATTN_INLINE vf64 v64_sub(vf64 a, vf64 b) { return vsubq_f64(a, b); }
ATTN_INLINE vf64 v64_mul(vf64 a, vf64 b) { return vmulq_f64(a, b); }
ATTN_INLINE vf64 v64_fma(vf64 a, vf64 b, vf64 c) { return vfmaq_f64(c, a, b); }            /* a*b + c */
ATTN_INLINE vf64 v64_fms(vf64 a, vf64 b, vf64 c) { return vfmaq_f64(vnegq_f64(c), a, b); } /* a*b - c */
ATTN_INLINE vf64 v64_round(vf64 x) { return vrndnq_f64(x); } /* to the nearest integer, halves to even */
/* sin and cos of pi x. */
ATTN_INLINE void v64_sincospi(vf64 x, vf64 *sin, vf64 *cos) {
    const Sleef_float64x2_t_2 r = Sleef_finz_sincospid2_u35advsimd(x);
    *sin = r.x;
    *cos = r.y;
}

/* Each rounded to f32: VF64_N floats. */
ATTN_INLINE void v64_store_f32(float *p, vf64 x) { vst1_f32(p, vcvt_f32_f64(x)); }
/* a0 b0 a1 b1 ...: 2 VF64_N floats. */
ATTN_INLINE void v64_store_pairs(float *p, vf64 a, vf64 b) {
    const float32x2x2_t pair = {{vcvt_f32_f64(a), vcvt_f32_f64(b)}};
    vst2_f32(p, pair);
}

#endif
