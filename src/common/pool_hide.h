/* Attention pooling, within one block of rows: scores of a tile are shaped, and hidden where a row does not see the key. */
#ifndef ATTN_POOL_HIDE_H
#define ATTN_POOL_HIDE_H

#include "pool_block.h"

/* bias[i][lane] of keys [j, j + n): what sight_bias() says to each row. */
static void pool_mask_tile(const struct pool_block *b, size_t j, size_t n) {
    const struct attn_pool_task *t = b->t;
    for (size_t lane = 0; lane < b->lanes; lane += VF32_N) {
        float rows[VF32_N][ATTN_KEY_TILE];
        for (size_t i = 0; i < VF32_N; i++) {
            const size_t row = pool_row(t, lane + i);
            sight_bias(t, row, j, n, pool_offset(t, row, t->mask_row, t->mask_head), rows[i]);
        }
        for (size_t c = 0; c < ATTN_KEY_TILE; c += VF32_N) {
            vf32 r[VF32_N];
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) r[i] = v_load(rows[i] + c);
            v_transpose(r);
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++)
                v_store(b->bias + (c + i) * b->lanes + lane, r[i]);
        }
    }
}

/* Shapes the scores of n keys in rows of s, the first of which is key `first` of the chunk. */
static void pool_shape(const struct pool_block *b, struct pool_vectors u, size_t n, float first, float *s) {
    for (size_t lane = (size_t)u.first * VF32_N; lane < (size_t)(u.first + u.n) * VF32_N; lane += VF32_N) {
        const vf32 position = v_load(b->position + lane), slope = v_load(b->slope + lane);
        for (size_t i = 0; i < n; i++) {
            float *at = s + i * b->lanes + lane;
            const vf32 distance = v_sub(position, v_set1(first + (float)i));
            v_store(at, sight_shape(b->t, v_load(at), distance, slope));
        }
    }
}

/* Applies the mask and each row's range to the tile whose row 0 is key j:
 * hidden scores become -inf, visible ones are at least -FLT_MAX. first = j
 * relative to the chunk. */
static void pool_hide(const struct pool_block *b, struct pool_vectors u, size_t j, size_t n, float first,
                      float *s) {
    const vf32 none = v_set1(-INFINITY), lowest = v_set1(-FLT_MAX), log2e = v_set1(ATTN_LOG2E);
    const enum attn_mask_kind kind = b->t->mask_kind;
    const int masked = kind != ATTN_MASK_NONE || b->t->kv_documents,
              additive = kind == ATTN_MASK_F32 || kind == ATTN_MASK_F16;
    if (masked) pool_mask_tile(b, j, n);
    for (size_t lane = (size_t)u.first * VF32_N; lane < (size_t)(u.first + u.n) * VF32_N; lane += VF32_N) {
        const vf32 lo = v_load(b->lo + lane), last = v_load(b->last + lane), also = v_load(b->also + lane);
        for (size_t i = 0; i < ATTN_KEY_TILE; i++) {
            const size_t at = i * b->lanes + lane;
            const vf32 key = v_set1(first + (float)i);
            const vmask in_also = v_lt(key, also);
            vmask hidden =
                v_or(v_lt(key, v_select(in_also, none, lo)), v_lt(v_select(in_also, key, last), key));
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
