/* The call of api_case.h in guarded memory, and the comparison. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "support/cache_case.h"

static struct guard aligned(size_t bytes) {
    return guard_alloc((bytes + ATTN_ALIGN - 1) / ATTN_ALIGN * ATTN_ALIGN, 0);
}

static void pack(attn_context *context, struct api_matrix *m) {
    if (!m->data) return;
    const attn_tensor w = attn_tensor_contiguous(m->data, ATTN_F32, 1, 1, m->n, m->k);
    size_t bytes = 0;
    ck_assert_int_eq(attn_pack_linear_bytes(context, &w, &bytes), ATTN_OK);
    guard_free(&m->memory);
    m->memory = aligned(bytes);
    ck_assert_int_eq(attn_pack_linear(context, &w, m->bias ? m->data + m->n * m->k : NULL, m->memory.data,
                                      m->memory.bytes, &m->packed),
                     ATTN_OK);
}

/* All kinds of arguments for one call; the tensors of the outputs. */
struct call {
    attn_tensor out, lse, weights, lse_sinks, scores;
    const attn_packed *a_q[API_HEADS_MAX], *a_k[API_HEADS_MAX];
    attn_weights model;
    attn_sdpa_args sdpa;
    attn_additive_args additive;
    attn_head_args head;
};

static struct call *new_call(const struct api_case *c, const struct api_data *d,
                             const struct api_outputs *o) {
    struct call *l = calloc(1, sizeof *l);
    if (!l) abort();
    for (size_t h = 0; h < c->n_head; h++) {
        l->a_q[h] = d->a_q[h].packed;
        l->a_k[h] = d->a_k[h].packed;
    }
    l->out = grid_tensor(&o->out);
    l->lse = grid_tensor(&o->lse);
    l->weights = grid_tensor(&o->weights);
    l->lse_sinks = grid_tensor(&o->lse_sinks);
    l->scores = grid_tensor(&o->scores);
    const attn_tensor *lse = c->lse ? &l->lse : NULL, *weights = c->weights ? &l->weights : NULL;
    const attn_tensor *lse_sinks = c->lse_sinks ? &l->lse_sinks : NULL;
    l->sdpa = (attn_sdpa_args){.size = sizeof l->sdpa,
                               .q = &d->t_q,
                               .k = d->kv ? NULL : &d->t_k,
                               .v = d->kv ? NULL : &d->t_v,
                               .out = &l->out,
                               .scoring = &d->scoring,
                               .lse = lse,
                               .weights = weights,
                               .lse_sinks = lse_sinks,
                               .kv = d->kv,
                               .kv_sequences = d->kv_sequences,
                               .scores = c->scores ? &l->scores : NULL};
    l->additive = (attn_additive_args){.size = sizeof l->additive,
                                       .q = &d->t_q,
                                       .k = &d->t_k,
                                       .v = &d->t_v,
                                       .a_q = c->a_q ? l->a_q : NULL,
                                       .a_k = c->a_k ? l->a_k : NULL,
                                       .w = &d->t_w,
                                       .out = &l->out,
                                       .scoring = &d->scoring,
                                       .lse = lse,
                                       .weights = weights};
    l->model = (attn_weights){.size = sizeof l->model,
                              .n_head = c->n_head,
                              .n_head_kv = c->n_head_kv,
                              .w_q = d->w_q.packed,
                              .w_k = d->w_k.packed,
                              .w_v = d->w_v.packed,
                              .w_o = d->w_o.packed,
                              .pooling = c->pooling,
                              .a_q = c->a_q ? l->a_q : NULL,
                              .a_k = c->a_k ? l->a_k : NULL,
                              .w_a = api_is_additive(c) ? &d->t_w : NULL};
    l->head = (attn_head_args){.size = sizeof l->head,
                               .weights = &l->model,
                               .head = c->head,
                               .q = &d->t_q,
                               .k = &d->t_k,
                               .v = &d->t_v,
                               .out = &l->out,
                               .scoring = &d->scoring,
                               .lse = lse,
                               .attention = weights};
    return l;
}

static attn_status call_it(attn_context *context, const struct api_case *c, const struct call *l) {
    switch (c->call) {
    case API_SDPA: return attn_sdpa(context, &l->sdpa);
    case API_ADDITIVE: return attn_additive(context, &l->additive);
    case API_HEAD: return attn_head(context, &l->head);
    case API_MULTIHEAD: break;
    }
    return attn_multihead(context, &l->head);
}

