/* The textbook's results of api_case.h, and the bounds. */
#include <math.h>
#include <stdlib.h>

#include "support/api_case.h"
#include "support/oracle.h"

static double *doubles(size_t n) {
    double *p = malloc((n + 1) * sizeof *p);
    if (!p) abort();
    return p;
}

static const float *bias_of(const struct api_matrix *m) { return m->bias ? m->data + m->n * m->k : NULL; }

/* Rows of head h of sequence b in double precision: n x width. */
static double *rows_of(const attn_tensor *t, size_t b, size_t h) {
    const size_t n = t->size[2], width = t->size[3];
    double *x = doubles(n * width);
    for (size_t i = 0; i < n; i++) {
        const char *row = (const char *)t->data + (ptrdiff_t)b * t->stride[0] + (ptrdiff_t)h * t->stride[1] +
                          (ptrdiff_t)i * t->stride[2];
        for (size_t j = 0; j < width; j++) x[i * width + j] = ((const float *)(const void *)row)[j];
    }
    return x;
}

/* x W^T + b with outputs [first, first + n) of the matrix; frees x. */
static double *project(double *x, size_t rows, const struct api_matrix *m, size_t first, size_t n) {
    double *y = doubles(rows * n);
    for (size_t i = 0; i < rows; i++)
        oracle_linear(n, m->k, x + i * m->k, m->data + first * m->k, bias_of(m) ? bias_of(m) + first : NULL,
                      y + i * n);
    free(x);
    return y;
}

/* What is pooled for head h: q, k, v after all projections. */
struct pooled {
    double *q, *k, *v, *w;
    size_t width;
};

static struct pooled pooled_of(const struct api_case *c, const struct api_data *d, size_t b, size_t h) {
    const size_t kv = h / (c->n_head / c->n_head_kv);
    const int heads = api_has_heads(c);
    struct pooled p = {rows_of(&d->t_q, b, heads ? 0 : h), rows_of(&d->t_k, b, heads ? 0 : kv),
                       rows_of(&d->t_v, b, heads ? 0 : kv), NULL, c->p_k};
    if (heads) {
        p.q = project(p.q, c->n_q, &d->w_q, h * c->p_q, c->p_q);
        p.k = project(p.k, c->n_kv, &d->w_k, kv * c->p_k, c->p_k);
        p.v = project(p.v, c->n_kv, &d->w_v, kv * c->p_v, c->p_v);
    }
    if (c->a_q) p.q = project(p.q, c->n_q, &d->a_q[h], 0, c->c);
    if (c->a_k) p.k = project(p.k, c->n_kv, &d->a_k[kv], 0, c->c);
    if (api_is_additive(c)) {
        p.width = d->w.size[3];
        p.w = doubles(p.width);
        for (size_t i = 0; i < p.width; i++) p.w[i] = grid_f32(&d->w, 0, d->w.size[1] == 1 ? 0 : h, 0)[i];
    }
    return p;
}

/* Results of head h of element b of the batch. */
struct head_answers {
    double *out, *lse, *weights, *lse_sinks, *scores;
    size_t columns; /* of weights and scores */
};

static void pool_head(const struct api_case *c, const struct api_data *d, size_t b, size_t h,
                      const struct head_answers *to) {
    const struct pooled p = pooled_of(c, d, b, h);
    double *mask = doubles(c->n_kv);
    const double sink = (double)d->sinks[h];
    const double scale = c->scale != 0 ? (double)c->scale : p.w ? 1 : 1 / sqrt((double)p.width);
    for (size_t i = 0; i < c->n_q; i++) {
        const struct api_place at = api_case_place(c, d, b, i);
        for (size_t j = 0; j < at.n_kv; j++)
            mask[j] = api_case_sees(c, d, b, h, i, j) ? (double)api_case_bias(c, d, b, h, i, j) : -INFINITY;
        for (size_t j = at.n_kv; j < to->columns; j++) {
            to->weights[i * to->columns + j] = 0;
            to->scores[i * to->columns + j] = -INFINITY;
        }
        const struct oracle_row row = {.n_kv = at.n_kv,
                                       .d_k = p.width,
                                       .d_v = c->p_v,
                                       .q = p.q + i * p.width,
                                       .k = p.k + at.first_key * p.width,
                                       .v = p.v + at.first_key * c->p_v,
                                       .w = p.w,
                                       .scale = scale,
                                       .mask = mask,
                                       .soft_cap = (double)c->soft_cap,
                                       .slope = c->alibi ? (double)d->slopes[h] : 0,
                                       .position = (double)at.position,
                                       .sink = c->sinks ? &sink : NULL};
        oracle_pool(&row, to->out + i * c->p_v, to->lse + i, to->weights + i * to->columns,
                    to->lse_sinks + i);
        oracle_scores(&row, to->scores + i * to->columns);
    }
    free(mask);
    free(p.q);
    free(p.k);
    free(p.v);
    free(p.w);
}

