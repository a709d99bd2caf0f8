/* A call of attn_kv_append(), drawn at random, with what it should store. */
#ifndef KV_CALL_H
#define KV_CALL_H

#include "kv/model.h"
#include "kv/subject.h"
#include "support/grid.h"

enum { CALL_MOST = 8 }; /* sequences */

struct call {
    const attn_rope *rope; /* or NULL */
    size_t n, sequences[CALL_MOST], counts[CALL_MOST], starts[CALL_MOST + 1];
    int64_t *positions;
    struct grid k, v;
    attn_tensor k_tensor, v_tensor;
    attn_kv_append_args args;
    struct model_rows rows[CALL_MOST]; /* as they are stored */
};

/* Rows for the sequences of the model as it stands, of any type that appending takes; as they should be stored: rotated on
 * the context (one thread of the backend), then of the cache's types by the scalar backend. */
void call_open(struct call *c, const struct model *m, const attn_rope *rope, attn_context *context,
               struct rng *r);
void call_close(struct call *c);

/* Scratch that the query asks for, without data and arrays. */
size_t call_scratch(const struct call *c, const attn_kv *kv, attn_context *context);

attn_status call_run(struct call *c, const attn_kv *kv, attn_context *context);

#endif
