/*
 * An independent oracle for attention: the exact result (evaluated in double with naive loops) and, for
 * every element, a derived bound on how far a backend's f32 result may lie from it. docs/numerics.md
 * derives each term. For the tests and for `attn head --check`; no part of the library.
 *
 * Shares no code with the library: visibility, grouping, masks and defaults are read off attn.h anew.
 * All functions that return int give 0, or -1 when there is no memory.
 * Sources: bound.c (rows) and bound_call.c (whole calls); they need -lm only, and src/ to include order.h.
 */
#ifndef ATTN_BOUND_H
#define ATTN_BOUND_H

#include <attn/attn.h>
#include <stddef.h>

/* How the backend under test computes. */
enum attn_bound_arith {
    ATTN_BOUND_SIMD,  /* f32 in the canonical order of src/order.h (avx2, avx512, neon) */
    ATTN_BOUND_SCALAR /* double accumulation, every output rounded to f32 once */
};

/* The arithmetic of a backend, by its name in attn_backend_list(). */
enum attn_bound_arith attn_bound_arith_of(const char *backend);

/*
 * Whether got is an acceptable result: within err of want. A NaN is wanted exactly where want is NaN;
 * an infinite err (an intermediate value may overflow f32) accepts anything.
 */
int attn_bound_holds(double got, double want, double err);

/* ---- One row -------------------------------------------------------------------------------------- */

/* y[o] = bias[o] + sum_i x[i] w[o*w_row + i] for o < n, i < k, and its error bound. x_err bounds the
 * error that x itself has (NULL: none), bias may be NULL. */
void attn_bound_linear_row(enum attn_bound_arith arith, const double *x, const double *x_err, const float *w,
                           size_t w_row, const float *bias, size_t n, size_t k, double *y, double *y_err);

/* Where results go: value and bound of each; any pointer may be NULL. Contiguous. */
struct attn_bound_result {
    double *out, *out_err;             /* [.., n_q, p_v] */
    double *lse, *lse_err;             /* [.., n_q] */
    double *weights, *weights_err;     /* [.., n_q, n_kv]; with starts the longest sequence's keys */
    double *lse_sinks, *lse_sinks_err; /* as lse */
    double *scores, *scores_err;       /* as weights */
};

/* Attention pooling of one query row. The *_err arrays bound the errors of the inputs (NULL: none). */
struct attn_bound_row {
    enum attn_bound_arith arith;
    size_t n_kv, d_k, d_v;
    const double *q, *q_err; /* [d_k] */
    const double *k, *k_err; /* [n_kv, d_k] */
    const double *v, *v_err; /* [n_kv, d_v] */
    const double *w;         /* [d_k]: additive scores w.tanh(q + k); NULL: dot product q.k */
    double scale, scale_err; /* scale_err relative: 2^-23 and a little for a default scale in f32 */
    const double *mask;      /* [n_kv]: -inf hides the key, any other value is added to its score */
    double soft_cap;         /* c > 0: a score s becomes c tanh(s / c); 0: none */
    double slope, position;  /* ALiBi: -slope |position - j| is added */
    const double *sink;      /* a logit in the denominator, without a value; or NULL */
};
int attn_bound_pool_row(const struct attn_bound_row *row, const struct attn_bound_result *result);

/* ---- Whole calls ---------------------------------------------------------------------------------- */

/* A matrix before packing: n outputs, k inputs, rows contiguous; bias (n floats) or NULL. */
struct attn_bound_matrix {
    const float *data;
    size_t n, k;
    const float *bias;
};

/* The results of attn_linear(): y and y_err are [batch, head, row, n]. */
int attn_bound_linear(enum attn_bound_arith arith, const attn_tensor *x, const struct attn_bound_matrix *w,
                      double *y, double *y_err);

/* The results of attn_sdpa(): reads q, k, v and scoring of args. */
int attn_bound_sdpa(enum attn_bound_arith arith, const attn_sdpa_args *args,
                    const struct attn_bound_result *result);

/* The results of attn_additive(): reads q, k, v, w and scoring of args; the n_head matrices A_q and the
 * n_head_kv matrices A_k come unpacked (NULL: none). */
int attn_bound_additive(enum attn_bound_arith arith, const attn_additive_args *args,
                        const struct attn_bound_matrix *a_q, const struct attn_bound_matrix *a_k,
                        const struct attn_bound_result *result);

/* attn_weights before packing. */
struct attn_bound_weights {
    size_t n_head, n_head_kv;
    struct attn_bound_matrix w_q, w_k, w_v, w_o; /* w_o.data NULL: none */
    attn_pooling pooling;
    const struct attn_bound_matrix *a_q, *a_k; /* n_head and n_head_kv of them, or NULL */
    const attn_tensor *w_a;
};

/* The results of attn_head() and attn_multihead(): reads head, q, k, v and scoring of args. Errors of the
 * projections are carried through scores, values and W_o. */
int attn_bound_head(enum attn_bound_arith arith, const struct attn_bound_weights *weights,
                    const attn_head_args *args, const struct attn_bound_result *result);
int attn_bound_multihead(enum attn_bound_arith arith, const struct attn_bound_weights *weights,
                         const attn_head_args *args, const struct attn_bound_result *result);

#endif
