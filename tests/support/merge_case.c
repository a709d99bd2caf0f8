#include "support/merge_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"

/* A log-sum-exp, and the row that belongs to it; a hidden row stays canary. */
static void fill_row(const struct merge_case *c, struct rng *r, float *lse, float *out) {
    *lse = rng_chance(r, c->hidden) ? -INFINITY : c->mid + c->width * rng_normal(r);
    if (*lse == -INFINITY) return;
    rng_floats(r, c->fill, out, c->p_v);
    if (!c->spoiled) return;
    if (rng_chance(r, 5)) *lse = rng_chance(r, 50) ? NAN : INFINITY;
    if (rng_chance(r, 5)) out[rng_below(r, c->p_v)] = NAN;
}

struct merge_data merge_case_make(const struct merge_case *c) {
    struct rng r = rng_make(test_seed(), c->stream);
    struct merge_data d = {calloc(c->n_parts + 1, sizeof *d.outs), calloc(c->n_parts + 1, sizeof *d.lses),
                           calloc(c->n_parts + 1, sizeof *d.t_outs),
                           calloc(c->n_parts + 1, sizeof *d.t_lses)};
    const size_t batch = c->shared && c->batch ? 1 : c->batch;
    if (!d.outs || !d.lses || !d.t_outs || !d.t_lses) abort();
    for (size_t i = 0; i < c->n_parts; i++) {
        struct grid *o = &d.outs[i], *l = &d.lses[i];
        *o = grid_make(&r, 4, (size_t[4]){batch, c->n_head, c->n_q, c->p_v},
                       c->layout ? (c->layout + (unsigned)i) % N_LAYOUTS : 0);
        *l = grid_make(&r, 4, (size_t[4]){batch, c->n_head, c->n_q, 1}, c->layout);
        for (size_t b = 0; b < batch; b++)
            for (size_t h = 0; h < c->n_head; h++)
                for (size_t q = 0; q < c->n_q; q++)
                    fill_row(c, &r, grid_f32(l, b, h, q), grid_f32(o, b, h, q));
        d.t_outs[i] = grid_tensor(o);
        d.t_lses[i] = grid_tensor(l);
        if (!c->shared) continue;
        o->size[0] = l->size[0] = d.t_outs[i].size[0] = d.t_lses[i].size[0] = c->batch;
        o->stride[0] = l->stride[0] = d.t_outs[i].stride[0] = d.t_lses[i].stride[0] = 0;
    }
    return d;
}

void merge_case_free(const struct merge_case *c, struct merge_data *d) {
    for (size_t i = 0; i < c->n_parts; i++) {
        grid_free(&d->outs[i]);
        grid_free(&d->lses[i]);
    }
    free(d->outs);
    free(d->lses);
    free(d->t_outs);
    free(d->t_lses);
}

static void seal(const struct merge_case *c, const struct merge_data *d, int on) {
    void (*const set)(const struct guard *) = on ? guard_seal : guard_unseal;
    for (size_t i = 0; i < c->n_parts; i++) {
        if (i || !(c->in_place & 1)) set(&d->outs[i].guard);
        if (i || !(c->in_place & 2)) set(&d->lses[i].guard);
    }
}

static void check_output(const char *name, const struct grid *g, struct verdict *v) {
    if (!grid_gaps_intact(g)) verdict_fail(v, "wrote outside %s", name);
    if (!grid_all_written(g)) verdict_fail(v, "left elements of %s unwritten", name);
}

/* What was merged in place goes to the output `to`, and the input is as it was. */
static void take(const struct grid *from, const unsigned char *before, struct grid *to) {
    for (size_t b = 0; b < to->size[0]; b++)
        for (size_t h = 0; h < to->size[1]; h++)
            for (size_t i = 0; i < to->size[2]; i++)
                memcpy(grid_f32(to, b, h, i), grid_f32(from, b, h, i), to->size[3] * sizeof(float));
    memcpy(from->guard.data, before, from->guard.bytes);
}

static unsigned char *copy_of(const struct grid *g) {
    unsigned char *copy = malloc(g->guard.bytes + 1);
    if (!copy) abort();
    memcpy(copy, g->guard.data, g->guard.bytes);
    return copy;
}

