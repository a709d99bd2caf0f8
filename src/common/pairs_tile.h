/*
 * Attention pooling by bf16 dot products, the kernels of a block of rows (docs/numerics.md, section 11): what pool_chunk.h and
 * pool_body.h ask for. Lanes are rows; q and p are pairs of bf16, of columns and of keys.
 */
#ifndef ATTN_PAIRS_TILE_H
#define ATTN_PAIRS_TILE_H

#include "pairs_run.h"

/* Values are read by both that see a pair and that see one of it, or none: P V of all is one pass. */
enum { POOL_APART = 0, POOL_STAIRS = 1 };

/* Sums of bf16 products take a zero of a hidden key's for nothing, but for their own zero's sign, which goes here. */
ATTN_INLINE vf32 pool_end(vf32 o, vf32 factor) { return v_fma(o, factor, v_zero()); }

ATTN_INLINE vf32 pool_exp2(vf32 x) { return v_exp2_short(x); }

static void pool_keys_begin(struct pool_block *b, size_t from) {
    const struct attn_pool_task *t = b->t;
    const struct pool_gather *g = b->gather;
    pool_gather_begin(b->gather, from);
    b->keys = (struct pool_keys){.from = from, .v = (const char *)g->v};
    b->keys.k = g->keys ? (const char *)g->k : t->k + attn_k_offset(t, from);
    b->keys.k_row = g->keys ? (ptrdiff_t)(g->k_row * sizeof(float)) : t->k_row;
    b->keys.v_row = (ptrdiff_t)(g->v_row * sizeof(float));
}

/* Columns [d, d + n) of a row of q, n <= 32, as bf16; then zeros. */
ATTN_INLINE vint pairs_of_row(attn_dtype type, const void *row, size_t d, size_t n) {
    if (type == ATTN_BF16) return v_pairs_load(typed_u16(row) + d, n);
    if (n == 2 * VF32_N) return v_bf16_both(typed_load(type, row, d), typed_load(type, row, d + VF32_N));
    const size_t first = attn_min(n, VF32_N);
    return v_bf16_both(typed_load_tail(type, row, d, first),
                       typed_load_tail(type, row, d + first, n - first));
}

/* Columns [d, d + n) of VF32_N rows to to[pair][lane]. */
ATTN_INLINE void pairs_pack_columns(attn_dtype type, const void *const src[VF32_N], size_t d, size_t n,
                                    size_t lanes, float *to) {
    vf32 r[VF32_N];
    ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) r[i] = v_pairs_as_f32(pairs_of_row(type, src[i], d, n));
    v_transpose(r);
    for (size_t i = 0; i < (n + 1) / 2; i++) v_store(to + (d / 2 + i) * lanes, r[i]);
}

/* Rows from q on to to[pair][lane]. */
static void pairs_pack(const struct attn_pool_task *t, size_t lanes, const void *q, float *to) {
    for (size_t lane = 0; lane < lanes; lane += VF32_N, to += VF32_N) {
        const void *src[VF32_N];
        size_t d = 0;
        for (size_t i = 0; i < VF32_N; i++)
            src[i] = pool_from(t->q_type, q, pool_offset(t, pool_row(t, lane + i), t->q_row, t->q_head));
        for (; d + 2 * VF32_N <= t->d_k && t->q_type == ATTN_F32; d += 2 * VF32_N)
            pairs_pack_columns(ATTN_F32, src, d, 2 * VF32_N, lanes, to);
        for (; d < t->d_k; d += 2 * VF32_N)
            pairs_pack_columns(t->q_type, src, d, attn_min(t->d_k - d, 2 * VF32_N), lanes, to);
    }
}
static void pool_queries(struct pool_block *b) { pairs_pack(b->t, b->lanes, b->t->q, b->q); }

/* ---- Scores ----------------------------------------------------------------------------------------------- */

/* Goes on with the chains of `keys` keys: c[i][v] plus the products of each pair, in ascending order. */
ATTN_INLINE void pairs_qk(int keys, int nv, size_t lanes, const char *k, ptrdiff_t k_row, size_t pairs,
                          const float *q, vf32 c[QK_KEYS][POOL_NV]) {
    ATTN_UNROLL_4 for (size_t d = 0; d < pairs; d++, k += 4, q += lanes) {
        vint x[POOL_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) x[v] = v_bytes(q + v * VF32_N);
        ATTN_UNROLL for (int i = 0; i < keys; i++) {
            const vint a = v_int_at(k + i * k_row);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_bf16_dot(c[i][v], a, x[v]);
        }
    }
}

