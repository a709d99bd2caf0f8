/* Whole heads (eq. 11.5.1): projections, pooling, W_o. attn_head is attn_multihead over a range of one head. */
#include <string.h>

#include "additive.h"
#include "layer.h"
#include "pack.h"
#include "pool.h"

struct call {
    struct attn_layer layer;
    attn_scoring scoring;
    attn_head_args a;
    int multi;
    struct attn_projection q, k, v;
    struct attn_features f_q, f_k;
    struct attn_pooling_problem p;
    attn_tensor w_a;   /* the range's part of weights.w_a */
    attn_tensor heads; /* the pooling's output [batch, heads, n_q, p_v]: in out, or before W_o in scratch */
    size_t heads_bytes, pool_bytes;
};

static attn_status plan_pooling(attn_context *c, struct call *l, size_t head, size_t heads, size_t kv) {
    const attn_weights *w = &l->layer.w;
    const int additive = w->pooling == ATTN_POOLING_ADDITIVE;
    ATTN_TRY(attn_features_plan(c, "weights.a_q", additive ? w->a_q : NULL, head, &l->q.view, &l->f_q));
    ATTN_TRY(attn_features_plan(c, "weights.a_k", additive ? w->a_k : NULL, kv, &l->k.view, &l->f_k));
    if (additive) ATTN_TRY(attn_features_match(c, &l->f_q, &l->f_k));
    l->p = (struct attn_pooling_problem){
        .score = additive ? ATTN_SCORE_ADDITIVE : ATTN_SCORE_DOT,
        .q = &l->f_q.view,
        .k = &l->f_k.view,
        .v = &l->v.view,
        .out = &l->heads,
        .lse = l->a.lse,
        .weights = l->a.attention,
        .weights_name = "attention",
        .w_name = "weights.w_a",
        .w = additive ? &l->w_a : NULL,
        .scoring = l->scoring,
        .head = head,
        .n_head = w->n_head,
    };
    if (additive) {
        ATTN_TRY(attn_tensor_expect(c, "weights.w_a", w->w_a, 1, w->w_a->size[HEAD] == 1 ? 1 : w->n_head, 1,
                                    SIZE_MAX));
        l->w_a = *w->w_a;
        if (l->w_a.size[HEAD] > 1) {
            if (l->w_a.data) l->w_a.data = (char *)l->w_a.data + (ptrdiff_t)head * l->w_a.stride[HEAD];
            l->w_a.size[HEAD] = heads;
        }
    }
    return ATTN_OK;
}

/* The caller's memory: outputs first, then everything that is read. */
enum { SPANS = 12 + ATTN_SCORING_SPANS, OUTPUTS = 3 };

static attn_status check_memory(attn_context *c, const struct call *l, unsigned flags,
                                const struct attn_span *out) {
    const attn_head_args *a = &l->a;
    const attn_weights *w = &l->layer.w;
    struct attn_span spans[SPANS] = {{0}};
    const unsigned written = flags | TENSOR_F32 | TENSOR_OUTPUT;
    spans[0] = *out;
    if (a->lse) ATTN_TRY(attn_tensor_check(c, "lse", a->lse, written, &spans[1]));
    if (a->attention) ATTN_TRY(attn_tensor_check(c, "attention", a->attention, written, &spans[2]));
    ATTN_TRY(attn_tensor_check(c, "q", a->q, flags | TENSOR_F32, &spans[3]));
    ATTN_TRY(attn_tensor_check(c, "k", a->k, flags | TENSOR_F32, &spans[4]));
    ATTN_TRY(attn_tensor_check(c, "v", a->v, flags | TENSOR_F32, &spans[5]));
    if (l->scoring.mask)
        ATTN_TRY(attn_tensor_check(c, "scoring.mask", l->scoring.mask,
                                   flags | TENSOR_F32 | TENSOR_F16 | TENSOR_BOOL, &spans[6]));
    if (w->pooling == ATTN_POOLING_ADDITIVE)
        ATTN_TRY(attn_tensor_check(c, "weights.w_a", w->w_a, flags | TENSOR_F32, &spans[7]));
    spans[8] = attn_span_of("weights.w_q", w->w_q, (size_t)w->w_q->bytes);
    spans[9] = attn_span_of("weights.w_k", w->w_k, (size_t)w->w_k->bytes);
    spans[10] = attn_span_of("weights.w_v", w->w_v, (size_t)w->w_v->bytes);
    if (l->multi && w->w_o) spans[11] = attn_span_of("weights.w_o", w->w_o, (size_t)w->w_o->bytes);
    const struct attn_scoring_sizes z = attn_pool_sizes(&l->p);
    attn_scoring_spans(&l->scoring, &z, &spans[12]);
    ATTN_TRY(attn_features_overlap(c, "weights.a_q", &l->f_q, spans, OUTPUTS));
    ATTN_TRY(attn_features_overlap(c, "weights.a_k", &l->f_k, spans, OUTPUTS));
    return attn_spans_check(c, spans, SPANS, OUTPUTS);
}