/* [h_1; ...; h_h] of every row of sequence b, times W_o where there is one. */
static void join_heads(const struct api_case *c, const struct api_data *d, const double *heads, double *out) {
    const size_t width = c->n_head * c->p_v;
    double *row = doubles(width);
    for (size_t i = 0; i < c->n_q; i++) {
        for (size_t h = 0; h < c->n_head; h++)
            for (size_t j = 0; j < c->p_v; j++) row[h * c->p_v + j] = heads[(h * c->n_q + i) * c->p_v + j];
        for (size_t j = 0; !c->p_o && j < width; j++) out[i * width + j] = row[j];
        if (c->p_o) oracle_linear(c->p_o, width, row, d->w_o.data, bias_of(&d->w_o), out + i * c->p_o);
    }
    free(row);
}

struct api_answers api_case_answers(const struct api_case *c, const struct api_data *d) {
    const size_t first = c->call == API_HEAD ? c->head : 0, n_head = c->call == API_HEAD ? 1 : c->n_head;
    const size_t joined = c->call == API_MULTIHEAD ? (c->p_o ? c->p_o : c->n_head * c->p_v) : 0;
    struct api_answers a = {.n_lse = c->batch * n_head * c->n_q};
    const size_t columns = api_case_longest(c, d, 1);
    a.n_weights = a.n_lse * columns;
    a.n_out = joined ? c->batch * c->n_q * joined : a.n_lse * c->p_v;
    a.out = doubles(a.n_out + 2 * a.n_lse + 2 * a.n_weights);
    a.lse = a.out + a.n_out;
    a.weights = a.lse + a.n_lse;
    a.lse_sinks = a.weights + a.n_weights;
    a.scores = a.lse_sinks + a.n_lse;
    double *heads = doubles(n_head * c->n_q * c->p_v);
    for (size_t b = 0; b < c->batch; b++) {
        double *out = joined ? heads : a.out + b * n_head * c->n_q * c->p_v;
        for (size_t h = 0; h < n_head; h++) {
            const size_t at = (b * n_head + h) * c->n_q;
            const struct head_answers to = {out + h * c->n_q * c->p_v, a.lse + at,
                                            a.weights + at * columns,  a.lse_sinks + at,
                                            a.scores + at * columns,   columns};
            pool_head(c, d, b, first + h, &to);
        }
        if (joined) join_heads(c, d, heads, a.out + b * c->n_q * joined);
    }
    free(heads);
    return a;
}

static struct attn_bound_matrix matrix(const struct api_matrix *m) {
    return (struct attn_bound_matrix){m->data, m->n, m->k, m->data ? bias_of(m) : NULL};
}

static void bounds_of_heads(enum attn_bound_arith arith, const struct api_case *c, struct api_data *d,
                            const struct attn_bound_matrix *a_q, const struct attn_bound_matrix *a_k,
                            struct attn_bound_result *to) {
    const struct attn_bound_weights w = {.n_head = c->n_head,
                                         .n_head_kv = c->n_head_kv,
                                         .w_q = matrix(&d->w_q),
                                         .w_k = matrix(&d->w_k),
                                         .w_v = matrix(&d->w_v),
                                         .w_o = matrix(&d->w_o),
                                         .pooling = c->pooling,
                                         .a_q = c->a_q ? a_q : NULL,
                                         .a_k = c->a_k ? a_k : NULL,
                                         .w_a = api_is_additive(c) ? &d->t_w : NULL};
    const attn_head_args args = {.size = sizeof args,
                                 .head = c->head,
                                 .q = &d->t_q,
                                 .k = &d->t_k,
                                 .v = &d->t_v,
                                 .scoring = &d->scoring};
    if (c->call == API_HEAD ? attn_bound_head(arith, &w, &args, to)
                            : attn_bound_multihead(arith, &w, &args, to))
        abort();
}

void api_case_bounds(const char *backend, const struct api_case *c, struct api_data *d,
                     struct attn_bound_result *to) {
    const enum attn_bound_arith arith = attn_bound_arith_of(backend);
    static struct attn_bound_matrix a_q[API_HEADS_MAX], a_k[API_HEADS_MAX];
    for (size_t h = 0; h < c->n_head; h++) {
        a_q[h] = matrix(&d->a_q[h]);
        a_k[h] = matrix(&d->a_k[h]);
    }
    int failed = 0;
    if (c->call == API_SDPA) {
        const attn_sdpa_args args = {
            .size = sizeof args, .q = &d->t_q, .k = &d->t_k, .v = &d->t_v, .scoring = &d->scoring};
        failed = attn_bound_sdpa(arith, &args, to);
    } else if (c->call == API_ADDITIVE) {
        const attn_additive_args args = {.size = sizeof args,
                                         .q = &d->t_q,
                                         .k = &d->t_k,
                                         .v = &d->t_v,
                                         .w = &d->t_w,
                                         .scoring = &d->scoring};
        failed = attn_bound_additive(arith, &args, c->a_q ? a_q : NULL, c->a_k ? a_k : NULL, to);
    } else {
        bounds_of_heads(arith, c, d, a_q, a_k, to);
    }
    if (failed) abort();
}
