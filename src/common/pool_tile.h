/*
 * Attention pooling, the part within one block of rows: packing of queries,
 * scores and probabilities of a key tile, P V. pool_hide.h is about what rows see of a tile; pool_body.h drives both.
 * Everything is in terms of v_* operations; lanes are rows of the block
 * (query-major, the heads of a group inside).
 */
#ifndef ATTN_POOL_TILE_H
#define ATTN_POOL_TILE_H

#include "pool_block.h"
#include "pool_convert.h"
#include "ukernel_contract.h"

ATTN_INLINE vf32 pool_end(vf32 o, vf32 factor) { return v_mul(o, factor); }
ATTN_INLINE vf32 pool_exp2(vf32 x) { return v_exp2_inline(x); }

/* In floats. */
ATTN_INLINE ptrdiff_t pool_k_row(const struct pool_block *b) {
    return b->keys.k_row / (ptrdiff_t)sizeof(float);
}
ATTN_INLINE ptrdiff_t pool_v_row(const struct pool_block *b) {
    return b->keys.v_row / (ptrdiff_t)sizeof(float);
}
ATTN_INLINE const float *pool_key(const struct pool_block *b, size_t j) {
    return typed_f32(b->keys.k + (ptrdiff_t)(j - b->keys.from) * b->keys.k_row);
}
ATTN_INLINE const float *pool_value(const struct pool_block *b, size_t j) {
    return typed_f32(b->keys.v + (ptrdiff_t)(j - b->keys.from) * b->keys.v_row);
}

/* dst[i][lane] = src(row of lane)[i] * c for i in [0, n); sources are base +
 * offset of the row. */
static void pool_pack(const struct attn_pool_task *t, size_t lanes, size_t n, attn_dtype type,
                      const void *base, ptrdiff_t per_query, ptrdiff_t per_head, vf32 c, float *dst) {
    for (size_t lane = 0; lane < lanes; lane += VF32_N) {
        const void *src[VF32_N];
        for (size_t i = 0; i < VF32_N; i++)
            src[i] = pool_from(type, base, pool_offset(t, pool_row(t, lane + i), per_query, per_head));
        size_t d = 0;
        for (; d + VF32_N <= n; d += VF32_N) {
            vf32 r[VF32_N];
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) r[i] = v_mul(typed_load(type, src[i], d), c);
            v_transpose(r);
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) v_store(dst + (d + i) * lanes + lane, r[i]);
        }
        if (d < n) {
            vf32 r[VF32_N];
            for (size_t i = 0; i < VF32_N; i++) r[i] = v_mul(typed_load_tail(type, src[i], d, n - d), c);
            v_transpose(r);
            for (size_t i = 0; i < n - d; i++) v_store(dst + (d + i) * lanes + lane, r[i]);
        }
    }
}

/* Scores of `keys` keys from k on to rows of s. */
ATTN_INLINE void pool_scores_step(const struct pool_block *b, int keys, int nv, const float *k,
                                  const float *q, float *s) {
    vf32 c[QK_KEYS][POOL_NV];
    pool_zero(keys, nv, c);
    uk_qk(keys, nv, b->lanes, k, pool_k_row(b), b->t->d_k, q, c);
    ATTN_UNROLL for (int i = 0; i < keys; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) v_store(s + (size_t)i * b->lanes + v * VF32_N, c[i][v]);
    }
}

/* s[i][lane] for keys [j, j + n), n <= ATTN_KEY_TILE. */
ATTN_INLINE void pool_scores_nv(const struct pool_block *b, int nv, size_t at, size_t j, size_t n, float *s) {
    const ptrdiff_t k_row = pool_k_row(b);
    const float *k = pool_key(b, j), *q = b->q + at;
    size_t i = 0;
    s += at;
#define POOL_KEYS_STEP(keys) \
    pool_scores_step(b, keys, nv, k + (ptrdiff_t)i * k_row, q, s + i * b->lanes), i += keys
    while (i + QK_KEYS <= n) POOL_KEYS_STEP(QK_KEYS);
    if (QK_KEYS > 4 && i + 4 <= n) POOL_KEYS_STEP(4);
    if (QK_KEYS > 2 && i + 2 <= n) POOL_KEYS_STEP(2);
    if (i < n) POOL_KEYS_STEP(1);
#undef POOL_KEYS_STEP
}

