#include "additive.h"

#include <stdio.h>

#include "linear.h"
#include "pool.h"

attn_status attn_features_plan(attn_context *c, const char *name, const attn_packed *const *a, size_t first,
                               const attn_tensor *x, struct attn_features *f) {
    *f = (struct attn_features){.a = a, .first = first, .heads = x->size[HEAD], .view = *x};
    if (!a) return ATTN_OK;
    for (size_t h = first; h < first + x->size[HEAD]; h++) {
        char which[48];
        snprintf(which, sizeof which, "%s[%zu]", name, h);
        ATTN_TRY(attn_packed_check(c, which, a[h]));
        if (a[h]->k != x->size[COLUMN])
            return attn_fail(c, ATTN_ERROR_SHAPE, "%s: it takes %zu inputs, but its rows have %zu", which,
                             (size_t)a[h]->k, x->size[COLUMN]);
        if (a[h]->n != a[first]->n)
            return attn_fail(c, ATTN_ERROR_SHAPE, "%s: it has %zu outputs, %s[%zu] has %zu", which,
                             (size_t)a[h]->n, name, first, (size_t)a[first]->n);
    }
    const size_t n = x->size[HEAD] ? (size_t)a[first]->n : 0;
    size_t rows;
    if (__builtin_mul_overflow(x->size[BATCH], x->size[HEAD], &rows) ||
        __builtin_mul_overflow(rows, x->size[ROW], &rows) || __builtin_mul_overflow(rows, n, &rows) ||
        !attn_size_add(&f->bytes, rows, sizeof(float)))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "%s: its results do not fit the address space", name);
    f->view = attn_tensor_contiguous(NULL, ATTN_F32, x->size[BATCH], x->size[HEAD], x->size[ROW], n);
    return ATTN_OK;
}

attn_status attn_features_match(attn_context *c, const struct attn_features *q,
                                const struct attn_features *k) {
    const size_t c_q = q->view.size[COLUMN], c_k = k->view.size[COLUMN];
    if (c_q == c_k || !q->heads || !k->heads) return ATTN_OK;
    return attn_fail(c, ATTN_ERROR_SHAPE, "%s gives %zu features a row, but %s gives %zu", q->a ? "a_q" : "q",
                     c_q, k->a ? "a_k" : "k", c_k);
}

attn_status attn_features_overlap(attn_context *c, const char *name, const struct attn_features *f,
                                  const struct attn_span *outputs, size_t n_outputs) {
    for (size_t h = 0; f->a && h < f->heads; h++) {
        for (size_t i = 0; i < n_outputs; i++) {
            const struct attn_span pair[2] = {
                outputs[i], attn_span_of(name, f->a[f->first + h], (size_t)f->a[f->first + h]->bytes)};
            ATTN_TRY(attn_spans_check(c, pair, 2, 1));
        }
    }
    return ATTN_OK;
}

void attn_features_run(attn_context *c, struct attn_features *f, const attn_tensor *x, void *memory) {
    if (!f->a) {
        f->view = *x;
        return;
    }
    f->view.data = memory;
    for (size_t h = 0; h < x->size[HEAD]; h++) {
        attn_tensor from = *x, to = f->view;
        from.size[HEAD] = to.size[HEAD] = 1;
        if (from.data) from.data = (char *)from.data + (ptrdiff_t)h * from.stride[HEAD];
        to.data = (char *)to.data + (ptrdiff_t)h * to.stride[HEAD];
        const attn_packed *a = f->a[f->first + h];
        attn_linear_run(c, &(struct attn_linear_call){&from, a, 0, (size_t)a->n, &to}, 1);
    }
}

struct additive {
    struct attn_pooling_problem p;
    const attn_tensor *q, *k;
    struct attn_features f_q, f_k;
    size_t pool_bytes;
};

