/* The run and the comparison of pool_case.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bound.h"
#include "order.h"
#include "support/oracle.h"
#include "support/pool_case.h"

struct pool_outputs {
    struct grid out, lse, weights, lse_sinks, scores;
};

static ptrdiff_t row_step(const struct grid *g) { return g->size[2] == 1 ? 0 : g->stride[2]; }

static ptrdiff_t head_step(const struct grid *g) { return g->size[1] == 1 ? 0 : g->stride[1]; }

static struct attn_pool_task make_task(const struct pool_case *c, const struct pool_data *d) {
    const size_t group = c->group;
    struct attn_pool_task t = {.score = c->score,
                               .n_rows = c->n_rows,
                               .group = group,
                               .heads = 1,
                               .first = c->first,
                               .q = grid_f32(&d->q, 0, 0, 0),
                               .q_row = row_step(&d->q),
                               .q_head = head_step(&d->q),
                               .k = (const char *)grid_f32(&d->k, 0, 0, 0),
                               .k_row = d->k.stride[2] * (ptrdiff_t)sizeof(float),
                               .v = (const char *)grid_f32(&d->v, 0, 0, 0),
                               .v_row = d->v.stride[2] * (ptrdiff_t)sizeof(float),
                               .d_k = c->d_k,
                               .d_v = c->d_v,
                               .n_kv = c->n_kv,
                               .scale = d->scale,
                               .mask_kind = c->mask};
    t.k -= (ptrdiff_t)d->from * t.k_row;
    t.v -= (ptrdiff_t)d->from * t.v_row;
    if (c->score == ATTN_SCORE_ADDITIVE) {
        t.w = grid_f32(&d->w, 0, 0, 0);
        t.w_head = head_step(&d->w);
    }
    if (c->mask != ATTN_MASK_NONE) {
        t.mask = d->mask.origin;
        t.mask_row = row_step(&d->mask);
        t.mask_head = head_step(&d->mask);
        t.mask_key = c->mask_bits & MASK_KEYS ? 1 : 0;
    }
    if (c->documents) {
        t.q_documents = (const int32_t *)(const void *)d->q_documents.data;
        t.kv_documents = (const int32_t *)(const void *)d->kv_documents.data;
    }
    if (c->soft_cap > 0) {
        t.cap = c->soft_cap * ATTN_LOG2E;
        t.cap_inverse = 1 / t.cap;
    }
    t.position = d->position;
    t.slopes = c->alibi ? (const float *)(const void *)d->slopes.data : NULL;
    t.sinks = c->sinks ? (const float *)(const void *)d->sinks.data : NULL;
    t.also = d->also;
    t.lo = d->lo;
    t.hi = d->hi;
    return t;
}

static void set_outputs(struct attn_pool_task *t, const struct pool_case *c, const struct pool_outputs *o) {
    t->out = grid_f32(&o->out, 0, 0, 0);
    t->out_row = o->out.stride[2];
    t->out_head = o->out.stride[1];
    if (c->lse) {
        t->lse = grid_f32(&o->lse, 0, 0, 0);
        t->lse_row = o->lse.stride[2];
        t->lse_head = o->lse.stride[1];
    }
    if (c->weights) {
        t->weights = grid_f32(&o->weights, 0, 0, 0);
        t->weights_row = o->weights.stride[2];
        t->weights_head = o->weights.stride[1];
        t->n_weights = o->weights.size[3];
    }
    if (c->scores) {
        t->scores = grid_f32(&o->scores, 0, 0, 0);
        t->scores_row = o->scores.stride[2];
        t->scores_head = o->scores.stride[1];
        t->n_weights = o->scores.size[3];
    }
    if (c->lse_sinks) {
        t->lse_sinks = grid_f32(&o->lse_sinks, 0, 0, 0);
        t->lse_sinks_row = o->lse_sinks.stride[2];
        t->lse_sinks_head = o->lse_sinks.stride[1];
    }
}

/* Aligned memory between guards, canary (NaN) all over. */
static struct guard aligned(size_t bytes) {
    return guard_alloc((bytes + ATTN_ALIGN - 1) / ATTN_ALIGN * ATTN_ALIGN, 0);
}

static size_t scratch_of(const struct attn_backend *b, const struct pool_case *c,
                         const struct attn_pool_task *t) {
    const struct attn_pool_size size = {.score = c->score,
                                        .d_k = c->d_k,
                                        .d_v = c->d_v,
                                        .heads = 1,
                                        .blocks = (t->n_rows + b->pool_rows - 1) / b->pool_rows,
                                        .gathers = t->k_type != ATTN_F32 || t->v_type != ATTN_F32 ||
                                                   t->v_row % ATTN_FAR == 0};
    return b->pool_scratch(&size);
}

