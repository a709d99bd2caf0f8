/*
 * NEON (arm64 Advanced SIMD) vectors of f32: the operations that the shared bodies (src/common) use. Same
 * names and semantics in every ISA folder; tests/vec checks each one.
 */
#ifndef ATTN_VEC_H
#define ATTN_VEC_H

#if !(defined(__aarch64__) && defined(__ARM_NEON))
#error "src/neon is for arm64"
#endif

#include <arm_neon.h>
#include <sleef.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/exp2.h"

typedef float32x4_t vf32;
typedef uint32x4_t vmask; /* one truth value a lane: all bits set or none */
enum { VF32_N = 4 };

ATTN_INLINE vf32 v_zero(void) { return vdupq_n_f32(0.0f); }
ATTN_INLINE vf32 v_set1(float x) { return vdupq_n_f32(x); }
ATTN_INLINE vf32 v_load(const float *p) { return vld1q_f32(p); }
ATTN_INLINE void v_store(float *p, vf32 x) { vst1q_f32(p, x); }

/* Reads or writes exactly n floats, 0 <= n <= VF32_N; the lanes from n on read as 0. */
ATTN_INLINE vf32 v_load_tail(const float *p, size_t n) {
    switch (n) {
    case 0: return v_zero();
    case 1: return vld1q_lane_f32(p, v_zero(), 0);
    case 2: return vcombine_f32(vld1_f32(p), vdup_n_f32(0.0f));
    case 3: return vcombine_f32(vld1_f32(p), vld1_lane_f32(p + 2, vdup_n_f32(0.0f), 0));
    default: return v_load(p);
    }
}
ATTN_INLINE void v_store_tail(float *p, vf32 x, size_t n) {
    switch (n) {
    case 0: break;
    case 1: vst1q_lane_f32(p, x, 0); break;
    case 2: vst1_f32(p, vget_low_f32(x)); break;
    case 3:
        vst1_f32(p, vget_low_f32(x));
        vst1q_lane_f32(p + 2, x, 2);
        break;
    default: v_store(p, x); break;
    }
}

ATTN_INLINE vf32 v_add(vf32 a, vf32 b) { return vaddq_f32(a, b); }
ATTN_INLINE vf32 v_sub(vf32 a, vf32 b) { return vsubq_f32(a, b); }
ATTN_INLINE vf32 v_mul(vf32 a, vf32 b) { return vmulq_f32(a, b); }
ATTN_INLINE vf32 v_div(vf32 a, vf32 b) { return vdivq_f32(a, b); }
ATTN_INLINE vf32 v_abs(vf32 x) { return vabsq_f32(x); }
ATTN_INLINE vf32 v_fma(vf32 a, vf32 b, vf32 c) { return vfmaq_f32(c, a, b); } /* a*b + c */
/* Larger of the two; NaN where b is NaN; b or NaN (here NaN) where only a is. */
ATTN_INLINE vf32 v_max(vf32 a, vf32 b) { return vmaxq_f32(a, b); }

ATTN_INLINE vmask v_lt(vf32 a, vf32 b) { return vcltq_f32(a, b); } /* false for NaN */
ATTN_INLINE vmask v_or(vmask a, vmask b) { return vorrq_u32(a, b); }
ATTN_INLINE vmask v_sign(vf32 x) { /* sign bit set */
    return vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_f32(x), 31));
}
ATTN_INLINE int v_any(vmask m) { return vmaxvq_u32(m) != 0; }
ATTN_INLINE vf32 v_select(vmask m, vf32 a, vf32 b) { return vbslq_f32(m, a, b); } /* m ? a : b */

/* Lane i of the result is lane i ^ step of x; step is 1 or 2 and a constant. */
ATTN_INLINE vf32 v_swap(vf32 x, int step) { return step == 1 ? vrev64q_f32(x) : vextq_f32(x, x, 2); }
ATTN_INLINE float v_lane0(vf32 x) { return vgetq_lane_f32(x, 0); }

ATTN_INLINE vf32 v_exp2(vf32 x) { return Sleef_finz_exp2f4_u10advsimd(x); }

/* SLEEF's exp2 (u10), inlined: the same polynomial and the same bits for x <= 60 and NaN. The power is applied
 * in two steps, 2^(q+64) by adding to the exponent and 2^-64 by a product, so that results below 2^-126 round
 * once, as they do in SLEEF. */
ATTN_INLINE vf32 v_exp2_with(const struct exp2_constants *c, vf32 x) {
    x = v_max(v_set1(c->least), x);
    const vf32 q = vrndnq_f32(x), s = v_sub(x, q);
    vf32 u = v_set1(c->p[0]);
    ATTN_UNROLL for (int i = 1; i < 7; i++) u = v_fma(u, s, v_set1(c->p[i]));
    const int32x4_t e = vshlq_n_s32(vcvtq_s32_f32(v_add(q, v_set1(c->up))), 23); /* NaN converts to 0 */
    return v_mul(vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(u), e)), v_set1(c->down));
}
ATTN_INLINE vf32 v_exp2_inline(vf32 x) { return v_exp2_with(&exp2_table, x); }
ATTN_INLINE vf32 v_log2(vf32 x) { return Sleef_finz_log2f4_u10advsimd(x); }
ATTN_INLINE vf32 v_tanh(vf32 x) { return Sleef_finz_tanhf4_u35advsimd(x); }

/* r[i] lane j <-> r[j] lane i. */
ATTN_INLINE void v_transpose(vf32 r[VF32_N]) {
    const vf32 t0 = vzip1q_f32(r[0], r[2]), t1 = vzip2q_f32(r[0], r[2]); /* 00 20 01 21; 02 22 03 23 */
    const vf32 t2 = vzip1q_f32(r[1], r[3]), t3 = vzip2q_f32(r[1], r[3]); /* 10 30 11 31; 12 32 13 33 */
    r[0] = vzip1q_f32(t0, t2);
    r[1] = vzip2q_f32(t0, t2);
    r[2] = vzip1q_f32(t1, t3);
    r[3] = vzip2q_f32(t1, t3);
}

#endif
