/*
 * Attention pooling by bf16 dot products: keys in rows of pairs of columns, one behind the other; values in rows of pairs of
 * keys, column by column.
 */
#ifndef ATTN_PAIRS_GATHER_H
#define ATTN_PAIRS_GATHER_H

#include "pool_gather.h"

/* A pair of columns is read at once: not the last one of an odd number. */
static int pool_gathers_keys(const struct attn_pool_task *t) { return t->pages || t->panels || t->d_k % 2; }
static int pool_gathers_values(const struct attn_pool_task *t) {
    (void)t;
    return 1;
}

/* The panel of 16 keys at x, transposed to rows of pairs. */
static void pairs_unpanel(const char *x, size_t d_k, float *to, size_t row) {
    for (size_t d = 0; d < d_k; d += 2 * VF32_N) {
        const size_t n = attn_min(attn_ceil_div(d_k - d, 2), VF32_N);
        vf32 r[VF32_N];
        for (size_t i = 0; i < VF32_N; i++) {
            const char *at = x + (d + 2 * i) * 2 * ATTN_KEY_TILE;
            r[i] = v_zero();
            if (i < n)
                r[i] = v_pairs_as_f32(
                    v_pairs_of(at, d + 2 * i + 1 < d_k ? at + 2 * ATTN_KEY_TILE : NULL, VF32_N));
        }
        v_transpose(r);
        for (size_t i = 0; i < ATTN_KEY_TILE; i++) v_store_tail(to + i * row + d / 2, r[i], n);
    }
}

static void pool_gather_k(const struct attn_pool_task *t, size_t j, size_t end, size_t from, float *to,
                          size_t row) {
    if (t->panels) {
        const size_t j0 = j - j % ATTN_KEY_TILE;
        pairs_unpanel(t->k + attn_k_offset(t, j0), t->d_k, to + (j0 - from) * row, row);
        return;
    }
    for (; j < end; j++) {
        const char *k = t->k + attn_k_offset(t, j);
        float *at = to + (j - from) * row;
        for (size_t d = 0; d < t->d_k; d += 2 * VF32_N)
            v_pairs_store(at + d / 2, v_pairs_load(k + 2 * d, attn_min(t->d_k - d, 2 * VF32_N)));
    }
}

/* One pair of rows; either may be NULL. */
ATTN_INLINE vint pairs_zip_row(const char *a, const char *b, size_t n, vint most, float *to) {
    size_t c = 0;
    for (; c + VF32_N <= n; c += VF32_N) {
        const vint x = v_pairs_of(a ? a + 2 * c : NULL, b ? b + 2 * c : NULL, VF32_N);
        most = v_pairs_most(most, x);
        v_pairs_store(to + c, x);
    }
    if (c == n) return most;
    const vint x = v_pairs_of(a ? a + 2 * c : NULL, b ? b + 2 * c : NULL, n - c);
    v_pairs_store(to + c, x);
    return v_pairs_most(most, x);
}

/* A key of the pair that is outside [j, end) becomes zeros. */
static void pool_gather_v(struct pool_gather *g, size_t j, size_t end) {
    const struct attn_pool_task *t = g->t;
    vint most = v_int_zero();
    for (size_t at = j - j % 2; at < end; at += 2) {
        float *to = g->v + (at - g->from) / 2 * g->v_row;
        const char *a = at >= j ? t->v + attn_v_offset(t, at) : NULL;
        const char *b = at + 1 < end ? t->v + attn_v_offset(t, at + 1) : NULL;
        if (a && b)
            most = pairs_zip_row(a, b, t->d_v, most, to);
        else
            most = pairs_zip_row(a, b, t->d_v, most, to);
    }
    if (v_pairs_odd(most)) g->v_odd |= (uint64_t)1 << (j - g->from) / ATTN_KEY_TILE;
}

#endif