ATTN_INLINE void pairs_scale_all(const struct attn_pool_task *t, int keys, int nv, vf32 c[QK_KEYS][POOL_NV]) {
    const vf32 scale = pairs_scale(t);
    ATTN_UNROLL for (int i = 0; i < keys; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_mul(c[i][v], scale);
    }
}

ATTN_INLINE void pairs_scores_step(const struct pool_block *b, int keys, int nv, const char *k,
                                   const float *q, float *s) {
    vf32 c[QK_KEYS][POOL_NV];
    pool_zero(keys, nv, c);
    pairs_qk(keys, nv, b->lanes, k, b->keys.k_row, (b->t->d_k + 1) / 2, q, c);
    pairs_scale_all(b->t, keys, nv, c);
    ATTN_UNROLL for (int i = 0; i < keys; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) v_store(s + (size_t)i * b->lanes + v * VF32_N, c[i][v]);
    }
}

ATTN_INLINE void pairs_scores_nv(const struct pool_block *b, int nv, size_t at, size_t j, size_t n,
                                 float *s) {
    const char *k = pairs_key(b, j);
    const float *q = b->q + at;
    size_t i = 0;
    s += at;
#define PAIRS_KEYS_STEP(n_keys) \
    pairs_scores_step(b, n_keys, nv, k + (ptrdiff_t)i * b->keys.k_row, q, s + i * b->lanes), i += n_keys
    while (i + QK_KEYS <= n) PAIRS_KEYS_STEP(QK_KEYS);
    while (i < n) PAIRS_KEYS_STEP(1);
#undef PAIRS_KEYS_STEP
}

ATTN_INLINE float *pool_tile_scores(const struct pool_block *b, size_t row) {
    (void)row;
    return b->s;
}

ATTN_INLINE void pool_keep(const struct pool_block *b, size_t row, int g, size_t lane, float *s,
                           const vf32 e[4]) {
    float *p = b->p + (row / 2 + 2 * (size_t)g) * b->lanes + lane;
    (void)s;
    v_pairs_store(p, v_bf16_pairs(e[0], e[1]));
    v_pairs_store(p + b->lanes, v_bf16_pairs(e[2], e[3]));
}

/* ---- P V --------------------------------------------------------------------------------------------------- */

/* Goes on with the sums of vectors v0 and up. */
ATTN_INLINE void pairs_pv_steps(int cols, int v0, int nv, size_t lanes, size_t pairs, const char *x,
                                ptrdiff_t x_row, const float *p, vf32 c[PV_COLS][POOL_NV]) {
    ATTN_UNROLL_4 for (size_t j = 0; j < pairs; j++, x += x_row, p += lanes) {
        vint e[POOL_NV];
        ATTN_UNROLL for (int v = v0; v < nv; v++) e[v] = v_bytes(p + v * VF32_N);
        ATTN_UNROLL for (int i = 0; i < cols; i++) {
            const vint a = v_int_at(x + 4 * i);
            ATTN_UNROLL for (int v = v0; v < nv; v++) c[i][v] = v_bf16_dot(c[i][v], e[v], a);
        }
    }
}

/* o[c][lane] plus the products of each pair of keys, in ascending order: of those below stop[v] for vector v. */
ATTN_INLINE void pairs_pv(int cols, int nv, size_t lanes, const size_t *stop, const char *x, ptrdiff_t x_row,
                          const float *p, float *o) {
    vf32 c[PV_COLS][POOL_NV];
    size_t j = 0;
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_load(o + (size_t)i * lanes + v * VF32_N);
    }
    ATTN_UNROLL for (int v = 0; v < nv; j = stop[v], v++)
        pairs_pv_steps(cols, v, nv, lanes, stop[v] - j, x + (ptrdiff_t)j * x_row, x_row, p + j * lanes, c);
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) v_store(o + (size_t)i * lanes + v * VF32_N, c[i][v]);
    }
}