struct merge_outputs merge_case_run(attn_context *context, const struct merge_case *c, struct merge_data *d,
                                    struct verdict *v) {
    struct rng r = rng_make(test_seed(), c->stream ^ 0x5555);
    struct merge_outputs o = {grid_make(&r, 4, (size_t[4]){c->batch, c->n_head, c->n_q, c->p_v}, c->layout),
                              grid_make(&r, 4, (size_t[4]){c->batch, c->n_head, c->n_q, 1}, c->layout)};
    const struct grid *out = c->in_place & 1 ? &d->outs[0] : &o.out,
                      *lse = c->in_place & 2 ? &d->lses[0] : &o.lse;
    unsigned char *out_before = copy_of(out), *lse_before = copy_of(lse);
    const attn_tensor t_out = grid_tensor(out), t_lse = grid_tensor(lse);
    const attn_merge_args args = {.size = sizeof args,
                                  .n_parts = c->n_parts,
                                  .outs = c->n_parts ? d->t_outs : NULL,
                                  .lses = c->n_parts ? d->t_lses : NULL,
                                  .out = &t_out,
                                  .lse = c->lse ? &t_lse : NULL};
    seal(c, d, 1);
    const attn_status status = attn_merge(context, &args);
    seal(c, d, 0);
    if (status != ATTN_OK)
        verdict_fail(v, "status %s: %s", attn_status_name(status), attn_context_error(context));
    check_output("out", out, v);
    if (c->lse) check_output("lse", lse, v);
    if (out != &o.out) take(out, out_before, &o.out);
    if (lse != &o.lse) take(lse, lse_before, &o.lse);
    free(out_before);
    free(lse_before);
    return o;
}

void merge_outputs_free(struct merge_outputs *o) {
    grid_free(&o->out);
    grid_free(&o->lse);
}

/* Row (b, h, i) of the outputs. memory: room for (n_parts + 2) (p_v + 1) numbers. */
static void compare_row(enum attn_bound_arith arith, const struct merge_case *c, const struct merge_data *d,
                        const struct merge_outputs *o, size_t at[3], double *memory, struct verdict *v) {
    double *out = memory, *out_err = out + c->p_v, *lses = out_err + c->p_v, *outs = lses + c->n_parts, lse,
           lse_err;
    const float *row = grid_f32(&o->out, at[0], at[1], at[2]);
    for (size_t i = 0; i < c->n_parts; i++) {
        lses[i] = *grid_f32(&d->lses[i], at[0], at[1], at[2]);
        for (size_t k = 0; k < c->p_v; k++)
            outs[i * c->p_v + k] = grid_f32(&d->outs[i], at[0], at[1], at[2])[k];
    }
    const struct merge_row r = {
        .arith = arith, .n_parts = c->n_parts, .p_v = c->p_v, .lse = lses, .out = outs};
    merge_bound_row(&r, out, out_err, &lse, &lse_err);
    for (size_t k = 0; k < c->p_v; k++)
        if (!attn_bound_holds(row[k], out[k], out_err[k]))
            verdict_fail(v, "out[%zu][%zu][%zu][%zu]: %a, oracle %a, bound %g", at[0], at[1], at[2], k,
                         row[k], out[k], out_err[k]);
    const float got = c->lse ? *grid_f32(&o->lse, at[0], at[1], at[2]) : (float)lse;
    if (!attn_bound_holds(got, c->lse ? lse : (float)lse, lse_err))
        verdict_fail(v, "lse[%zu][%zu][%zu]: %a, oracle %a, bound %g", at[0], at[1], at[2], got, lse,
                     lse_err);
}

/* Runs tasks in reverse order, each on another worker. */
static void run_backwards(void *pool, size_t n_tasks, attn_task *task, void *arg) {
    const size_t n_workers = *(const size_t *)pool;
    for (size_t i = n_tasks; i-- > 0;) task(arg, i, i % n_workers);
}

void merge_case_check(const char *backend, const struct attn_backend *substitute, const struct merge_case *c,
                      struct verdict *v) {
    size_t n_workers = c->n_workers ? c->n_workers : 1;
    const attn_executor executor = {run_backwards, &n_workers, n_workers};
    const attn_options options = {.size = sizeof options, .backend = backend, .executor = &executor};
    attn_context *context = NULL;
    struct merge_data d = merge_case_make(c);
    double *memory = calloc((c->n_parts + 2) * (c->p_v + 1), sizeof *memory);
    harness_case(
        "%s attn_merge batch %zu n_head %zu n_q %zu p_v %zu parts %zu in place %d hidden %u stream %llu",
        backend, c->batch, c->n_head, c->n_q, c->p_v, c->n_parts, c->in_place, c->hidden,
        (unsigned long long)c->stream);
    if (!memory) abort();
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    if (substitute) context->backend = substitute;
    struct merge_outputs o = merge_case_run(context, c, &d, v);
    for (size_t b = 0; b < c->batch; b++)
        for (size_t h = 0; h < c->n_head; h++)
            for (size_t i = 0; i < c->n_q && v->ok; i++)
                compare_row(attn_bound_arith_of(backend), c, &d, &o, (size_t[3]){b, h, i}, memory, v);
    attn_context_destroy(context);
    merge_outputs_free(&o);
    merge_case_free(c, &d);
    free(memory);
}
