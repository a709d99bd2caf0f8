/*
 * The values of attn_multihead_step() against the formulas in double: projections, norm, RoPE, visibility, pooling, W_o.
 * What is meant is checked here, in whole sequences brought by any schedule; how exact each part is by the suites of the
 * parts, whose bits these are (bits.c). So the tolerance is wide for rounding and narrow for another meaning: scores of
 * up to 30, of sums of some 100 products, are off by 30 * 100 * 2^-24 at most, weights and outputs by as much of
 * themselves.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "step/step_case.h"
#include "support/oracle.h"
#include "support/rope_case.h"
#include "support/shapes.h"

static const double tolerance = 2e-4;
static const struct attn_backend *backends[4];

static double *doubles(size_t n) {
    double *x = malloc((n + 1) * sizeof *x);
    if (!x) abort();
    return x;
}

static void norm(double *x, size_t n, const float *weight, double epsilon) {
    double sum = 0.0;
    for (size_t j = 0; j < n; j++) sum += x[j] * x[j];
    for (size_t j = 0; j < n; j++) x[j] = x[j] / sqrt(sum / (double)n + epsilon) * (double)weight[j];
}

static void turn(double *x, const struct step_case *c, const attn_rope *rope, double position) {
    const size_t dims = c->dims ? c->dims : c->p_k;
    for (size_t i = 0; i < dims / 2; i++) {
        const long double angle = (long double)position * rope_oracle_frequency(rope, dims, i);
        const double cos = (double)cosl(angle), sin = (double)sinl(angle);
        double *a = x + (c->style == ATTN_ROPE_INTERLEAVED ? 2 * i : i);
        double *b = a + (c->style == ATTN_ROPE_INTERLEAVED ? 1 : dims / 2);
        const double a0 = *a, b0 = *b;
        *a = a0 * cos - b0 * sin;
        *b = a0 * sin + b0 * cos;
    }
}

/* Projected rows of a sequence, [n][heads][p], normed and turned where that is to be. */
static double *project(const struct step_case *c, const struct step_data *d, int which, size_t first,
                       size_t n) {
    const size_t rows = d->rows[which], p = which == 2 ? c->p_v : c->p_k;
    const float *weight = which == 0 && c->q_norm ? d->q_norm : which == 1 && c->k_norm ? d->k_norm : NULL;
    double *y = doubles(n * rows), *x = doubles(c->d);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < c->d; j++) x[j] = (double)d->x[(first + i) * c->d + j];
        oracle_linear(rows, c->d, x, d->w[which], d->bias[which], y + i * rows);
        for (size_t h = 0; h < rows / p; h++) {
            double *head = y + i * rows + h * p;
            if (weight) norm(head, p, weight, c->epsilon == 0.0f ? 1e-6 : (double)c->epsilon);
            if (c->rope && which < 2)
                turn(head, c, &d->rope, c->positions ? (double)d->positions[first + i] : (double)i);
        }
    }
    free(x);
    return y;
}

static double hidden(const struct step_case *c, size_t i, size_t j) {
    const int windowed = c->scoring == STEP_WINDOW || c->scoring == STEP_SHAPED;
    if (j > i || (windowed && i - j > c->window)) return -INFINITY;
    return c->scoring == STEP_MASK && j % STEP_KEY_MASK == 3 ? -INFINITY : 0.0;
}

/* Keys or values of one head, [n][p]. */
static double *head_of(const double *x, size_t n, size_t heads, size_t h, size_t p) {
    double *y = doubles(n * p);
    for (size_t i = 0; i < n; i++) memcpy(y + i * p, x + (i * heads + h) * p, p * sizeof *y);
    return y;
}

static void expect(double got, double want, const char *what, size_t i, struct verdict *v) {
    if (!v->ok || (isinf(want) && got == want)) return;
    if (!(fabs(got - want) <= tolerance * (1.0 + fabs(want))))
        verdict_fail(v, "token %zu: %s is %.9g, not %.9g", i, what, got, want);
}

