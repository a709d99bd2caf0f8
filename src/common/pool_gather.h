/*
 * Attention pooling: keys and values that the kernels cannot read where they lie. They are copied to scratch as the kernels
 * want them (pool_convert.h, pairs_gather.h), a section of keys at a time, which stays in the second-level cache while all
 * blocks of the task use it, and a tile of it when the first block comes to it: so nothing is read that no row sees.
 */
#ifndef ATTN_POOL_GATHER_H
#define ATTN_POOL_GATHER_H

#include "pool_rows.h"

struct pool_gather {
    const struct attn_pool_task *t; /* with all its blocks */
    size_t lo, hi;                  /* keys that some of its rows may see */
    int keys, values;               /* which are gathered; the others are read where they lie */
    size_t from;                    /* the section's first key; SIZE_MAX: none yet */
    uint64_t k_there, v_there;      /* a bit for each tile of the section */
    uint64_t v_odd; /* those of whose values some may be infinite or NaN; where the kernels want to know */
    float *k, *v;   /* row of key j: j - from */
    size_t k_row, v_row; /* floats */
};

/* Floats of a gathered row: a line more than it has, so that rows of usual lengths do not share sets of the cache. */
static size_t pool_gather_row(size_t d) { return (d + ATTN_LINE - 1) / ATTN_LINE * ATTN_LINE + ATTN_LINE; }

/* Keys of a section: at most 384 KiB, if that leaves some tiles. */
static size_t pool_gather_keys(size_t d_k, size_t d_v) {
    size_t n = POOL_KEYS;
    while (n > 4 * ATTN_KEY_TILE && n * (d_k + d_v) > 3 << 15) n /= 2;
    return n;
}

/* Keys or values [j, end) of one tile to the section of scratch `to` that begins at key `from`. */
static void pool_gather_k(const struct attn_pool_task *t, size_t j, size_t end, size_t from, float *to,
                          size_t row);
static void pool_gather_v(struct pool_gather *g, size_t j, size_t end);

/* The section that begins at key `from`. */
static void pool_gather_begin(struct pool_gather *g, size_t from) {
    if (g->from == from) return;
    g->from = from;
    g->k_there = g->v_there = g->v_odd = 0;
}

/* The keys of the tile at j0 are there. */
ATTN_INLINE void pool_gather_tile(struct pool_gather *g, size_t j0) {
    const uint64_t bit = (uint64_t)1 << (j0 - g->from) / ATTN_KEY_TILE;
    if (!g->keys || g->k_there & bit) return;
    g->k_there |= bit;
    pool_gather_k(g->t, attn_max(j0, g->lo), attn_min(j0 + ATTN_KEY_TILE, g->hi), g->from, g->k, g->k_row);
}

/* The values of keys [j, j + n) are there. */
static void pool_gather_values(struct pool_gather *g, size_t j, size_t n) {
    for (size_t j0 = j - j % ATTN_KEY_TILE; g->values && j0 < j + n; j0 += ATTN_KEY_TILE) {
        const uint64_t bit = (uint64_t)1 << (j0 - g->from) / ATTN_KEY_TILE;
        if (g->v_there & bit) continue;
        g->v_there |= bit;
        pool_gather_v(g, attn_max(j0, g->lo), attn_min(j0 + ATTN_KEY_TILE, g->hi));
    }
}

#endif
