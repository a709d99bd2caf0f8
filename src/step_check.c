/* The arguments of attn_multihead_step(): everything is checked before anything is written. */
#include <math.h>
#include <string.h>

#include "pack.h"
#include "size.h"
#include "step.h"

/* ---- What does not depend on lengths ------------------------------------------------------------------- */

static attn_status read_scoring(attn_context *c, struct attn_step *s) {
    attn_scoring *to = &s->scoring;
    ATTN_TRY(attn_scoring_read(c, to, s->a.scoring, 1));
    if (!s->a.scoring) to->causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    const char *given = to->q_lengths    ? "q_lengths"
                        : to->kv_lengths ? "kv_lengths"
                        : to->q_starts   ? "q_starts"
                                         : NULL;
    if (given)
        return attn_fail(c, ATTN_ERROR_ARGUMENT,
                         "scoring.%s is given; args.counts or args.starts and the cache say it", given);
    to->q_lengths = s->a.counts;
    to->q_starts = s->a.starts;
    to->n_sequences = s->a.n_starts;
    return ATTN_OK;
}

static attn_status check_weights(attn_context *c, struct attn_step *s) {
    const attn_weights *w = &s->layer.w;
    const struct attn_kv_view *kv = &s->append.view;
    ATTN_TRY(attn_layer_check(c, &s->layer, 1));
    if (w->pooling != ATTN_POOLING_DOT)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "weights.pooling: a cache serves the dot product only");
    if (w->n_head_kv != kv->n_head)
        return attn_fail(c, ATTN_ERROR_SHAPE, "weights.n_head_kv is %zu, but kv has %zu heads", w->n_head_kv,
                         kv->n_head);
    if (s->layer.p_k != kv->p_k)
        return attn_fail(c, ATTN_ERROR_SHAPE, "weights.w_k: p_k is %zu, but kv.k's keys have %zu columns",
                         s->layer.p_k, kv->p_k);
    if (s->layer.p_v != kv->p_v)
        return attn_fail(c, ATTN_ERROR_SHAPE, "weights.w_v: p_v is %zu, but kv.v has %zu columns",
                         s->layer.p_v, kv->p_v);
    return ATTN_OK;
}

static attn_status check_norms(attn_context *c, struct attn_step *s, struct attn_span *spans) {
    const attn_step_args *a = &s->a;
    if (!isfinite(a->norm_epsilon) || a->norm_epsilon < 0.0f)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "args.norm_epsilon is negative or not finite");
    ATTN_TRY(attn_kv_array(c, "args.q_norm", a->q_norm, s->layer.p_q, sizeof *a->q_norm, &spans[0]));
    return attn_kv_array(c, "args.k_norm", a->k_norm, s->layer.p_k, sizeof *a->k_norm, &spans[1]);
}

/* What attn_kv_append_check() says of k, said of x first. */
static attn_status check_rows(attn_context *c, const struct attn_step *s) {
    const attn_step_args *a = &s->a;
    const size_t n = a->starts ? a->n_starts : a->x->size[BATCH];
    if (a->starts && a->counts)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "args.counts is given beside args.starts");
    if (a->starts && a->x->size[BATCH] != 1)
        return attn_fail(c, ATTN_ERROR_SHAPE, "x: its batch size is %zu, but with args.starts it is 1",
                         a->x->size[BATCH]);
    if (n > s->append.view.kv.n_sequences) /* and none comes twice */
        return attn_fail(c, ATTN_ERROR_SHAPE, "%s: %zu sequences, but kv has %zu",
                         a->starts ? "args.n_starts" : "x", n, s->append.view.kv.n_sequences);
    return ATTN_OK;
}

static attn_status read_append(attn_context *c, struct attn_step *s, int query) {
    struct attn_kv_append *to = &s->append;
    ATTN_TRY(check_rows(c, s));
    to->k = s->k.view;
    to->v = s->v.view;
    to->sequences = s->a.sequences;
    to->counts = s->a.counts;
    to->starts = s->a.starts;
    to->n_starts = s->a.n_starts;
    to->positions = s->a.positions;
    to->rotated = s->a.rope != NULL;
    if (s->a.rope) ATTN_TRY(attn_rope_read(c, "rope", s->a.rope, s->layer.p_k, &to->rope));
    ATTN_TRY(attn_kv_append_check(c, to, query));
    if (s->a.starts && s->a.starts[0])
        return attn_fail(c, ATTN_ERROR_SHAPE, "args.starts[0] is %zu, but it must be 0", s->a.starts[0]);
    for (size_t b = 0; !query && b < to->n_pieces; b++)
        ATTN_TRY(attn_kv_check_sequence(c, &to->view, attn_step_sequence(s, b)));
    return ATTN_OK;
}

