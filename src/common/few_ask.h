/* Pooling of few rows: sizes, and the requests for what is read next. */
#ifndef ATTN_FEW_ASK_H
#define ATTN_FEW_ASK_H

#include "order.h"

enum {
    FEW_TILE_N = ATTN_KEY_TILE / VF32_N, /* vectors of a tile of keys */
    FEW_MOST = FEW_NV * VF32_N,          /* rows of a block served this way */

    /* K and V are read in turns, and each turn starts the processor's prefetchers anew: as long as a chunk for one row,
     * shorter where more rows' probabilities have to wait (32 KiB in all; 8 KiB for each of several heads). */
    FEW_WAITING = 8192,
    FEW_WAITING_TURNS = 2048,
    FEW_TURN = 64,            /* keys where the other side is asked for meanwhile */
    FEW_NEAR_BYTES = 1 << 13, /* how far ahead keys are asked for into L1, */
    FEW_FAR_BYTES = 1 << 14,  /* and into L2 */
    FEW_LINE = ATTN_LINE * 4, /* bytes */
    FEW_PANEL = 16,           /* accumulators of a panel's scores */
    FEW_PAIRS = 1,            /* rows whose chains leave room for a second vector of keys */
    FEW_PV_KEYS = 64, /* of V at a time for all passes, or as many as these bytes hold: they stay in L1 */
    FEW_PV_BYTES = 1 << 14
};

/*
 * What is read next is asked for in the order of its addresses, evenly over the work at hand: the processor takes these
 * requests for a linear read and adds its own prefetching, whatever order the kernels then read in.
 */
struct few_ahead {
    const char *at, *end;  /* what is left of the row at hand */
    ptrdiff_t stride, gap; /* from row to row; from one's end to the next */
    int near;              /* into L1 */
};

/* Keeps requests where they stand. */
#define ATTN_FENCE() __asm__ volatile("" ::: "memory")

ATTN_INLINE void few_ask(struct few_ahead *a, int lines) {
    if (a->near) {
        ATTN_UNROLL for (int i = 0; i < lines; i++) ATTN_PREFETCH_L1(a->at + i * FEW_LINE);
    } else {
        ATTN_UNROLL for (int i = 0; i < lines; i++) ATTN_PREFETCH_L2(a->at + i * FEW_LINE);
    }
    a->at += lines * FEW_LINE;
    if (a->at >= a->end) {
        a->at = a->end + a->gap;
        a->end += a->stride;
    }
}

/* Of the lines of `bytes` bytes those that are due in part `part` of so many. */
ATTN_INLINE void few_ask_of(struct few_ahead *a, int bytes, int part, int parts) {
    const int lines = (bytes + FEW_LINE - 1) / FEW_LINE;
    const int due = lines * (part + 1) / parts - lines * part / parts;
    if (due) few_ask(a, due);
}

#endif
