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

/* Rows of x to be rounded beside the products of others. */
struct pairs_rounding {
    const float *x;
    ptrdiff_t x_row; /* floats */
    char *to;        /* rows as far apart as the strip's own */
    size_t rows, n;  /* values of each, a multiple of VF32_N */
};

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
    struct pairs_rounding next; /* pairs_rounding_tile() only */
};

/* One step: the products of a pair of k; it asks for `lines` lines. */
ATTN_INLINE void pairs_step(int mr, int nv, int lines, const char *x, ptrdiff_t x_row, const char *panel,
                            const char *ahead, vf32 c[LINEAR_MR][LINEAR_NV]) {
    vbytes w[LINEAR_NV];
    ATTN_UNROLL for (int v = 0; v < nv; v++) w[v] = v_bytes(panel + 4 * VF32_N * v);
    ATTN_UNROLL for (int f = 0; f < lines; f++) ATTN_PREFETCH_L2(ahead + 64 * f);
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        const vint a = v_int_at(x + i * x_row);
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_bf16_dot(c[i][v], a, w[v]);
    }
}

ATTN_INLINE void pairs_begin(int mr, int nv, const struct pairs_strip *s, vf32 c[LINEAR_MR][LINEAR_NV]) {
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        const vf32 b = s->bias ? v_load(s->bias + v * VF32_N) : v_zero();
        ATTN_UNROLL for (int i = 0; i < mr; i++) c[i][v] = b;
    }
}