/* Every chunk's part, and the merge; in every other case from the first chunk on that the block sees. */
static void run_parts(const struct attn_backend *b, const struct pool_case *c, struct attn_pool_task *t,
                      size_t from, struct verdict *v) {
    const size_t lanes = (c->n_rows + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
    const size_t floats = lanes * (2 + c->d_v), first = c->stream % 2 ? from / ATTN_CHUNK : 0;
    const size_t n_chunks = (c->n_kv ? (c->n_kv + ATTN_CHUNK - 1) / ATTN_CHUNK : 1) - first;
    const size_t gap = ATTN_PANEL_UNIT;
    struct guard parts = aligned(n_chunks * (floats + gap) * sizeof(float));
    float *base = (float *)(void *)parts.data, *lse = t->lse, *lse_sinks = t->lse_sinks;
    void *out = t->out;
    t->out = t->lse = t->lse_sinks = NULL; /* parts do not write them */
    for (size_t i = 0; i < n_chunks; i++) {
        t->chunk = first + i;
        t->part = base + i * (floats + gap);
        b->pool(t);
    }
    t->part = base;
    t->out = out;
    t->lse = lse;
    t->lse_sinks = lse_sinks;
    b->merge(t, n_chunks, floats + gap);
    for (size_t i = 0; i < n_chunks; i++)
        if (!grid_untouched(base + i * (floats + gap) + floats, gap))
            verdict_fail(v, "%s wrote behind a part", b->name);
    if (!guard_intact(&parts)) verdict_fail(v, "%s wrote outside the parts", b->name);
    guard_free(&parts);
}

static void seal(const struct pool_data *d, int on) {
    const struct grid *all[] = {&d->q, &d->k, &d->v, &d->w, &d->mask};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (on)
            guard_seal(&all[i]->guard);
        else
            guard_unseal(&all[i]->guard);
    }
}

/* Rows of the block are written, what the last group holds behind them is not; nor are gaps. */
static void check_grid(const char *name, const struct pool_case *c, const struct grid *g, struct verdict *v) {
    if (!grid_gaps_intact(g)) verdict_fail(v, "wrote outside %s", name);
    for (size_t i = 0; i < g->size[1] * g->size[2]; i++) {
        const float *row = grid_f32(g, 0, i % c->group, i / c->group);
        const int inside = c->first <= i && i < c->first + c->n_rows;
        if (inside && !grid_written(row, g->size[3]))
            verdict_fail(v, "left %s of row %zu unwritten", name, i - c->first);
        if (!inside && !grid_untouched(row, g->size[3]))
            verdict_fail(v, "wrote %s of query %zu head %zu, which is not in the block", name, i / c->group,
                         i % c->group);
    }
}

static struct pool_outputs run(const struct attn_backend *b, const struct pool_case *c,
                               const struct pool_data *d, struct rng *r, struct verdict *v) {
    const size_t n_q = pool_case_query(c, c->n_rows - 1) + 1, keys = c->n_kv + c->stream % 4;
    struct pool_outputs o = {
        .out = grid_make(r, sizeof(float), (size_t[4]){1, c->group, n_q, c->d_v}, c->layout),
        .lse = grid_make(r, sizeof(float), (size_t[4]){1, c->group, n_q, 1}, c->layout),
        .weights =
            grid_make(r, sizeof(float), (size_t[4]){1, c->group, n_q, c->weights ? keys : 0}, c->layout),
        .lse_sinks = grid_make(r, sizeof(float), (size_t[4]){1, c->group, n_q, 1}, c->layout),
        .scores =
            grid_make(r, sizeof(float), (size_t[4]){1, c->group, n_q, c->scores ? keys : 0}, c->layout)};
    struct attn_pool_task t = make_task(c, d);
    struct guard scratch = aligned(scratch_of(b, c, &t));
    set_outputs(&t, c, &o);
    t.scratch = scratch.data;
    seal(d, 1);
    if (c->parts)
        run_parts(b, c, &t, d->from, v);
    else
        b->pool(&t);
    seal(d, 0);
    if (!guard_intact(&scratch)) verdict_fail(v, "%s wrote outside its scratch", b->name);
    guard_free(&scratch);
    check_grid("out", c, &o.out, v);
    if (c->lse) check_grid("lse", c, &o.lse, v);
    if (c->weights) check_grid("weights", c, &o.weights, v);
    if (c->lse_sinks) check_grid("lse_sinks", c, &o.lse_sinks, v);
    if (c->scores) check_grid("scores", c, &o.scores, v);
    return o;
}

