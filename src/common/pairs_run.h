/*
 * Attention pooling by bf16 dot products: tiles that all rows see whole, one behind the other. Scores stay in registers, and
 * each step takes the exponentials of the step before between its own products.
 */
#ifndef ATTN_PAIRS_RUN_H
#define ATTN_PAIRS_RUN_H

#include "pairs_gather.h"
#include "pool_block.h"

/* Keys a step: 4 by 3 vectors of sums, as many scores that wait, 3 of q, a key and 4 to compute with. */
enum { RUN_KEYS = 4, RUN_PAIRS = RUN_KEYS / 2, RUN_STEPS = ATTN_KEY_TILE / RUN_KEYS };

/* Scores are chains of products times this. */
ATTN_INLINE vf32 pairs_scale(const struct attn_pool_task *t) { return v_set1(t->scale * ATTN_LOG2E); }

ATTN_INLINE const char *pairs_key(const struct pool_block *b, size_t j) {
    return b->keys.k + (ptrdiff_t)(j - b->keys.from) * b->keys.k_row;
}

ATTN_INLINE void run_zero(int nv, vf32 c[RUN_KEYS][POOL_NV]) {
    ATTN_UNROLL for (int i = 0; i < RUN_KEYS; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_zero();
    }
}

/* Goes on with the chains of a step's keys: c[i][v] plus the products of each pair, in ascending order. */
ATTN_INLINE void run_products(int nv, const char *k, ptrdiff_t k_row, size_t pairs, const float *q,
                              vf32 c[RUN_KEYS][POOL_NV]) {
    ATTN_UNROLL_4 for (size_t d = 0; d < pairs; d++, k += 4, q += nv * VF32_N) {
        vint x[POOL_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) x[v] = v_bytes(q + v * VF32_N);
        ATTN_UNROLL for (int i = 0; i < RUN_KEYS; i++) {
            const vint a = v_int_at(k + i * k_row);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_bf16_dot(c[i][v], a, x[v]);
        }
    }
}

/* Two keys' scores of vector v to probabilities, and to a pair in p. Returns their sum. */
ATTN_INLINE vf32 run_exp(const struct exp2_short *e, int nv, int v, int pair, vf32 s[RUN_KEYS][POOL_NV],
                         const float *m, float *p) {
    const vf32 mv = v_load(m + v * VF32_N), lowest = v_set1(e->lowest);
    const vf32 x = v_exp2_short_with(e, v_sub(v_max(lowest, s[2 * pair][v]), mv));
    const vf32 y = v_exp2_short_with(e, v_sub(v_max(lowest, s[2 * pair + 1][v]), mv));
    v_pairs_store(p + (pair * nv + v) * VF32_N, v_bf16_pairs(x, y));
    return v_add(x, y);
}

/* l plus the tree over a tile's steps. */
ATTN_INLINE void run_sum(int nv, const float *sum, float *l) {
    const size_t lanes = (size_t)nv * VF32_N;
    ATTN_UNROLL for (int v = 0; v < nv; v++, sum += VF32_N, l += VF32_N) {
        const vf32 a = v_add(v_load(sum), v_load(sum + lanes));
        v_store(l, v_add(v_load(l), v_add(a, v_add(v_load(sum + 2 * lanes), v_load(sum + 3 * lanes)))));
    }
}

/* Sums of products to scores. */
ATTN_INLINE void run_scale(const struct attn_pool_task *t, int nv, vf32 c[RUN_KEYS][POOL_NV],
                           vf32 s[RUN_KEYS][POOL_NV]) {
    const vf32 scale = pairs_scale(t);
    ATTN_UNROLL for (int i = 0; i < RUN_KEYS; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) s[i][v] = v_mul(c[i][v], scale);
    }
}

/* Whether some score exceeds m + ATTN_RESCALE in its lane, or is NaN. */
ATTN_INLINE int run_moves(int nv, vf32 c[RUN_KEYS][POOL_NV], const float *m) {
    vint any = v_int_zero();
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        vf32 x = v_set1(-FLT_MAX);
        ATTN_UNROLL for (int i = 0; i < RUN_KEYS; i++) x = v_max(x, c[i][v]);
        any =
            v_bytes_or(any, v_pairs_from_f32(v_sub(v_add(v_load(m + v * VF32_N), v_set1(ATTN_RESCALE)), x)));
    }
    return v_any(v_sign(v_pairs_as_f32(any)));
}

