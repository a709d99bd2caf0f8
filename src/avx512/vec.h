/*
 * AVX-512 (F, BW, DQ, VL) vectors of f32: the operations that the shared bodies (src/common) use.
 * Same names and semantics in every ISA folder; tests/vec checks each one.
 */
#ifndef ATTN_VEC_H
#define ATTN_VEC_H

#if !(defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__))
#error "compile src/avx512 with the flags of its row in src/meson.build"
#endif

#include <immintrin.h>
#include <sleef.h>
#include <stddef.h>

#include "common/compiler.h"
#include "common/exp2.h"

typedef __m512 vf32;
typedef __mmask16 vmask; /* one truth value a lane */
enum { VF32_N = 16 };

ATTN_INLINE vf32 v_zero(void) { return _mm512_setzero_ps(); }
ATTN_INLINE vf32 v_set1(float x) { return _mm512_set1_ps(x); }
ATTN_INLINE vf32 v_load(const float *p) { return _mm512_loadu_ps(p); }
ATTN_INLINE void v_store(float *p, vf32 x) { _mm512_storeu_ps(p, x); }

/* Reads or writes exactly n floats, 0 <= n <= VF32_N; the lanes from n on read as 0. */
ATTN_INLINE vf32 v_load_tail(const float *p, size_t n) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
}
ATTN_INLINE void v_store_tail(float *p, vf32 x, size_t n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), x);
}

ATTN_INLINE vf32 v_add(vf32 a, vf32 b) { return _mm512_add_ps(a, b); }
ATTN_INLINE vf32 v_sub(vf32 a, vf32 b) { return _mm512_sub_ps(a, b); }
ATTN_INLINE vf32 v_mul(vf32 a, vf32 b) { return _mm512_mul_ps(a, b); }
ATTN_INLINE vf32 v_div(vf32 a, vf32 b) { return _mm512_div_ps(a, b); }
ATTN_INLINE vf32 v_abs(vf32 x) { return _mm512_abs_ps(x); }
ATTN_INLINE vf32 v_fma(vf32 a, vf32 b, vf32 c) { return _mm512_fmadd_ps(a, b, c); } /* a*b + c */
/* Larger of the two; NaN where b is NaN; b or NaN where only a is. */
ATTN_INLINE vf32 v_max(vf32 a, vf32 b) { return _mm512_max_ps(a, b); }

ATTN_INLINE vmask v_lt(vf32 a, vf32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); } /* false for NaN */
ATTN_INLINE vmask v_or(vmask a, vmask b) { return _kor_mask16(a, b); }
ATTN_INLINE vmask v_sign(vf32 x) { return _mm512_movepi32_mask(_mm512_castps_si512(x)); } /* sign bit set */
ATTN_INLINE int v_any(vmask m) { return m != 0; }
ATTN_INLINE vf32 v_select(vmask m, vf32 a, vf32 b) { return _mm512_mask_mov_ps(b, m, a); } /* m ? a : b */

/* Lane i of the result is lane i ^ step of x; step is 1, 2, 4 or 8 and a constant. */
ATTN_INLINE vf32 v_swap(vf32 x, int step) {
    switch (step) {
    case 1: return _mm512_permute_ps(x, 0xb1);
    case 2: return _mm512_permute_ps(x, 0x4e);
    case 4: return _mm512_shuffle_f32x4(x, x, 0xb1);
    default: return _mm512_shuffle_f32x4(x, x, 0x4e);
    }
}
ATTN_INLINE float v_lane0(vf32 x) { return _mm512_cvtss_f32(x); }

ATTN_INLINE vf32 v_exp2(vf32 x) { return Sleef_finz_exp2f16_u10avx512f(x); }

/* SLEEF's exp2 (u10), inlined: the same polynomial and the same bits for x <= 64 and NaN. */
ATTN_INLINE vf32 v_exp2_with(const struct exp2_constants *c, vf32 x) {
    const vf32 q = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), s = v_sub(x, q);
    vf32 u = v_set1(c->p[0]);
    ATTN_UNROLL for (int i = 1; i < 7; i++) u = v_fma(u, s, v_set1(c->p[i]));
    return _mm512_scalef_ps(u, q);
}
ATTN_INLINE vf32 v_exp2_inline(vf32 x) { return v_exp2_with(&exp2_table, x); }
ATTN_INLINE vf32 v_log2(vf32 x) { return Sleef_finz_log2f16_u10avx512f(x); }
ATTN_INLINE vf32 v_tanh(vf32 x) { return Sleef_finz_tanhf16_u35avx512f(x); }

/* r[i] lane j <-> r[j] lane i. */
ATTN_INLINE void v_transpose(vf32 r[VF32_N]) {
    vf32 t[VF32_N];
    ATTN_UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    /* r[4g+c]: column c (and c+4, c+8, c+12 in the higher 128-bit parts) of rows 4g..4g+3 */
    ATTN_UNROLL for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    /* then a 4x4 transpose of 128-bit parts */
    ATTN_UNROLL for (int c = 0; c < 4; c++) {
        t[c] = _mm512_shuffle_f32x4(r[c], r[c + 4], 0x88);
        t[c + 4] = _mm512_shuffle_f32x4(r[c], r[c + 4], 0xdd);
        t[c + 8] = _mm512_shuffle_f32x4(r[c + 8], r[c + 12], 0x88);
        t[c + 12] = _mm512_shuffle_f32x4(r[c + 8], r[c + 12], 0xdd);
    }
    ATTN_UNROLL for (int c = 0; c < 4; c++) {
        r[c] = _mm512_shuffle_f32x4(t[c], t[c + 8], 0x88);
        r[c + 8] = _mm512_shuffle_f32x4(t[c], t[c + 8], 0xdd);
        r[c + 4] = _mm512_shuffle_f32x4(t[c + 4], t[c + 12], 0x88);
        r[c + 12] = _mm512_shuffle_f32x4(t[c + 4], t[c + 12], 0xdd);
    }
}

#endif
