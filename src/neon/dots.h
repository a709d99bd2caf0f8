/*
 * NEON dot products: int8 (FEAT_DotProd) and, where the compiler's flags have it, bf16 (FEAT_BF16). What the tiers of
 * src/neon add to vec.h, load.h and fields.h.
 */
#ifndef ATTN_DOTS_H
#define ATTN_DOTS_H

#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile the tiers of src/neon with the flags of their rows in src/meson.build"
#endif

#include <string.h>

#include "fields.h"

/* Sums of 32 bits. */
typedef int32x4_t vint;

enum {
    DOTS_MR = 6,   /* by DOTS_NV vectors: 12 sums, 12 results, 2 of weights, 2 scales, 2 of x: 30 registers */
    DOTS_NV = 2,   /* two outputs' bytes feed six rows: 8 loads for 12 dot products */
    DOTS_FEW = 12, /* rows that take all types from where they lie: two strips */
    DOTS_WIDE = 2, /* rows that take a whole panel at once */
    /* Products are of signed weights: of q8_0; of q4_0 and Q6_K. */
    DOTS_SIGNED_8 = 1,
    DOTS_SIGNED_LESS = 1,
    DOTS_HALVES_8 = 0 /* x has 8 bits for all of them */
};
/* F(X, mr) for the heights of a strip. */
#define DOTS_ROWS(F, X) F(X, 1) F(X, 2) F(X, 3) F(X, 4) F(X, 5) F(X, 6)

/* After a row's products of a quad: loads do not move across it. gcc (12) moves all of a unit's to its start, and spills them. */
#define DOTS_FENCE __asm__ volatile("" ::: "memory")

/* The four bytes, or the number, at p in every lane; p may have any alignment. */
ATTN_INLINE vint v_int_at(const void *p) {
    int32_t x;
    memcpy(&x, p, sizeof x);
    return vdupq_n_s32(x);
}
ATTN_INLINE vint v_int_zero(void) { return vdupq_n_s32(0); }

/* The sums of a unit, from integers on; plus, in each lane, the four products of a byte of w and one at x, all signed. (Other
 * instruction sets need the bits of w and its quad's number in the unit.) */
typedef vint vsum;
ATTN_INLINE vsum v_sum(vint from) { return from; }
ATTN_INLINE vsum v_sum_dot(int bits, int quad, vsum sum, vbytes w, const char *x) {
    (void)bits;
    (void)quad;
    return vdotq_s32(sum, vreinterpretq_s8_u32(w), vreinterpretq_s8_s32(v_int_at(x)));
}
ATTN_INLINE vf32 v_sum_f32(int bits, vsum sum) {
    (void)bits;
    return vcvtq_f32_s32(sum);
}
ATTN_INLINE void v_bytes_store(void *p, vbytes x) { vst1q_u8((uint8_t *)p, vreinterpretq_u8_u32(x)); }

/* x * by to 4 signed bytes, to nearest even; their sum. |x * by| < 128. */
ATTN_INLINE int v_store_i8(int8_t *to, vf32 x, float by) {
    const int32x4_t q = vcvtnq_s32_f32(vmulq_n_f32(x, by));
    const int16x4_t half = vmovn_s32(q);
    const int8x8_t bytes = vmovn_s16(vcombine_s16(half, half));
    memcpy(to, &bytes, 4);
    return vaddvq_s32(q);
}
/* The largest magnitude of 32 values, or NaN where one is not finite. */
ATTN_INLINE float v_most_of_32(const float *x) {
    vf32 most = v_zero();
    ATTN_UNROLL for (int i = 0; i < 8; i++) most = v_max(most, v_abs(v_load(x + 4 * i))); /* NaN stays */
    const float m = vmaxvq_f32(most);
    return m <= __FLT_MAX__ ? m : __builtin_nanf("");
}

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
/* Two vectors, each rounded to nearest even. */
ATTN_INLINE void v_bf16_store_two(void *p, vf32 a, vf32 b) {
    v_store_bf16((uint16_t *)p, a);
    v_store_bf16((uint16_t *)p + VF32_N, b);
}
/* Each lane plus its two products of bf16: their sum first, each addition rounded to odd; subnormal numbers count as zero and
 * become it. (A processor with FEAT_EBF16 does so too, unless told otherwise.) */
ATTN_INLINE vf32 v_bf16_dot(vf32 sum, vint x, vbytes w) {
    return vbfdotq_f32(sum, vreinterpretq_bf16_s32(x), vreinterpretq_bf16_u32(w));
}
#endif

#endif