/* A step's products, in pieces: behind each of the first ones stand exponentials of the scores s of the step before. */
ATTN_INLINE void run_products_exp(const struct pool_block *b, const struct exp2_short *e, int nv,
                                  const char *k, vf32 s[RUN_KEYS][POOL_NV], const float *m, float *p,
                                  float *sum, vf32 c[RUN_KEYS][POOL_NV]) {
    const size_t pairs = (b->t->d_k + 1) / 2, piece = pairs / (size_t)(RUN_PAIRS * nv);
    const float *q = b->q;
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        vf32 tree[RUN_PAIRS];
        ATTN_UNROLL for (int i = 0; i < RUN_PAIRS; i++) {
            run_products(nv, k, b->keys.k_row, piece, q, c);
            k += 4 * piece;
            q += piece * (size_t)nv * VF32_N;
            tree[i] = run_exp(e, nv, v, i, s, m, p);
        }
        v_store(sum + v * VF32_N, v_add(tree[0], tree[1]));
    }
    run_products(nv, k, b->keys.k_row, pairs - piece * (size_t)(RUN_PAIRS * nv), q, c);
}

/*
 * Keys [j, j + RUN_KEYS n), n a multiple of RUN_STEPS: probabilities to p, their sums to l. Returns how many steps came
 * before one that moves some row's maximum.
 */
ATTN_INLINE size_t run_steps(const struct pool_block *b, int nv, size_t j, size_t n, const float *m, float *l,
                             float *p) {
    const size_t lanes = (size_t)nv * VF32_N;
    const ptrdiff_t k_row = b->keys.k_row;
    const struct exp2_short *e = &exp2_short;
    const char *k = pairs_key(b, j);
    float sum[RUN_STEPS * POOL_NV * VF32_N], *at = sum;
    vf32 s[RUN_KEYS][POOL_NV], c[RUN_KEYS][POOL_NV];
    ATTN_OPAQUE(e);
    run_zero(nv, c);
    run_products(nv, k, k_row, (b->t->d_k + 1) / 2, b->q, c);
    run_scale(b->t, nv, c, s);
    if (ATTN_UNLIKELY(run_moves(nv, s, m))) return 0;
    for (size_t i = 1; i < n; i++) {
        k += RUN_KEYS * k_row;
        run_zero(nv, c);
        run_products_exp(b, e, nv, k, s, m, p, at, c);
        p += RUN_PAIRS * lanes;
        at += lanes;
        if (i % RUN_STEPS == 0) {
            run_sum(nv, sum, l);
            at = sum;
        }
        run_scale(b->t, nv, c, s);
        if (ATTN_UNLIKELY(run_moves(nv, s, m))) return i;
    }
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        const vf32 tree = run_exp(e, nv, v, 0, s, m, p);
        v_store(at + v * VF32_N, v_add(tree, run_exp(e, nv, v, 1, s, m, p)));
    }
    run_sum(nv, sum, l);
    return n;
}

#define RUN_VARIANT(nv)                                                                                 \
    ATTN_NOINLINE size_t run_steps_##nv(const struct pool_block *b, size_t j, size_t n, const float *m, \
                                        float *l, float *p) {                                           \
        return run_steps(b, (nv) <= POOL_NV ? nv : 1, j, n, m, l, p);                                   \
    }
RUN_VARIANT(1)
RUN_VARIANT(2)
RUN_VARIANT(3)
RUN_VARIANT(4)

static size_t pool_tiles(const struct pool_block *b, size_t j, size_t n, const float *m, float *l,
                         size_t row) {
    size_t steps;
    POOL_DISPATCH(b->lanes / VF32_N, steps =, run_steps, b, j, n * RUN_STEPS, m, l, b->p + row / 2 * b->lanes)
    return steps / RUN_STEPS;
}

#endif