static attn_status scratch_of(attn_context *context, const struct api_case *c, const struct call *l,
                              size_t *bytes) {
    switch (c->call) {
    case API_SDPA: return attn_sdpa_scratch(context, &l->sdpa, bytes);
    case API_ADDITIVE: return attn_additive_scratch(context, &l->additive, bytes);
    case API_HEAD: return attn_head_scratch(context, &l->head, bytes);
    case API_MULTIHEAD: break;
    }
    return attn_multihead_scratch(context, &l->head, bytes);
}

static struct api_outputs make_outputs(const struct api_case *c, const struct api_data *d) {
    struct rng r = rng_make(test_seed(), c->stream ^ 0x5555);
    const size_t n_head = c->call == API_HEAD ? 1 : c->n_head;
    const int joined = c->call == API_MULTIHEAD;
    const size_t keys = api_case_longest(c, d, 1);
    const size_t width = !joined ? c->p_v : c->p_o ? c->p_o : c->n_head * c->p_v;
    return (struct api_outputs){
        .out = grid_make(&r, 4, (size_t[4]){c->batch, joined ? 1 : n_head, c->n_q, width}, c->layout),
        .lse = grid_make(&r, 4, (size_t[4]){c->batch, n_head, c->n_q, 1}, c->layout),
        .weights = grid_make(&r, 4, (size_t[4]){c->weights ? c->batch : 0, n_head, c->n_q, keys}, c->layout),
        .lse_sinks = grid_make(&r, 4, (size_t[4]){c->batch, n_head, c->n_q, 1}, c->layout),
        .scores = grid_make(&r, 4, (size_t[4]){c->scores ? c->batch : 0, n_head, c->n_q, keys}, c->layout),
        .n_head = n_head};
}

void api_outputs_free(struct api_outputs *o) {
    grid_free(&o->out);
    grid_free(&o->lse);
    grid_free(&o->weights);
    grid_free(&o->lse_sinks);
    grid_free(&o->scores);
}

void api_case_pack(attn_context *context, const struct api_case *c, struct api_data *d) {
    pack(context, &d->w_q);
    pack(context, &d->w_k);
    pack(context, &d->w_v);
    pack(context, &d->w_o);
    for (size_t h = 0; h < c->n_head; h++) {
        pack(context, &d->a_q[h]);
        pack(context, &d->a_k[h]);
    }
}

static void seal(const struct api_data *d, int on) {
    const struct guard *all[] = {&d->q.guard,    &d->k.guard,      &d->v.guard,     &d->w.guard,
                                 &d->mask.guard, &d->w_q.memory,   &d->w_k.memory,  &d->w_v.memory,
                                 &d->w_o.memory, &d->documents[0], &d->documents[1]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (on)
            guard_seal(all[i]);
        else
            guard_unseal(all[i]);
    }
}

size_t api_case_scratch(attn_context *context, const struct api_case *c, const struct api_data *d) {
    struct api_outputs o = make_outputs(c, d);
    struct call *l = new_call(c, d, &o);
    size_t bytes = 0;
    const attn_status status = scratch_of(context, c, l, &bytes);
    ck_assert_msg(status == ATTN_OK, "%s: scratch query: %s", harness_case_text(),
                  attn_context_error(context));
    free(l);
    api_outputs_free(&o);
    return bytes;
}

static void check_grid(const char *name, const struct grid *g, struct verdict *v) {
    if (!grid_gaps_intact(g)) verdict_fail(v, "wrote outside %s", name);
    if (!grid_all_written(g)) verdict_fail(v, "left elements of %s unwritten", name);
}

struct api_outputs api_case_run(attn_context *context, const struct api_case *c, const struct api_data *d,
                                struct verdict *v) {
    struct api_outputs o = make_outputs(c, d);
    struct call *l = new_call(c, d, &o);
    seal(d, 1);
    const attn_status status = call_it(context, c, l);
    seal(d, 0);
    free(l);
    if (status != ATTN_OK) {
        verdict_fail(v, "status %s: %s", attn_status_name(status), attn_context_error(context));
        return o;
    }
    check_grid("out", &o.out, v);
    if (c->lse) check_grid("lse", &o.lse, v);
    if (c->weights) check_grid("weights", &o.weights, v);
    if (c->lse_sinks) check_grid("lse_sinks", &o.lse_sinks, v);
    if (c->scores) check_grid("scores", &o.scores, v);
    return o;
}

