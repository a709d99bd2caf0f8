/*
 * Projections by bf16 dot products: weights of bf16 as they lie, x rounded to nearest even. A result is one chain over
 * pairs of k in ascending order, cut in K blocks as f32 is.
 */
#ifndef ATTN_DOTS_BF16_H
#define ATTN_DOTS_BF16_H

#include "linear_walk.h"

/* A row of x: k values, with a zero behind an odd number; a line more, so that rows do not share sets of L1. */
static size_t pairs_row_bytes(size_t k) {
    return ((k + k % 2) * sizeof(uint16_t) + ATTN_ALIGN - 1) / ATTN_ALIGN * ATTN_ALIGN + ATTN_ALIGN;
}

static void pairs_prepare(const float *x, size_t k, void *to) {
    uint16_t *at = to;
    size_t i = 0;
    for (; i + 2 * VF32_N <= k; i += 2 * VF32_N)
        v_bf16_store_two(at + i, v_load(x + i), v_load(x + i + VF32_N));
    for (; i + VF32_N <= k; i += VF32_N) v_store_bf16(at + i, v_load(x + i));
    if (i < k) v_store_bf16_tail(at + i, v_load_tail(x + i, k - i), k - i);
    if (k % 2) at[k] = 0;
}

struct pairs_strip {
    size_t k; /* pairs */
    const char *x;
    ptrdiff_t x_row; /* bytes */
    const char *panel, *ahead;
    const float *bias;
    float *y;
    ptrdiff_t y_row;
    size_t n;
    int accumulate;
};

ATTN_INLINE void pairs_tile(int mr, int nv, int lines, const struct pairs_strip *s) {
    vf32 c[LINEAR_MR][LINEAR_NV];
    const char *x = s->x, *panel = s->panel, *ahead = s->ahead;
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        const vf32 b = s->bias ? v_load(s->bias + v * VF32_N) : v_zero();
        ATTN_UNROLL for (int i = 0; i < mr; i++) c[i][v] = b;
    }
    ATTN_NO_UNROLL for (size_t k = 0; k < s->k; k++, x += 4, panel += 4 * VF32_N * nv, ahead += 64 * lines) {
        vbytes w[LINEAR_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) w[v] = v_bytes(panel + 4 * VF32_N * v);
        ATTN_UNROLL for (int f = 0; f < lines; f++) ATTN_PREFETCH_L2(ahead + 64 * f);
        ATTN_UNROLL for (int i = 0; i < mr; i++) {
            const vint a = v_int_at(x + i * s->x_row);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_bf16_dot(c[i][v], a, w[v]);
        }
    }
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) {
            const size_t from = (size_t)v * VF32_N;
            float *to = s->y + i * s->y_row + from;
            if (s->n >= from + VF32_N)
                v_store(to, s->accumulate ? v_add(c[i][v], v_load(to)) : c[i][v]);
            else if (s->n > from)
                v_store_tail(to, s->accumulate ? v_add(c[i][v], v_load_tail(to, s->n - from)) : c[i][v],
                             s->n - from);
        }
    }
}

/* Vectors of a panel, and for whole ones the lines of the next that each step asks for. */
#define PAIRS_KINDS(X, mr) X(mr, 1, 0) X(mr, 2, 0) X(mr, 3, 0) X(mr, 4, 0) X(mr, 4, 1) X(mr, 4, 2) X(mr, 4, 4)
#define PAIRS_VARIANT(mr, nv, lines)                                                   \
    ATTN_NOINLINE void pairs_##mr##x##nv##_ahead##lines(const struct pairs_strip *s) { \
        pairs_tile(mr, nv, lines, s);                                                  \
    }
#define PAIRS_CASE(mr, nv, lines)            \
    case (mr)*64 + (nv)*8 + (lines):         \
        pairs_##mr##x##nv##_ahead##lines(s); \
        break;
#define PAIRS_ALL(X)  \
    PAIRS_KINDS(X, 1) \
    PAIRS_KINDS(X, 2) PAIRS_KINDS(X, 3) PAIRS_KINDS(X, 4) PAIRS_KINDS(X, 5) PAIRS_KINDS(X, 6)
PAIRS_ALL(PAIRS_VARIANT)

static void pairs_strip_run(const struct pairs_strip *s, int mr, int nv, int lines) {
    switch (mr * 64 + nv * 8 + lines) { PAIRS_ALL(PAIRS_CASE) }
}

/* As linear_body: each block is read from L2 by all strips, which ask for the next one meanwhile; a single strip leaves its
 * panels to the processor's prefetchers. */
static void pairs_body(const struct attn_linear_task *t) {
    const size_t strips = (t->m + LINEAR_MR - 1) / LINEAR_MR;
    const struct linear_walk walk = {(t->o1 - t->o0 + LINEAR_NR - 1) / LINEAR_NR,
                                     (t->k + ATTN_K_BLOCK - 1) / ATTN_K_BLOCK, t->m <= LINEAR_MR};
    for (size_t n = 0; n < walk.panels * walk.k_blocks; n++) {
        const struct linear_block b = linear_block_at(t, &walk, n), next = linear_block_at(t, &walk, n + 1);
        struct pairs_strip s = {.k = (b.k + 1) / 2,
                                .x = t->prepared + 2 * b.k0,
                                .x_row = t->prepared_row,
                                .panel = linear_panel(t, &b),
                                .bias = t->bias && b.k0 == 0 ? t->bias + b.o : NULL,
                                .y = t->y + (b.o - t->o0),
                                .y_row = t->y_row,
                                .n = attn_min(t->o1 - b.o, LINEAR_NR),
                                .accumulate = b.k0 > 0};
        size_t ahead = b.width == LINEAR_NR && strips > 1 ? linear_bytes(t, next.k) * next.width / 64 : 0;
        s.ahead = ahead ? linear_panel(t, &next) : s.panel;
        for (size_t i = 0, strip = 0; strip < strips; strip++) {
            const size_t mr = (t->m - i + (strips - strip) - 1) / (strips - strip);
            const size_t steps = (strips - strip) * s.k, each = (ahead + steps - 1) / steps;
            const size_t lines = each > 2 ? 4 : each;
            pairs_strip_run(&s, (int)mr, (int)(b.width / VF32_N), (int)lines);
            s.ahead += attn_min(ahead, s.k * lines) * 64;
            ahead -= attn_min(ahead, s.k * lines);
            s.x += (ptrdiff_t)mr * s.x_row;
            s.y += (ptrdiff_t)mr * t->y_row;
            i += mr;
        }
    }
}

#endif
