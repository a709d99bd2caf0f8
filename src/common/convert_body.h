/* The to_f32 and from_f32 slots: rows of any type to f32, exactly or with the one rounding of the format, and back. */
#ifndef ATTN_CONVERT_BODY_H
#define ATTN_CONVERT_BODY_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "dtype.h"

/* ---- To f32 -------------------------------------------------------------------------------------------- */

static void convert_f16(const uint16_t *from, size_t n, float *to) {
    size_t i = 0;
    for (; i + VF32_N <= n; i += VF32_N) v_store(to + i, v_load_f16(from + i));
    if (i < n) v_store_tail(to + i, v_load_f16_tail(from + i, n - i), n - i);
}

static void convert_bf16(const uint16_t *from, size_t n, float *to) {
    size_t i = 0;
    for (; i + VF32_N <= n; i += VF32_N) v_store(to + i, v_load_bf16(from + i));
    if (i < n) v_store_tail(to + i, v_load_bf16_tail(from + i, n - i), n - i);
}

ATTN_INLINE void convert_q8_0_block(const struct attn_q8_0 *b, float *to) {
    const vf32 d = v_set1(v_f16(b->d));
    ATTN_UNROLL for (int i = 0; i < 32; i += VF32_N) v_store(to + i, v_mul(d, v_load_i8(b->q + i)));
}

ATTN_INLINE void convert_q4_0_block(const struct attn_q4_0 *b, float *to) {
    const vf32 d = v_set1(v_f16(b->d)), eight = v_set1(8.0f);
    ATTN_UNROLL for (int i = 0; i < 16; i += VF32_N) {
        v_store(to + i, v_mul(d, v_sub(v_load_low4(b->q + i), eight)));
        v_store(to + i + 16, v_mul(d, v_sub(v_load_high4(b->q + i), eight)));
    }
}

/* The products are exact, so that adding rounds once, fused or not. */
ATTN_INLINE void convert_q4_1_block(const struct attn_q4_1 *b, float *to) {
    const vf32 d = v_set1(v_f16(b->d)), m = v_set1(v_f16(b->m));
    ATTN_UNROLL for (int i = 0; i < 16; i += VF32_N) {
        v_store(to + i, v_fma(d, v_load_low4(b->q + i), m));
        v_store(to + i + 16, v_fma(d, v_load_high4(b->q + i), m));
    }
}

static void convert_q4_k_block(const struct attn_q4_k *b, float *to) {
    const float d = v_f16(b->d), dmin = v_f16(b->dmin);
    for (int p = 0; p < 8; p += 2) {
        int scale[2], min[2];
        attn_q4_k_part(b->scales, p, &scale[0], &min[0]);
        attn_q4_k_part(b->scales, p + 1, &scale[1], &min[1]);
        const vf32 d0 = v_set1(d * (float)scale[0]), m0 = v_set1(-(dmin * (float)min[0]));
        const vf32 d1 = v_set1(d * (float)scale[1]), m1 = v_set1(-(dmin * (float)min[1]));
        ATTN_UNROLL for (int i = 0; i < 32; i += VF32_N) {
            v_store(to + 32 * p + i, v_fma(d0, v_load_low4(b->q + 16 * p + i), m0));
            v_store(to + 32 * p + 32 + i, v_fma(d1, v_load_high4(b->q + 16 * p + i), m1));
        }
    }
}

