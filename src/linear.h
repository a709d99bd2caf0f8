/* Projections inside the library: the checks are done. */
#ifndef ATTN_LINEAR_H
#define ATTN_LINEAR_H

#include "pack.h"

/*
 * y = x W^T + b for all rows of x [b, h, m, k], outputs [o0, o1) of W only: o0 a multiple of the packed
 * layout's panel width, o1 too or n. y [b, h, m, o1 - o0].
 */
struct attn_linear_call {
    const attn_tensor *x;
    const attn_packed *w;
    size_t o0, o1;
    const attn_tensor *y;
};

enum { ATTN_LINEAR_CALLS = 3 }; /* Q, K and V */

/* Up to ATTN_LINEAR_CALLS of them as one round of tasks: their threads meet once. */
void attn_linear_run(attn_context *c, const struct attn_linear_call *calls, size_t n);

#endif
