/* A small call of attn_sdpa whose attn_scoring a test sets itself, and what attn.h says of its rows. */
#ifndef TEST_EDGE_H
#define TEST_EDGE_H

#include <math.h>

#include "support/api_case.h"

enum { HEADS = 4, HEADS_KV = 2, P = 8, P_V = 5 };

/* A case that draws nothing at random but its numbers; what a test wants it sets in the data's scoring itself. */
static inline struct api_case plain(size_t batch, size_t n_q, size_t n_kv) {
    return (struct api_case){.call = API_SDPA,
                             .batch = batch,
                             .n_head = HEADS,
                             .n_head_kv = HEADS_KV,
                             .n_q = n_q,
                             .n_kv = n_kv,
                             .p_q = P,
                             .p_k = P,
                             .p_v = P_V,
                             .lse = 1,
                             .lse_sinks = 1,
                             .weights = 1,
                             .scores = 1,
                             .stream = 7000 + n_q * 100 + n_kv};
}

struct edge {
    struct api_case c;
    struct api_data *d;
    attn_context *context;
    struct api_outputs o;
};

static inline struct edge edge_open(const struct attn_backend *backend, size_t batch, size_t n_q,
                                    size_t n_kv) {
    struct edge e = {.c = plain(batch, n_q, n_kv)};
    e.d = api_case_make(&e.c);
    e.context = harness_context(backend->name, 1);
    api_case_announce(backend->name, &e.c);
    return e;
}

static inline void edge_run(struct edge *e) {
    struct verdict v = {.ok = 1};
    e->o = api_case_run(e->context, &e->c, e->d, &v);
    HARNESS_ASSERT(&v);
}

static inline void edge_close(struct edge *e) {
    api_outputs_free(&e->o);
    attn_context_destroy(e->context);
    api_case_free(e->d);
}

/* The row is 0, its weights too; its scores are -inf; its log-sum-exp is -inf, with the sink the sink. */
static inline void expect_nothing(const struct edge *e, size_t b, size_t i) {
    for (size_t h = 0; h < HEADS; h++) {
        const float *const sinks = e->d->scoring.sinks, want = sinks ? sinks[h] : -INFINITY;
        for (size_t j = 0; j < P_V; j++) ck_assert(grid_f32(&e->o.out, b, h, i)[j] == 0);
        for (size_t j = 0; e->c.weights && j < e->o.weights.size[3]; j++)
            ck_assert(grid_f32(&e->o.weights, b, h, i)[j] == 0);
        for (size_t j = 0; e->c.scores && j < e->o.scores.size[3]; j++)
            ck_assert(grid_f32(&e->o.scores, b, h, i)[j] == -INFINITY);
        ck_assert(*grid_f32(&e->o.lse, b, h, i) == -INFINITY);
        const float got = *grid_f32(&e->o.lse_sinks, b, h, i);
        ck_assert_msg(got == want, "%s: lse_sinks %a, the sink %a", harness_case_text(), (double)got,
                      (double)want);
    }
}

/* The row sees these keys and no others: by its weights and scores; without sinks they add up to 1. */
static inline void expect_keys(const struct edge *e, size_t b, size_t i, size_t from, size_t to) {
    for (size_t h = 0; h < HEADS; h++) {
        const float *w = grid_f32(&e->o.weights, b, h, i), *s = grid_f32(&e->o.scores, b, h, i);
        double sum = 0;
        for (size_t j = 0; j < e->o.weights.size[3]; j++) {
            ck_assert_msg((w[j] != 0) == (from <= j && j < to), "%s: row %zu, key %zu, expected [%zu, %zu)",
                          harness_case_text(), i, j, from, to);
            ck_assert((s[j] != -INFINITY) == (w[j] != 0));
            sum += (double)w[j];
        }
        if (!e->d->scoring.sinks) ck_assert(fabs(sum - 1) < 1e-5);
    }
}

/* Keys that have one and the same weight: the output is their values' mean. */
static inline void expect_mean(const struct edge *e, size_t i, size_t from, size_t to) {
    const double n = (double)(to - from);
    for (size_t h = 0; h < HEADS; h++)
        for (size_t c = 0; c < P_V; c++) {
            double mean = 0, size = 0;
            for (size_t j = from; j < to; j++) {
                mean += (double)grid_f32(&e->d->v, 0, h / 2, j)[c] / n;
                size += fabs((double)grid_f32(&e->d->v, 0, h / 2, j)[c]) / n;
            }
            const double got = (double)grid_f32(&e->o.out, 0, h, i)[c];
            ck_assert_msg(fabs(got - mean) <= (3 * n + 20) * 0x1p-24 * size, "%s: row %zu: %g, the mean %g",
                          harness_case_text(), i, got, mean);
        }
}

#endif
