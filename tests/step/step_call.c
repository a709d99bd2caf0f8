/* Calls of attn_multihead_step(): their arrangement, and schedules of them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "step/step_case.h"

/* ---- Scoring ------------------------------------------------------------------------------------------- */

const attn_scoring *step_scoring_make(const struct step_case *c, const struct step_data *d, size_t n_kv,
                                      struct step_scoring_memory *m) {
    const int shaped = c->scoring == STEP_SHAPED;
    m->hidden = malloc(n_kv + 1);
    ck_assert_ptr_nonnull(m->hidden);
    for (size_t j = 0; j < n_kv; j++) m->hidden[j] = j % STEP_KEY_MASK != 3;
    m->mask = attn_tensor_contiguous(m->hidden, ATTN_BOOL, 1, 1, 1, n_kv);
    m->window[0] = c->window;
    m->window[1] = SIZE_MAX;
    m->scoring =
        (attn_scoring){.size = sizeof m->scoring,
                       .causal = c->scoring == STEP_OFFSETS ? ATTN_CAUSAL_OFFSET : ATTN_CAUSAL_BOTTOM_RIGHT,
                       .offsets = c->scoring == STEP_OFFSETS ? m->offsets : NULL,
                       .window = shaped || c->scoring == STEP_WINDOW ? m->window : NULL,
                       .soft_cap = shaped ? 3.0f : 0.0f,
                       .alibi_slopes = shaped ? d->slopes : NULL,
                       .sinks = shaped ? d->sinks : NULL,
                       .mask = c->scoring == STEP_MASK ? &m->mask : NULL};
    return c->scoring == STEP_DEFAULT ? NULL : &m->scoring;
}

void step_scoring_free(struct step_scoring_memory *m) { free(m->hidden); }

/* ---- One call ------------------------------------------------------------------------------------------ */

/* The call's tensors: batch x n rows, of which token `token[row]` of all comes to `row`; SIZE_MAX: none. */
struct arrangement {
    size_t batch, n, n_kv, rows, named;
    size_t sequences[STEP_SEQUENCES], counts[STEP_SEQUENCES], starts[STEP_SEQUENCES + 1];
    size_t *token;
    int counted, ragged;
    struct guard x, out, lse, positions;
    attn_tensor t_x, t_out, t_lse;
};

static void arrange(const struct step_case *c, const struct step_cache *cache, const struct step_call *call,
                    struct arrangement *a, ptrdiff_t *offsets) {
    size_t first[STEP_SEQUENCES], before = 0;
    *a = (struct arrangement){.batch = 0};
    a->ragged = call->schedule == STEP_RAGGED;
    a->counted = call->schedule == STEP_BATCH;
    for (size_t s = 0; s < c->n_sequences; before += c->lengths[s++]) {
        const size_t n = call->counts[s];
        if (!n && (s % 2 || !(a->ragged || a->counted))) continue; /* some come without rows */
        offsets[a->named] = (ptrdiff_t)call->done[s];
        a->sequences[a->named] = cache->sequences[s];
        a->counts[a->named] = n;
        a->starts[a->named + 1] = a->starts[a->named] + n;
        first[a->named++] = before + call->done[s];
        a->n = a->ragged ? a->n + n : n > a->n ? n : a->n;
        if (call->done[s] + n > a->n_kv) a->n_kv = call->done[s] + n;
    }
    a->batch = a->ragged ? 1 : a->named;
    if (a->ragged || a->counted) a->n += 2;
    a->rows = a->batch * a->n;
    a->token = malloc((a->rows + 1) * sizeof *a->token);
    ck_assert_ptr_nonnull(a->token);
    for (size_t i = 0; i < a->rows; i++) a->token[i] = SIZE_MAX;
    for (size_t b = 0; b < a->named; b++)
        for (size_t i = 0; i < a->counts[b]; i++)
            a->token[(a->ragged ? a->starts[b] : b * a->n) + i] = first[b] + i;
}

