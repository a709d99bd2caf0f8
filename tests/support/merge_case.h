/*
 * One call of attn_merge in guarded memory, checked against the sum that attn.h gives, evaluated in double,
 * and the bound that docs/numerics.md derives. What must not be read (the rows of parts whose log-sum-exp is
 * -inf) is NaN.
 */
#ifndef TEST_MERGE_CASE_H
#define TEST_MERGE_CASE_H

#include "attn/attn.h"
#include "bound.h"
#include "support/grid.h"
#include "support/harness.h"

struct merge_case {
    size_t batch, n_head, n_q, p_v, n_parts;
    int in_place; /* bit 0: out is outs[0]; bit 1: lse is lses[0] */
    int lse;
    unsigned hidden;  /* percent of -inf among the log-sum-exps */
    int spoiled;      /* NaN and +inf here and there */
    float mid, width; /* log-sum-exps are mid + width * N(0, 1) */
    int shared;       /* the parts' batch stride is 0 */
    enum fill fill;
    unsigned layout;
    size_t n_workers;
    uint64_t stream;
};

struct merge_data {
    struct grid *outs, *lses; /* n_parts each */
    attn_tensor *t_outs, *t_lses;
};
struct merge_data merge_case_make(const struct merge_case *c);
void merge_case_free(const struct merge_case *c, struct merge_data *d);

/* The outputs, which the caller frees: copies where they were merged in place, so that the data stays. */
struct merge_outputs {
    struct grid out, lse;
};
struct merge_outputs merge_case_run(attn_context *context, const struct merge_case *c, struct merge_data *d,
                                    struct verdict *v);
void merge_outputs_free(struct merge_outputs *o);

/* backend: what arithmetic to expect; substitute: what runs, or NULL for that backend. */
void merge_case_check(const char *backend, const struct attn_backend *substitute, const struct merge_case *c,
                      struct verdict *v);

/* The exact result of one row and its bounds. The *_err of the inputs bound their errors (NULL: none). */
struct merge_row {
    enum attn_bound_arith arith;
    size_t n_parts, p_v;
    const double *lse, *lse_err; /* [n_parts] */
    const double *out, *out_err; /* [n_parts, p_v]; not read where lse is -inf */
};
void merge_bound_row(const struct merge_row *r, double *out, double *out_err, double *lse, double *lse_err);

#endif
