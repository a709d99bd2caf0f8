/* Attention pooling: scores, softmax and P V of a chunk of keys for one block of rows, in the order of order.h. */
#ifndef ATTN_POOL_CHUNK_H
#define ATTN_POOL_CHUNK_H

#include "pool_additive.h"
#include "pool_hide.h"
#include "pool_tile.h"

/* What waits for P V: keys [from, to), whose probabilities stand in p from row `row` on. */
struct pool_pending {
    size_t from, to, row;
    int hides; /* some row of the vectors does not see some of these keys */
    struct pool_vectors rows;
};

/* P V of what is pending up to key j; what follows starts there. */
static void pool_flush(const struct pool_block *b, struct pool_pending *w, size_t j, float *o) {
    w->to = j;
    if (w->to <= w->from || !w->rows.n) return;
    pool_pv(b, w->rows, w->hides, w->from, w->to - w->from, b->p + w->row * b->lanes, o);
    w->row += w->to - w->from;
    w->from = w->to;
}

/* Rows whose x exceeds their maximum by more than ATTN_RESCALE take it: l and o are scaled to it. */
static void pool_rescale(const struct pool_block *b, struct pool_state *st, size_t lane, vf32 x) {
    const vf32 m = v_load(st->m + lane), lowest = v_set1(-FLT_MAX);
    const vmask moves = v_lt(v_add(m, v_set1(ATTN_RESCALE)), x);
    /* before the first visible key l and o are 0 and stay it: a factor of 1 avoids 0 * inf */
    vf32 f = v_select(moves, v_exp2(v_sub(m, x)), v_set1(1.0f));
    f = v_select(v_lt(m, lowest), v_set1(1.0f), f);
    v_store(st->m + lane, v_select(moves, x, m));
    if (!v_any(v_lt(f, v_set1(1.0f)))) return;
    v_store(st->l + lane, v_mul(v_load(st->l + lane), f));
    for (size_t c = 0; c < b->t->d_v; c++) {
        float *o = st->o + c * b->lanes + lane;
        v_store(o, v_mul(v_load(o), f));
    }
}

/* Scores to probabilities in place, and their sum to l. */
static void pool_softmax(const struct pool_block *b, struct pool_state *st, size_t lane, int hides,
                         float *s) {
    const vf32 lowest = v_set1(-FLT_MAX), hidden = v_set1(-0.0f);
    const vf32 m0 = v_load(st->m + lane), m = v_select(v_lt(m0, lowest), v_zero(), m0);
    vf32 sum[4];
    for (int g = 0; g < 4; g++) {
        vf32 e[4];
        for (int i = 0; i < 4; i++) {
            float *at = s + (size_t)(4 * g + i) * b->lanes + lane;
            const vf32 x = v_load(at);
            if (hides)
                e[i] = v_select(v_lt(x, lowest), hidden, v_exp2_inline(v_sub(v_max(lowest, x), m)));
            else
                e[i] = v_exp2_inline(v_sub(v_max(lowest, x), m));
            v_store(at, e[i]);
        }
        sum[g] = v_add(v_add(e[0], e[1]), v_add(e[2], e[3]));
    }
    v_store(st->l + lane, v_add(v_load(st->l + lane), v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]))));
}

/* Scores of keys [j, j + n) of the tile at j0 <= j into its 16 rows s; rows outside are -inf. */
static void pool_scores(const struct pool_block *b, struct pool_vectors u, size_t j0, size_t j, size_t n,
                        int hides, float first, float *s) {
    const size_t skip = j - j0;
    if (b->t->score == ATTN_SCORE_DOT)
        pool_scores_dot(b, u, j, n, s + skip * b->lanes);
    else
        pool_scores_additive(b, u, j, n, s + skip * b->lanes);
    if (sight_shapes(b->t)) pool_shape(b, u, n, first + (float)skip, s + skip * b->lanes);
    if (!hides) return;
    for (size_t i = 0; i < ATTN_KEY_TILE; i++)
        if (i < skip || i >= skip + n) memset(s + i * b->lanes, 0, b->lanes * sizeof *s);
    pool_hide(b, u, j0, skip + n, first, s);
}

