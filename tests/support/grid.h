/*
 * A [batch, head, row, column] array in guarded memory with strides of any kind: padded, permuted,
 * negative, broadcast. The gaps between its rows are canary.
 */
#ifndef TEST_GRID_H
#define TEST_GRID_H

#include "attn/attn.h"
#include "support/guard.h"
#include "support/rng.h"

/* Bits of how a grid lies in memory. */
enum layout {
    LAYOUT_PLAIN = 0,
    LAYOUT_BNHD = 1,     /* rows outside heads: [b, n, h, d] */
    LAYOUT_PAD_ROW = 2,  /* an odd number of elements between rows */
    LAYOUT_PAD_ALL = 4,  /* and between the outer dimensions */
    LAYOUT_NEGATIVE = 8, /* rows run backwards */
    LAYOUT_FAR = 16      /* rows a multiple of 2048 bytes apart, as those of a model of many heads are */
};
#define N_LAYOUTS 20u /* FAR with few of the others: it takes memory */

struct grid {
    struct guard guard;
    size_t element;        /* bytes of one */
    size_t size[4];        /* logical */
    ptrdiff_t stride[4];   /* in elements; 0 where broadcast */
    unsigned char *origin; /* element (0, 0, 0, 0) */
};

/* element: 1, 2 or 4 bytes. The elements are canary (NaN), as the gaps are. */
struct grid grid_make(struct rng *values, size_t element, const size_t size[4], unsigned layout);
void grid_free(struct grid *g);

float *grid_f32(const struct grid *g, size_t b, size_t h, size_t row);
unsigned char *grid_u8(const struct grid *g, size_t b, size_t h, size_t row);
attn_tensor grid_tensor(const struct grid *g);

/* Fills all elements in logical order, so that the values do not depend on the layout. */
void grid_fill(struct grid *g, struct rng *r, enum fill fill);

/* Makes some elements NaN, or +inf where `infinite` is set. */
void grid_spoil(struct grid *g, struct rng *r, int infinite);

/* Whether canaries and gaps are untouched. */
int grid_gaps_intact(const struct grid *g);

/* Whether every element of f32 outputs was written (has not the canary's bits); the same, and whether none
 * was, for a row's n elements. */
int grid_all_written(const struct grid *g);
int grid_written(const float *row, size_t n);
int grid_untouched(const float *row, size_t n);

#endif
