/* Whole heads (eq. 11.5.1): projections, pooling, W_o. attn_head is attn_multihead over a range of one head. */
#include <string.h>

#include "additive.h"
#include "linear.h"
#include "pool.h"

/*
 * One of W_q, W_k, W_v over heads [first, first + heads) of the stack. The linear kernels work on whole panels,
 * so where the heads do not begin at a panel's edge, the panel's earlier outputs are computed too (`skip`).
 */
struct projection {
    const attn_packed *w;
    const attn_tensor *x;
    size_t o0, o1;
    attn_tensor y;    /* [batch, 1, rows, o1 - o0] in scratch */
    attn_tensor view; /* [batch, heads, rows, p] of y */
    size_t skip, bytes;
};

struct layer {
    attn_weights w;
    attn_scoring scoring;
    attn_head_args a;
    int multi;
    size_t p_q, p_k, p_v;
    struct projection q, k, v;
    struct attn_features f_q, f_k;
    struct attn_pooling_problem p;
    attn_tensor w_a;   /* the range's part of weights.w_a */
    attn_tensor heads; /* the pooling's output [batch, heads, n_q, p_v]: in out, or before W_o in scratch */
    size_t heads_bytes, pool_bytes;
};

static attn_status check_stack(attn_context *c, const char *name, const attn_packed *w, size_t heads,
                               size_t *p) {
    ATTN_TRY(attn_packed_check(c, name, w));
    if (!heads || w->n % heads)
        return attn_fail(c, ATTN_ERROR_SHAPE, "%s: its %zu outputs are no multiple of %zu heads", name,
                         (size_t)w->n, heads);
    *p = (size_t)w->n / heads;
    return ATTN_OK;
}

static attn_status check_weights(attn_context *c, struct layer *l) {
    const attn_weights *w = &l->w;
    if (!w->n_head || !w->n_head_kv || w->n_head % w->n_head_kv)
        return attn_fail(c, ATTN_ERROR_SHAPE, "weights.n_head: %zu is no multiple of n_head_kv = %zu",
                         w->n_head, w->n_head_kv);
    if ((unsigned)w->pooling > ATTN_POOLING_ADDITIVE)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "weights.pooling has no value %d", (int)w->pooling);
    ATTN_TRY(check_stack(c, "weights.w_q", w->w_q, w->n_head, &l->p_q));
    ATTN_TRY(check_stack(c, "weights.w_k", w->w_k, w->n_head_kv, &l->p_k));
    ATTN_TRY(check_stack(c, "weights.w_v", w->w_v, w->n_head_kv, &l->p_v));
    if (w->pooling == ATTN_POOLING_DOT && l->p_q != l->p_k)
        return attn_fail(c, ATTN_ERROR_SHAPE,
                         "weights.w_k: p_k is %zu, but dot-product pooling needs p_q = %zu", l->p_k, l->p_q);
    if (w->pooling == ATTN_POOLING_ADDITIVE && !w->w_a)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "weights.w_a is null");
    if (l->multi && w->w_o) {
        ATTN_TRY(attn_packed_check(c, "weights.w_o", w->w_o));
        if (w->w_o->k != w->n_head * l->p_v)
            return attn_fail(c, ATTN_ERROR_SHAPE, "weights.w_o: it takes %zu inputs, but the heads give %zu",
                             (size_t)w->w_o->k, w->n_head * l->p_v);
    }
    return ATTN_OK;
}

static attn_status plan_projection(attn_context *c, const char *name, struct projection *j,
                                   const attn_tensor *x, const attn_packed *w, size_t first, size_t heads,
                                   size_t p) {
    const size_t nr = c->backend->layout, n = (size_t)w->n;
    const size_t begin = first * p, end = begin + heads * p;
    ATTN_TRY(attn_tensor_expect(c, name, x, SIZE_MAX, 1, SIZE_MAX, (size_t)w->k));
    j->w = w;
    j->x = x;
    j->o0 = begin - begin % nr;
    j->o1 = end % nr ? (end / nr + 1) * nr : end;
    if (j->o1 > n) j->o1 = n;
    j->skip = begin - j->o0;
    const size_t width = j->o1 - j->o0;
    size_t rows, floats;
    j->bytes = 0;
    if (__builtin_mul_overflow(x->size[BATCH], x->size[ROW], &rows) ||
        __builtin_mul_overflow(rows, width, &floats) || !attn_size_add(&j->bytes, floats, sizeof(float)))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "%s: its projection does not fit the address space", name);
    j->y = attn_tensor_contiguous(NULL, ATTN_F32, x->size[BATCH], 1, x->size[ROW], width);
    j->view = j->y;
    j->view.size[HEAD] = heads;
    j->view.size[COLUMN] = p;
    j->view.stride[HEAD] = (ptrdiff_t)(p * sizeof(float));
    return ATTN_OK;
}

/* All three as one round of tasks; returns what follows them in scratch. */
static char *run_projections(attn_context *c, struct projection *const j[3], char *at) {
    struct attn_linear_call calls[3];
    for (size_t i = 0; i < 3; i++) {
        j[i]->y.data = at;
        j[i]->view.data = (float *)(void *)at + j[i]->skip;
        calls[i] = (struct attn_linear_call){j[i]->x, j[i]->w, j[i]->o0, j[i]->o1, &j[i]->y};
        at += j[i]->bytes;
    }
    attn_linear_run(c, calls, 3);
    return at;
}

