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

/* Up to ATTN_LINEAR_CALLS of them as one round of tasks: their threads meet once, or, where the backend takes rows of x
 * prepared, twice (src/prepare.c). */
void attn_linear_run(attn_context *c, const struct attn_linear_call *calls, size_t n);

/* The products of that; prepared: the rows of each, in the order batch, head, row, or NULL where they are taken as they are. */
void attn_linear_round(attn_context *c, const struct attn_linear_call *calls, const char *const *prepared,
                       size_t n);

/* Bytes of a prepared row; 0: none is needed, or it would not fit ATTN_PREPARED_BYTES. */
size_t attn_linear_prepared_row(const attn_context *c, const struct attn_linear_call *call);

/* Whether the backend rounds the rows in its products instead. */
int attn_linear_rounds(const attn_context *c, const struct attn_linear_call *call);

/* Rows that a call computes. */
static inline size_t attn_linear_rows(const struct attn_linear_call *call) {
    return call->o0 < call->o1 ? call->x->size[0] * call->x->size[1] * call->x->size[2] : 0;
}

#endif