/* ---- Scratch ------------------------------------------------------------------------------------------- */

static int add_part(struct attn_step *s, enum step_part part, size_t n, size_t each) {
    s->at[part] = s->bytes;
    return attn_size_add(&s->bytes, n, each);
}

static attn_status plan_scratch(attn_context *c, struct attn_step *s) {
    const size_t n = s->append.n_pieces;
    size_t projections = 0;
    s->turn = (struct attn_turn){.q = &s->q,
                                 .k = &s->k,
                                 .rows = s->a.x->size[BATCH] * s->a.x->size[ROW],
                                 .q_norm = s->a.q_norm,
                                 .k_norm = s->a.k_norm,
                                 .epsilon = s->a.norm_epsilon == 0.0f ? 1e-6f : s->a.norm_epsilon,
                                 .rope = s->append.rotated ? &s->append.rope : NULL};
    const int fits =
        attn_turn_plan(&s->turn) && attn_size_add(&projections, s->q.bytes, 1) &&
        attn_size_add(&projections, s->k.bytes, 1) && attn_size_add(&projections, s->v.bytes, 1) &&
        add_part(s, STEP_PROJECTIONS, projections, 1) && add_part(s, STEP_HEADS, s->heads_bytes, 1) &&
        add_part(s, STEP_LENGTHS, n, sizeof(size_t)) && add_part(s, STEP_FIRSTS, n, sizeof(size_t)) &&
        add_part(s, STEP_POSITIONS, s->turn.rope ? s->turn.rows : 0, sizeof(int64_t)) &&
        add_part(s, STEP_WORKERS, c->executor.n_workers, s->turn.worker_bytes) &&
        add_part(s, STEP_APPEND, s->append.bytes, 1);
    if (fits) return ATTN_OK;
    return attn_fail(c, ATTN_ERROR_OVERFLOW, "x: the scratch for it does not fit the address space");
}

void attn_step_place(struct attn_step *s, char *scratch) {
    attn_projections_place((struct attn_projection *const[]){&s->q, &s->k, &s->v},
                           scratch + s->at[STEP_PROJECTIONS]);
    s->append.k.data = s->k.view.data;
    s->append.v.data = s->v.view.data;
    if (s->layer.w.w_o) s->heads.data = scratch + s->at[STEP_HEADS];
    s->after.kv.lengths = (size_t *)(void *)(scratch + s->at[STEP_LENGTHS]);
    if (s->after.kv.firsts) s->after.kv.firsts = (size_t *)(void *)(scratch + s->at[STEP_FIRSTS]);
    s->turn.positions = (int64_t *)(void *)(scratch + s->at[STEP_POSITIONS]);
    s->turn.workers = scratch + s->at[STEP_WORKERS];
}

attn_status attn_step_read(attn_context *c, const attn_step_args *args, int query, struct attn_step *s) {
    const unsigned flags = TENSOR_F32 | (query ? TENSOR_NO_DATA : 0);
    const struct attn_layer *l = &s->layer;
    const attn_weights *w = &l->w;
    struct attn_span norms[2];
    memset(s, 0, sizeof *s);
    ATTN_TRY(attn_struct_read(c, "args", &s->a, sizeof s->a, args));
    ATTN_TRY(attn_struct_read(c, "weights", &s->layer.w, sizeof s->layer.w, s->a.weights));
    ATTN_TRY(read_scoring(c, s));
    ATTN_TRY(attn_kv_read(c, s->a.kv, ATTN_KV_WRITTEN | (query ? ATTN_KV_QUERY : 0), &s->append.view));
    ATTN_TRY(check_weights(c, s));
    ATTN_TRY(attn_tensor_check(c, "x", s->a.x, flags, NULL));
    ATTN_TRY(attn_projection_plan(c, "x", &s->q, s->a.x, w->w_q, 0, w->n_head, l->p_q));
    ATTN_TRY(attn_projection_plan(c, "x", &s->k, s->a.x, w->w_k, 0, w->n_head_kv, l->p_k));
    ATTN_TRY(attn_projection_plan(c, "x", &s->v, s->a.x, w->w_v, 0, w->n_head_kv, l->p_v));
    ATTN_TRY(attn_layer_heads(c, l, 1, "x", s->a.x, s->a.out, w->n_head, flags, &s->heads, &s->heads_bytes,
                              &s->out_span));
    ATTN_TRY(check_norms(c, s, norms));
    ATTN_TRY(read_append(c, s, query));
    s->after = s->append.view;
    s->after.kv.blocks = NULL;
    s->after.kv.n_sequences = s->append.n_pieces;
    if (query) s->after.kv.lengths = NULL;
    return plan_scratch(c, s);
}

