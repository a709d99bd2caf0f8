/*
 * Rows of x as the dot products of projections take them, made once a call (the prepare slot).
 *
 * For weights of block formats: signed bytes q[k], each 32 with a scale d = largest magnitude / 127 so that x is about d q; at
 * a multiple of 64 bytes behind them two numbers a unit (types.h) of the weights, d and what belongs to the sum of its q: for
 * unsigned weights that stand for w + offset, -offset times it as an integer, otherwise d times it, for what Q4_K and
 * q4_1 add to each weight. Where something is not finite d is NaN, and with it what the row gives.
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
ATTN_INLINE int dots_offset(int type) { return type == ATTN_Q8_0 ? 128 : type == ATTN_Q4_0 ? 8 : 32; }

/* Where the units begin. */
ATTN_INLINE size_t dots_bytes(size_t k) { return (k + ATTN_ALIGN - 1) / ATTN_ALIGN * ATTN_ALIGN; }

/* A line more than it has, so that the rows of a strip do not share sets of the first-level cache. */
static size_t dots_row_bytes(attn_dtype type, size_t k) {
    const size_t units = k / (size_t)types_unit((int)type) * sizeof(struct dots_unit);
    return dots_bytes(k) + dots_bytes(units) + ATTN_ALIGN;
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
}

#endif
