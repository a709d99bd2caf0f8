/* The blocks of a linear task, in the order in which they are read. */
#ifndef ATTN_LINEAR_WALK_H
#define ATTN_LINEAR_WALK_H

#include "backend.h"
#include "dtype.h"
#include "order.h"
#include "size.h"
#include "types.h"

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

/* Bytes of k values of an output, k a multiple of the block or the end of a row. */
static size_t linear_bytes(const struct attn_linear_task *t, size_t k) {
    switch (t->dtype) {
    case ATTN_F32: return 4 * k;
    case ATTN_F16: return 2 * k;
    case ATTN_BF16: return 2 * (k + k % 2);
    default: return k / (size_t)types_block_values((int)t->dtype) * (size_t)types_block_bytes((int)t->dtype);
    }
}

static const char *linear_panel(const struct attn_linear_task *t, const struct linear_block *b) {
    return (const char *)t->panels + b->o * t->row_bytes + linear_bytes(t, b->k0) * b->width;
}

#endif
