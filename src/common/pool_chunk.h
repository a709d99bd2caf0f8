/*
 * Attention pooling: scores, softmax and P V of a section of keys for one block of rows, in the order of order.h. Included
 * after the kernels (pool_floats.h, pairs_tile.h), which have the same names:
 *
 * pool_products(b, u, j, n, s)        scores of n keys from j on, within a tile, for the vectors u, to rows of s
 * pool_tile_scores(b, row)            where they stand of the tile whose probabilities are to stand in row `row` of p
 * pool_keep(b, row, g, lane, s, e)    probabilities e of keys 4 g to 4 g + 3 of that tile to p; s: their scores' place
 * pool_tiles(b, j, n, m, l, row)      all that of n tiles that all rows see whole; returns how many before one that moves a
 *                                     row's maximum, which goes the long way: nothing but p has changed of it and behind it
 * pool_pv(b, w, o)                    P V of what is pending
 * pool_keys_begin(b, from)            a section begins
 * pool_exp2(x)                        of probabilities
 * POOL_APART                          P V of keys that some row does not see is a pass of its own
 * POOL_STAIRS                         P V of vectors that see less than those behind them is one pass with these
 */
#ifndef ATTN_POOL_CHUNK_H
#define ATTN_POOL_CHUNK_H

#include "pool_hide.h"

/* P V of what is pending up to key j; what follows starts there. */
static void pool_flush(const struct pool_block *b, struct pool_pending *w, size_t j, float *o) {
    w->to = j;
    if (w->to <= w->from || !w->rows.n) return;
    for (int v = w->sees; v < w->rows.first + w->rows.n; v++) w->stop[v] = j;
    pool_pv(b, w, o);
    w->row += w->to - w->from;
    w->from = w->to;
    w->rows = (struct pool_vectors){w->sees, w->rows.first + w->rows.n - w->sees};
}

/* Whether the vectors u take what is pending on from key j: all that see it, or, on the last of its stairs, fewer. */
static int pool_goes_on(struct pool_pending *w, struct pool_vectors u, size_t j) {
    if (!u.n || u.first + u.n != w->rows.first + w->rows.n || u.first < w->sees ||
        (!POOL_STAIRS && u.first != w->sees))
        return 0;
    for (; w->sees < u.first; w->sees++) w->stop[w->sees] = j;
    return 1;
}

/* Scores to probabilities, and their sum to l. */
static void pool_softmax(const struct pool_block *b, struct pool_state *st, size_t lane, int hides,
                         size_t row, float *s) {
    const vf32 lowest = v_set1(-FLT_MAX), hidden = v_set1(-0.0f);
    const vf32 m0 = v_load(st->m + lane), m = v_select(v_lt(m0, lowest), v_zero(), m0);
    vf32 sum[4];
    for (int g = 0; g < 4; g++) {
        vf32 e[4];
        for (int i = 0; i < 4; i++) {
            const vf32 x = v_load(s + (size_t)(4 * g + i) * b->lanes + lane);
            if (hides)
                e[i] = v_select(v_lt(x, lowest), hidden, pool_exp2(v_sub(v_max(lowest, x), m)));
            else
                e[i] = pool_exp2(v_sub(v_max(lowest, x), m));
        }
        pool_keep(b, row, g, lane, s, e);
        sum[g] = v_add(v_add(e[0], e[1]), v_add(e[2], e[3]));
    }
    v_store(st->l + lane, v_add(v_load(st->l + lane), v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]))));
}

/* Scores of keys [j, j + n) of the tile at j0 <= j into its 16 rows s; rows outside are -inf. */
static void pool_scores(const struct pool_block *b, struct pool_vectors u, size_t j0, size_t j, size_t n,
                        int hides, float first, float *s) {
    const size_t skip = j - j0;
    pool_products(b, u, j, n, s + skip * b->lanes);
    if (sight_shapes(b->t)) pool_shape(b, u, n, first + (float)skip, s + skip * b->lanes);
    if (!hides) return;
    for (size_t i = 0; i < ATTN_KEY_TILE; i++)
        if (i < skip || i >= skip + n) memset(s + i * b->lanes, 0, b->lanes * sizeof *s);
    pool_hide(b, u, j0, skip + n, first, s);
}

