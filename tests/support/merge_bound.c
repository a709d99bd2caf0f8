/* The merge of one row in double, and how far f32 may lie from it: docs/numerics.md, "Merge". */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "support/merge_case.h"

static double g(double n, double u) { return n * u / (1 - n * u); }

/* What both sums over the parts need of part i. */
struct weighted {
    double w, up; /* its share, and a bound on its absolute error */
};

static double max_of(const struct merge_row *r, size_t *seen) {
    double max = -INFINITY;
    *seen = 0;
    for (size_t i = 0; i < r->n_parts; i++) {
        *seen += r->lse[i] != -INFINITY;
        if (r->lse[i] > max || isnan(r->lse[i])) max = r->lse[i];
    }
    return max;
}

static void bound_column(const struct merge_row *r, const struct weighted *p, double u, double all,
                         size_t seen, size_t c, double *out, double *err) {
    double mean = 0, shared = 0, input = 0, size = 0, largest = 0, apart = 0;
    for (size_t i = 0; i < r->n_parts; i++)
        if (r->lse[i] != -INFINITY) mean += p[i].w * r->out[i * r->p_v + c];
    for (size_t i = 0; i < r->n_parts; i++) {
        if (r->lse[i] == -INFINITY) continue;
        const double o = r->out[i * r->p_v + c], d = r->out_err ? r->out_err[i * r->p_v + c] : 0;
        shared += p[i].up * fabs(o - mean);
        input += (p[i].w + p[i].up) * d;
        size += (p[i].w + p[i].up) * (fabs(o) + d);
        largest = fmax(largest, fabs(o) + d);
        apart = fmax(apart, fabs(o - mean) + d);
    }
    *out = mean;
    const double n = (double)seen;
    if (all < 1)
        *err = (shared + input + g(3 * n, u) * size) / (1 - all);
    else
        *err = apart + g(3 * n, u) * largest;
    *err += g(8 * n + 8, 0x1p-53) * (size + largest); /* this evaluation in double */
    if (r->arith == ATTN_BOUND_SIMD)
        *err += n * largest * 2 > FLT_MAX ? INFINITY : n * 0x1p-147 * (largest + 1);
    else
        *err += 0x1p-24 * (fabs(mean) + *err) + 0x1p-149;
    if (!isfinite(mean)) *err = 0;
}

static double bound_lse(const struct merge_row *r, double u, double all, double most, double sum, double lse,
                        size_t seen) {
    const double shared = fmin(all < 1 ? -log2(1 - all) : INFINITY, most + log2(1 + g(2, u)));
    const double e = shared - log2(1 - g((double)seen, u)), logs = log2(sum) + e;
    const double err = M_LN2 * (e + g(4, u) * logs);
    return err + (u + 0x1p-50) * (fabs(lse) + err) + 0x1p-149 +
           (r->arith == ATTN_BOUND_SIMD ? 0 : 0x1p-24 * (fabs(lse) + err));
}

void merge_bound_row(const struct merge_row *r, double *out, double *out_err, double *lse, double *lse_err) {
    const double u = r->arith == ATTN_BOUND_SIMD ? 0x1p-24 : 0x1p-53;
    size_t seen;
    const double max = max_of(r, &seen);
    struct weighted *p = calloc(r->n_parts + 1, sizeof *p);
    double sum = 0, all = 0, most = 0;
    if (!p) abort();
    for (size_t i = 0; i < r->n_parts; i++)
        if (r->lse[i] != -INFINITY) sum += p[i].w = exp(r->lse[i] - max);
    for (size_t i = 0; i < r->n_parts; i++) {
        if (p[i].w == 0) continue; /* far below f32's range, whatever its error */
        const double x = (max - r->lse[i]) / M_LN2;
        const double delta = g(3, u) * x + (r->lse_err ? r->lse_err[i] / M_LN2 : 0);
        p[i].w /= sum;
        p[i].up = p[i].w * (exp2(delta) * (1 + g(2, u)) - 1);
        all += p[i].up;
        most = fmax(most, delta);
    }
    for (size_t c = 0; c < r->p_v; c++) {
        if (seen)
            bound_column(r, p, u, all, seen, c, &out[c], &out_err[c]);
        else
            out[c] = out_err[c] = 0;
    }
    *lse = seen ? max + log(sum) : -INFINITY;
    *lse_err = isfinite(*lse) ? bound_lse(r, u, all, most, sum, *lse, seen) : 0;
    free(p);
}
