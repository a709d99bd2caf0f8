/*
 * Attention pooling, the part within one block of rows: packing of queries, scores of a key tile, and
 * what a row may see of it. pool_body.h drives it. Everything is in terms of v_* operations; lanes are
 * rows of the block (query-major, the heads of a group inside).
 */
#ifndef ATTN_POOL_TILE_H
#define ATTN_POOL_TILE_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "backend.h"
#include "ukernel_contract.h"

/* The scratch of one block. Rows of `lanes` floats; see pool_scratch_body() for the sizes. */
struct pool_block {
    const struct attn_pool_task *t;
    size_t lanes; /* 1 to POOL_NV vectors */
    float *q;     /* [d_k][lanes]: q * c, or A_q q for additive scores */
    float *w;     /* [d_k][lanes]: w * c, additive only */
    float *lo;    /* [lanes]: first visible key, relative to the chunk, as a float (exact: <= ATTN_CHUNK) */
    float *last;  /* [lanes]: last visible key, likewise */
    float *p;     /* [POOL_KEYS][lanes]: scores, then probabilities */
    float *bias;  /* [ATTN_KEY_TILE][lanes]: the mask of a tile */
};

/* The running maximum (log2 units), sum and output of each row. */
struct pool_state {
    float *m, *l; /* [lanes] */
    float *o;     /* [d_v][lanes] */
};

ATTN_INLINE size_t pool_min(size_t a, size_t b) { return a < b ? a : b; }
ATTN_INLINE size_t pool_max(size_t a, size_t b) { return a > b ? a : b; }

/* Lanes beyond the last row repeat it, so that they never need a rule of their own. */
ATTN_INLINE size_t pool_row(const struct attn_pool_task *t, size_t lane) {
    return pool_min(lane, t->n_rows - 1);
}
ATTN_INLINE ptrdiff_t pool_offset(const struct attn_pool_task *t, size_t row, ptrdiff_t per_query,
                                  ptrdiff_t per_head) {
    const size_t i = t->first + row;
    return (ptrdiff_t)(i / t->group) * per_query + (ptrdiff_t)(i % t->group) * per_head;
}

/* dst[i][lane] = src(row of lane)[i] * c for i in [0, n); sources are base + offset of the row. */
static void pool_pack(const struct attn_pool_task *t, size_t lanes, size_t n, const float *base,
                      ptrdiff_t per_query, ptrdiff_t per_head, vf32 c, float *dst) {
    for (size_t lane = 0; lane < lanes; lane += VF32_N) {
        const float *src[VF32_N];
        for (size_t i = 0; i < VF32_N; i++)
            src[i] = base + pool_offset(t, pool_row(t, lane + i), per_query, per_head);
        for (size_t d = 0; d < n; d += VF32_N) {
            const size_t left = pool_min(n - d, VF32_N);
            vf32 r[VF32_N];
            for (size_t i = 0; i < VF32_N; i++) r[i] = v_mul(v_load_tail(src[i] + d, left), c);
            v_transpose(r);
            for (size_t i = 0; i < left; i++) v_store(dst + (d + i) * lanes + lane, r[i]);
        }
    }
}

/* s[i][lane] for keys [j, j + n), n <= ATTN_KEY_TILE. */
ATTN_INLINE void pool_scores_nv(const struct pool_block *b, int nv, size_t j, size_t n, float *s) {
    const struct attn_pool_task *t = b->t;
    const float *k = t->k + (ptrdiff_t)j * t->k_row;
    size_t i = 0;
    for (; i + QK_KEYS <= n; i += QK_KEYS)
        uk_qk(QK_KEYS, nv, k + (ptrdiff_t)i * t->k_row, t->k_row, t->d_k, b->q, s + i * b->lanes);
    if (QK_KEYS > 4 && i + 4 <= n) {
        uk_qk(4, nv, k + (ptrdiff_t)i * t->k_row, t->k_row, t->d_k, b->q, s + i * b->lanes);
        i += 4;
    }
    if (QK_KEYS > 2 && i + 2 <= n) {
        uk_qk(2, nv, k + (ptrdiff_t)i * t->k_row, t->k_row, t->d_k, b->q, s + i * b->lanes);
        i += 2;
    }
    if (i < n) uk_qk(1, nv, k + (ptrdiff_t)i * t->k_row, t->k_row, t->d_k, b->q, s + i * b->lanes);
}

/* o = fma(p, v, o) for keys [j, j + n), whose probabilities stand in p. */
ATTN_INLINE void pool_pv_nv(const struct pool_block *b, int nv, size_t j, size_t n, const float *p,
                            float *o) {
    const struct attn_pool_task *t = b->t;
    const float *v = t->v + (ptrdiff_t)j * t->v_row;
    size_t c = 0;
    for (; c + PV_COLS <= t->d_v; c += PV_COLS) uk_pv(PV_COLS, nv, n, v + c, t->v_row, p, o + c * b->lanes);
    if (PV_COLS > 4 && c + 4 <= t->d_v) {
        uk_pv(4, nv, n, v + c, t->v_row, p, o + c * b->lanes);
        c += 4;
    }
    if (PV_COLS > 2 && c + 2 <= t->d_v) {
        uk_pv(2, nv, n, v + c, t->v_row, p, o + c * b->lanes);
        c += 2;
    }
    if (c < t->d_v) uk_pv(1, nv, n, v + c, t->v_row, p, o + c * b->lanes);
}