/* o = fma(p, v, o) for n keys, whose probabilities stand in p. */
ATTN_INLINE void pool_pv_nv(const struct pool_block *b, int nv, int hides, size_t at, const float *v,
                            ptrdiff_t v_row, size_t n, const float *p, float *o) {
    const struct attn_pool_task *t = b->t;
    size_t c = 0;
    p += at;
    o += at;
#define POOL_COLS_STEP(cols)                                                       \
    hides ? uk_pv_hiding(cols, nv, b->lanes, n, v + c, v_row, p, o + c * b->lanes) \
          : uk_pv(cols, nv, b->lanes, n, v + c, v_row, p, o + c * b->lanes),       \
        c += cols
    while (c + PV_COLS <= t->d_v) POOL_COLS_STEP(PV_COLS);
    if (PV_COLS > 4 && c + 4 <= t->d_v) POOL_COLS_STEP(4);
    if (PV_COLS > 2 && c + 2 <= t->d_v) POOL_COLS_STEP(2);
    if (c < t->d_v) POOL_COLS_STEP(1);
#undef POOL_COLS_STEP
}

/* Whether some score exceeds m + ATTN_RESCALE in its lane. */
ATTN_INLINE int pool_moves(int nv, vf32 c[QK_KEYS][POOL_NV], const float *m) {
    const vf32 lowest = v_set1(-FLT_MAX);
    vmask moves = v_lt(lowest, lowest);
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        vf32 x = lowest;
        ATTN_UNROLL for (int i = 0; i < QK_KEYS; i++) x = v_max(x, c[i][v]);
        moves = v_or(moves, v_lt(v_add(v_load(m + v * VF32_N), v_set1(ATTN_RESCALE)), x));
    }
    return v_any(moves);
}

enum { POOL_STEPS = ATTN_KEY_TILE / QK_KEYS };

/* l += the sum of the steps' trees. */
static void pool_sum_steps(const struct pool_block *b, float sum[POOL_STEPS][POOL_NV * VF32_N], float *l) {
    for (size_t lane = 0; lane < b->lanes; lane += VF32_N) {
        vf32 s[POOL_STEPS];
        ATTN_UNROLL for (int i = 0; i < POOL_STEPS; i++) s[i] = v_load(sum[i] + lane);
        ATTN_UNROLL for (int step = 1; step < POOL_STEPS; step *= 2) {
            ATTN_UNROLL for (int i = 0; i < POOL_STEPS; i += 2 * step) s[i] = v_add(s[i], s[i + step]);
        }
        v_store(l + lane, v_add(v_load(l + lane), s[0]));
    }
}

/* p = exp2(max(s, -FLT_MAX) - m) in place, for one key's scores. */
ATTN_INLINE void pool_exp_key(int nv, const float *m, float *s) {
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        const struct exp2_constants *c = &exp2_table;
        ATTN_OPAQUE(c);
        const vf32 x = v_max(v_set1(c->lowest), v_load(s + v * VF32_N));
        v_store(s + v * VF32_N, v_exp2_with(c, v_sub(x, v_load(m + v * VF32_N))));
    }
}

/* Scores in registers to probabilities in rows of p, and the tree of their sum over neighbours. */
ATTN_INLINE void pool_exp_step(int nv, vf32 c[QK_KEYS][POOL_NV], const float *m, float *p, float *sum) {
    enum { HALF = QK_KEYS - 4 };
    const vf32 lowest = v_set1(-FLT_MAX);
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        const vf32 mv = v_load(m + v * VF32_N);
        ATTN_UNROLL for (int i = 0; i < QK_KEYS; i++) {
            c[i][v] = v_exp2_inline(v_sub(v_max(lowest, c[i][v]), mv));
            v_store(p + (i * nv + v) * VF32_N, c[i][v]);
        }
        /* written out: a loop over steps would leave c in memory */
        vf32 tree = v_add(v_add(c[0][v], c[1][v]), v_add(c[2][v], c[3][v]));
        if (QK_KEYS == 8)
            tree =
                v_add(tree, v_add(v_add(c[HALF][v], c[HALF + 1][v]), v_add(c[HALF + 2][v], c[HALF + 3][v])));
        v_store(sum + v * VF32_N, tree);
    }
}

