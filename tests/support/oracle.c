#include "support/oracle.h"

#include <float.h>
#include <math.h>

void oracle_linear(size_t n, size_t k, const double *x, const float *w, const float *bias, double *y) {
    for (size_t o = 0; o < n; o++) {
        double sum = bias ? bias[o] : 0;
        for (size_t i = 0; i < k; i++) sum += x[i] * w[o * k + i];
        y[o] = sum;
    }
}

static double score(const struct oracle_row *r, size_t j) {
    const double *k = r->k + j * r->d_k;
    double sum = 0;
    if (r->w)
        for (size_t i = 0; i < r->d_k; i++) sum += r->w[i] * tanh(r->q[i] + k[i]);
    else
        for (size_t i = 0; i < r->d_k; i++) sum += r->q[i] * k[i];
    sum *= r->scale;
    if (r->soft_cap > 0) sum = r->soft_cap * tanh(sum / r->soft_cap);
    if (r->slope != 0) sum -= r->slope * fabs(r->position - (double)j);
    sum += r->mask ? r->mask[j] : 0;
    return sum < -FLT_MAX * M_LN2 ? -FLT_MAX * M_LN2 : sum; /* in base 2 scores stop at -FLT_MAX (order.h) */
}

static int visible(const struct oracle_row *r, size_t j) { return !r->mask || r->mask[j] != -INFINITY; }

void oracle_pool(const struct oracle_row *r, double *out, double *lse, double *weights, double *lse_sink) {
    const double sink = r->sink ? *r->sink : -INFINITY;
    double most = -INFINITY, sum = 0, all, top;
    int seen = 0;
    for (size_t j = 0; j < r->n_kv; j++) {
        weights[j] = 0;
        if (!visible(r, j)) continue;
        seen = 1;
        weights[j] = score(r, j);
        most = fmax(most, weights[j]);
    }
    for (size_t j = 0; j < r->n_kv; j++)
        if (visible(r, j)) sum += weights[j] = exp(weights[j] - most);
    top = fmax(most, sink); /* with the sink in the denominator */
    all = isnan(sum) ? sum : top == -INFINITY ? 0 : (seen ? sum * exp(most - top) : 0) + exp(sink - top);
    for (size_t c = 0; c < r->d_v; c++) out[c] = 0;
    for (size_t j = 0; j < r->n_kv; j++) {
        if (!visible(r, j)) continue;
        weights[j] *= exp(most - top) / all;
        for (size_t c = 0; c < r->d_v; c++) out[c] += weights[j] * r->v[j * r->d_v + c];
    }
    *lse = seen ? most + log(sum) : -INFINITY;
    if (lse_sink) *lse_sink = isnan(sum) ? NAN : top == -INFINITY ? -INFINITY : top + log(all);
}

void oracle_scores(const struct oracle_row *r, double *scores) {
    for (size_t j = 0; j < r->n_kv; j++) scores[j] = visible(r, j) ? score(r, j) : -INFINITY;
}
