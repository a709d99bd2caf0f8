/* The arguments of attention pooling, checked against each other. */
#include "pool.h"

#include "size.h"

struct attn_scoring_sizes attn_pool_sizes(const struct attn_pooling_problem *p) {
    struct attn_scoring_sizes z = {.batch = p->q->size[BATCH],
                                   .n_head = p->n_head ? p->n_head : p->q->size[HEAD],
                                   .n_q = p->q->size[ROW],
                                   .n_kv = p->k->size[ROW],
                                   .kv = p->kv,
                                   .kv_sequences = p->kv_sequences};
    if (!p->kv) return z;
    z.n_kv = 0;
    for (size_t b = 0; p->kv->kv.lengths && b < attn_sequences_named(&p->scoring, &z); b++)
        z.n_kv = attn_max(z.n_kv, attn_kv_length(p->kv, p->kv_sequences ? p->kv_sequences[b] : b));
    return z;
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

static attn_status check_group(attn_context *c, const attn_tensor *q, size_t n_head_kv) {
    if (n_head_kv && q->size[HEAD] && q->size[HEAD] % n_head_kv == 0) return ATTN_OK;
    return attn_fail(c, ATTN_ERROR_SHAPE, "q: its head size %zu is no multiple of k's %zu", q->size[HEAD],
                     n_head_kv);
}

/* A cache, and the sequences of it that are named. */
static attn_status check_cached(attn_context *c, const struct attn_pooling_problem *p, unsigned flags,
                                struct attn_span *spans) {
    const struct attn_kv_view *kv = p->kv;
    const size_t n = p->scoring.q_starts ? p->scoring.n_sequences : p->q->size[BATCH];
    struct attn_span span;
    spans[0] = kv->spans[0];
    spans[1] = kv->spans[1];
    ATTN_TRY(attn_kv_array(c, "kv_sequences", p->kv_sequences, n, sizeof *p->kv_sequences, &span));
    if (p->q->size[COLUMN] != kv->p_k)
        return attn_fail(c, ATTN_ERROR_SHAPE, "q: its column size is %zu, but kv.k's keys have %zu",
                         p->q->size[COLUMN], kv->p_k);
    if (!p->kv_sequences && n > kv->kv.n_sequences)
        return attn_fail(c, ATTN_ERROR_SHAPE, "kv has %zu sequences, but the call has %zu",
                         kv->kv.n_sequences, n);
    for (size_t b = 0; b < n; b++) {
        const size_t s = p->kv_sequences ? p->kv_sequences[b] : b;
        if (s >= kv->kv.n_sequences)
            return attn_fail(c, ATTN_ERROR_SHAPE, "kv_sequences[%zu] is %zu, but kv has %zu sequences", b, s,
                             kv->kv.n_sequences);
        if (!(flags & TENSOR_NO_DATA)) ATTN_TRY(attn_kv_check_sequence(c, kv, s));
    }
    return check_group(c, p->q, kv->n_head);
}

static attn_status check_inputs(attn_context *c, const struct attn_pooling_problem *p, unsigned flags,
                                struct attn_span *spans) {
    const attn_tensor *q = p->q, *k = p->k, *v = p->v;
    const unsigned kv = p->typed ? TENSOR_KV : TENSOR_F32;
    ATTN_TRY(attn_tensor_check(c, "q", q, (p->typed ? TENSOR_FLOATS : TENSOR_F32) | flags, &spans[0]));
    if (p->kv) return check_cached(c, p, flags, spans + 1);
    ATTN_TRY(attn_tensor_check(c, "k", k, kv | flags, &spans[1]));
    ATTN_TRY(attn_tensor_check(c, "v", v, kv | flags, &spans[2]));
    if (!q->size[COLUMN]) return attn_fail(c, ATTN_ERROR_SHAPE, "q: it has no columns");
    if (!v->size[COLUMN]) return attn_fail(c, ATTN_ERROR_SHAPE, "v: it has no columns");
    ATTN_TRY(attn_tensor_expect(c, "k", k, q->size[BATCH], SIZE_MAX, SIZE_MAX, q->size[COLUMN]));
    ATTN_TRY(attn_tensor_expect(c, "v", v, q->size[BATCH], k->size[HEAD], k->size[ROW], SIZE_MAX));
    return check_group(c, q, k->size[HEAD]);
}

/* No row reaches for a key that a ring has overwritten. */
static attn_status check_ring(attn_context *c, const struct attn_pooling_problem *p, int query,
                              const struct attn_scoring_sizes *z) {
    for (size_t b = 0; !query && p->kv && p->kv->kv.firsts && b < attn_sequences_named(&p->scoring, z); b++) {
        const struct attn_sequence q = attn_sequence_at(&p->scoring, z, b);
        for (size_t i = 0; q.first && i < q.n_q; i++) {
            const struct attn_sight see = attn_sight_of(&p->scoring, &q, i);
            if (see.also || (see.lo < see.hi && see.lo < q.first))
                return attn_fail(c, ATTN_ERROR_ARGUMENT,
                                 "kv: row %zu of sequence %zu sees key %zu, but the ring's first one is %zu",
                                 i, b, see.also ? 0 : see.lo, q.first);
        }
    }
    return ATTN_OK;
}

/* The arrays of a cache: outputs must not overlap them. */
static void cached_spans(const struct attn_pooling_problem *p, size_t n, struct attn_span *spans) {
    for (int i = 0; i < ATTN_KV_SPANS - 2; i++)
        spans[i] = p->kv ? p->kv->spans[2 + i] : attn_span_of("kv", NULL, 0);
    spans[ATTN_KV_SPANS - 2] = attn_span_of("kv_sequences", p->kv_sequences, n * sizeof *p->kv_sequences);
}

attn_status attn_pool_check(attn_context *c, const struct attn_pooling_problem *p, int query,
                            struct attn_span *spans, size_t *n_spans, size_t *n_outputs) {
    const unsigned flags = query ? TENSOR_NO_DATA : 0;
    const attn_tensor *q = p->q;
    size_t most_q, most_kv;
    ATTN_TRY(check_inputs(c, p, flags, spans + ATTN_POOL_OUTPUTS));
    const struct attn_scoring_sizes z = attn_pool_sizes(p);
    ATTN_TRY(attn_tensor_check(c, "out", p->out,
                               (p->typed ? TENSOR_FLOATS : TENSOR_F32) | TENSOR_OUTPUT | flags, &spans[0]));
    ATTN_TRY(attn_tensor_expect(c, "out", p->out, q->size[BATCH], q->size[HEAD], q->size[ROW],
                                p->v->size[COLUMN]));
    ATTN_TRY(attn_scoring_check(c, &p->scoring, &z));
    ATTN_TRY(check_ring(c, p, query, &z));
    attn_sequences_most(&p->scoring, &z, &most_q, &most_kv);
    if (p->kv && !p->kv->kv.lengths) most_kv = SIZE_MAX; /* a query that leaves it open */
    ATTN_TRY(check_extra(c, "lse", p->lse, q, 1, flags, &spans[1]));
    ATTN_TRY(check_extra(c, p->weights_name, p->weights, q, most_kv, flags, &spans[2]));
    ATTN_TRY(check_extra(c, "lse_sinks", p->lse_sinks, q, 1, flags, &spans[3]));
    ATTN_TRY(check_extra(c, "scores", p->scores, q, most_kv, flags, &spans[4]));
    ATTN_TRY(check_mask(c, p, most_q, most_kv, flags, &spans[8]));
    spans[9] = attn_span_of(p->w_name, NULL, 0);
    if (p->w) {
        ATTN_TRY(attn_tensor_check(c, p->w_name, p->w, TENSOR_F32 | flags, &spans[9]));
        ATTN_TRY(attn_tensor_expect(c, p->w_name, p->w, 1, p->w->size[HEAD] == 1 ? 1 : q->size[HEAD], 1,
                                    q->size[COLUMN]));
    }
    attn_scoring_spans(&p->scoring, &z, &spans[10]);
    cached_spans(p, attn_sequences_named(&p->scoring, &z), &spans[10 + ATTN_SCORING_SPANS]);
    *n_spans = ATTN_POOL_SPANS;
    *n_outputs = ATTN_POOL_OUTPUTS;
    return ATTN_OK;
}
