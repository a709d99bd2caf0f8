/* Projections inside the library: the checks are done. */
#ifndef ATTN_LINEAR_H
#define ATTN_LINEAR_H

#include "pack.h"

/*
 * y = x W^T + b for all rows of x [b, h, m, k], outputs [o0, o1) of W only: o0 a multiple of the packed
 * layout's panel width, o1 too or n. y [b, h, m, o1 - o0].
 */
void attn_linear_run(attn_context *c, const attn_tensor *x, const attn_packed *w, size_t o0, size_t o1,
                     const attn_tensor *y);

#endif
