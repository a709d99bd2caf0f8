/* Attention pooling with f32 arithmetic: what pool_chunk.h and pool_body.h ask of the kernels. */
#ifndef ATTN_POOL_FLOATS_H
#define ATTN_POOL_FLOATS_H

#include "pool_additive.h"
#include "pool_tile.h"

enum { POOL_APART = 1, POOL_STAIRS = 0 };

/* Of keys from `from` on, whose section is as long as the caller says: they are where b->keys says from now on. */
static void pool_keys_begin(struct pool_block *b, size_t from) {
    const struct attn_pool_task *t = b->t;
    const struct pool_gather *g = b->gather;
    struct pool_keys keys = {.from = from};
    if (g) pool_gather_begin(b->gather, from);
    keys.k = g && g->keys ? (const char *)g->k : t->k + attn_k_offset(t, from);
    keys.v = g && g->values ? (const char *)g->v : t->v + attn_v_offset(t, from);
    keys.k_row = g && g->keys ? (ptrdiff_t)(g->k_row * sizeof(float)) : t->k_row;
    keys.v_row = g && g->values ? (ptrdiff_t)(g->v_row * sizeof(float)) : t->v_row;
    b->keys = keys;
}

ATTN_INLINE float *pool_tile_scores(const struct pool_block *b, size_t row) { return b->p + row * b->lanes; }

static void pool_products(const struct pool_block *b, struct pool_vectors u, size_t j, size_t n, float *s) {
    if (b->t->score == ATTN_SCORE_DOT)
        pool_scores_dot(b, u, j, n, s);
    else
        pool_scores_additive(b, u, j, n, s);
}

/* In their scores' place. */
ATTN_INLINE void pool_keep(const struct pool_block *b, size_t row, int g, size_t lane, float *s,
                           const vf32 e[4]) {
    (void)row;
    for (int i = 0; i < 4; i++) v_store(s + (size_t)(4 * g + i) * b->lanes + lane, e[i]);
}

/* The block's queries, once. */
static void pool_queries(struct pool_block *b) {
    const struct attn_pool_task *t = b->t;
    const int additive = t->score == ATTN_SCORE_ADDITIVE;
    const vf32 c = v_set1(t->scale * ATTN_LOG2E);
    pool_pack(t, b->lanes, t->d_k, t->q_type, t->q, t->q_row, t->q_head, additive ? v_set1(1.0f) : c, b->q);
    if (!additive) return;
    pool_pack(t, b->lanes, t->d_k, ATTN_F32, t->w, 0, t->w_head, c, b->w);
    additive_queries(b);
}

#endif
