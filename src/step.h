/* attn_multihead_step() in pieces: its plan and its checks; what becomes of q and k between projection and pooling. */
#ifndef ATTN_STEP_H
#define ATTN_STEP_H

#include "kv.h"
#include "layer.h"
#include "pool.h"

/* Norms of the heads of q and k, and RoPE of q (attn_kv_append_run() turns k as it stores it). */
struct attn_turn {
    const struct attn_projection *q, *k; /* whole stacks: their rows lie one behind the other */
    size_t rows;
    const float *q_norm, *k_norm; /* or NULL */
    float epsilon;
    const struct attn_rope_plan *rope; /* prepared; or NULL */
    int64_t *positions;                /* where rotated: of all rows */
    size_t task_rows, worker_bytes;
    char *workers;
};

/* Sizes of tasks and of a worker's memory, from shapes alone. Returns 0 on overflow. */
int attn_turn_plan(struct attn_turn *t);
void attn_turn_run(attn_context *c, const struct attn_turn *t);

/* Scratch, in this order. */
enum step_part {
    STEP_PROJECTIONS,
    STEP_HEADS,
    STEP_LENGTHS,
    STEP_FIRSTS,
    STEP_POSITIONS,
    STEP_WORKERS,
    STEP_APPEND,
    STEP_POOL,
    N_STEP_PARTS
};

struct attn_step {
    attn_step_args a;
    struct attn_layer layer;
    attn_scoring scoring; /* with the call's counts and starts for lengths and starts of q */
    struct attn_projection q, k, v;
    struct attn_kv_append append;
    struct attn_turn turn;
    attn_tensor heads;
    size_t heads_bytes;
    /* The cache as it will be, for checks and sizes before anything is written: a sequence for each of the call's,
     * and no table, since that has no blocks for them yet. */
    struct attn_kv_view after;
    struct attn_pooling_problem p;
    struct attn_span out_span;
    size_t at[N_STEP_PARTS], bytes; /* of scratch; bytes: of what stands so far */
};

/* Checks all that no lengths are needed for, and plans the scratch before STEP_POOL. query: data is not looked at. */
attn_status attn_step_read(attn_context *c, const attn_step_args *args, int query, struct attn_step *s);

/* Gives everything its place in that much scratch. */
void attn_step_place(struct attn_step *s, char *scratch);

/* The rest of the checks, by the lengths as they will be, and the pooling's scratch. Where it is not a query, after
 * attn_step_place(). */
attn_status attn_step_check(attn_context *c, int query, struct attn_step *s);

/* Of sequence b of the call: its number in the cache, its rows, and the first of them among x's rows. */
static inline size_t attn_step_sequence(const struct attn_step *s, size_t b) {
    return s->a.sequences ? s->a.sequences[b] : b;
}
static inline size_t attn_step_count(const struct attn_step *s, size_t b) {
    if (s->a.starts) return s->a.starts[b + 1] - s->a.starts[b];
    return s->a.counts ? s->a.counts[b] : s->a.x->size[ROW];
}
static inline size_t attn_step_row(const struct attn_step *s, size_t b) {
    return s->a.starts ? s->a.starts[b] : b * s->a.x->size[ROW];
}

#endif