/*
 * QK_KEYS keys from j on, which all rows see. Returns whether a row's maximum moves; otherwise their probabilities
 * stand in rows of p, and the tree of their sum in sum.
 *
 * POOL_PIPELINE: the scores stand in p (and nothing in sum); the next step takes their exponential between its own
 * products. `waiting` is what the step before left, or NULL.
 *
 * Along the way it asks for the keys of the next tile, and for the values of these keys, which P V reads later.
 */
ATTN_INLINE int pool_step_nv(const struct pool_block *b, int nv, size_t j, const float *m, float *waiting,
                             float *p, float *sum) {
    const struct attn_pool_task *t = b->t;
    const size_t lanes = (size_t)nv * VF32_N, lines = t->d_k / ATTN_LINE;
    const ptrdiff_t k_row = pool_k_row(b), v_row = pool_v_row(b);
    const float *k = pool_key(b, j), *v = pool_value(b, j);
    const float *next = k + ATTN_KEY_TILE * k_row, *q = b->q;
    vf32 c[QK_KEYS][POOL_NV];
    size_t d = 0, left = POOL_PIPELINE && waiting ? QK_KEYS : 0, due = 0;
    pool_zero(QK_KEYS, nv, c);
    for (; d + ATTN_LINE <= t->d_k; d += ATTN_LINE, q += ATTN_LINE * lanes) {
        ATTN_UNROLL for (int i = 0; i < QK_KEYS; i++) {
            ATTN_PREFETCH_L1(next + i * k_row + d);
            ATTN_PREFETCH_L2(v + i * v_row + d);
        }
        uk_qk(QK_KEYS, nv, lanes, k + d, k_row, ATTN_LINE, q, c);
        /* QK_KEYS exponentials spread over the lines */
        for (due += QK_KEYS; POOL_PIPELINE && due >= lines && left; due -= lines, left--, waiting += lanes)
            pool_exp_key(nv, m, waiting);
    }
    if (d < t->d_k) uk_qk(QK_KEYS, nv, lanes, k + d, k_row, t->d_k - d, q, c);
    for (; POOL_PIPELINE && left; left--, waiting += lanes) pool_exp_key(nv, m, waiting);
    const int moves = pool_moves(nv, c, m);
    if (ATTN_UNLIKELY(moves)) return 1;
    if (!POOL_PIPELINE) {
        pool_exp_step(nv, c, m, p, sum);
        return 0;
    }
    ATTN_UNROLL for (int i = 0; i < QK_KEYS; i++) {
        ATTN_UNROLL for (int u = 0; u < nv; u++) v_store(p + (i * nv + u) * VF32_N, c[i][u]);
    }
    return 0;
}

/* One function a number of vectors, so that a profile names it and the rest of the body exists once. */
#define POOL_VARIANT(nv)                                                                                    \
    ATTN_NOINLINE void pool_scores_##nv(const struct pool_block *b, size_t at, size_t j, size_t n,          \
                                        float *s) {                                                         \
        pool_scores_nv(b, (nv) <= POOL_NV ? nv : 1, at, j, n, s);                                           \
    }                                                                                                       \
    ATTN_NOINLINE int pool_step_##nv(const struct pool_block *b, size_t j, const float *m, float *waiting,  \
                                     float *p, float *sum) {                                                \
        return pool_step_nv(b, (nv) <= POOL_NV ? nv : 1, j, m, waiting, p, sum);                            \
    }                                                                                                       \
    ATTN_NOINLINE void pool_pv_##nv(const struct pool_block *b, size_t at, const float *v, ptrdiff_t v_row, \
                                    size_t n, const float *p, float *o) {                                   \
        pool_pv_nv(b, (nv) <= POOL_NV ? nv : 1, 0, at, v, v_row, n, p, o);                                  \
    }                                                                                                       \
    ATTN_NOINLINE void pool_pv_hiding_##nv(const struct pool_block *b, size_t at, const float *v,           \
                                           ptrdiff_t v_row, size_t n, const float *p, float *o) {           \
        pool_pv_nv(b, (nv) <= POOL_NV ? nv : 1, 1, at, v, v_row, n, p, o);                                  \
    }
