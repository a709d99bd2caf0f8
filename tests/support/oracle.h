/*
 * The mathematics of attn.h in double precision, as a textbook writes it: two passes, no tiles, nothing
 * fused. Shares no code with src/ nor with tools/bound.c, whose bounds say how far f32 may lie from it.
 */
#ifndef TEST_ORACLE_H
#define TEST_ORACLE_H

#include <stddef.h>

/* y[o] = bias[o] + sum_i x[i] w[o*k + i] for one row; bias may be NULL. */
void oracle_linear(size_t n, size_t k, const double *x, const float *w, const float *bias, double *y);

/* One query row; all arrays contiguous. */
struct oracle_row {
    size_t n_kv, d_k, d_v;
    const double *q, *k, *v; /* d_k, n_kv x d_k, n_kv x d_v */
    const double *w;         /* scores are scale * w.tanh(q + k); NULL: scale * q.k */
    double scale;
    const double *mask; /* n_kv: -inf hides the key, anything else is added to its score; or NULL */
    double soft_cap;    /* c > 0: c tanh(score / c), before anything is added; 0: none */
    double slope;       /* ALiBi: -slope |position - j| is added */
    double position;
    const double *sink; /* a logit without a value, or NULL */
};

/* out: d_v; lse: 1, without the sink; weights: n_kv; lse_sink: 1, or NULL. A row that sees nothing gives 0, -inf,
 * 0 and the sink. */
void oracle_pool(const struct oracle_row *r, double *out, double *lse, double *weights, double *lse_sink);

/* The row's scores as they enter the softmax, -inf where hidden: n_kv. */
void oracle_scores(const struct oracle_row *r, double *scores);

#endif