ATTN_INLINE void pairs_end(int mr, int nv, const struct pairs_strip *s, vf32 c[LINEAR_MR][LINEAR_NV]) {
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

ATTN_INLINE void pairs_tile(int mr, int nv, int lines, const struct pairs_strip *s) {
    vf32 c[LINEAR_MR][LINEAR_NV];
    const char *x = s->x, *panel = s->panel, *ahead = s->ahead;
    pairs_begin(mr, nv, s, c);
    ATTN_NO_UNROLL for (size_t k = 0; k < s->k; k++, x += 4, panel += 4 * VF32_N * nv, ahead += 64 * lines)
        pairs_step(mr, nv, lines, x, s->x_row, panel, ahead, c);
    pairs_end(mr, nv, s, c);
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

#if defined(DOTS_ROUNDS)
/* ---- Few outputs: rows are rounded strip by strip --------------------------------------------------------- */

/* Panels, with more of which rounding all rows once a call costs less; values that stay in L2, in bf16, beside two strips. */
enum { PAIRS_ROUNDING = 2, PAIRS_ROUNDING_VALUES = 1 << 18 };

/* Whether that is done: k so that all values are rounded by the same instruction, and two strips fit linear_scratch. */
static int pairs_rounds(size_t n, size_t k) {
    const size_t most = LINEAR_NR * ATTN_K_BLOCK * sizeof(float) / (2 * LINEAR_MR) - 2 * ATTN_ALIGN;
    return n <= PAIRS_ROUNDING * LINEAR_NR && k % 32 == 0 && k <= most / sizeof(uint16_t) &&
           n * k <= PAIRS_ROUNDING_VALUES;
}

/* A whole panel's tile that rounds the next strip's rows beside its products, a vector a step: of 6 rows 3 in 4 steps have one. */
ATTN_INLINE void pairs_rounding_tile(int mr, const struct pairs_strip *s) {
    const struct pairs_rounding next = s->next;
    const char *x = s->x, *panel = s->panel;
    size_t left = s->k;
    vf32 c[LINEAR_MR][LINEAR_NV];
    pairs_begin(mr, LINEAR_NV, s, c);
    for (size_t row = 0; row < next.rows; row++) {
        const float *from = next.x + (ptrdiff_t)row * next.x_row;
        const ptrdiff_t ahead = LINEAR_MR * next.x_row; /* the strip after that, about */
        char *to = next.to + (ptrdiff_t)row * s->x_row;
        ATTN_NO_UNROLL for (size_t i = next.n / VF32_N; i; i--, left--) {
            v_bf16_store(to, v_load(from));
            ATTN_PREFETCH_L2(from + ahead);
            pairs_step(mr, LINEAR_NV, 0, x, s->x_row, panel, NULL, c);
            from += VF32_N;
            to += VF32_N * sizeof(uint16_t);
            x += 4;
            panel += 4 * VF32_N * LINEAR_NV;
        }
    }
    ATTN_NO_UNROLL for (; left; left--, x += 4, panel += 4 * VF32_N * LINEAR_NV)
        pairs_step(mr, LINEAR_NV, 0, x, s->x_row, panel, NULL, c);
    pairs_end(mr, LINEAR_NV, s, c);
}

#define PAIRS_ROUNDING_VARIANT(mr) \
    ATTN_NOINLINE void pairs_##mr##_rounding(const struct pairs_strip *s) { pairs_rounding_tile(mr, s); }
#define PAIRS_ROUNDING_CASE(mr)   \
    case mr:                      \
        pairs_##mr##_rounding(s); \
        break;
#define PAIRS_ROUNDING_ALL(X) X(1) X(2) X(3) X(4) X(5) X(6)
PAIRS_ROUNDING_ALL(PAIRS_ROUNDING_VARIANT)
static void pairs_rounding_run(const struct pairs_strip *s, int mr) {
    switch (mr) { PAIRS_ROUNDING_ALL(PAIRS_ROUNDING_CASE) }
}

static void pairs_rounding_rows(const struct attn_linear_task *t, size_t row, size_t n, char *to) {
    for (size_t i = 0; i < n; i++)
        pairs_prepare(t->x + (ptrdiff_t)(row + i) * t->x_row, t->k, to + i * pairs_row_bytes(t->k));
}

/* All panels against the strip of rows [row, row + mr), which lie rounded at x; the next `rows` become rounded at `to`. */
static void pairs_rounding_strip(const struct attn_linear_task *t, size_t row, size_t mr, const char *x,
                                 size_t rows, char *to) {
    const struct linear_walk walk = {(t->o1 - t->o0 + LINEAR_NR - 1) / LINEAR_NR,
                                     (t->k + ATTN_K_BLOCK - 1) / ATTN_K_BLOCK, 1};
    const float *next = t->x + (ptrdiff_t)(row + mr) * t->x_row;
    const int beside = t->o1 - t->o0 >= LINEAR_NR;
    if (!beside && rows) pairs_rounding_rows(t, row + mr, rows, to);
    for (size_t n = 0; n < walk.panels * walk.k_blocks; n++) {
        const struct linear_block b = linear_block_at(t, &walk, n);
        struct pairs_strip s = {.k = b.k / 2,
                                .x = x + 2 * b.k0,
                                .x_row = (ptrdiff_t)pairs_row_bytes(t->k),
                                .panel = linear_panel(t, &b),
                                .bias = t->bias && b.k0 == 0 ? t->bias + b.o : NULL,
                                .y = t->y + (ptrdiff_t)row * t->y_row + (b.o - t->o0),
                                .y_row = t->y_row,
                                .n = attn_min(t->o1 - b.o, LINEAR_NR),
                                .accumulate = b.k0 > 0,
                                .next = {next + b.k0, t->x_row, to + 2 * b.k0, rows, b.k}};
        if (beside && b.o == t->o0)
            pairs_rounding_run(&s, (int)mr);
        else
            pairs_strip_run(&s, (int)mr, (int)(b.width / VF32_N), 0);
    }
}

static void pairs_rounding_body(const struct attn_linear_task *t) {
    const size_t strips = (t->m + LINEAR_MR - 1) / LINEAR_MR, bytes = LINEAR_MR * pairs_row_bytes(t->k);
    char *x[2] = {(char *)t->scratch, (char *)t->scratch + bytes};
    size_t row = 0, mr = (t->m + strips - 1) / strips;
    pairs_rounding_rows(t, 0, mr, x[0]);
    for (size_t strip = 0; strip < strips; strip++) {
        const size_t left = t->m - row - mr, more = strips - strip - 1,
                     rows = more ? (left + more - 1) / more : 0;
        pairs_rounding_strip(t, row, mr, x[strip % 2], rows, x[(strip + 1) % 2]);
        row += mr;
        mr = rows;
    }
}
#endif

#endif