POOL_VARIANT(1)
POOL_VARIANT(2)
POOL_VARIANT(3)
POOL_VARIANT(4)

static void pool_scores_dot(const struct pool_block *b, struct pool_vectors u, size_t j, size_t n, float *s) {
    POOL_DISPATCH(u.n, , pool_scores, b, (size_t)u.first * VF32_N, j, n, s)
}
/* l += the tree over the tile's probabilities p. */
static void pool_sum(const struct pool_block *b, const float *p, float *l) {
    const size_t lanes = b->lanes;
    for (size_t lane = 0; lane < lanes; lane += VF32_N, p += VF32_N, l += VF32_N) {
        vf32 sum[4];
        ATTN_UNROLL for (size_t g = 0; g < 4; g++) {
            const float *at = p + 4 * g * lanes;
            sum[g] = v_add(v_add(v_load(at), v_load(at + lanes)),
                           v_add(v_load(at + 2 * lanes), v_load(at + 3 * lanes)));
        }
        v_store(l, v_add(v_load(l), v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]))));
    }
}

/* The scores of a tile's last step, while they wait for their exponential; NULL where none do. */
typedef float *pool_waiting;

static void pool_settle(const struct pool_block *b, pool_waiting *w, const float *m, float *l) {
    if (!*w) return;
    for (size_t i = 0; i < QK_KEYS * b->lanes; i += b->lanes) {
        for (size_t lane = 0; lane < b->lanes; lane += VF32_N) pool_exp_key(1, m + lane, *w + i + lane);
    }
    pool_sum(b, *w - (POOL_STEPS - 1) * QK_KEYS * b->lanes, l);
    *w = NULL;
}

/*
 * A tile that all rows see whole. Returns 0 where some row's maximum moves (always in a row's first tile): then
 * nothing waits, nothing but p has changed, and the caller takes the long way.
 */
static int pool_tile(const struct pool_block *b, pool_waiting *w, size_t j, const float *m, float *l,
                     size_t row) {
    float *p = b->p + row * b->lanes, sum[POOL_STEPS][POOL_NV * VF32_N];
    for (size_t i = 0; i < POOL_STEPS; i++) {
        float *s = p + i * QK_KEYS * b->lanes;
        int moves;
        POOL_DISPATCH(b->lanes / VF32_N, moves =, pool_step, b, j + i * QK_KEYS, m, *w, s, sum[i])
        if (*w && i == 0) pool_sum(b, *w - (POOL_STEPS - 1) * QK_KEYS * b->lanes, l);
        *w = POOL_PIPELINE && !moves ? s : NULL;
        if (ATTN_UNLIKELY(moves)) return 0;
    }
    if (!POOL_PIPELINE) pool_sum_steps(b, sum, l);
    return 1;
}

static size_t pool_tiles(const struct pool_block *b, size_t j, size_t n, const float *m, float *l,
                         size_t row) {
    pool_waiting waiting = NULL;
    size_t done = 0;
    for (; done < n; done++, j += ATTN_KEY_TILE, row += ATTN_KEY_TILE)
        if (!pool_tile(b, &waiting, j, m, l, row)) break;
    pool_settle(b, &waiting, m, l);
    return done;
}

static void pool_pv(const struct pool_block *b, const struct pool_pending *w, float *o) {
    const ptrdiff_t v_row = pool_v_row(b);
    const float *v = pool_value(b, w->from), *p = b->p + w->row * b->lanes;
    const size_t at = (size_t)w->rows.first * VF32_N, n = w->to - w->from;
    if (b->gather) pool_gather_values(b->gather, w->from, n);
    if (w->hides)
        POOL_DISPATCH(w->rows.n, , pool_pv_hiding, b, at, v, v_row, n, p, o)
    else
        POOL_DISPATCH(w->rows.n, , pool_pv, b, at, v, v_row, n, p, o)
}

#endif
