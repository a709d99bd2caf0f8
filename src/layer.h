/* What attn_head, attn_multihead and attn_multihead_step share: a layer's weights, its projections, W_o. */
#ifndef ATTN_LAYER_H
#define ATTN_LAYER_H

#include "context.h"
#include "tensor.h"

struct attn_layer {
    attn_weights w; /* a copy */
    size_t p_q, p_k, p_v;
};

/* Checks l->w, which attn_struct_read() filled, and fills in the rest. w_o: whether that is used. */
attn_status attn_layer_check(attn_context *c, struct attn_layer *l, int w_o);

/*
 * One of W_q, W_k, W_v over heads [first, first + heads) of the stack. The linear kernels work on whole panels,
 * so where the heads do not begin at a panel's edge, the panel's earlier outputs are computed too (`skip`).
 */
struct attn_projection {
    const attn_packed *w;
    const attn_tensor *x;
    size_t o0, o1;
    attn_tensor y;    /* [batch, 1, rows, o1 - o0] in scratch */
    attn_tensor view; /* [batch, heads, rows, p] of y */
    size_t skip, bytes;
};

/* name: what messages call x, which attn_tensor_check() saw. SHAPE, OVERFLOW. */
attn_status attn_projection_plan(attn_context *c, const char *name, struct attn_projection *j,
                                 const attn_tensor *x, const attn_packed *w, size_t first, size_t heads,
                                 size_t p);

/* Gives three projections their places in scratch from `at` on; returns what follows them. */
char *attn_projections_place(struct attn_projection *const j[3], char *at);

/* All three as one round of tasks. */
void attn_projections_run(attn_context *c, struct attn_projection *const j[3]);

/*
 * Where the pooling of x's rows (called `name`) writes: `out` seen as [batch, heads, rows, p_v]; or, where w_o
 * follows, *bytes of scratch, whose address the caller sets. span: of out.
 */
attn_status attn_layer_heads(attn_context *c, const struct attn_layer *l, int w_o, const char *name,
                             const attn_tensor *x, const attn_tensor *out, size_t heads, unsigned flags,
                             attn_tensor *to, size_t *bytes, struct attn_span *span);

/* out = W_o of all heads, which lie in scratch as attn_layer_heads() said. */
void attn_layer_output(attn_context *c, const struct attn_layer *l, const attn_tensor *heads,
                       const attn_tensor *out);

#endif