static void fill(const struct step_case *c, const struct step_data *d, struct arrangement *a) {
    const size_t width = step_case_width(c);
    a->x = guard_alloc(a->rows * c->d * sizeof(float), 0);
    a->out = guard_alloc(a->rows * width * sizeof(float), 0);
    a->lse = guard_alloc(a->rows * c->n_head * sizeof(float), 0);
    a->positions = guard_alloc(a->rows * sizeof(int64_t), 0);
    a->t_x = attn_tensor_contiguous(a->x.data, ATTN_F32, a->batch, 1, a->n, c->d);
    a->t_out = attn_tensor_contiguous(a->out.data, ATTN_F32, a->batch, 1, a->n, width);
    a->t_lse = attn_tensor_contiguous(a->lse.data, ATTN_F32, a->batch, c->n_head, a->n, 1);
    for (size_t i = 0; i < a->rows; i++) {
        if (a->token[i] == SIZE_MAX) continue;
        memcpy((float *)(void *)a->x.data + i * c->d, d->x + a->token[i] * c->d, c->d * sizeof(float));
        memcpy((int64_t *)(void *)a->positions.data + i, d->positions + a->token[i], sizeof(int64_t));
    }
    guard_seal(&a->x);
}

/* Rows to where they belong; those of no token are 0 and -inf. */
static void gather(const struct step_case *c, const struct arrangement *a, struct step_outputs *o,
                   struct verdict *v) {
    const size_t width = step_case_width(c);
    for (size_t i = 0; i < a->rows; i++) {
        const size_t token = a->token[i];
        const float *out = (const float *)(const void *)a->out.data + i * width;
        for (size_t j = 0; j < width && token == SIZE_MAX; j++) {
            uint32_t bits;
            memcpy(&bits, out + j, sizeof bits);
            if (bits) verdict_fail(v, "row %zu, which does not count, is not 0", i);
        }
        if (token != SIZE_MAX) memcpy(o->out + token * width, out, width * sizeof *out);
        for (size_t h = 0; h < c->n_head; h++) {
            const float lse =
                ((const float *)(const void *)a->lse.data)[(i / a->n * c->n_head + h) * a->n + i % a->n];
            if (token == SIZE_MAX && lse != -INFINITY)
                verdict_fail(v, "row %zu, which does not count, has a log-sum-exp of %g", i, (double)lse);
            if (token != SIZE_MAX) o->lse[token * c->n_head + h] = lse;
        }
    }
    if (!guard_intact(&a->out) || !guard_intact(&a->lse)) verdict_fail(v, "writes beside its outputs");
}

/* On no more scratch than the query asks for, which is told nothing but shapes; so nothing is allocated either. */
static attn_status run_exact(attn_context *context, const attn_step_args *args, struct verdict *v) {
    attn_step_args shapes = *args;
    attn_tensor x = *args->x, out = *args->out;
    attn_kv kv = *args->kv;
    attn_context *small;
    size_t bytes = 0;
    x.data = out.data = kv.k.data = kv.v.data = NULL;
    kv.lengths = NULL;
    shapes.x = &x;
    shapes.out = &out;
    shapes.kv = &kv;
    shapes.sequences = shapes.counts = NULL;
    if (attn_multihead_step_scratch(context, &shapes, &bytes) != ATTN_OK)
        verdict_fail(v, "query: %s", attn_context_error(context));
    struct guard scratch = guard_alloc(bytes, 0);
    const attn_options options = {.size = sizeof options,
                                  .backend = attn_context_backend(context),
                                  .n_threads = attn_context_workers(context),
                                  .scratch = scratch.data,
                                  .scratch_bytes = bytes};
    ck_assert_int_eq(attn_context_create(&options, &small), ATTN_OK);
    const attn_status status = attn_multihead_step(small, args);
    if (status != ATTN_OK) verdict_fail(v, "%zu bytes of scratch: %s", bytes, attn_context_error(small));
    if (!guard_intact(&scratch)) verdict_fail(v, "writes outside the scratch");
    attn_context_destroy(small);
    guard_free(&scratch);
    return status;
}