/* Double precision copies of what the oracles read, and their answers for one row. */
struct answers {
    double *memory, *q, *k, *v, *w, *mask;
    double *out, *weights, lse, lse_sinks;                          /* the oracle's */
    double *out2, *out_err, *weights2, *weights_err, lse2, lse_err; /* tools/bound.c's */
    double lse_sinks2, lse_sinks_err;
    double *scores, *scores2, *scores_err;
};

static struct answers answers_make(const struct pool_case *c, const struct pool_data *d) {
    const size_t n = c->n_kv;
    struct answers a = {
        .memory = malloc((n * (c->d_k + c->d_v + 7) + 2 * c->d_k + 3 * c->d_v + 1) * sizeof(double))};
    if (!a.memory) abort();
    double *at = a.memory;
    a.k = at, at += n * c->d_k;
    a.v = at, at += n * c->d_v;
    a.q = at, at += c->d_k;
    a.w = at, at += c->d_k;
    a.mask = at, at += n;
    a.weights = at, at += n;
    a.weights2 = at, at += n;
    a.weights_err = at, at += n;
    a.scores = at, at += n;
    a.scores2 = at, at += n;
    a.scores_err = at, at += n;
    a.out = at, at += c->d_v;
    a.out2 = at, at += c->d_v;
    a.out_err = at;
    for (size_t j = 0; j < n; j++) {
        const int there = d->from <= j && j < d->to;
        for (size_t i = 0; i < c->d_k; i++)
            a.k[j * c->d_k + i] = there ? grid_f32(&d->k, 0, 0, j - d->from)[i] : NAN;
        for (size_t i = 0; i < c->d_v; i++)
            a.v[j * c->d_v + i] = there ? grid_f32(&d->v, 0, 0, j - d->from)[i] : NAN;
    }
    return a;
}

static void answer_row(const struct attn_backend *b, const struct pool_case *c, const struct pool_data *d,
                       size_t r, struct answers *a) {
    const int additive = c->score == ATTN_SCORE_ADDITIVE;
    const size_t head = pool_case_head(c, r);
    const double slope = c->alibi ? (double)((const float *)(const void *)d->slopes.data)[head] : 0;
    const double sink = (double)((const float *)(const void *)d->sinks.data)[head];
    const double position = (double)d->position + (double)pool_case_query(c, r);
    for (size_t i = 0; i < c->d_k; i++) {
        a->q[i] = grid_f32(&d->q, 0, pool_case_head(c, r), pool_case_query(c, r))[i];
        a->w[i] = grid_f32(&d->w, 0, d->w.size[1] == 1 ? 0 : pool_case_head(c, r), 0)[i];
    }
    for (size_t j = 0; j < c->n_kv; j++)
        a->mask[j] = !pool_case_sees(c, d, r, j) ? -INFINITY : (double)pool_case_bias(c, d, r, j);
    const struct oracle_row mine = {.n_kv = c->n_kv,
                                    .d_k = c->d_k,
                                    .d_v = c->d_v,
                                    .q = a->q,
                                    .k = a->k,
                                    .v = a->v,
                                    .w = additive ? a->w : NULL,
                                    .scale = d->scale,
                                    .mask = a->mask,
                                    .soft_cap = (double)c->soft_cap,
                                    .slope = slope,
                                    .position = position,
                                    .sink = c->sinks ? &sink : NULL};
    oracle_pool(&mine, a->out, &a->lse, a->weights, &a->lse_sinks);
    oracle_scores(&mine, a->scores);
    const struct attn_bound_row theirs = {.arith = attn_bound_arith_of(b->name),
                                          .n_kv = c->n_kv,
                                          .d_k = c->d_k,
                                          .d_v = c->d_v,
                                          .q = a->q,
                                          .k = a->k,
                                          .v = a->v,
                                          .w = additive ? a->w : NULL,
                                          .scale = d->scale,
                                          .mask = a->mask,
                                          .soft_cap = (double)c->soft_cap,
                                          .slope = slope,
                                          .position = position,
                                          .sink = c->sinks ? &sink : NULL};
    const struct attn_bound_result to = {.out = a->out2,
                                         .out_err = a->out_err,
                                         .lse = &a->lse2,
                                         .lse_err = &a->lse_err,
                                         .weights = a->weights2,
                                         .weights_err = a->weights_err,
                                         .lse_sinks = &a->lse_sinks2,
                                         .lse_sinks_err = &a->lse_sinks_err,
                                         .scores = a->scores2,
                                         .scores_err = a->scores_err};
    if (attn_bound_pool_row(&theirs, &to)) abort();
}

