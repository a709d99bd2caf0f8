/*
 * Packed weights of block formats (src/weights.h): to f32, a panel's block at a time or in registers.
 *
 * A unit is what shares a scale: 32 values of an output, 16 of Q6_K. A quad is four values of it, the bytes of one
 * vector. Bytes become floats 2^24 times too large, which the scale makes good: d 2^-24 is exact and so are its products.
 * So each value is the one that to_f32 gives: one product, or one fused multiply-add, of the same exact factors.
 */
#ifndef ATTN_LINEAR_TYPES_H
#define ATTN_LINEAR_TYPES_H

#include "types.h"

/* ---- A block of a panel to f32: [k][width] -------------------------------------------------------------- */

ATTN_INLINE void types_convert_quads(int type, const struct types_block *b, int unit, size_t column,
                                     int quads, float *to) {
    vf32 d, m;
    types_scale(type, b, column, unit, TYPES_DOWN, &d, &m);
    ATTN_UNROLL for (int quad = 0; quad < quads; quad++) {
        const vbytes x = types_quad(type, b, column, unit, quad);
        ATTN_UNROLL for (int j = 0; j < 4; j++)
            v_store(to + (size_t)(4 * quad + j) * b->width + column, types_value(type, x, j, d, m));
    }
}

ATTN_INLINE void types_convert(int type, const void *panel, size_t k, size_t width, float *to) {
    struct types_block b = {panel, width};
    for (; k; k -= (size_t)types_block_values(type)) {
        for (int unit = 0; unit < types_block_values(type) / types_unit(type); unit++) {
            for (size_t column = 0; column < width; column += VF32_N)
                types_convert_quads(type, &b, unit, column, types_unit(type) / 4, to);
            to += (size_t)types_unit(type) * width;
        }
        b.at += (size_t)types_block_bytes(type) * width;
    }
}

#define TYPES_CONVERT(name, type)                                                                   \
    ATTN_NOINLINE void types_convert_##name(const void *panel, size_t k, size_t width, float *to) { \
        types_convert(type, panel, k, width, to);                                                   \
    }
#define TYPES_CONVERT_CASE(name, type) \
    case type: types_convert_##name(panel, k, width, to); break;

TYPES_BLOCKS(TYPES_CONVERT)

/* k values, a multiple of the block, of each of `width` outputs. */
static void types_to_f32(attn_dtype type, const void *panel, size_t k, size_t width, float *to) {
    switch (type) {
        TYPES_BLOCKS(TYPES_CONVERT_CASE)
    default: break;
    }
}

/* ---- Few rows: weights become f32 in registers, and the panel is one linear read ------------------------- */

enum {
    TYPES_ROWS = 4, /* more rows are worth converting once */
    /* Bytes asked for ahead, into L1. Zen 4, M = 1, GB/s of q8_0 and Q6_K: 21.4 and 13.9; nothing asked for 21.8 and 5.3;
     * 8 KiB ahead into L2 11.6 and 12.0. */
    TYPES_AHEAD = 4096
};

struct types_tile {
    vf32 c[TYPES_ROWS][LINEAR_NV], d[LINEAR_NV], m[LINEAR_NV];
};

ATTN_INLINE void types_products(int type, int mr, int j, const vbytes quad[LINEAR_NV], const float *x,
                                ptrdiff_t x_row, struct types_tile *t) {
    vf32 w[LINEAR_NV];
    ATTN_UNROLL for (int v = 0; v < LINEAR_NV; v++) w[v] = types_value(type, quad[v], j, t->d[v], t->m[v]);
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        const vf32 a = v_set1(x[i * x_row]);
        ATTN_UNROLL for (int v = 0; v < LINEAR_NV; v++) t->c[i][v] = v_fma(a, w[v], t->c[i][v]);
    }
}

/* Two quads, of values 4 * quad on; x points at the first one's. What they read is asked for TYPES_AHEAD before. */
ATTN_INLINE void types_stream_pair(int type, int mr, const struct types_block *b, int unit, int quad,
                                   const float *x, ptrdiff_t x_row, const uint8_t **ahead,
                                   struct types_tile *t) {
    const int lines = (type == ATTN_Q8_0 || (type == ATTN_Q6_K && quad == 0) ? 2 : 1) * LINEAR_NR / ATTN_LINE;
    ATTN_UNROLL for (int i = 0; i < lines; i++) ATTN_PREFETCH_L1(*ahead + 64 * i);
    *ahead += 64 * lines;
    ATTN_UNROLL for (int i = 0; i < 2; i++) {
        vbytes q[LINEAR_NV];
        ATTN_UNROLL for (int v = 0; v < LINEAR_NV; v++) q[v] =
            types_quad(type, b, (size_t)v * VF32_N, unit, quad + i);
        ATTN_UNROLL for (int j = 0; j < 4; j++) types_products(type, mr, j, q, x + 4 * i + j, x_row, t);
    }
}

ATTN_INLINE void types_stream_unit(int type, int mr, const struct types_block *b, int unit, const float *x,
                                   ptrdiff_t x_row, const uint8_t **ahead, struct types_tile *t) {
    ATTN_UNROLL for (int v = 0; v < LINEAR_NV; v++)
        types_scale(type, b, (size_t)v * VF32_N, unit, TYPES_DOWN, &t->d[v], &t->m[v]);
    if (type == ATTN_Q6_K) { /* whose shifts are constants */
        types_stream_pair(type, mr, b, unit, 0, x, x_row, ahead, t);
        types_stream_pair(type, mr, b, unit, 2, x + 8, x_row, ahead, t);
        return;
    }
    ATTN_NO_UNROLL for (int quad = 0; quad < 8; quad += 2)
        types_stream_pair(type, mr, b, unit, quad, x + 4 * quad, x_row, ahead, t);
}

ATTN_INLINE void types_stream(int type, int mr, size_t k, const float *x, ptrdiff_t x_row, const void *panel,
                              const float *bias, float *y, ptrdiff_t y_row, size_t n, int accumulate) {
    struct types_block b = {panel, LINEAR_NR};
    struct types_tile t;
    ATTN_UNROLL for (int v = 0; v < LINEAR_NV; v++) {
        ATTN_UNROLL for (int i = 0; i < mr; i++) t.c[i][v] = bias ? v_load(bias + v * VF32_N) : v_zero();
    }
    const int unit_values = types_unit(type), block_values = types_block_values(type);
    ATTN_NO_UNROLL for (size_t kk = 0; kk < k; kk += (size_t)block_values) {
        const uint8_t *ahead = b.at + TYPES_AHEAD;
        ATTN_NO_UNROLL for (int unit = 0; unit < block_values / unit_values; unit++, x += unit_values)
            types_stream_unit(type, mr, &b, unit, x, x_row, &ahead, &t);
        b.at += types_block_bytes(type) * LINEAR_NR;
    }
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        ATTN_UNROLL for (int v = 0; v < LINEAR_NV; v++) {
            float *to = y + i * y_row + v * VF32_N;
            const size_t from = (size_t)v * VF32_N;
            if (n >= from + VF32_N)
                v_store(to, accumulate ? v_add(t.c[i][v], v_load(to)) : t.c[i][v]);
            else if (n > from)
                v_store_tail(to, accumulate ? v_add(t.c[i][v], v_load_tail(to, n - from)) : t.c[i][v],
                             n - from);
        }
    }
}

#endif