void step_call_run(attn_context *context, const struct step_case *c, const struct step_data *d,
                   const struct step_layer *l, const struct step_cache *cache, const struct step_call *call,
                   struct step_outputs *o, struct verdict *v) {
    struct arrangement a;
    struct step_scoring_memory m;
    arrange(c, cache, call, &a, m.offsets);
    fill(c, d, &a);
    const attn_step_args args = {.size = sizeof args,
                                 .weights = &l->weights,
                                 .x = &a.t_x,
                                 .out = &a.t_out,
                                 .kv = &cache->kv,
                                 .sequences = a.sequences,
                                 .counts = a.counted ? a.counts : NULL,
                                 .starts = a.ragged ? a.starts : NULL,
                                 .n_starts = a.named,
                                 .q_norm = c->q_norm ? d->q_norm : NULL,
                                 .k_norm = c->k_norm ? d->k_norm : NULL,
                                 .norm_epsilon = c->epsilon,
                                 .rope = c->rope ? &d->rope : NULL,
                                 .positions =
                                     c->positions ? (const int64_t *)(const void *)a.positions.data : NULL,
                                 .scoring = step_scoring_make(c, d, a.n_kv, &m),
                                 .lse = &a.t_lse};
    const attn_status status =
        call->exact ? run_exact(context, &args, v) : attn_multihead_step(context, &args);
    if (status != ATTN_OK) verdict_fail(v, "%s", attn_context_error(context));
    if (status == ATTN_OK) gather(c, &a, o, v);
    step_scoring_free(&m);
    guard_unseal(&a.x);
    guard_free(&a.x);
    guard_free(&a.out);
    guard_free(&a.lse);
    guard_free(&a.positions);
    free(a.token);
}

/* ---- Schedules ----------------------------------------------------------------------------------------- */

/* How many of `left` tokens come next. */
static size_t next_count(enum step_schedule schedule, struct rng *r, size_t left, size_t most) {
    size_t n = left;
    if (schedule == STEP_TOKENS) n = left > 100 ? left - 40 : 1;
    if (schedule > STEP_TOKENS) n = left > 100 ? left - rng_below(r, 60) : rng_below(r, 10);
    if (schedule == STEP_CHUNKS && n == 0) n = 1;
    n = n < left ? n : left;
    return n < most ? n : most;
}

void step_case_run(attn_context *context, const struct step_case *c, const struct step_data *d,
                   const struct step_cache_shape *shape, enum step_schedule schedule, struct step_outputs *o,
                   struct verdict *v) {
    struct rng r = rng_make(test_seed(), 7400 + 10 * c->stream + schedule);
    struct step_cache cache;
    struct step_layer layer;
    struct step_call call = {.schedule = schedule};
    const int alone = schedule < STEP_BATCH;
    step_cache_make(context, c, shape, &cache);
    step_layer_pack(context, c, d, &layer);
    for (size_t turn = 0, left = 1; left && v->ok; turn++) {
        left = 0;
        for (size_t s = 0; s < c->n_sequences; s++) {
            const size_t rest = c->lengths[s] - call.done[s];
            call.counts[s] = alone && left ? 0 : next_count(schedule, &r, rest, cache.most);
            left += rest;
        }
        call.exact = turn % 4 == 0;
        if (left) step_call_run(context, c, d, &layer, &cache, &call, o, v);
        for (size_t s = 0; s < c->n_sequences; s++) call.done[s] += call.counts[s];
    }
    for (size_t s = 0; s < c->n_sequences && v->ok; s++)
        if (cache.kv.lengths[cache.sequences[s]] != c->lengths[s])
            verdict_fail(v, "sequence %zu has %zu keys", s, cache.kv.lengths[cache.sequences[s]]);
    if (!guard_intact(&cache.memory)) verdict_fail(v, "writes beside the cache");
    step_layer_free(&layer);
    step_cache_free(&cache);
}
