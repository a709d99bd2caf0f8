/* The plan of attention pooling inside src/: which task computes what. By shape alone. */
#ifndef ATTN_POOL_PLAN_H
#define ATTN_POOL_PLAN_H

#include "pool.h"

/*
 * Rows of one key/value head of a sequence: query-major, the heads of its group inside. They are cut in blocks of the
 * backend's height. Where the blocks alone are too few to occupy many cores, each chunk of keys of a block is
 * a task of its own and a second round merges them; where keys or values have to be converted or gathered, a task takes
 * several blocks, as long as there are enough tasks. The bits are the same either way.
 */
struct attn_pool_share {
    size_t tasks;  /* of the first round */
    size_t merges; /* blocks of one key/value head each: tasks of the second round */
    size_t parts;  /* chunks of those */
};

struct attn_pool_plan {
    const struct attn_backend *backend;
    const struct attn_pooling_problem *p;
    struct attn_scoring_sizes sizes;
    size_t group, block_rows;
    size_t n_head_kv, together; /* key/value heads, and those of a task; together divides n_head_kv */
    size_t each;                /* blocks of a task; 1 where together is more */
    size_t sequences;
    struct attn_pool_share total;
    int split;
    size_t part; /* floats of a partial result */
    size_t worker_bytes;
    char *scratch, *parts;
    struct attn_pool_share
        *before; /* [sequences]: of all that come before, where their sizes differ; or NULL */
};

/* OVERFLOW where the scratch does not fit. filled: of a cache, for any lengths that it has room for. */
attn_status attn_pool_plan_make(attn_context *c, const struct attn_pooling_problem *p,
                                struct attn_pool_plan *plan, int filled, size_t *bytes);

/* The total of all sequences; where `before` is given, fills it. Returns 0 on overflow. */
int attn_pool_plan_count(struct attn_pool_plan *plan, struct attn_pool_share *before);

/* Whether sequences have sizes of their own: plan->before is to be filled. */
static inline int attn_pool_plan_differs(const struct attn_pool_plan *plan) {
    return plan->p->scoring.q_starts || plan->p->kv;
}

/* Sequence and what comes before it, of item `index` of one member of the shares (its offset). */
size_t attn_pool_plan_locate(const struct attn_pool_plan *plan, size_t index, size_t member,
                             struct attn_pool_share *before);

static inline struct attn_sequence attn_pool_plan_sequence(const struct attn_pool_plan *plan, size_t b) {
    return attn_sequence_at(&plan->p->scoring, &plan->sizes, b);
}

/* A sequence as the tasks count it: with the tensor's rows where all have the same, whatever their lengths. */
struct attn_sequence attn_pool_plan_shape(const struct attn_pool_plan *plan, size_t b);

/* Blocks of one key/value head, and chunks of keys, of a sequence. */
size_t attn_pool_plan_blocks(const struct attn_pool_plan *plan, const struct attn_sequence *q);
size_t attn_pool_plan_chunks(const struct attn_pool_plan *plan, const struct attn_sequence *q);

#endif