/* q and k are checked for themselves here; the features' sizes are then those the pooling sees. */
static attn_status prepare(attn_context *c, const attn_additive_args *args, int query, struct additive *x) {
    attn_additive_args a;
    struct attn_span spans[ATTN_POOL_SPANS + 2];
    const unsigned flags = TENSOR_F32 | (query ? TENSOR_NO_DATA : 0);
    size_t n, n_outputs;
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(attn_struct_read(c, "args", &a, sizeof a, args));
    ATTN_TRY(attn_tensor_check(c, "q", a.q, flags, &spans[ATTN_POOL_SPANS]));
    ATTN_TRY(attn_tensor_check(c, "k", a.k, flags, &spans[ATTN_POOL_SPANS + 1]));
    if (!a.w) return attn_fail(c, ATTN_ERROR_ARGUMENT, "w is null");
    ATTN_TRY(attn_features_plan(c, "a_q", a.a_q, 0, a.q, &x->f_q));
    ATTN_TRY(attn_features_plan(c, "a_k", a.a_k, 0, a.k, &x->f_k));
    ATTN_TRY(attn_features_match(c, &x->f_q, &x->f_k));
    x->q = a.q;
    x->k = a.k;
    x->p = (struct attn_pooling_problem){.score = ATTN_SCORE_ADDITIVE,
                                         .q = &x->f_q.view,
                                         .k = &x->f_k.view,
                                         .v = a.v,
                                         .w = a.w,
                                         .out = a.out,
                                         .lse = a.lse,
                                         .weights = a.weights,
                                         .weights_name = "weights",
                                         .w_name = "w"};
    ATTN_TRY(attn_scoring_read(c, &x->p.scoring, a.scoring, 0));
    struct attn_pooling_problem check = x->p; /* what lies in scratch has no address yet */
    attn_tensor q = x->f_q.view, k = x->f_k.view;
    if (x->f_q.a) q.data = a.q->data;
    if (x->f_k.a) k.data = a.k->data;
    check.q = &q;
    check.k = &k;
    ATTN_TRY(attn_pool_check(c, &check, query, spans, &n, &n_outputs));
    if (x->f_q.a) spans[ATTN_POOL_OUTPUTS] = spans[ATTN_POOL_SPANS];
    if (x->f_k.a) spans[ATTN_POOL_OUTPUTS + 1] = spans[ATTN_POOL_SPANS + 1];
    ATTN_TRY(attn_spans_check(c, spans, n, n_outputs));
    ATTN_TRY(attn_features_overlap(c, "a_q", &x->f_q, spans, n_outputs));
    ATTN_TRY(attn_features_overlap(c, "a_k", &x->f_k, spans, n_outputs));
    return attn_pool_scratch_bytes(c, &x->p, 0, &x->pool_bytes);
}

static attn_status scratch_bytes(attn_context *c, const struct additive *x, size_t *bytes) {
    *bytes = 0;
    if (!attn_size_add(bytes, x->pool_bytes, 1) || !attn_size_add(bytes, x->f_q.bytes, 1) ||
        !attn_size_add(bytes, x->f_k.bytes, 1))
        return attn_fail(c, ATTN_ERROR_OVERFLOW,
                         "q: the scratch for its sizes does not fit the address space");
    return ATTN_OK;
}

attn_status attn_additive_scratch(attn_context *c, const attn_additive_args *args, size_t *bytes) {
    struct additive x;
    size_t need;
    ATTN_TRY(prepare(c, args, 1, &x));
    if (!bytes) return attn_fail(c, ATTN_ERROR_ARGUMENT, "bytes is null");
    ATTN_TRY(scratch_bytes(c, &x, &need));
    *bytes = need + ATTN_ALIGN;
    return ATTN_OK;
}

attn_status attn_additive(attn_context *c, const attn_additive_args *args) {
    struct additive x;
    size_t need;
    void *scratch;
    ATTN_TRY(prepare(c, args, 0, &x));
    ATTN_TRY(scratch_bytes(c, &x, &need));
    ATTN_TRY(attn_scratch_take(c, need, &scratch));
    char *at = scratch;
    attn_features_run(c, &x.f_q, x.q, at);
    at += x.f_q.bytes;
    attn_features_run(c, &x.f_k, x.k, at);
    at += x.f_k.bytes;
    attn_pool_run(c, &x.p, at);
    return ATTN_OK;
}