/* One function a number of vectors, so that a profile names it and the rest of the body exists once. */
#define POOL_VARIANT(nv)                                                                            \
    ATTN_NOINLINE void pool_scores_##nv(const struct pool_block *b, size_t j, size_t n, float *s) { \
        pool_scores_nv(b, (nv) <= POOL_NV ? nv : 1, j, n, s);                                       \
    }                                                                                               \
    ATTN_NOINLINE void pool_pv_##nv(const struct pool_block *b, size_t j, size_t n, const float *p, \
                                    float *o) {                                                     \
        pool_pv_nv(b, (nv) <= POOL_NV ? nv : 1, j, n, p, o);                                        \
    }
POOL_VARIANT(1)
POOL_VARIANT(2)
POOL_VARIANT(3)
POOL_VARIANT(4)

static void pool_scores_dot(const struct pool_block *b, size_t j, size_t n, float *s) {
    switch (b->lanes / VF32_N) {
    case 1: pool_scores_1(b, j, n, s); break;
    case 2: pool_scores_2(b, j, n, s); break;
    case 3: pool_scores_3(b, j, n, s); break;
    default: pool_scores_4(b, j, n, s); break;
    }
}

static void pool_pv(const struct pool_block *b, size_t j, size_t n, const float *p, float *o) {
    switch (b->lanes / VF32_N) {
    case 1: pool_pv_1(b, j, n, p, o); break;
    case 2: pool_pv_2(b, j, n, p, o); break;
    case 3: pool_pv_3(b, j, n, p, o); break;
    default: pool_pv_4(b, j, n, p, o); break;
    }
}

static void pool_scores_additive(const struct pool_block *b, size_t j, size_t n, float *s) {
    const struct attn_pool_task *t = b->t;
    for (size_t i = 0; i < n; i++) {
        const float *k = t->k + (ptrdiff_t)(j + i) * t->k_row;
        for (size_t lane = 0; lane < b->lanes; lane += VF32_N) {
            vf32 a = v_zero();
            for (size_t d = 0; d < t->d_k; d++) {
                const size_t at = d * b->lanes + lane;
                a = v_fma(v_load(b->w + at), v_tanh(v_add(v_load(b->q + at), v_set1(k[d]))), a);
            }
            v_store(s + i * b->lanes + lane, a);
        }
    }
}

/* bias[i][lane] of keys [j, j + n): the additive mask, or 0 and -inf of a boolean one. Reads the mask only
 * where the row's range lets it see the key. */
static void pool_mask_tile(const struct pool_block *b, size_t j, size_t n) {
    const struct attn_pool_task *t = b->t;
    memset(b->bias, 0, ATTN_KEY_TILE * b->lanes * sizeof *b->bias);
    for (size_t lane = 0; lane < b->lanes; lane++) {
        const size_t row = pool_row(t, lane);
        const ptrdiff_t at = pool_offset(t, row, t->mask_row, t->mask_head);
        const size_t end = pool_min(t->hi[row], j + n);
        for (size_t key = pool_max(t->lo[row], j); key < end; key++) {
            const ptrdiff_t x = at + (ptrdiff_t)key * t->mask_key;
            b->bias[(key - j) * b->lanes + lane] = t->mask_kind == ATTN_MASK_F32 ? ((const float *)t->mask)[x]
                                                   : ((const uint8_t *)t->mask)[x] ? 0.0f
                                                                                   : -INFINITY;
        }
    }
}

/* Applies the mask and each row's range to the tile whose row 0 is key j: hidden scores become -inf,
 * visible ones are at least -FLT_MAX. first = j relative to the chunk. */
static void pool_hide(const struct pool_block *b, size_t j, size_t n, float first, float *s) {
    const vf32 none = v_set1(-INFINITY), lowest = v_set1(-FLT_MAX), log2e = v_set1(ATTN_LOG2E);
    const int masked = b->t->mask_kind != ATTN_MASK_NONE, additive = b->t->mask_kind == ATTN_MASK_F32;
    if (masked) pool_mask_tile(b, j, n);
    for (size_t lane = 0; lane < b->lanes; lane += VF32_N) {
        const vf32 lo = v_load(b->lo + lane), last = v_load(b->last + lane);
        for (size_t i = 0; i < ATTN_KEY_TILE; i++) {
            const size_t at = i * b->lanes + lane;
            const vf32 key = v_set1(first + (float)i);
            vmask hidden = v_or(v_lt(key, lo), v_lt(last, key));
            vf32 x = v_load(s + at);
            if (masked) {
                const vf32 m = v_load(b->bias + at);
                hidden = v_or(hidden, v_lt(m, lowest));
                if (additive) x = v_fma(m, log2e, x);
            }
            v_store(s + at, v_select(hidden, none, v_max(lowest, x)));
        }
    }
}

#endif
