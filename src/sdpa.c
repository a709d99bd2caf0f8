#include "pool.h"

/* Where the keys and values are: tensors, or the blocks of a cache. */
static attn_status read_cache(attn_context *c, const attn_sdpa_args *a, int query, struct attn_kv_view *view,
                              struct attn_pooling_problem *p) {
    if (!a->kv && a->kv_sequences)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "kv_sequences is given, but kv is null");
    if (!a->kv) return ATTN_OK;
    if (a->k || a->v) return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s is given beside kv", a->k ? "k" : "v");
    ATTN_TRY(attn_kv_read(c, a->kv, query ? ATTN_KV_QUERY : 0, view));
    p->k = &view->kv.k;
    p->v = &view->kv.v;
    p->kv = view;
    p->kv_sequences = a->kv_sequences;
    return ATTN_OK;
}

static attn_status prepare(attn_context *c, const attn_sdpa_args *args, int query, struct attn_kv_view *view,
                           struct attn_pooling_problem *p) {
    attn_sdpa_args a;
    struct attn_span spans[ATTN_POOL_SPANS];
    size_t n, n_outputs;
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(attn_struct_read(c, "args", &a, sizeof a, args));
    *p = (struct attn_pooling_problem){.score = ATTN_SCORE_DOT,
                                       .q = a.q,
                                       .k = a.k,
                                       .v = a.v,
                                       .out = a.out,
                                       .lse = a.lse,
                                       .weights = a.weights,
                                       .weights_name = "weights",
                                       .typed = 1,
                                       .lse_sinks = a.lse_sinks,
                                       .scores = a.scores};
    ATTN_TRY(read_cache(c, &a, query, view, p));
    ATTN_TRY(attn_scoring_read(c, &p->scoring, a.scoring, a.kv != NULL));
    ATTN_TRY(attn_pool_check(c, p, query, spans, &n, &n_outputs));
    return attn_spans_check(c, spans, n, n_outputs);
}

attn_status attn_sdpa_scratch(attn_context *c, const attn_sdpa_args *args, size_t *bytes) {
    struct attn_pooling_problem p;
    struct attn_kv_view view;
    size_t need;
    ATTN_TRY(prepare(c, args, 1, &view, &p));
    if (!bytes) return attn_fail(c, ATTN_ERROR_ARGUMENT, "bytes is null");
    ATTN_TRY(attn_pool_scratch_bytes(c, &p, 1, &need));
    *bytes = need + ATTN_ALIGN;
    return ATTN_OK;
}

attn_status attn_sdpa(attn_context *c, const attn_sdpa_args *args) {
    struct attn_pooling_problem p;
    struct attn_kv_view view;
    size_t need;
    void *scratch;
    ATTN_TRY(prepare(c, args, 0, &view, &p));
    ATTN_TRY(attn_pool_scratch_bytes(c, &p, 0, &need));
    ATTN_TRY(attn_scratch_take(c, need, &scratch));
    attn_pool_run(c, &p, scratch);
    return ATTN_OK;
}