/* The same where values may be infinite or NaN: one whose probability is -0 is hidden, and does not enter the sum. */
ATTN_INLINE void pairs_pv_hiding(int cols, size_t lanes, size_t pairs, const char *x, ptrdiff_t x_row,
                                 const float *p, float *o) {
    vf32 c[PV_COLS];
    ATTN_UNROLL for (int i = 0; i < cols; i++) c[i] = v_load(o + (size_t)i * lanes);
    ATTN_NO_UNROLL for (size_t j = 0; j < pairs; j++, x += x_row, p += lanes) {
        const vint e = v_bytes(p);
        const vmask first = v_pairs_sign_first(e), second = v_pairs_sign_second(e), any = v_or(first, second);
        const vmask all = v_and_not(v_lt(v_zero(), v_set1(1.0f)), any);
        ATTN_UNROLL for (int i = 0; i < cols; i++) {
            const vint a = v_int_at(x + 4 * i);
            c[i] = v_bf16_dot_where(all, c[i], e, a);
            c[i] = v_bf16_dot_where(v_and_not(second, first), c[i], e, v_pairs_first(a));
            c[i] = v_bf16_dot_where(v_and_not(first, second), c[i], e, v_pairs_second(a));
        }
    }
    ATTN_UNROLL for (int i = 0; i < cols; i++) v_store(o + (size_t)i * lanes, c[i]);
}

ATTN_INLINE void pairs_pv_nv(const struct pool_block *b, int nv, int hides, size_t at, const char *x,
                             const size_t *stop, const float *p, float *o) {
    const ptrdiff_t x_row = b->keys.v_row;
    size_t c = 0;
    p += at;
    o += at;
#define PAIRS_COLS_STEP(cols)                                                               \
    hides ? pairs_pv_hiding(cols, b->lanes, stop[0], x + 4 * c, x_row, p, o + c * b->lanes) \
          : pairs_pv(cols, nv, b->lanes, stop, x + 4 * c, x_row, p, o + c * b->lanes),      \
        c += cols
    while (c + PV_COLS <= b->t->d_v) PAIRS_COLS_STEP(PV_COLS);
    while (c < b->t->d_v) PAIRS_COLS_STEP(1);
#undef PAIRS_COLS_STEP
}

/* ---- Variants ---------------------------------------------------------------------------------------------- */

#define PAIRS_POOL_VARIANT(nv)                                                                      \
    ATTN_NOINLINE void pairs_scores_##nv(const struct pool_block *b, size_t at, size_t j, size_t n, \
                                         float *s) {                                                \
        pairs_scores_nv(b, (nv) <= POOL_NV ? nv : 1, at, j, n, s);                                  \
    }                                                                                               \
    ATTN_NOINLINE void pairs_pv_##nv(const struct pool_block *b, size_t at, const char *x,          \
                                     const size_t *stop, const float *p, float *o) {                \
        pairs_pv_nv(b, (nv) <= POOL_NV ? nv : 1, 0, at, x, stop, p, o);                             \
    }
PAIRS_POOL_VARIANT(1)
PAIRS_POOL_VARIANT(2)
PAIRS_POOL_VARIANT(3)
PAIRS_POOL_VARIANT(4)

static void pool_products(const struct pool_block *b, struct pool_vectors u, size_t j, size_t n, float *s) {
    POOL_DISPATCH(u.n, , pairs_scores, b, (size_t)u.first * VF32_N, j, n, s)
}

/* And of one key before and behind where that completes a pair: nothing sees it. */
static void pool_pv(const struct pool_block *b, const struct pool_pending *w, float *o) {
    const size_t begin = w->from - b->keys.from, end = w->to - b->keys.from;
    const size_t first = begin / ATTN_KEY_TILE, tiles = (end - 1) / ATTN_KEY_TILE + 1 - first;
    const size_t at = (size_t)w->rows.first * VF32_N;
    const char *x = b->keys.v + (ptrdiff_t)(begin / 2) * b->keys.v_row;
    const float *p = b->p + w->row / 2 * b->lanes;
    size_t stop[POOL_NV];
    for (int v = 0; v < w->rows.n; v++)
        stop[v] = (w->stop[w->rows.first + v] - b->keys.from + 1) / 2 - begin / 2;
    pool_gather_values(b->gather, w->from, w->to - w->from);
    const uint64_t odd = b->gather->v_odd >> first & (((uint64_t)1 << tiles) - 1);
    if (!w->hides || !odd) {
        POOL_DISPATCH(w->rows.n, , pairs_pv, b, at, x, stop, p, o)
        return;
    }
    for (int v = 0; v < w->rows.n; v++) pairs_pv_nv(b, 1, 1, at + (size_t)v * VF32_N, x, stop + v, p, o);
}

#endif