static void pool_vector_sight(const struct attn_pool_task *t, struct pool_block *b, size_t v) {
    b->sees[v] = sight_nothing();
    for (size_t i = v * VF32_N; i < (v + 1) * VF32_N; i++) sight_add(&b->sees[v], t, pool_row(t, i));
}

/* Each lane's visible range in floats relative to the chunk at `base`. */
static void pool_lane_ranges(const struct pool_block *b, size_t base) {
    for (size_t lane = 0; lane < b->lanes; lane++) {
        const size_t row = pool_row(b->t, lane), lo = b->t->lo[row], hi = b->t->hi[row];
        const size_t from = lo > base ? attn_min(lo - base, ATTN_CHUNK) : 0;
        const size_t end = hi > base ? attn_min(hi - base, ATTN_CHUNK) : 0;
        b->lo[lane] = (float)from;
        b->last[lane] = (float)end - 1.0f;
        b->also[lane] = b->t->also[row] > base ? (float)attn_min(b->t->also[row] - base, ATTN_CHUNK) : 0.0f;
        if (sight_shapes(b->t)) b->position[lane] = sight_position(b->t, row, base);
    }
}

/* The vectors with a row that may see something of the tile at j0: all of them where nothing is hidden. */
static struct pool_vectors pool_seeing(const struct pool_block *b, enum sight sight, size_t j0) {
    int first = 0, end = (int)(b->lanes / VF32_N);
    if (sight == SIGHT_NONE) end = 0;
    if (sight == SIGHT_SOME) {
        const struct sight_hull tile = b->t->kv_documents ? sight_tile(b->t, j0) : sight_nothing();
        while (first < end && !sight_meets(b->t, &b->sees[first], j0, &tile)) first++;
        while (first < end && !sight_meets(b->t, &b->sees[end - 1], j0, &tile)) end--;
    }
    return (struct pool_vectors){first, end - first};
}

/* Of keys from `from` on, whose section is as long as the caller says: they are where b->keys says from now on. */
static void pool_keys_begin(struct pool_block *b, size_t from) {
    const struct attn_pool_task *t = b->t;
    const struct pool_gather *g = b->gather;
    struct pool_keys keys = {.from = from};
    if (g) pool_gather_begin(b->gather, from);
    keys.k = g && g->keys ? g->k : typed_f32(t->k + attn_k_offset(t, from));
    keys.v = g && g->values ? g->v : typed_f32(t->v + attn_v_offset(t, from));
    keys.k_row = g && g->keys ? (ptrdiff_t)g->k_row : t->k_row / (ptrdiff_t)sizeof(float);
    keys.v_row = g && g->values ? (ptrdiff_t)g->v_row : t->v_row / (ptrdiff_t)sizeof(float);
    b->keys = keys;
}

/* The part of a chunk that a block sees. */
struct pool_span {
    size_t base, lo, hi;
};
static struct pool_span pool_span_of(const struct pool_range *r, size_t chunk) {
    const size_t base = chunk * ATTN_CHUNK;
    return (struct pool_span){base, attn_max(base, r->lo), attn_min(base + ATTN_CHUNK, r->hi)};
}

/* The state of a chunk before its keys. */
static void pool_chunk_begin(struct pool_block *b, const struct pool_span *s, int clears,
                             struct pool_state *st) {
    for (size_t lane = 0; lane < b->lanes; lane += VF32_N) {
        v_store(st->m + lane, v_set1(-INFINITY));
        v_store(st->l + lane, v_zero());
    }
    if (clears || s->lo < s->hi) memset(st->o, 0, b->t->d_v * b->lanes * sizeof *st->o);
    if (s->lo < s->hi) pool_lane_ranges(b, s->base);
}

/* Goes on with the state by keys [lo, hi), some of which a row may see: all that the block sees of a section. The chunk
 * begins at key `base` and the block sees it from key `first` on. */
