/*
 * Rows of x as the dot products of projections take them, made once a call (the prepare slot).
 *
 * For weights of block formats: signed bytes q[k], each 32 with a scale d = largest magnitude / 127 so that x is about d q; at
 * a multiple of 64 bytes behind them two numbers a unit (types.h) of the weights, d and what belongs to the sum of its q: for
 * Q4_K and q4_1 d times it, for what they add to each weight; otherwise -offset times it as an integer, where weights are
 * multiplied as w + offset. Behind these, at a multiple of 64 bytes again, and only where vectors need it (DOTS_HALVES_8), q in
 * 16 bits each, of four the even ones first. Where something is not finite d is NaN, and with it what the row gives.
 */
#ifndef ATTN_DOTS_PREPARE_H
#define ATTN_DOTS_PREPARE_H

#include "types.h"

struct dots_unit {
    float d;
    union {
        int32_t offset;
        float sum;
    } of;
};

ATTN_INLINE int dots_adds(int type) { return type == ATTN_Q4_K || type == ATTN_Q4_1; }

/* Whether weights are multiplied as the signed numbers that they are, or unsigned, with an offset. (Those of Q4_K and q4_1 are
 * neither negative nor larger than 15: they are both.) */
ATTN_INLINE int dots_signed(int type) { return type == ATTN_Q8_0 ? DOTS_SIGNED_8 : DOTS_SIGNED_LESS; }
ATTN_INLINE int dots_offset(int type) {
    return dots_signed(type) ? 0 : type == ATTN_Q8_0 ? 128 : type == ATTN_Q4_0 ? 8 : 32;
}

/* Where the units begin. */
ATTN_INLINE size_t dots_bytes(size_t k) { return (k + ATTN_ALIGN - 1) / ATTN_ALIGN * ATTN_ALIGN; }

ATTN_INLINE size_t dots_unit_bytes(int type, size_t k) {
    return dots_bytes(k / (size_t)types_unit(type) * sizeof(struct dots_unit));
}

/* Where the values to be multiplied begin, and the bytes of four. */
ATTN_INLINE int dots_halves(int type) { return type == ATTN_Q8_0 && DOTS_HALVES_8; }
ATTN_INLINE size_t dots_x_at(int type, size_t k) {
    return dots_halves(type) ? dots_bytes(k) + dots_unit_bytes(type, k) : 0;
}
ATTN_INLINE size_t dots_x_quad(int type) { return dots_halves(type) ? 8 : 4; }

/* A line more than it has, so that the rows of a strip do not share sets of the first-level cache. */
static size_t dots_row_bytes(attn_dtype type, size_t k) {
    return dots_bytes(k) + dots_unit_bytes((int)type, k) + (dots_halves((int)type) ? dots_bytes(2 * k) : 0) +
           ATTN_ALIGN;
}

static void dots_store_halves(const int8_t *q, size_t k, int16_t *to) {
    for (size_t i = 0; i < k; i += 4) {
        to[i] = q[i];
        to[i + 1] = q[i + 2];
        to[i + 2] = q[i + 1];
        to[i + 3] = q[i + 3];
    }
}

ATTN_INLINE void dots_unit_store(int type, float d, int sum, struct dots_unit *to) {
    to->d = d;
    if (dots_adds(type))
        to->of.sum = d * (float)sum;
    else
        to->of.offset = -dots_offset(type) * sum;
}

/* Where 1 / d would be infinite all of x is below 2^-119: it counts as zero. */
static void dots_prepare(attn_dtype type, const float *x, size_t k, void *to) {
    int8_t *q = to;
    struct dots_unit *unit = (struct dots_unit *)(void *)((char *)to + dots_bytes(k));
    for (size_t i = 0; i < k; i += 32, q += 32, x += 32) {
        const float d = v_most_of_32(x) / 127.0f, inverse = 1.0f / d;
        const float by = inverse <= __FLT_MAX__ ? inverse : 0.0f;
        int sum[2] = {0, 0};
        if (d == d) {
            for (int part = 0; part < 32; part += VF32_N)
                sum[part / 16] += v_store_i8(q + part, v_load(x + part), by);
        } else {
            memset(q, 0, 32);
        }
        if (types_unit((int)type) == 16) {
            dots_unit_store((int)type, d, sum[0], unit++);
            dots_unit_store((int)type, d, sum[1], unit++);
        } else {
            dots_unit_store((int)type, d, sum[0] + sum[1], unit++);
        }
    }
    if (dots_halves((int)type))
        dots_store_halves(to, k, (int16_t *)(void *)((char *)to + dots_x_at((int)type, k)));
}

#endif
