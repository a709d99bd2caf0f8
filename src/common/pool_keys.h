/* Attention pooling, within one block of rows: where the keys of a tile are. Keys of a cache that do not lie in rows one
 * behind the other are copied so. */
#ifndef ATTN_POOL_KEYS_H
#define ATTN_POOL_KEYS_H

#include "pool_tile.h"

/* The panel of 16 keys at x, transposed to rows. */
static void pool_unpanel(const float *x, size_t d_k, float *to, size_t row) {
    for (size_t at = 0; at < ATTN_KEY_TILE; at += VF32_N, x += VF32_N, to += VF32_N * row) {
        for (size_t d = 0; d < d_k; d += VF32_N) {
            const size_t n = attn_min(d_k - d, VF32_N);
            vf32 r[VF32_N];
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) r[i] =
                i < n ? v_load(x + (d + i) * ATTN_KEY_TILE) : v_zero();
            v_transpose(r);
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) v_store_tail(to + i * row + d, r[i], n);
        }
    }
}

/* Before all tiles: of keys in pages each tile is looked up, the others are where they are. */
static void pool_keys_begin(struct pool_block *b) {
    const struct attn_pool_task *t = b->t;
    b->keys = (struct pool_keys){0, t->k, NULL, t->v, t->k_row};
    if (t->n_kv) b->keys.next = t->k + ATTN_KEY_TILE * t->k_row;
}

ATTN_NOINLINE void pool_keys_look_up(struct pool_block *b, size_t j, size_t end) {
    const struct attn_pool_task *t = b->t;
    struct pool_keys *keys = &b->keys;
    const size_t row = pool_v_row(t->d_k), next = attn_min(j + ATTN_KEY_TILE, t->n_kv - 1);
    keys->from = j;
    keys->k = t->k + attn_k_offset(t, j);
    keys->k_row = t->k_row;
    keys->next = t->k + attn_k_offset(t, next);
    keys->v = t->v + attn_v_offset(t, j);
    if (!t->panels && attn_keys_left(t, j) >= end - j) return;
    if (t->panels)
        pool_unpanel(keys->k - j % ATTN_KEY_TILE, t->d_k, b->k, row);
    else
        for (size_t i = j; i < end; i++)
            pool_copy_row(t->k + attn_k_offset(t, i), t->d_k, b->k + (i - j) * row);
    keys->k = b->k + (t->panels ? j % ATTN_KEY_TILE * row : 0);
    keys->k_row = (ptrdiff_t)row;
}

/* The tile of keys [j, end). */
ATTN_INLINE void pool_keys_at(struct pool_block *b, size_t j, size_t end) {
    if (ATTN_UNLIKELY(b->t->pages || b->t->panels)) pool_keys_look_up(b, j, end);
}

#endif