/* All rows of g against contiguous results. */
static void compare(const char *what, const struct grid *g, const double *want, const double *theirs,
                    const double *err, struct verdict *v) {
    for (size_t b = 0; b < g->size[0]; b++)
        for (size_t h = 0; h < g->size[1]; h++)
            for (size_t i = 0; i < g->size[2]; i++)
                for (size_t j = 0; j < g->size[3]; j++, want++, theirs++, err++) {
                    const float got = grid_f32(g, b, h, i)[j];
                    if (!attn_bound_holds(got, *want, *err))
                        verdict_fail(v, "%s[%zu][%zu][%zu][%zu]: %a, oracle %a, bound %g", what, b, h, i, j,
                                     got, *want, *err);
                    if (!attn_bound_holds(*theirs, *want, *err))
                        verdict_fail(v, "%s[%zu][%zu][%zu][%zu]: the oracles disagree: %a, %a", what, b, h, i,
                                     j, *want, *theirs);
                }
}

const struct attn_backend *api_case_substitute;

/* Runs tasks in reverse order, each on another worker. */
static void run_backwards(void *pool, size_t n_tasks, attn_task *task, void *arg) {
    const size_t n_workers = *(const size_t *)pool;
    for (size_t i = n_tasks; i-- > 0;) task(arg, i, i % n_workers);
}

static attn_context *make_context(const char *backend, size_t *n_workers, void *scratch, size_t bytes) {
    const attn_executor executor = {run_backwards, n_workers, *n_workers};
    const attn_options options = {.size = sizeof options,
                                  .backend = backend,
                                  .n_threads = 1,
                                  .executor = *n_workers > 1 ? &executor : NULL,
                                  .scratch = scratch,
                                  .scratch_bytes = bytes};
    attn_context *context = NULL;
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    return context;
}

void api_case_check(const char *backend, const struct api_case *c, struct verdict *v) {
    struct api_data *d = api_case_make(c);
    struct cache_case cache;
    const struct api_data *call = d;
    struct cache_shape shape = cache_shapes[c->cache ? c->cache - 1 : 0];
    shape.stream = c->stream;
    const int cached = c->cache && c->call == API_SDPA && cache_case_make(c, d, &shape, &cache);
    if (cached) call = &cache.data;
    size_t n_workers = c->n_workers ? c->n_workers : 1;
    attn_context *context = make_context(backend, &n_workers, NULL, 0);
    api_case_pack(context, c, d);
    const size_t bytes = api_case_scratch(context, c, call);
    attn_context_destroy(context);
    struct guard scratch = guard_alloc(bytes, (unsigned)(c->stream % (GUARD_SHIFTS + 1)));
    context = make_context(backend, &n_workers, bytes ? scratch.data : NULL, bytes);
    if (api_case_substitute) context->backend = api_case_substitute;
    struct api_outputs o = api_case_run(context, c, call, v);
    attn_context_destroy(context);
    if (cached) cache_case_free(&cache);
    if (!guard_intact(&scratch)) verdict_fail(v, "wrote outside the scratch");
    guard_free(&scratch);
    struct api_answers a = api_case_answers(c, d), err = a, theirs = a;
    const size_t n = a.n_out + 2 * a.n_lse + 2 * a.n_weights;
    double *memory = calloc(2 * n + 1, sizeof *memory);
    if (!memory) abort();
    theirs.out = memory, theirs.lse = memory + a.n_out, theirs.weights = theirs.lse + a.n_lse;
    theirs.lse_sinks = theirs.weights + a.n_weights, theirs.scores = theirs.lse_sinks + a.n_lse;
    err.out = memory + n, err.lse = err.out + a.n_out, err.weights = err.lse + a.n_lse;
    err.lse_sinks = err.weights + a.n_weights, err.scores = err.lse_sinks + a.n_lse;
    struct attn_bound_result to = {theirs.out,     err.out,     theirs.lse,       err.lse,
                                   theirs.weights, err.weights, theirs.lse_sinks, err.lse_sinks,
                                   theirs.scores,  err.scores};
    api_case_bounds(backend, c, d, &to);
    if (v->ok) {
        compare("out", &o.out, a.out, theirs.out, err.out, v);
        if (c->lse) compare("lse", &o.lse, a.lse, theirs.lse, err.lse, v);
        if (c->weights) compare("weights", &o.weights, a.weights, theirs.weights, err.weights, v);
        if (c->lse_sinks) compare("lse_sinks", &o.lse_sinks, a.lse_sinks, theirs.lse_sinks, err.lse_sinks, v);
        if (c->scores) compare("scores", &o.scores, a.scores, theirs.scores, err.scores, v);
    }
    free(memory);
    free(a.out);
    api_outputs_free(&o);
    api_case_free(d);
}