static void convert_q6_k_block(const struct attn_q6_k *b, float *to) {
    const float d = v_f16(b->d);
    int8_t q[256];
    for (int half = 0; half < 2; half++) {
        const uint8_t *ql = b->ql + 64 * half, *qh = b->qh + 32 * half;
        int8_t *at = q + 128 * half;
        for (int l = 0; l < 32; l++) {
            at[l] = (int8_t)(((ql[l] & 15) | (qh[l] & 3) << 4) - 32);
            at[l + 32] = (int8_t)(((ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4) - 32);
            at[l + 64] = (int8_t)((ql[l] >> 4 | (qh[l] >> 4 & 3) << 4) - 32);
            at[l + 96] = (int8_t)((ql[l + 32] >> 4 | qh[l] >> 6 << 4) - 32);
        }
    }
    for (int s = 0; s < 16; s++) {
        const vf32 by = v_set1(d * (float)b->scales[s]);
        ATTN_UNROLL for (int i = 0; i < 16; i += VF32_N)
            v_store(to + 16 * s + i, v_mul(by, v_load_i8(q + 16 * s + i)));
    }
}

ATTN_INLINE void convert_q8_0(const void *from, size_t n, float *to) {
    const struct attn_q8_0 *b = from;
    for (size_t i = 0; i < n / 32; i++) convert_q8_0_block(b + i, to + 32 * i);
}

ATTN_INLINE void convert_q4_0(const void *from, size_t n, float *to) {
    const struct attn_q4_0 *b = from;
    for (size_t i = 0; i < n / 32; i++) convert_q4_0_block(b + i, to + 32 * i);
}

/* n values from `from` on, which begins a block; n is a multiple of the block. */
static void to_f32_body(attn_dtype type, const void *from, size_t n, float *to) {
    const size_t blocks = n / attn_dtype_block(type);
    switch (type) {
    case ATTN_F32: memcpy(to, from, n * sizeof *to); break;
    case ATTN_F16: convert_f16(from, n, to); break;
    case ATTN_BF16: convert_bf16(from, n, to); break;
    case ATTN_Q8_0: convert_q8_0(from, n, to); break;
    case ATTN_Q4_0: convert_q4_0(from, n, to); break;
    case ATTN_Q4_1:
        for (size_t i = 0; i < blocks; i++)
            convert_q4_1_block((const struct attn_q4_1 *)from + i, to + 32 * i);
        break;
    case ATTN_Q4_K:
        for (size_t i = 0; i < blocks; i++)
            convert_q4_k_block((const struct attn_q4_k *)from + i, to + 256 * i);
        break;
    case ATTN_Q6_K:
        for (size_t i = 0; i < blocks; i++)
            convert_q6_k_block((const struct attn_q6_k *)from + i, to + 256 * i);
        break;
    case ATTN_BOOL: break;
    }
}

/* ---- From f32 ------------------------------------------------------------------------------------------ */

/* The largest magnitude of a block, or NaN where something is not finite. */
ATTN_INLINE float convert_most(const float *x) {
    vf32 most = v_zero();
    ATTN_UNROLL for (int i = 0; i < 32; i += VF32_N) most = v_max(most, v_abs(v_load(x + i)));
    ATTN_UNROLL for (int step = 1; step < VF32_N; step *= 2) most = v_max(most, v_swap(most, step));
    const float m = v_lane0(most);
    int finite = m <= FLT_MAX;
    for (int i = 0; i < 32; i++) finite &= x[i] - x[i] == 0.0f; /* v_max may lose a NaN */
    return finite ? m : NAN;
}

/* To nearest, halves away from zero, as roundf() does; |x| < 2^31. */
ATTN_INLINE int convert_round(float x) {
    const int whole = (int)x;
    const float rest = x - (float)whole;
    return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

/* ggml's quantize_row_q8_0_ref(). Where 1 / d is infinite d rounds to 0, and so do they. */
static void quantise_q8_0_block(const float *x, struct attn_q8_0 *to) {
    const float most = convert_most(x), d = most / 127.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
    const int usable = inverse <= FLT_MAX;
    to->d = most <= FLT_MAX ? v_to_f16(d) : 0x7e00;
    for (int i = 0; i < 32; i++) to->q[i] = (int8_t)convert_round(usable ? x[i] * inverse : 0.0f);
}

/* ggml's quantize_row_q4_0_ref(): the first value of the largest magnitude becomes -8 exactly. Zeros of either sign
 * have d = -0. */
static void quantise_q4_0_block(const float *x, struct attn_q4_0 *to) {
    const float most = convert_most(x);
    float first = most;
    for (int i = 31; i >= 0; i--) first = x[i] != 0.0f && fabsf(x[i]) == most ? x[i] : first;
    const float d = first / -8.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
    const int usable = fabsf(inverse) <= FLT_MAX;
    to->d = most <= FLT_MAX ? v_to_f16(d) : 0x7e00;
    for (int i = 0; i < 16; i++) {
        const int low = (int)(usable ? x[i] * inverse + 8.5f : 0.0f);
        const int high = (int)(usable ? x[i + 16] * inverse + 8.5f : 0.0f);
        to->q[i] = (uint8_t)((low < 15 ? low : 15) | (high < 15 ? high : 15) << 4);
    }
}

static void round_f16(const float *from, size_t n, uint16_t *to) {
    size_t i = 0;
    for (; i + VF32_N <= n; i += VF32_N) v_store_f16(to + i, v_load(from + i));
    if (i < n) v_store_f16_tail(to + i, v_load_tail(from + i, n - i), n - i);
}

static void round_bf16(const float *from, size_t n, uint16_t *to) {
    size_t i = 0;
    for (; i + VF32_N <= n; i += VF32_N) v_store_bf16(to + i, v_load(from + i));
    if (i < n) v_store_bf16_tail(to + i, v_load_tail(from + i, n - i), n - i);
}

/* n values to `to`; n is a multiple of the block. F32, F16, BF16, Q8_0, Q4_0. */
static void from_f32_body(attn_dtype type, const float *from, size_t n, void *to) {
    switch (type) {
    case ATTN_F32: memcpy(to, from, n * sizeof *from); break;
    case ATTN_F16: round_f16(from, n, to); break;
    case ATTN_BF16: round_bf16(from, n, to); break;
    case ATTN_Q8_0:
        for (size_t i = 0; i < n / 32; i++) quantise_q8_0_block(from + 32 * i, (struct attn_q8_0 *)to + i);
        break;
    case ATTN_Q4_0:
        for (size_t i = 0; i < n / 32; i++) quantise_q4_0_block(from + 32 * i, (struct attn_q4_0 *)to + i);
        break;
    case ATTN_BOOL:
    case ATTN_Q4_1:
    case ATTN_Q4_K:
    case ATTN_Q6_K: break;
    }
}

#endif