static attn_status prepare(attn_context *c, const attn_head_args *args, int multi, int query,
                           struct call *l) {
    const unsigned flags = query ? TENSOR_NO_DATA : 0;
    struct attn_span out, spans[ATTN_POOL_SPANS];
    size_t n, n_outputs;
    memset(l, 0, sizeof *l);
    l->multi = multi;
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(attn_struct_read(c, "args", &l->a, sizeof l->a, args));
    ATTN_TRY(attn_struct_read(c, "weights", &l->layer.w, sizeof l->layer.w, l->a.weights));
    ATTN_TRY(attn_scoring_read(c, &l->scoring, l->a.scoring, 0));
    ATTN_TRY(attn_layer_check(c, &l->layer, multi));
    const size_t group = l->layer.w.n_head / l->layer.w.n_head_kv;
    const size_t head = multi ? 0 : l->a.head, heads = multi ? l->layer.w.n_head : 1;
    const size_t kv = head / group, kv_heads = multi ? l->layer.w.n_head_kv : 1;
    if (head >= l->layer.w.n_head)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "head is %zu, but there are %zu heads", head,
                         l->layer.w.n_head);
    const attn_tensor *const inputs[] = {l->a.q, l->a.k, l->a.v};
    for (int i = 0; i < 3; i++)
        ATTN_TRY(attn_tensor_check(c, (const char *const[]){"q", "k", "v"}[i], inputs[i], flags | TENSOR_F32,
                                   NULL));
    ATTN_TRY(attn_projection_plan(c, "q", &l->q, l->a.q, l->layer.w.w_q, head, heads, l->layer.p_q));
    ATTN_TRY(attn_projection_plan(c, "k", &l->k, l->a.k, l->layer.w.w_k, kv, kv_heads, l->layer.p_k));
    ATTN_TRY(attn_projection_plan(c, "v", &l->v, l->a.v, l->layer.w.w_v, kv, kv_heads, l->layer.p_v));
    ATTN_TRY(attn_layer_heads(c, &l->layer, multi, "q", l->a.q, l->a.out, heads, flags | TENSOR_F32,
                              &l->heads, &l->heads_bytes, &out));
    ATTN_TRY(plan_pooling(c, l, head, heads, kv));
    ATTN_TRY(attn_pool_check(c, &l->p, 1, spans, &n, &n_outputs)); /* shapes: most of it has no address yet */
    ATTN_TRY(check_memory(c, l, flags, &out));
    return attn_pool_scratch_bytes(c, &l->p, 0, &l->pool_bytes);
}

static attn_status scratch_bytes(attn_context *c, const struct call *l, size_t *bytes) {
    const size_t parts[] = {l->q.bytes,   l->k.bytes,     l->v.bytes,   l->f_q.bytes,
                            l->f_k.bytes, l->heads_bytes, l->pool_bytes};
    *bytes = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!attn_size_add(bytes, parts[i], 1))
            return attn_fail(c, ATTN_ERROR_OVERFLOW,
                             "q: the scratch for its sizes does not fit the address space");
    }
    return ATTN_OK;
}

static attn_status run(attn_context *c, const attn_head_args *args, int multi) {
    struct call l;
    size_t need;
    void *scratch;
    ATTN_TRY(prepare(c, args, multi, 0, &l));
    ATTN_TRY(scratch_bytes(c, &l, &need));
    ATTN_TRY(attn_scratch_take(c, need, &scratch));
    struct attn_projection *const projections[] = {&l.q, &l.k, &l.v};
    char *at = attn_projections_place(projections, scratch);
    attn_projections_run(c, projections);
    attn_features_run(c, &l.f_q, &l.q.view, at);
    at += l.f_q.bytes;
    attn_features_run(c, &l.f_k, &l.k.view, at);
    at += l.f_k.bytes;
    if (l.heads_bytes) l.heads.data = at;
    attn_pool_run(c, &l.p, at + l.heads_bytes);
    if (multi && l.layer.w.w_o) attn_layer_output(c, &l.layer, &l.heads, l.a.out);
    return ATTN_OK;
}

static attn_status query_scratch(attn_context *c, const attn_head_args *args, int multi, size_t *bytes) {
    struct call l;
    size_t need;
    ATTN_TRY(prepare(c, args, multi, 1, &l));
    if (!bytes) return attn_fail(c, ATTN_ERROR_ARGUMENT, "bytes is null");
    ATTN_TRY(scratch_bytes(c, &l, &need));
    *bytes = need + ATTN_ALIGN;
    return ATTN_OK;
}

attn_status attn_head(attn_context *c, const attn_head_args *args) { return run(c, args, 0); }
attn_status attn_head_scratch(attn_context *c, const attn_head_args *args, size_t *bytes) {
    return query_scratch(c, args, 0, bytes);
}
attn_status attn_multihead(attn_context *c, const attn_head_args *args) { return run(c, args, 1); }
attn_status attn_multihead_scratch(attn_context *c, const attn_head_args *args, size_t *bytes) {
    return query_scratch(c, args, 1, bytes);
}
