/* The plan of attention pooling, for both scores: visibility, blocks of rows, chunks of keys, scratch. */
#ifndef ATTN_POOL_H
#define ATTN_POOL_H

#include "backend.h"
#include "context.h"
#include "kv.h"
#include "scoring.h"
#include "tensor.h"

/* One pooling problem: what attn_sdpa and attn_additive have in common. */
struct attn_pooling_problem {
    enum attn_score_kind score;
    const attn_tensor *q, *k, *v, *out, *lse, *weights, *lse_sinks, *scores;
    const struct attn_kv_view *kv;     /* a cache, of which k and v are the blocks; or NULL */
    const size_t *kv_sequences;        /* as in attn_sdpa_args */
    const attn_tensor *w;              /* additive: [1, n_head or 1, 1, c] */
    const char *weights_name, *w_name; /* what error texts call those two */
    int typed;            /* q and out of any of TENSOR_FLOATS, k and v of TENSOR_KV; otherwise f32 */
    attn_scoring scoring; /* a copy of this version's size; zeroed where the caller gave none */
    size_t head;          /* where the heads of q begin in those that the scoring counts */
    size_t n_head;        /* how many it counts; 0: those of q */
};

struct attn_scoring_sizes attn_pool_sizes(const struct attn_pooling_problem *p);

/* Checks the tensors and scoring against each other, with their spans for the overlap rule: outputs first
 * (returned in *n_outputs), at most ATTN_POOL_SPANS in all. query: data is not looked at. */
enum { ATTN_POOL_SPANS = 10 + ATTN_SCORING_SPANS + ATTN_KV_SPANS - 1, ATTN_POOL_OUTPUTS = 5 };
attn_status attn_pool_check(attn_context *c, const struct attn_pooling_problem *p, int query,
                            struct attn_span *spans, size_t *n_spans, size_t *n_outputs);

/* Scratch bytes of attn_pool_run(); OVERFLOW where they do not fit. filled: of a cache, for any lengths that it has room for. */
attn_status attn_pool_scratch_bytes(attn_context *c, const struct attn_pooling_problem *p, int filled,
                                    size_t *bytes);

/* Runs a checked problem in that much scratch, aligned to ATTN_ALIGN. */
void attn_pool_run(attn_context *c, const struct attn_pooling_problem *p, void *scratch);

#endif
