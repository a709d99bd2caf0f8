/* Additive scores inside the library: the features A_q q and A_k k, once for every row. */
#ifndef ATTN_ADDITIVE_H
#define ATTN_ADDITIVE_H

#include "pack.h"
#include "tensor.h"

/* Matrices applied to the heads of x: one for each head, or none (then x holds the features already). */
struct attn_features {
    const attn_packed *const *a; /* the caller's matrices c x p, or NULL */
    size_t first;                /* head 0 of x has matrix a[first] */
    size_t heads;                /* of x */
    attn_tensor view;            /* the features [batch, head, row, c]: x itself, or memory of scratch */
    size_t bytes;                /* of that memory; 0 for none */
};

/* Checks the matrices against x [batch, head, row, p] and sizes the features; view.data is still NULL. */
attn_status attn_features_plan(attn_context *c, const char *name, const attn_packed *const *a, size_t first,
                               const attn_tensor *x, struct attn_features *f);

/* Both give the same number of features (c) a row. */
attn_status attn_features_match(attn_context *c, const struct attn_features *q,
                                const struct attn_features *k);

/* None of the outputs' spans shares a byte with a matrix. */
attn_status attn_features_overlap(attn_context *c, const char *name, const struct attn_features *f,
                                  const struct attn_span *outputs, size_t n_outputs);

/* Computes the features in `memory` (f->bytes, aligned to ATTN_ALIGN). */
void attn_features_run(attn_context *c, struct attn_features *f, const attn_tensor *x, void *memory);

#endif