/* How many tiles from j0 on, behind which row `row` of p begins, all rows see whole; they are gathered, where that is needed. */
static size_t pool_whole(const struct pool_block *b, const struct pool_range *r, size_t j0, size_t hi,
                         size_t row) {
    size_t n = 0;
    do {
        if (b->gather) pool_gather_tile(b->gather, j0);
        j0 += ATTN_KEY_TILE;
        row += ATTN_KEY_TILE;
        n++;
    } while (row < POOL_KEYS && j0 + ATTN_KEY_TILE <= hi && pool_sight(b->t, r, 0, j0) == SIGHT_ALL);
    return n;
}

/* A tile that some row does not see whole, or that may move a row's maximum: keys [j, end) of the one at j0, which is row
 * `row` of p. */
static void pool_one(const struct pool_block *b, struct pool_state *st, struct pool_pending *w, int hides,
                     size_t base, size_t j0, size_t j, size_t end, size_t row) {
    const struct pool_vectors u = {w->sees, w->rows.first + w->rows.n - w->sees};
    float *s = pool_tile_scores(b, row);
    if (!u.n) return;
    if (b->gather) pool_gather_tile(b->gather, j0);
    pool_scores(b, u, j0, j, end - j, hides, (float)(j0 - base), s);
    for (size_t v = 0; v < (size_t)u.n; v++) {
        const size_t lane = ((size_t)u.first + v) * VF32_N;
        vf32 x = v_set1(hides ? -INFINITY : -FLT_MAX);
        for (size_t i = 0; i < ATTN_KEY_TILE; i++) x = v_max(x, v_load(s + i * b->lanes + lane));
        if (ATTN_UNLIKELY(v_any(v_lt(v_add(v_load(st->m + lane), v_set1(ATTN_RESCALE)), x)))) {
            pool_flush(b, w, j, st->o);
            pool_rescale(b, st, lane, x);
        }
        pool_softmax(b, st, lane, hides, row, s);
    }
}

/* Goes on with the state by keys [lo, hi), some of which a row may see: all that the block sees of a section. The chunk
 * begins at key `base` and the block sees it from key `first` on. */
static void pool_section(struct pool_block *b, const struct pool_range *r, size_t base, size_t first,
                         size_t lo, size_t hi, struct pool_state *st) {
    const struct attn_pool_task *t = b->t;
    const int runs = t->score == ATTN_SCORE_DOT && !sight_shapes(t);
    struct pool_pending pending = {.from = lo, .to = lo, .row = lo % ATTN_KEY_TILE};
    size_t j0 = lo - lo % ATTN_KEY_TILE, row = 0; /* of p, for the tile at j0 */
    while (j0 < hi) {
        const enum sight sight = pool_sight(t, r, 0, j0);
        const int hides = sight != SIGHT_ALL;
        const struct pool_vectors u = pool_seeing(b, sight, j0);
        size_t j = attn_max(j0, lo);
        if ((POOL_APART && hides != pending.hides) || row == POOL_KEYS || !pool_goes_on(&pending, u, j)) {
            pool_flush(b, &pending, j, st->o);
            if (row == POOL_KEYS) row = 0;
            pending = (struct pool_pending){
                .from = j, .to = j, .row = row + (j - j0), .hides = hides, .sees = u.first, .rows = u};
        }
        pending.hides |= hides;
        if (runs && !hides && j > first) { /* a row's first tile moves its maximum */
            const size_t n = pool_whole(b, r, j0, hi, row), done = pool_tiles(b, j0, n, st->m, st->l, row);
            j0 += done * ATTN_KEY_TILE;
            row += done * ATTN_KEY_TILE;
            if (done == n) continue;
            j = j0;
        }
        pool_one(b, st, &pending, hides, base, j0, j, attn_min(j0 + ATTN_KEY_TILE, hi), row);
        j0 += ATTN_KEY_TILE;
        row += ATTN_KEY_TILE;
    }
    pool_flush(b, &pending, hi, st->o);
}

#endif