/* Where the pooling writes: out, seen as heads; or scratch, where W_o follows. */
static attn_status plan_heads(attn_context *c, struct layer *l, size_t heads, unsigned flags,
                              struct attn_span *span) {
    const attn_tensor *q = l->a.q, *out = l->a.out;
    const size_t width = heads * l->p_v;
    const int projects = l->multi && l->w.w_o;
    ATTN_TRY(attn_tensor_check(c, "out", out, flags | TENSOR_OUTPUT, span));
    ATTN_TRY(attn_tensor_expect(c, "out", out, q->size[BATCH], 1, q->size[ROW],
                                projects ? (size_t)l->w.w_o->n : width));
    l->heads = *out;
    l->heads_bytes = 0;
    if (projects) {
        size_t rows, floats;
        if (__builtin_mul_overflow(q->size[BATCH], q->size[ROW], &rows) ||
            __builtin_mul_overflow(rows, width, &floats) ||
            !attn_size_add(&l->heads_bytes, floats, sizeof(float)))
            return attn_fail(c, ATTN_ERROR_OVERFLOW, "q: the heads' outputs do not fit the address space");
        l->heads = attn_tensor_contiguous(NULL, ATTN_F32, q->size[BATCH], 1, q->size[ROW], width);
    }
    l->heads.size[HEAD] = heads;
    l->heads.size[COLUMN] = l->p_v;
    l->heads.stride[HEAD] = (ptrdiff_t)(l->p_v * sizeof(float));
    l->heads.stride[COLUMN] = sizeof(float);
    return ATTN_OK;
}

static attn_status plan_pooling(attn_context *c, struct layer *l, size_t head, size_t heads, size_t kv) {
    const attn_weights *w = &l->w;
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

static attn_status check_memory(attn_context *c, const struct layer *l, unsigned flags,
                                const struct attn_span *out) {
    const attn_head_args *a = &l->a;
    const attn_weights *w = &l->w;
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
                           struct layer *l) {
    const unsigned flags = query ? TENSOR_NO_DATA : 0;
    struct attn_span out, spans[ATTN_POOL_SPANS];
    size_t n, n_outputs;
    memset(l, 0, sizeof *l);
    l->multi = multi;
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(attn_struct_read(c, "args", &l->a, sizeof l->a, args));
    ATTN_TRY(attn_struct_read(c, "weights", &l->w, sizeof l->w, l->a.weights));
    ATTN_TRY(attn_scoring_read(c, &l->scoring, l->a.scoring, 0));
    ATTN_TRY(check_weights(c, l));
    const size_t group = l->w.n_head / l->w.n_head_kv;
    const size_t head = multi ? 0 : l->a.head, heads = multi ? l->w.n_head : 1;
    const size_t kv = head / group, kv_heads = multi ? l->w.n_head_kv : 1;
    if (head >= l->w.n_head)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "head is %zu, but there are %zu heads", head, l->w.n_head);
    const attn_tensor *const inputs[] = {l->a.q, l->a.k, l->a.v};
    for (int i = 0; i < 3; i++)
        ATTN_TRY(attn_tensor_check(c, (const char *const[]){"q", "k", "v"}[i], inputs[i], flags | TENSOR_F32,
                                   NULL));
    ATTN_TRY(plan_projection(c, "q", &l->q, l->a.q, l->w.w_q, head, heads, l->p_q));
    ATTN_TRY(plan_projection(c, "k", &l->k, l->a.k, l->w.w_k, kv, kv_heads, l->p_k));
    ATTN_TRY(plan_projection(c, "v", &l->v, l->a.v, l->w.w_v, kv, kv_heads, l->p_v));
    ATTN_TRY(plan_heads(c, l, heads, flags | TENSOR_F32, &out));
    ATTN_TRY(plan_pooling(c, l, head, heads, kv));
    ATTN_TRY(attn_pool_check(c, &l->p, 1, spans, &n, &n_outputs)); /* shapes: most of it has no address yet */
    ATTN_TRY(check_memory(c, l, flags, &out));
    return attn_pool_scratch_bytes(c, &l->p, 0, &l->pool_bytes);
}

static attn_status scratch_bytes(attn_context *c, const struct layer *l, size_t *bytes) {
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
    struct layer l;
    size_t need;
    void *scratch;
    ATTN_TRY(prepare(c, args, multi, 0, &l));
    ATTN_TRY(scratch_bytes(c, &l, &need));
    ATTN_TRY(attn_scratch_take(c, need, &scratch));
    char *at = run_projections(c, (struct projection *const[]){&l.q, &l.k, &l.v}, scratch);
    attn_features_run(c, &l.f_q, &l.q.view, at);
    at += l.f_q.bytes;
    attn_features_run(c, &l.f_k, &l.k.view, at);
    at += l.f_k.bytes;
    if (l.heads_bytes) l.heads.data = at;
    attn_pool_run(c, &l.p, at + l.heads_bytes);
    if (multi && l.w.w_o) {
        const attn_tensor concatenated = attn_tensor_contiguous(l.heads.data, ATTN_F32, l.heads.size[BATCH],
                                                                1, l.heads.size[ROW], l.w.n_head * l.p_v);
        attn_linear_run(c, &(struct attn_linear_call){&concatenated, l.w.w_o, 0, (size_t)l.w.w_o->n, l.a.out},
                        1);
    }
    return ATTN_OK;
}

static attn_status query_scratch(attn_context *c, const attn_head_args *args, int multi, size_t *bytes) {
    struct layer l;
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