/* ---- What depends on lengths --------------------------------------------------------------------------- */

/* The lengths that attn_kv_append_run() will set. */
static void look_ahead(struct attn_step *s) {
    const struct attn_kv_view *now = &s->append.view;
    for (size_t b = 0; b < s->append.n_pieces; b++) {
        const size_t sequence = attn_step_sequence(s, b);
        const size_t length = attn_kv_length(now, sequence) + attn_step_count(s, b);
        s->after.kv.lengths[b] = length;
        if (now->kv.firsts)
            s->after.kv.firsts[b] =
                attn_max(attn_kv_first(now, sequence), length > now->capacity ? length - now->capacity : 0);
    }
}

/* Outputs and the cache share memory with nothing; attn_kv_read() compared the cache's own arrays. */
static attn_status check_memory(attn_context *c, const struct attn_step *s) {
    enum { OUTPUTS = 2, WRITTEN = OUTPUTS + ATTN_KV_SPANS };
    const attn_weights *w = &s->layer.w;
    const attn_packed *const matrices[] = {w->w_q, w->w_k, w->w_v, w->w_o};
    static const char *const names[] = {"weights.w_q", "weights.w_k", "weights.w_v", "weights.w_o"};
    struct attn_span spans[WRITTEN + 9 + ATTN_KV_APPEND_SPANS + ATTN_SCORING_SPANS];
    const size_t n = sizeof spans / sizeof *spans;
    struct attn_span *in = spans + WRITTEN;
    const struct attn_scoring_sizes z = attn_pool_sizes(&s->p);
    spans[0] = s->out_span;
    spans[1] = attn_span_of("lse", NULL, 0);
    if (s->a.lse) ATTN_TRY(attn_tensor_check(c, "lse", s->a.lse, TENSOR_F32 | TENSOR_OUTPUT, &spans[1]));
    for (int i = 0; i < ATTN_KV_SPANS; i++) spans[OUTPUTS + i] = s->append.view.spans[i];
    ATTN_TRY(attn_tensor_check(c, "x", s->a.x, TENSOR_F32, in++));
    for (int i = 0; i < 4; i++)
        *in++ = attn_span_of(names[i], matrices[i], matrices[i] ? (size_t)matrices[i]->bytes : 0);
    *in++ = attn_span_of("args.q_norm", s->a.q_norm, s->layer.p_q * sizeof(float));
    *in++ = attn_span_of("args.k_norm", s->a.k_norm, s->layer.p_k * sizeof(float));
    *in++ = s->append.rotated ? attn_rope_span(&s->append.rope) : attn_span_of("rope", NULL, 0);
    *in = attn_span_of("scoring.mask", NULL, 0);
    if (s->scoring.mask)
        ATTN_TRY(
            attn_tensor_check(c, "scoring.mask", s->scoring.mask, TENSOR_F32 | TENSOR_F16 | TENSOR_BOOL, in));
    in++;
    for (int i = 0; i < ATTN_KV_APPEND_SPANS; i++) *in++ = s->append.spans[i];
    attn_scoring_spans(&s->scoring, &z, in);
    ATTN_TRY(attn_spans_check(c, spans, n, OUTPUTS));
    for (int i = 0; i < ATTN_KV_SPANS; i++) {
        spans[WRITTEN - 1] = s->append.view.spans[i];
        ATTN_TRY(attn_spans_check(c, spans + WRITTEN - 1, n - (WRITTEN - 1), 1));
    }
    return ATTN_OK;
}

attn_status attn_step_check(attn_context *c, int query, struct attn_step *s) {
    struct attn_span spans[ATTN_POOL_SPANS];
    size_t n, n_outputs, bytes;
    if (!query) look_ahead(s);
    s->p = (struct attn_pooling_problem){.score = ATTN_SCORE_DOT,
                                         .q = &s->q.view,
                                         .k = &s->append.view.kv.k,
                                         .v = &s->append.view.kv.v,
                                         .out = &s->heads,
                                         .lse = s->a.lse,
                                         .weights_name = "weights",
                                         .w_name = "w",
                                         .kv = &s->after,
                                         .scoring = s->scoring};
    ATTN_TRY(attn_pool_check(c, &s->p, query, spans, &n, &n_outputs));
    if (!query) ATTN_TRY(check_memory(c, s));
    if (query)
        s->after.kv.lengths = s->append.view.kv.lengths; /* whether there are any says if it may be a ring */
    ATTN_TRY(attn_pool_scratch_bytes(c, &s->p, query, &bytes));
    if (add_part(s, STEP_POOL, bytes, 1)) return ATTN_OK;
    return attn_fail(c, ATTN_ERROR_OVERFLOW, "x: the scratch for it does not fit the address space");
}