static void compare(const char *what, size_t r, size_t n, const float *got, const double *want,
                    const double *theirs, const double *err, struct verdict *v) {
    for (size_t i = 0; i < n; i++) {
        if (!attn_bound_holds(got[i], want[i], err[i]))
            verdict_fail(v, "row %zu %s[%zu]: %a, oracle %a, bound %g", r, what, i, got[i], want[i], err[i]);
        if (!attn_bound_holds(theirs[i], want[i], err[i]))
            verdict_fail(v, "row %zu %s[%zu]: the oracles disagree: %a, %a", r, what, i, want[i], theirs[i]);
    }
}

/* And 0, or -inf, in the columns behind the keys. */
static void compare_keys(const struct pool_case *c, size_t r, const struct pool_outputs *o,
                         const struct answers *a, struct verdict *v) {
    const size_t head = pool_case_head(c, r), query = pool_case_query(c, r);
    const float *weights = grid_f32(&o->weights, 0, head, query),
                *scores = grid_f32(&o->scores, 0, head, query);
    if (c->weights) compare("weights", r, c->n_kv, weights, a->weights, a->weights2, a->weights_err, v);
    if (c->scores) compare("scores", r, c->n_kv, scores, a->scores, a->scores2, a->scores_err, v);
    for (size_t j = c->n_kv; j < o->weights.size[3]; j++)
        if (weights[j] != 0) verdict_fail(v, "row %zu weights[%zu]: %a behind the keys", r, j, weights[j]);
    for (size_t j = c->n_kv; j < o->scores.size[3]; j++)
        if (scores[j] != -INFINITY)
            verdict_fail(v, "row %zu scores[%zu]: %a behind the keys", r, j, scores[j]);
}

/* The scalar slot, row by row, on outputs of its own; within twice the bound of the backend's. */
static void compare_scalar(const struct pool_case *c, const struct pool_data *d, size_t r,
                           const struct answers *a, const float *got, struct verdict *v) {
    struct attn_pool_task t = make_task(c, d);
    struct guard scratch = aligned(scratch_of(&attn_backend_scalar, c, &t));
    struct guard out = guard_alloc(c->d_v * sizeof(float), 0);
    const ptrdiff_t row = (ptrdiff_t)pool_case_query(c, r), head = (ptrdiff_t)pool_case_head(c, r);
    t.n_rows = t.group = 1;
    t.first = 0;
    t.q = (const float *)t.q + row * t.q_row + head * t.q_head;
    t.w = t.w ? t.w + head * t.w_head : NULL;
    if (t.mask)
        t.mask = (const char *)t.mask + (row * t.mask_row + head * t.mask_head) * (ptrdiff_t)d->mask.element;
    t.lo += r;
    t.also += r;
    t.position += row;
    t.slopes = t.slopes ? t.slopes + head : NULL;
    t.sinks = t.sinks ? t.sinks + head : NULL;
    t.q_documents = t.q_documents ? t.q_documents + row : NULL;
    t.hi += r;
    float *to = (float *)(void *)out.data;
    t.out = to;
    t.scratch = scratch.data;
    attn_backend_scalar.pool(&t);
    for (size_t i = 0; i < c->d_v; i++)
        if (!attn_bound_holds(got[i], to[i], 2 * a->out_err[i]))
            verdict_fail(v, "row %zu out[%zu]: %a, scalar %a, bound %g", r, i, got[i], to[i], a->out_err[i]);
    guard_free(&scratch);
    guard_free(&out);
}

void pool_case_check_data(const struct attn_backend *b, const struct pool_case *c, const struct pool_data *d,
                          struct rng *r, struct verdict *v) {
    struct pool_outputs o = run(b, c, d, r, v);
    struct answers a = answers_make(c, d);
    for (size_t i = 0; i < c->n_rows; i++) {
        const size_t head = pool_case_head(c, i), query = pool_case_query(c, i);
        answer_row(b, c, d, i, &a);
        compare("out", i, c->d_v, grid_f32(&o.out, 0, head, query), a.out, a.out2, a.out_err, v);
        if (c->lse) compare("lse", i, 1, grid_f32(&o.lse, 0, head, query), &a.lse, &a.lse2, &a.lse_err, v);
        compare_keys(c, i, &o, &a, v);
        if (c->lse_sinks)
            compare("lse_sinks", i, 1, grid_f32(&o.lse_sinks, 0, head, query), &a.lse_sinks, &a.lse_sinks2,
                    &a.lse_sinks_err, v);
        if (b != &attn_backend_scalar) compare_scalar(c, d, i, &a, grid_f32(&o.out, 0, head, query), v);
    }
    free(a.memory);
    grid_free(&o.out);
    grid_free(&o.lse);
    grid_free(&o.weights);
    grid_free(&o.lse_sinks);
    grid_free(&o.scores);
}