static void check_sequence(const struct step_case *c, const struct step_data *d, size_t first, size_t n,
                           const struct step_outputs *o, struct verdict *v) {
    const size_t inner = c->n_head * c->p_v, width = step_case_width(c);
    double *q = project(c, d, 0, first, n), *k = project(c, d, 1, first, n),
           *values = project(c, d, 2, first, n);
    double *heads = doubles(n * inner), *mask = doubles(n), *weights = doubles(n), *out = doubles(width);
    for (size_t h = 0; h < c->n_head; h++) {
        const size_t kv = h / (c->n_head / c->n_head_kv);
        double *k_h = head_of(k, n, c->n_head_kv, kv, c->p_k),
               *v_h = head_of(values, n, c->n_head_kv, kv, c->p_v);
        const double sink = (double)d->sinks[h];
        for (size_t i = 0; i < n; i++) {
            const int shaped = c->scoring == STEP_SHAPED;
            double lse, lse_sink;
            for (size_t j = 0; j < n; j++) mask[j] = hidden(c, i, j);
            const struct oracle_row row = {.n_kv = n,
                                           .d_k = c->p_k,
                                           .d_v = c->p_v,
                                           .q = q + (i * c->n_head + h) * c->p_k,
                                           .k = k_h,
                                           .v = v_h,
                                           .scale = 1.0 / sqrt((double)c->p_k),
                                           .mask = mask,
                                           .soft_cap = shaped ? 3.0 : 0.0,
                                           .slope = shaped ? (double)d->slopes[h] : 0.0,
                                           .position = (double)i,
                                           .sink = shaped ? &sink : NULL};
            oracle_pool(&row, heads + i * inner + h * c->p_v, &lse, weights, &lse_sink);
            expect((double)o->lse[(first + i) * c->n_head + h], lse, "its log-sum-exp", first + i, v);
        }
        free(k_h);
        free(v_h);
    }
    for (size_t i = 0; i < n; i++) {
        const double *want = heads + i * inner;
        if (c->p_o) oracle_linear(c->p_o, inner, want, d->w[3], d->bias[3], out);
        for (size_t j = 0; j < width; j++)
            expect((double)o->out[(first + i) * width + j], c->p_o ? out[j] : want[j], "an output", first + i,
                   v);
    }
    free(q);
    free(k);
    free(values);
    free(heads);
    free(mask);
    free(weights);
    free(out);
}

START_TEST(values) {
    static const struct step_cache_shape shapes[] = {{.layout = ATTN_KV_ROWS, .host = 1},
                                                     {.layout = ATTN_KV_ROWS, .block_rows = 16},
                                                     {.layout = ATTN_KV_PANELS, .block_rows = 32},
                                                     {.layout = ATTN_KV_ROWS, .block_rows = 3, .ring = 1}};
    attn_context *context = harness_context(backends[_i]->name, 1);
    for (size_t i = 0; i < 120; i++) {
        const struct step_case c = step_case_draw(200 + i, 0);
        const int windowed = c.scoring == STEP_WINDOW || c.scoring == STEP_SHAPED;
        struct verdict v = {.ok = 1};
        if (!harness_takes(i, 10)) continue;
        struct step_data *d = step_data_make(&c);
        struct step_outputs o = step_outputs_make(&c);
        step_case_announce(backends[_i]->name, &c, ", values");
        step_case_run(context, &c, d, &shapes[i / 3 % (windowed ? 4 : 3)],
                      (enum step_schedule)(i / 2 % N_STEP_SCHEDULES), &o, &v);
        for (size_t s = 0, first = 0; s < c.n_sequences; first += c.lengths[s++])
            check_sequence(&c, d, first, c.lengths[s], &o, &v);
        HARNESS_ASSERT(&v);
        step_outputs_free(&o);
        step_data_free(d);
    }
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("step: values");
    TCase *cases = tcase_create("values");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, values, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
