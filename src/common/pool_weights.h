/* Attention pooling: weights and scores of a block, from its final maxima and sums. */
#ifndef ATTN_POOL_WEIGHTS_H
#define ATTN_POOL_WEIGHTS_H

#include "pool_chunk.h"

/* A row of weights or scores that sees nothing. */
static void pool_fill(float x, float *to, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] = x;
}

/* Keys [j, end) of the tile at j0, as they stand in p, times `by`, to the rows of weights or scores. */
static void pool_show(const struct pool_block *b, size_t j0, size_t j, size_t end, float by, float *rows,
                      ptrdiff_t rows_row, ptrdiff_t rows_head) {
    for (size_t row = 0; row < b->t->n_rows; row++) {
        float *to = rows + pool_offset(b->t, row, rows_row, rows_head);
        for (size_t i = j - j0; i < end - j0; i++) to[j0 + i] = b->p[i * b->lanes + row] * by;
    }
}

/* The scores and the softmax weights of all keys, from the final m and 1/l: a second pass over the scores. */
static void pool_weights(struct pool_block *b, const struct pool_range *r, const struct pool_state *st,
                         size_t section) {
    const struct attn_pool_task *t = b->t;
    const vf32 lowest = v_set1(-FLT_MAX);
    size_t at = SIZE_MAX; /* the chunk that the lanes' ranges are relative to */
    for (size_t row = 0; row < t->n_rows; row++) {
        if (t->weights)
            pool_fill(0.0f, t->weights + pool_offset(t, row, t->weights_row, t->weights_head), t->n_weights);
        if (t->scores)
            pool_fill(-INFINITY, t->scores + pool_offset(t, row, t->scores_row, t->scores_head),
                      t->n_weights);
    }
    for (size_t j0 = r->lo - r->lo % ATTN_KEY_TILE; j0 < r->hi; j0 += ATTN_KEY_TILE) {
        const size_t j = attn_max(j0, r->lo), end = attn_min(j0 + ATTN_KEY_TILE, r->hi);
        const size_t base = j0 / ATTN_CHUNK * ATTN_CHUNK;
        if (base != at) pool_lane_ranges(b, at = base);
        const enum sight sight = pool_sight(t, r, 0, j0);
        const int hides = sight != SIGHT_ALL;
        if (j0 == r->lo - r->lo % ATTN_KEY_TILE || j0 % section == 0)
            pool_keys_begin(b, j0 / section * section);
        if (sight == SIGHT_NONE) continue;
        if (b->gather) pool_gather_tile(b->gather, j0);
        pool_scores(b, pool_seeing(b, SIGHT_ALL, j0), j0, j, end - j, hides, (float)(j0 - base), b->p);
        for (size_t i = (j - j0) * b->lanes; !hides && i < (end - j0) * b->lanes; i += VF32_N)
            v_store(b->p + i, v_max(lowest, v_load(b->p + i)));
        if (t->scores) pool_show(b, j0, j, end, ATTN_LN2, t->scores, t->scores_row, t->scores_head);
        for (size_t lane = 0; t->weights && lane < b->lanes; lane += VF32_N) {
            const vf32 m = v_load(st->m + lane), inv = v_load(st->l + lane);
            for (size_t i = j - j0; i < end - j0; i++) {
                float *p = b->p + i * b->lanes + lane;
                const vf32 x = v_load(p), w = v_mul(v_exp2(v_sub(v_max(lowest, x), m)), inv);
                v_store(p, hides ? v_select(v_lt(x, lowest), v_zero(), w) : w);
            }
        }
        if (t->weights) pool_show(b, j0, j, end, 1.0f, t->weights, t->weights_row, t->weights_head);
    }
}

#endif
