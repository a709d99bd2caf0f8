/* The linear slot: blocks and strips round the micro-kernel uk_linear. */
#ifndef ATTN_LINEAR_BODY_H
#define ATTN_LINEAR_BODY_H

#include "backend.h"
#include "size.h"
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

enum {
    LINEAR_RUN = 2048, /* floats, 8 KiB */
    LINEAR_FEW = 16    /* rows that leave L2 to the panels even when their whole length is taken at once */
};

/* The blocks of a task, a panel's part within a K block each, in the order in which they are read. */
struct linear_walk {
    size_t panels, k_blocks;
    int along_k; /* all K blocks of a panel first: one linear read; otherwise all panels of a K block */
};

struct linear_block {
    size_t o, k0, k, width;
};

static struct linear_block linear_block_at(const struct attn_linear_task *t, const struct linear_walk *w,
                                           size_t i) {
    const size_t panel = w->along_k ? i / w->k_blocks : i % w->panels;
    const size_t k_block = w->along_k ? i % w->k_blocks : i / w->panels;
    struct linear_block b = {.o = t->o0 + panel * LINEAR_NR, .k0 = k_block * ATTN_K_BLOCK};
    if (i == w->panels * w->k_blocks) { /* after the last one: where the thread may go on */
        b.o = t->o_next;
        b.k0 = 0;
        if (b.o >= t->n) return b;
    }
    b.k = attn_min(t->k - b.k0, ATTN_K_BLOCK);
    b.width = attn_min((t->n - b.o + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT, LINEAR_NR);
    return b;
}

static const float *linear_panel(const struct attn_linear_task *t, const struct linear_block *b) {
    return t->panels + b->o * t->k + b->k0 * b->width;
}

/*
 * Each block is read from L2 by all strips of rows; the rows of x stay in L1 and L2 across the panels. Rows are spread
 * evenly over the strips, so that no strip is much lower than the others.
 *
 * While the strips of one block run, they fetch into L2 what this thread reads next: a block that comes from memory
 * would otherwise be waited for by its first strip. Few rows take the panels as one linear read. A single strip of
 * them leaves wide panels to the processor's own prefetchers; narrow ones it asks for LINEAR_RUN ahead (4 rows, AVX2:
 * 57 -> 92 % of the read bandwidth).
 */
static void linear_body(const struct attn_linear_task *t) {
    const size_t strips = (t->m + LINEAR_MR - 1) / LINEAR_MR;
    const struct linear_walk walk = {(t->o1 - t->o0 + LINEAR_NR - 1) / LINEAR_NR,
                                     (t->k + ATTN_K_BLOCK - 1) / ATTN_K_BLOCK, t->m <= LINEAR_FEW};
    for (size_t n = 0; n < walk.panels * walk.k_blocks; n++) {
        const struct linear_block b = linear_block_at(t, &walk, n), next = linear_block_at(t, &walk, n + 1);
        struct linear_strip s = {.k = b.k,
                                 .x_row = t->x_row,
                                 .y_row = t->y_row,
                                 .n = attn_min(t->o1 - b.o, LINEAR_NR),
                                 .panel = linear_panel(t, &b),
                                 .bias = t->bias && b.k0 == 0 ? t->bias + b.o : NULL,
                                 .accumulate = b.k0 > 0};
        size_t ahead = b.width == LINEAR_NR ? next.k * next.width / ATTN_LINE : 0; /* lines to ask for */
        s.ahead = ahead ? linear_panel(t, &next) : s.panel;
        if (strips == 1) {
            ahead = (int)LINEAR_NR == (int)ATTN_LINE && b.width == LINEAR_NR ? s.k : 0;
            s.ahead = s.panel + LINEAR_RUN;
        }
        for (size_t i = 0, strip = 0; strip < strips; strip++) {
            const size_t mr = (t->m - i + (strips - strip) - 1) / (strips - strip);
            const size_t steps = (strips - strip) * s.k;
            const size_t lines = attn_min((ahead + steps - 1) / steps, 2);
            s.x = t->x + (ptrdiff_t)i * t->x_row + b.k0;
            s.y = t->y + (ptrdiff_t)i * t->y_row + (b.o - t->o0);
            linear_strip_run(&s, (int)mr, (int)(b.width / VF32_N), (int)lines);
            s.ahead += attn_min(ahead, s.k * lines) * ATTN_LINE;
            ahead -= attn_min(ahead, s.k * lines);
            i += mr;
        }
    }
}

#endif