static void pool_section(struct pool_block *b, const struct pool_range *r, size_t base, size_t first,
                         size_t lo, size_t hi, struct pool_state *st) {
    const struct attn_pool_task *t = b->t;
    const size_t lanes = b->lanes;
    const int shapes = sight_shapes(t);

    struct pool_pending pending = {.from = lo, .to = lo, .row = lo % ATTN_KEY_TILE};
    pool_waiting waiting = NULL;
    size_t row = 0; /* of p, for the tile */
    for (size_t j0 = lo - lo % ATTN_KEY_TILE; j0 < hi; j0 += ATTN_KEY_TILE, row += ATTN_KEY_TILE) {
        const size_t j = attn_max(j0, lo), end = attn_min(j0 + ATTN_KEY_TILE, hi);
        const enum sight sight = pool_sight(t, r, 0, j0);
        const int hides = sight != SIGHT_ALL;
        const struct pool_vectors u = pool_seeing(b, sight, j0);
        const int whole = !hides && j > first && t->score == ATTN_SCORE_DOT &&
                          !shapes; /* the first tile always moves the maximum */
        if (!whole || row == POOL_KEYS) pool_settle(b, &waiting, st->m, st->l);
        if (hides != pending.hides || u.first != pending.rows.first || u.n != pending.rows.n ||
            row == POOL_KEYS) {
            pool_flush(b, &pending, j, st->o);
            if (row == POOL_KEYS) row = 0;
            pending =
                (struct pool_pending){.from = j, .to = j, .row = row + (j - j0), .hides = hides, .rows = u};
        }
        float *s = b->p + row * lanes;
        if (b->gather && u.n) pool_gather_tile(b->gather, j0);
        if (whole && pool_tile(b, &waiting, j0, st->m, st->l, s)) continue;
        if (u.n) pool_scores(b, u, j0, j, end - j, hides, (float)(j0 - base), s);
        for (size_t v = 0; v < (size_t)u.n; v++) {
            const size_t lane = ((size_t)u.first + v) * VF32_N;
            vf32 x = v_set1(hides ? -INFINITY : -FLT_MAX);
            for (size_t i = 0; i < ATTN_KEY_TILE; i++) x = v_max(x, v_load(s + i * lanes + lane));
            if (ATTN_UNLIKELY(v_any(v_lt(v_add(v_load(st->m + lane), v_set1(ATTN_RESCALE)), x)))) {
                pool_flush(b, &pending, j, st->o);
                pool_rescale(b, st, lane, x);
            }
            pool_softmax(b, st, lane, hides, s);
        }
    }
    pool_settle(b, &waiting, st->m, st->l);
    pool_flush(b, &pending, hi, st->o);
}

/* a = merge of a and b, a's keys before b's. */
static void pool_merge(size_t lanes, size_t d_v, struct pool_state *a, const struct pool_state *b) {
    const vf32 half = v_set1(0.5f);
    for (size_t lane = 0; lane < lanes; lane += VF32_N) {
        const vf32 ma = v_load(a->m + lane), mb = v_load(b->m + lane), m = v_max(ma, mb);
        /* l is 0 where nothing was seen, at least 1 where something was, or NaN (and m may then be -inf) */
        const vmask no_a = v_lt(v_load(a->l + lane), half), no_b = v_lt(v_load(b->l + lane), half);
        if (!v_any(v_lt(v_zero(), v_select(no_b, v_zero(), v_set1(1.0f))))) continue; /* of no row */
        const vf32 fa = v_exp2(v_sub(ma, m)), fb = v_exp2(v_sub(mb, m));
        v_store(a->m + lane, m);
        for (size_t c = 0; c <= d_v; c++) { /* the last one is l */
            float *pa = (c < d_v ? a->o + c * lanes : a->l) + lane;
            const float *pb = (c < d_v ? b->o + c * lanes : b->l) + lane;
            const vf32 xa = v_load(pa), xb = v_load(pb);
            const vf32 x = v_fma(xb, fb, v_mul(xa, fa));
            v_store(pa, v_select(no_b, xa, v_select(no_a, xb, x)));
        }
    }
}

#endif
