/*
 * Rows of x as the dot products of projections take them, made once a call (the prepare slot).
 *
 * For weights of block formats: unit by unit (types.h) of the weights, the unit's values as signed bytes q and behind them two
 * numbers: d, so that x is about d q, the largest magnitude of 32 values / 127; and what belongs to the sum of the unit's q: for
 * Q4_K and q4_1 d times it, for what they add to each weight; otherwise -offset times it as an integer, where weights are
 * multiplied as w + offset. Where vectors need it (DOTS_HALVES_8) q has 16 bits, of four values the even ones first. Where
 * something is not finite d is NaN, and with it what the row gives.
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

/* Bytes of four values to be multiplied, and of a unit. */
ATTN_INLINE int dots_halves(int type) { return type == ATTN_Q8_0 && DOTS_HALVES_8; }
ATTN_INLINE int dots_x_quad(int type) { return dots_halves(type) ? 8 : 4; }
ATTN_INLINE size_t dots_x_unit(int type) {
    return (size_t)(types_unit(type) / 4 * dots_x_quad(type)) + sizeof(struct dots_unit);
}

/* A line more than it has, so that the rows of a strip do not share sets of the first-level cache. */
static size_t dots_row_bytes(attn_dtype type, size_t k) {
    const size_t bytes = k / (size_t)types_unit((int)type) * dots_x_unit((int)type);
    return (bytes + ATTN_ALIGN - 1) / ATTN_ALIGN * ATTN_ALIGN + ATTN_ALIGN;
}

ATTN_INLINE void dots_store_halves(const int8_t *q, int16_t *to) {
    for (int i = 0; i < 32; i += 4) {
        to[i] = q[i];
        to[i + 1] = q[i + 2];
        to[i + 2] = q[i + 1];
        to[i + 3] = q[i + 3];
    }
}

/* A unit's numbers, behind its values. */
ATTN_INLINE void dots_unit_store(int type, float d, int sum, char *unit) {
    struct dots_unit *to = (struct dots_unit *)(void *)(unit + dots_x_unit(type)) - 1;
    to->d = d;
    if (dots_adds(type))
        to->of.sum = d * (float)sum;
    else
        to->of.offset = -dots_offset(type) * sum;
}

/* What a unit's two numbers become of d and the sums of 16, of two units where it has 16. */
ATTN_INLINE void dots_units_store(int type, float d, const int sum[2], char *to) {
    if (types_unit(type) == 16) {
        dots_unit_store(type, d, sum[0], to);
        dots_unit_store(type, d, sum[1], to + dots_x_unit(type));
    } else {
        dots_unit_store(type, d, sum[0] + sum[1], to);
    }
}

/* 32 values. Where 1 / d would be infinite all of them are below 2^-119: they count as zero. */
ATTN_INLINE void dots_prepare_32(int type, const float *x, char *to) {
    enum { HALF = 16 };
    const float d = v_most_of_32(x) / 127.0f, inverse = 1.0f / d;
    const float by = inverse <= __FLT_MAX__ ? inverse : 0.0f;
    int8_t wide[32] = {0}, *q[2] = {wide, wide + HALF};
    int sum[2] = {0, 0};
    if (!dots_halves(type)) {
        q[0] = (int8_t *)to;
        q[1] = types_unit(type) == HALF ? q[0] + dots_x_unit(type) : q[0] + HALF;
    }
    if (d == d) {
        for (int part = 0; part < 32; part += VF32_N)
            sum[part / HALF] += v_store_i8(q[part / HALF] + part % HALF, v_load(x + part), by);
    } else {
        memset(q[0], 0, HALF);
        memset(q[1], 0, HALF);
    }
    if (dots_halves(type)) dots_store_halves(wide, (int16_t *)(void *)to);
    dots_units_store(type, d, sum, to);
}

/* The next values that are taken at once; returns how many. */
ATTN_INLINE size_t dots_prepare_some(int type, const float *x, size_t k, char *to) {
#if defined(DOTS_PREPARE_FOUR)
    const size_t step = dots_x_unit(type) * (types_unit(type) == 16 ? 2 : 1);
    const size_t second = types_unit(type) == 16 ? dots_x_unit(type) : 16;
    int8_t *q[8];
    float d[4];
    int sum[8];
    for (size_t i = 0; i < 8; i++) q[i] = (int8_t *)to + i / 2 * step + i % 2 * second;
    if (k >= 128 && v_prepare_four(types_unit(type) == 32, x, q, d, sum)) {
        for (size_t i = 0; i < 4; i++) dots_units_store(type, d[i], sum + 2 * i, to + i * step);
        return 128;
    }
#endif
    (void)k;
    dots_prepare_32(type, x, to);
    return 32;
}

ATTN_INLINE void dots_prepare_row(int type, const float *x, size_t k, char *to) {
    for (size_t n; k; k -= n, x += n, to += n / (size_t)types_unit(type) * dots_x_unit(type))
        n = dots_prepare_some(type, x, k, to);
}

static void dots_prepare(attn_dtype type, const float *x, size_t k, void *to) {
    switch (type) {
    case ATTN_Q8_0: dots_prepare_row(ATTN_Q8_0, x, k, to); break;
    case ATTN_Q4_0: dots_prepare_row(ATTN_Q4_0, x, k, to); break;
    case ATTN_Q6_K: dots_prepare_row(ATTN_Q6_K, x, k, to); break;
    default: dots_prepare_row(ATTN_Q4_1, x, k, to); break; /* and Q4_K: what is added to each weight */
    }
}

#endif
