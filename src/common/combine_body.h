/*
 * The combine slot: partial results with their log-sum-exps, merged row by row, columns in the lanes. Parts
 * are taken in groups whose weights fit the stack; between groups the unfinished sums stand in the output,
 * which rounds nothing.
 */
#ifndef ATTN_COMBINE_BODY_H
#define ATTN_COMBINE_BODY_H

#include <math.h>
#include <string.h>

#include "backend.h"
#include "order.h"
#include "size.h"

enum {
    COMBINE_PARTS = 64, /* of a group; a multiple of every VF32_N */
    COMBINE_NV = 8 /* vectors of columns: their chains cover the FMA's latency; + 1 weight = 9 registers */
};

struct combine_group {
    size_t n;
    const float *o[COMBINE_PARTS]; /* the parts' rows */
    float w[COMBINE_PARTS];        /* their log-sum-exps, then their weights */
};

/* Fills the group with parts from *i on that the row sees. */
static void combine_gather(const struct attn_combine_task *t, size_t row, size_t *i,
                           struct combine_group *g) {
    for (g->n = 0; *i < t->n_parts && g->n < COMBINE_PARTS; ++*i) {
        const float lse = *attn_combine_row(t, &t->lses[*i], row);
        if (lse == -INFINITY) continue;
        g->o[g->n] = attn_combine_row(t, &t->outs[*i], row);
        g->w[g->n++] = lse;
    }
    for (size_t k = g->n; k % VF32_N; k++) g->w[k] = 0.0f; /* so that whole vectors can be read */
}

/* Log-sum-exps to weights; gives their sum, added to `sum`. */
static float combine_weigh(struct combine_group *g, float max, float sum) {
    const vf32 m = v_set1(max), log2e = v_set1(ATTN_LOG2E);
    for (size_t k = 0; k < g->n; k += VF32_N)
        v_store(g->w + k, v_exp2(v_mul(v_sub(v_load(g->w + k), m), log2e)));
    for (size_t k = 0; k < g->n; k++) sum += g->w[k];
    return sum;
}

/* nv vectors of columns from c on. first: the sums start here; otherwise out holds them. */
ATTN_INLINE void combine_vectors(const struct combine_group *g, int nv, size_t c, int first, vf32 factor,
                                 float *out) {
    vf32 acc[COMBINE_NV];
    ATTN_UNROLL for (int v = 0; v < nv; v++) acc[v] =
        first ? v_set1(-0.0f) : v_load(out + c + (size_t)v * VF32_N);
    for (size_t k = 0; k < g->n; k++) {
        const float *o = g->o[k] + c;
        const vf32 w = v_set1(g->w[k]);
        ATTN_UNROLL for (int v = 0; v < nv; v++) acc[v] = v_fma(w, v_load(o + v * VF32_N), acc[v]);
    }
    ATTN_UNROLL for (int v = 0; v < nv; v++) v_store(out + c + (size_t)v * VF32_N, v_mul(acc[v], factor));
}

/* The last n < VF32_N columns, from c on. */
static void combine_tail(const struct combine_group *g, size_t n, size_t c, int first, vf32 factor,
                         float *out) {
    vf32 acc = first ? v_set1(-0.0f) : v_load_tail(out + c, n);
    for (size_t k = 0; k < g->n; k++) acc = v_fma(v_set1(g->w[k]), v_load_tail(g->o[k] + c, n), acc);
    v_store_tail(out + c, v_mul(acc, factor), n);
}

static void combine_columns(const struct combine_group *g, size_t n, int first, float factor, float *out) {
    const vf32 f = v_set1(factor);
    size_t c = 0;
    for (; c + COMBINE_NV * VF32_N <= n; c += COMBINE_NV * VF32_N)
        combine_vectors(g, COMBINE_NV, c, first, f, out);
    for (; c + VF32_N <= n; c += VF32_N) combine_vectors(g, 1, c, first, f, out);
    if (c < n) combine_tail(g, n - c, c, first, f, out);
}

/* The largest log-sum-exp of the row, or NaN where one is. */
static float combine_max(const struct attn_combine_task *t, size_t row) {
    float max = -INFINITY;
    for (size_t i = 0; i < t->n_parts; i++) {
        const float lse = *attn_combine_row(t, &t->lses[i], row);
        if (lse > max || isnan(lse)) max = lse;
    }
    return max;
}

static void combine_body(const struct attn_combine_task *t) {
    const size_t columns = t->out->size[3];
    for (size_t row = 0; row < t->n_rows; row++) {
        const float max = combine_max(t, row);
        float *out = attn_combine_row(t, t->out, row), sum = 0.0f;
        struct combine_group g;
        if (max == -INFINITY) {
            memset(out, 0, columns * sizeof *out);
            if (t->lse) *attn_combine_row(t, t->lse, row) = max;
            continue;
        }
        for (size_t i = 0, first = 1; first || i < t->n_parts; first = 0) {
            combine_gather(t, row, &i, &g);
            sum = combine_weigh(&g, max, sum);
            combine_columns(&g, columns, (int)first, i < t->n_parts ? 1.0f : 1.0f / sum, out);
        }
        if (t->lse) *attn_combine_row(t, t->lse, row) = fmaf(v_lane0(v_log2(v_set1(sum))), ATTN_LN2, max);
    }
}

#endif
