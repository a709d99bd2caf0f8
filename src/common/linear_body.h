/* The linear slot: blocks and strips round the micro-kernel uk_linear. */
#ifndef ATTN_LINEAR_BODY_H
#define ATTN_LINEAR_BODY_H

#include "backend.h"
#include "ukernel_contract.h"

struct linear_strip {
    size_t k;
    const float *x;
    ptrdiff_t x_row;
    const float *panel, *ahead, *bias;
    float *y;
    ptrdiff_t y_row;
    size_t n;
    int accumulate;
};

/* A panel's width is a multiple of ATTN_PANEL_UNIT, which leaves these numbers
 * of vectors. */
#define LINEAR_HAS(mr, nv) ((mr) <= LINEAR_MR && (nv) <= LINEAR_NV && (nv)*VF32_N % ATTN_PANEL_UNIT == 0)

/* One function a variant, so that a profile names it and no variant's registers depend on another's. */
#define LINEAR_VARIANT(mr, nv)                                                           \
    ATTN_NOINLINE void linear_##mr##x##nv(const struct linear_strip *s) {                \
        linear_strip_nv(LINEAR_HAS(mr, nv) ? mr : 1, LINEAR_HAS(mr, nv) ? nv : 1, 0, s); \
    }
/* Whole panels that ask for `lines` cache lines of the next panel at each step. */
#define LINEAR_AHEAD_VARIANT(mr, lines)                                           \
    ATTN_NOINLINE void linear_##mr##_ahead##lines(const struct linear_strip *s) { \
        linear_strip_nv((mr) <= LINEAR_MR ? mr : 1, LINEAR_NV, lines, s);         \
    }
#define LINEAR_ROWS(X, with) \
    X(1, with) X(2, with) X(3, with) X(4, with) X(5, with) X(6, with) X(7, with) X(8, with)
#define LINEAR_ALL(X) LINEAR_ROWS(X, 1) LINEAR_ROWS(X, 2) LINEAR_ROWS(X, 3) LINEAR_ROWS(X, 4)

ATTN_INLINE void linear_strip_nv(int mr, int nv, int lines, const struct linear_strip *s) {
    uk_linear(mr, nv, lines, s->k, s->x, s->x_row, s->panel, s->ahead, s->bias, s->y, s->y_row, s->n,
              s->accumulate);
}
LINEAR_ALL(LINEAR_VARIANT)
LINEAR_ROWS(LINEAR_AHEAD_VARIANT, 1)
LINEAR_ROWS(LINEAR_AHEAD_VARIANT, 2)

#define LINEAR_CASE(mr, nv)                            \
    case (nv)*16 + (mr):                               \
        if (LINEAR_HAS(mr, nv)) linear_##mr##x##nv(s); \
        break;
#define LINEAR_AHEAD_CASE(mr, lines)                          \
    case (lines)*16 + (mr):                                   \
        if ((mr) <= LINEAR_MR) linear_##mr##_ahead##lines(s); \
        break;
static void linear_strip_run(const struct linear_strip *s, int mr, int nv, int lines) {
    if (lines) switch (lines * 16 + mr) {
            LINEAR_ROWS(LINEAR_AHEAD_CASE, 1) LINEAR_ROWS(LINEAR_AHEAD_CASE, 2)
        }
    else
        switch (nv * 16 + mr) { LINEAR_ALL(LINEAR_CASE) }
}

/*
 * Within a K block each panel (LINEAR_NR x ATTN_K_BLOCK floats) is read from L2 by all strips of rows;
 * the rows of x stay in L1 and L2 across the panels. Rows are spread evenly over the strips, so that no
 * strip is much lower than the others.
 *
 * While the strips of one panel run, they fetch the next one into L2: a panel that comes from memory would
 * otherwise be waited for by its first strip. With a single strip (few rows) the panels are one linear read that
 * the processor's own prefetchers serve better.
 */
static void linear_body(const struct attn_linear_task *t) {
    const size_t strips = (t->m + LINEAR_MR - 1) / LINEAR_MR;
    for (size_t k0 = 0; k0 < t->k; k0 += ATTN_K_BLOCK) {
        struct linear_strip s = {.x_row = t->x_row, .y_row = t->y_row, .accumulate = k0 > 0};
        s.k = t->k - k0 < ATTN_K_BLOCK ? t->k - k0 : ATTN_K_BLOCK;
        for (size_t o = t->o0; o < t->o1; o += LINEAR_NR) {
            s.n = t->o1 - o < LINEAR_NR ? t->o1 - o : (size_t)LINEAR_NR;
            const size_t width = (s.n + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
            const int next = strips > 1 && width == LINEAR_NR && o + 2 * LINEAR_NR <= t->o1;
            const int lines = !next ? 0 : strips >= LINEAR_NR / 16 ? 1 : 2;
            s.panel = t->panels + o * t->k + k0 * width;
            s.ahead = s.panel + LINEAR_NR * t->k;
            s.bias = t->bias && k0 == 0 ? t->bias + o : NULL;
            size_t asked = 0;
            for (size_t i = 0, strip = 0; strip < strips; strip++) {
                const size_t mr = (t->m - i + (strips - strip) - 1) / (strips - strip);
                const int more = asked < s.k * LINEAR_NR ? lines : 0;
                s.x = t->x + (ptrdiff_t)i * t->x_row + k0;
                s.y = t->y + (ptrdiff_t)i * t->y_row + (o - t->o0);
                linear_strip_run(&s, (int)mr, (int)(width / VF32_N), more);
                s.ahead += s.k * (size_t)more * 16;
                asked += s.k * (size_t)more * 16;
                i += mr;
            }
        }
    }
}

#endif
