/*
 * AVX2 + FMA vectors of f32: the operations that the shared bodies (src/common) use. Same names and
 * semantics in every ISA folder; tests/vec checks each one.
 */
#ifndef ATTN_VEC_H
#define ATTN_VEC_H

#if !(defined(__AVX2__) && defined(__FMA__) && defined(__F16C__))
#error "compile src/avx2 with the flags of its row in src/meson.build"
#endif

#include <immintrin.h>
#include <sleef.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/exp2.h"

typedef __m256 vf32;
typedef __m256 vmask; /* one truth value a lane: all bits set or none */
enum { VF32_N = 8 };

ATTN_INLINE vf32 v_zero(void) { return _mm256_setzero_ps(); }
ATTN_INLINE vf32 v_set1(float x) { return _mm256_set1_ps(x); }
ATTN_INLINE vf32 v_load(const float *p) { return _mm256_loadu_ps(p); }
ATTN_INLINE void v_store(float *p, vf32 x) { _mm256_storeu_ps(p, x); }

/* The first n lanes as a mask for vmaskmov: a window on eight ones and eight zeros. */
ATTN_INLINE __m256i v_first(size_t n) {
    static const int32_t window[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_loadu_si256((const __m256i *)(const void *)(window + 8 - n));
}
/* Reads or writes exactly n floats, 0 <= n <= VF32_N; the lanes from n on read as 0. */
ATTN_INLINE vf32 v_load_tail(const float *p, size_t n) { return _mm256_maskload_ps(p, v_first(n)); }
ATTN_INLINE void v_store_tail(float *p, vf32 x, size_t n) { _mm256_maskstore_ps(p, v_first(n), x); }

ATTN_INLINE vf32 v_add(vf32 a, vf32 b) { return _mm256_add_ps(a, b); }
ATTN_INLINE vf32 v_sub(vf32 a, vf32 b) { return _mm256_sub_ps(a, b); }
ATTN_INLINE vf32 v_mul(vf32 a, vf32 b) { return _mm256_mul_ps(a, b); }
ATTN_INLINE vf32 v_div(vf32 a, vf32 b) { return _mm256_div_ps(a, b); }
ATTN_INLINE vf32 v_abs(vf32 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
ATTN_INLINE vf32 v_fma(vf32 a, vf32 b, vf32 c) { return _mm256_fmadd_ps(a, b, c); } /* a*b + c */
/* Larger of the two; NaN where b is NaN; b or NaN where only a is. */
ATTN_INLINE vf32 v_max(vf32 a, vf32 b) { return _mm256_max_ps(a, b); }

ATTN_INLINE vmask v_lt(vf32 a, vf32 b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); } /* false for NaN */
ATTN_INLINE vmask v_or(vmask a, vmask b) { return _mm256_or_ps(a, b); }
ATTN_INLINE vmask v_sign(vf32 x) { /* sign bit set */
    return _mm256_castsi256_ps(_mm256_srai_epi32(_mm256_castps_si256(x), 31));
}
ATTN_INLINE int v_any(vmask m) { return _mm256_movemask_ps(m) != 0; }
ATTN_INLINE vf32 v_select(vmask m, vf32 a, vf32 b) { return _mm256_blendv_ps(b, a, m); } /* m ? a : b */

/* Lane i of the result is lane i ^ step of x; step is 1, 2 or 4 and a constant. */
ATTN_INLINE vf32 v_swap(vf32 x, int step) {
    switch (step) {
    case 1: return _mm256_permute_ps(x, 0xb1);
    case 2: return _mm256_permute_ps(x, 0x4e);
    default: return _mm256_permute2f128_ps(x, x, 1);
    }
}
ATTN_INLINE float v_lane0(vf32 x) { return _mm256_cvtss_f32(x); }

ATTN_INLINE vf32 v_exp2(vf32 x) { return Sleef_finz_exp2f8_u10avx2(x); }

/* SLEEF's exp2 (u10), inlined: the same polynomial and the same bits for x <= 60 and NaN. The power is applied
 * in two steps, 2^(q+64) by adding to the exponent and 2^-64 by a product, so that results below 2^-126 round
 * once, as they do in SLEEF. */
ATTN_INLINE vf32 v_exp2_with(const struct exp2_constants *c, vf32 x) {
    x = v_max(v_set1(c->least), x);
    const vf32 q = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), s = v_sub(x, q);
    vf32 u = v_set1(c->p[0]);
    ATTN_UNROLL for (int i = 1; i < 7; i++) u = v_fma(u, s, v_set1(c->p[i]));
    const __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(v_add(q, v_set1(c->up))), 23);
    return v_mul(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(u), e)), v_set1(c->down));
}
ATTN_INLINE vf32 v_exp2_inline(vf32 x) { return v_exp2_with(&exp2_table, x); }
ATTN_INLINE vf32 v_log2(vf32 x) { return Sleef_finz_log2f8_u10avx2(x); }
ATTN_INLINE vf32 v_tanh(vf32 x) { return Sleef_finz_tanhf8_u35avx2(x); }

/* r[i] lane j <-> r[j] lane i. */
ATTN_INLINE void v_transpose(vf32 r[VF32_N]) {
    vf32 t[VF32_N];
    ATTN_UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    /* r[4g+c]: column c (and c+4 in the upper half) of rows 4g..4g+3 */
    ATTN_UNROLL for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    ATTN_UNROLL for (int c = 0; c < 4; c++) {
        t[c] = _mm256_permute2f128_ps(r[c], r[c + 4], 0x20);
        t[c + 4] = _mm256_permute2f128_ps(r[c], r[c + 4], 0x31);
    }
    ATTN_UNROLL for (int c = 0; c < 8; c++) r[c] = t[c];
}

#endif
