/* The arguments of attention pooling, checked against each other. */
#include "pool.h"

struct attn_scoring_sizes attn_pool_sizes(const struct attn_pooling_problem *p) {
    return (struct attn_scoring_sizes){p->q->size[BATCH], p->n_head ? p->n_head : p->q->size[HEAD],
                                       p->q->size[ROW], p->k->size[ROW]};
}

static attn_status check_mask(attn_context *c, const struct attn_pooling_problem *p, size_t n_q, size_t n_kv,
                              unsigned flags, struct attn_span *span) {
    const attn_scoring *s = &p->scoring;
    const struct attn_scoring_sizes z = attn_pool_sizes(p);
    const attn_tensor *mask = s->mask;
    *span = attn_span_of("scoring.mask", NULL, 0);
    if (!mask) return ATTN_OK;
    ATTN_TRY(attn_tensor_check(c, "scoring.mask", mask, TENSOR_F32 | TENSOR_F16 | TENSOR_BOOL | flags, span));
    return attn_tensor_expect(c, "scoring.mask", mask,
                              mask->size[BATCH] == 1 ? 1
                              : s->q_starts          ? s->n_sequences
                                                     : z.batch,
                              mask->size[HEAD] == 1 ? 1 : z.n_head, mask->size[ROW] == 1 ? 1 : n_q,
                              mask->size[COLUMN] == 1 ? 1 : n_kv);
}

/* An optional output [batch, n_head, n_q, columns]. */
static attn_status check_extra(attn_context *c, const char *name, const attn_tensor *t, const attn_tensor *q,
                               size_t columns, unsigned flags, struct attn_span *span) {
    *span = attn_span_of(name, NULL, 0);
    if (!t) return ATTN_OK;
    ATTN_TRY(attn_tensor_check(c, name, t, TENSOR_F32 | TENSOR_OUTPUT | flags, span));
    return attn_tensor_expect(c, name, t, q->size[BATCH], q->size[HEAD], q->size[ROW], columns);
}

static attn_status check_inputs(attn_context *c, const struct attn_pooling_problem *p, unsigned flags,
                                struct attn_span *spans) {
    const attn_tensor *q = p->q, *k = p->k, *v = p->v;
    ATTN_TRY(attn_tensor_check(c, "q", q, TENSOR_F32 | flags, &spans[0]));
    ATTN_TRY(attn_tensor_check(c, "k", k, TENSOR_F32 | flags, &spans[1]));
    ATTN_TRY(attn_tensor_check(c, "v", v, TENSOR_F32 | flags, &spans[2]));
    if (!q->size[COLUMN]) return attn_fail(c, ATTN_ERROR_SHAPE, "q: it has no columns");
    if (!v->size[COLUMN]) return attn_fail(c, ATTN_ERROR_SHAPE, "v: it has no columns");
    ATTN_TRY(attn_tensor_expect(c, "k", k, q->size[BATCH], SIZE_MAX, SIZE_MAX, q->size[COLUMN]));
    ATTN_TRY(attn_tensor_expect(c, "v", v, q->size[BATCH], k->size[HEAD], k->size[ROW], SIZE_MAX));
    if (!k->size[HEAD] || !q->size[HEAD] || q->size[HEAD] % k->size[HEAD])
        return attn_fail(c, ATTN_ERROR_SHAPE, "q: its head size %zu is no multiple of k's %zu", q->size[HEAD],
                         k->size[HEAD]);
    return ATTN_OK;
}

attn_status attn_pool_check(attn_context *c, const struct attn_pooling_problem *p, int query,
                            struct attn_span *spans, size_t *n_spans, size_t *n_outputs) {
    const unsigned flags = query ? TENSOR_NO_DATA : 0;
    const attn_tensor *q = p->q;
    size_t most_q, most_kv;
    ATTN_TRY(check_inputs(c, p, flags, spans + 4));
    const struct attn_scoring_sizes z = attn_pool_sizes(p);
    ATTN_TRY(attn_tensor_check(c, "out", p->out, TENSOR_F32 | TENSOR_OUTPUT | flags, &spans[0]));
    ATTN_TRY(attn_tensor_expect(c, "out", p->out, q->size[BATCH], q->size[HEAD], q->size[ROW],
                                p->v->size[COLUMN]));
    ATTN_TRY(attn_scoring_check(c, &p->scoring, &z));
    attn_sequences_most(&p->scoring, &z, &most_q, &most_kv);
    ATTN_TRY(check_extra(c, "lse", p->lse, q, 1, flags, &spans[1]));
    ATTN_TRY(check_extra(c, p->weights_name, p->weights, q, most_kv, flags, &spans[2]));
    ATTN_TRY(check_extra(c, "lse_sinks", p->lse_sinks, q, 1, flags, &spans[3]));
    ATTN_TRY(check_mask(c, p, most_q, most_kv, flags, &spans[7]));
    spans[8] = attn_span_of(p->w_name, NULL, 0);
    if (p->w) {
        ATTN_TRY(attn_tensor_check(c, p->w_name, p->w, TENSOR_F32 | flags, &spans[8]));
        ATTN_TRY(attn_tensor_expect(c, p->w_name, p->w, 1, p->w->size[HEAD] == 1 ? 1 : q->size[HEAD], 1,
                                    q->size[COLUMN]));
    }
    attn_scoring_spans(&p->scoring, &z, &spans[9]);
    *n_spans = ATTN_POOL_SPANS;
    *n_outputs = ATTN_POOL_OUTPUTS;
    return ATTN_OK;
}
