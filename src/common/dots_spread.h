/* Projections by int8 dot products: quads of weights as they are multiplied, and a block of a panel spread out. */
#ifndef ATTN_DOTS_SPREAD_H
#define ATTN_DOTS_SPREAD_H

#include "dots_prepare.h"
#include "order.h"

/* A block of a panel, spread out. Units one after the other: [quad][width][4] bytes; [width] scales, and mins. */
struct dots_spread {
    uint8_t *bytes;
    float *scales, *mins;
};

static struct dots_spread dots_spread_at(void *scratch) {
    enum { UNITS = ATTN_K_BLOCK / 16 };
    char *at = scratch;
    float *scales = (float *)(void *)(at + (size_t)ATTN_K_BLOCK * LINEAR_NR);
    return (struct dots_spread){(uint8_t *)at, scales, scales + UNITS * LINEAR_NR};
}
_Static_assert(ATTN_K_BLOCK *LINEAR_NR + 2 * (ATTN_K_BLOCK / 16) * LINEAR_NR * 4 <=
                   LINEAR_NR * ATTN_K_BLOCK * 4,
               "it fits linear_scratch, the same block in f32");

/* A quad as it is multiplied. */
ATTN_INLINE vbytes dots_quad(int type, const struct types_block *b, size_t column, int unit, int quad) {
    return dots_signed(type) ? types_quad(type, b, column, unit, quad)
                             : types_stored(type, b, column, unit, quad);
}
/* Bits of its bytes, where they are not signed. */
ATTN_INLINE int dots_bits(int type) { return type == ATTN_Q8_0 ? 8 : type == ATTN_Q6_K ? 6 : 4; }

ATTN_INLINE void dots_scale(int type, const struct types_block *b, size_t column, int unit, vf32 *d,
                            vf32 *m) {
    types_scale(type, b, column, unit, 1.0f, d, m);
}

ATTN_INLINE void dots_spread_unit(int type, const struct types_block *b, int unit, int quads,
                                  const struct dots_spread *to) {
    for (size_t column = 0; column < b->width; column += VF32_N) {
        vf32 d, m;
        dots_scale(type, b, column, unit, &d, &m);
        v_store(to->scales + column, d);
        if (dots_adds(type)) v_store(to->mins + column, m);
        ATTN_UNROLL for (int quad = 0; quad < quads; quad++) v_bytes_store(
            to->bytes + (size_t)quad * 4 * b->width + 4 * column, dots_quad(type, b, column, unit, quad));
    }
}

ATTN_INLINE void dots_spread_block(int type, const void *panel, size_t k, size_t width,
                                   struct dots_spread to) {
    const int unit = types_unit(type), units = types_block_values(type) / unit;
    struct types_block b = {panel, width};
    for (; k; k -= (size_t)types_block_values(type), b.at += (size_t)types_block_bytes(type) * b.width) {
        for (int u = 0; u < units; u++) {
            dots_spread_unit(type, &b, u, unit / 4, &to);
            to.bytes += (size_t)unit * b.width;
            to.scales += b.width;
            to.mins += b.width;
        }
    }
}

#define DOTS_SPREAD(name, type)                                                        \
    ATTN_NOINLINE void dots_##name##_spread(const void *panel, size_t k, size_t width, \
                                            struct dots_spread to) {                   \
        dots_spread_block(type, panel, k, width, to);                                  \
    }
#define DOTS_SPREADS_CASE(name, type)              \
    case type:                                     \
        dots_##name##_spread(panel, k, width, to); \
        break;
#define DOTS_SPREADS(X) X(q4_0, ATTN_Q4_0) X(q4_1, ATTN_Q4_1) X(q4_k, ATTN_Q4_K) X(q6_k, ATTN_Q6_K)
DOTS_SPREADS(DOTS_SPREAD)
static void dots_spread_run(attn_dtype type, const void *panel, size_t k, size_t width,
                            struct dots_spread to) {
    switch (type) {
        DOTS_SPREADS(DOTS_SPREADS_CASE)
    default: break;
    }
}

#endif
