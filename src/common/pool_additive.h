/*
 * Scores of additive attention: s = sum_c w_c tanh(a_c + b_c), a the query's features, b the key's.
 *
 * tanh(a + b) = 1 - 2 / (1 + e^{2a} e^{2b}): one exponential for each feature of a query and of a key instead of one
 * tanh for each feature of each pair. What a term is computed by depends on that term alone:
 *   |a + b| < 1/16               x + x^3 (-1/3 + 2/15 x^2), x = a + b: the other form would lose the relative accuracy
 *   |a| <= 21 and |b| <= 21      the formula; e^{2a} e^{2b} stays below 2^122
 *   otherwise                    SLEEF's tanh
 * docs/numerics.md derives the errors.
 */
#ifndef ATTN_POOL_ADDITIVE_H
#define ATTN_POOL_ADDITIVE_H

#include "pool_tile.h"

#define ADDITIVE_MOST 21.0f
#define ADDITIVE_SMALL 0.0625f

/* e^{2x} for |x| <= ADDITIVE_MOST: 2 log2(e) x is taken in two parts, so that its rounding does not grow with x. */
ATTN_INLINE vf32 additive_exp(vf32 x) {
    const vf32 hi = v_set1(0x1.715476p+1f), lo = v_set1(0x1.4ae0cp-25f); /* check: 2 / ln 2 = hi + lo */
    const vf32 y = v_mul(x, hi);
    const vf32 rest = v_fma(x, lo, v_fma(x, hi, v_sub(v_zero(), y)));
    const vf32 e = v_exp2(y);
    return v_fma(e, v_mul(rest, v_set1(ATTN_LN2)), e);
}

ATTN_INLINE vmask additive_large(vf32 x) { return v_lt(v_set1(ADDITIVE_MOST), v_abs(x)); }

/* tanh(a + b), given ea = e^{2a} and eb = e^{2b}. guarded: a or b may be large. */
ATTN_INLINE vf32 additive_tanh(vf32 a, vf32 b, vf32 ea, vf32 eb, int guarded) {
    const vf32 one = v_set1(1.0f), x = v_add(a, b), xx = v_mul(x, x);
    const vf32 small = v_fma(v_mul(xx, x), v_fma(xx, v_set1(0x1.111112p-3f), v_set1(-0x1.555556p-2f)), x);
    vf32 t = v_sub(one, v_div(v_set1(2.0f), v_fma(ea, eb, one)));
    if (guarded) t = v_select(v_or(additive_large(a), additive_large(b)), v_tanh(x), t);
    return v_select(v_lt(v_abs(x), v_set1(ADDITIVE_SMALL)), small, t);
}

/* eb[n] of a key; returns whether one of its features is large. */
static int additive_key(const float *b, size_t n, float *eb) {
    vmask large = v_lt(v_zero(), v_zero());
    for (size_t d = 0; d < n; d += VF32_N) {
        const size_t left = attn_min(n - d, VF32_N);
        const vf32 x = v_load_tail(b + d, left);
        large = v_or(large, additive_large(x));
        v_store_tail(eb + d, additive_exp(x), left);
    }
    return v_any(large);
}

/* Once for a block: e^{2a} beside its features a in b->q, and the vectors of rows that have a large one. */
static void additive_queries(struct pool_block *b) {
    for (size_t v = 0; v < b->lanes / VF32_N; v++) {
        vmask large = v_lt(v_zero(), v_zero());
        for (size_t d = 0; d < b->t->d_k; d++) {
            const size_t at = d * b->lanes + v * VF32_N;
            const vf32 x = v_load(b->q + at);
            large = v_or(large, additive_large(x));
            v_store(b->eq + at, additive_exp(x));
        }
        b->large[v] = v_any(large);
    }
}

enum { ADDITIVE_KEYS = 4 }; /* in flight at once: a term is a long chain of dependent operations */

/* Scores of `keys` keys against the vector of rows at `lane`. */
ATTN_INLINE void additive_step(const struct pool_block *b, int keys, int guarded, size_t lane, const float *k,
                               const float *ek, float *s) {
    const struct attn_pool_task *t = b->t;
    vf32 sum[ADDITIVE_KEYS];
    ATTN_UNROLL for (int i = 0; i < keys; i++) sum[i] = v_zero();
    for (size_t d = 0; d < t->d_k; d++) {
        const size_t at = d * b->lanes + lane;
        const vf32 w = v_load(b->w + at), a = v_load(b->q + at), ea = v_load(b->eq + at);
        ATTN_UNROLL for (int i = 0; i < keys; i++) {
            const vf32 key = v_set1(k[i * pool_k_row(b) + (ptrdiff_t)d]),
                       e = v_set1(ek[(size_t)i * t->d_k + d]);
            sum[i] = v_fma(w, additive_tanh(a, key, ea, e, guarded), sum[i]);
        }
    }
    ATTN_UNROLL for (int i = 0; i < keys; i++) v_store(s + (size_t)i * b->lanes + lane, sum[i]);
}

static void additive_four(const struct pool_block *b, size_t lane, const float *k, const float *ek,
                          float *s) {
    additive_step(b, ADDITIVE_KEYS, 0, lane, k, ek, s);
}
static void additive_one(const struct pool_block *b, size_t lane, const float *k, const float *ek, float *s) {
    additive_step(b, 1, 0, lane, k, ek, s);
}
static void additive_guarded(const struct pool_block *b, size_t lane, const float *k, const float *ek,
                             float *s) {
    additive_step(b, 1, 1, lane, k, ek, s);
}

/* s[i][lane] for keys [j, j + n), n <= ATTN_KEY_TILE, and the vectors u. */
static void pool_scores_additive(const struct pool_block *b, struct pool_vectors u, size_t j, size_t n,
                                 float *s) {
    const struct attn_pool_task *t = b->t;
    const ptrdiff_t k_row = pool_k_row(b);
    const float *keys = pool_key(b, j);
    int large[ATTN_KEY_TILE];
    for (size_t i = 0; i < n; i++)
        large[i] = additive_key(keys + (ptrdiff_t)i * k_row, t->d_k, b->ek + i * t->d_k);
    for (size_t v = (size_t)u.first; v < (size_t)(u.first + u.n); v++) {
        for (size_t i = 0; i < n;) {
            const float *k = keys + (ptrdiff_t)i * k_row, *ek = b->ek + i * t->d_k;
            float *si = s + i * b->lanes;
            const int four =
                i + ADDITIVE_KEYS <= n && !large[i] && !large[i + 1] && !large[i + 2] && !large[i + 3];
            if (b->large[v] || large[i]) {
                additive_guarded(b, v * VF32_N, k, ek, si);
                i++;
            } else if (four) {
                additive_four(b, v * VF32_N, k, ek, si);
                i += ADDITIVE_KEYS;
            } else {
                additive_one(b, v * VF32_N, k, ek, si);
                i++;
            }
        }
    }
}

#endif
