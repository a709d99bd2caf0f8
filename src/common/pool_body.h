/*
 * The pool and merge slots: fused attention with the online softmax of order.h.
 */
#ifndef ATTN_POOL_BODY_H
#define ATTN_POOL_BODY_H

#include "pool_additive.h"
#include "pool_hide.h"
#include "pool_keys.h"
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

/* The state of one chunk, from nothing. */
static void pool_chunk(struct pool_block *b, const struct pool_range *r, size_t chunk,
                       struct pool_state *st) {
    const struct attn_pool_task *t = b->t;
    const size_t base = chunk * ATTN_CHUNK, lanes = b->lanes;
    const size_t lo = attn_max(base, r->lo), hi = attn_min(base + ATTN_CHUNK, r->hi);
    for (size_t lane = 0; lane < lanes; lane += VF32_N) {
        v_store(st->m + lane, v_set1(-INFINITY));
        v_store(st->l + lane, v_zero());
    }
    /* of a chunk that the block does not see the merge reads no output; the first one is what it begins with */
    if (lo < hi || chunk == t->first_chunk) memset(st->o, 0, t->d_v * lanes * sizeof *st->o);
    if (lo >= hi) return;
    pool_lane_ranges(b, base);
    const int shapes = sight_shapes(t);

    struct pool_pending pending = {.from = lo, .to = lo, .row = lo % ATTN_KEY_TILE};
    pool_waiting waiting = NULL;
    size_t row = 0; /* of p, for the tile */
    for (size_t j0 = lo - lo % ATTN_KEY_TILE; j0 < hi; j0 += ATTN_KEY_TILE, row += ATTN_KEY_TILE) {
        const size_t j = attn_max(j0, lo), end = attn_min(j0 + ATTN_KEY_TILE, hi);
        const enum sight sight = pool_sight(t, r, 0, j0);
        const int hides = sight != SIGHT_ALL;
        const struct pool_vectors u = pool_seeing(b, sight, j0);
        const int whole = !hides && j > lo && t->score == ATTN_SCORE_DOT &&
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
        if (u.n) pool_keys_at(b, j, end);
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

/* out = o / l and the log-sum-exps; leaves what o was multiplied by in l. */
static void pool_finish(const struct attn_pool_task *t, size_t lanes, struct pool_state *st) {
    for (size_t lane = 0; lane < lanes; lane += VF32_N) {
        const size_t rows = lane < t->n_rows ? attn_min(t->n_rows - lane, VF32_N) : 0;
        float sink[VF32_N] = {0}, lse[VF32_N], lse_sinks[VF32_N];
        for (size_t i = 0; t->sinks && i < rows; i++) sink[i] = t->sinks[(t->first + lane + i) % t->group];
        const struct sight_end end =
            sight_end_of(t, v_load(st->m + lane), v_load(st->l + lane), v_load(sink));
        const vf32 inv = end.factor;
        v_store(lse, end.lse);
        v_store(lse_sinks, end.lse_sinks);
        v_store(st->l + lane, inv);
        float *to[VF32_N];
        for (size_t i = 0; i < rows; i++) to[i] = t->out + pool_offset(t, lane + i, t->out_row, t->out_head);
        for (size_t i = 0; t->lse && i < rows; i++)
            t->lse[pool_offset(t, lane + i, t->lse_row, t->lse_head)] = lse[i];
        for (size_t i = 0; t->lse_sinks && i < rows; i++)
            t->lse_sinks[pool_offset(t, lane + i, t->lse_sinks_row, t->lse_sinks_head)] = lse_sinks[i];
        size_t c = 0;
        for (; c + VF32_N <= t->d_v && rows == VF32_N; c += VF32_N) {
            vf32 r[VF32_N];
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) r[i] =
                v_mul(v_load(st->o + (c + i) * lanes + lane), inv);
            v_transpose(r);
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) v_store(to[i] + c, r[i]);
        }
        for (; c < t->d_v; c += VF32_N) {
            const size_t left = attn_min(t->d_v - c, VF32_N);
            vf32 r[VF32_N];
            for (size_t i = 0; i < VF32_N; i++)
                r[i] = i < left ? v_mul(v_load(st->o + (c + i) * lanes + lane), inv) : v_zero();
            v_transpose(r);
            for (size_t i = 0; i < rows; i++) v_store_tail(to[i] + c, r[i], left);
        }
    }
}

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
static void pool_weights(struct pool_block *b, const struct pool_range *r, const struct pool_state *st) {
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
        if (sight == SIGHT_NONE) continue;
        pool_keys_at(b, j, end);
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

ATTN_INLINE float *pool_take(float **at, size_t floats) {
    float *p = *at;
    *at += (floats + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
    return p;
}

static struct pool_state pool_state_at(float **at, size_t lanes, size_t d_v) {
    struct pool_state st;
    st.m = pool_take(at, lanes);
    st.l = pool_take(at, lanes);
    st.o = pool_take(at, d_v * lanes);
    return st;
}

static size_t pool_scratch_body(enum attn_score_kind score, size_t d_k, size_t d_v) {
    const size_t lanes = ((size_t)POOL_NV * VF32_N + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
    const size_t rows =
        d_k * (score == ATTN_SCORE_ADDITIVE ? 4 : 1) + 2 * (2 + d_v) + 5 + POOL_KEYS + ATTN_KEY_TILE;
    return (rows * lanes + POOL_KEYS * pool_v_row(d_v) + ATTN_KEY_TILE * pool_v_row(d_k)) * sizeof(float);
}

static size_t pool_lanes(const struct attn_pool_task *t) {
    return (t->n_rows + VF32_N - 1) / VF32_N * VF32_N;
}

static void pool_body(const struct attn_pool_task *t) {
    struct pool_block b = {.t = t, .lanes = pool_lanes(t)};
    float *at = t->scratch;
    const int additive = t->score == ATTN_SCORE_ADDITIVE;
    const vf32 c = v_set1(t->scale * ATTN_LOG2E);
    b.q = pool_take(&at, t->d_k * b.lanes);
    if (additive) {
        b.w = pool_take(&at, t->d_k * b.lanes);
        b.eq = pool_take(&at, t->d_k * b.lanes);
        b.ek = pool_take(&at, t->d_k * ATTN_KEY_TILE);
    }
    b.lo = pool_take(&at, b.lanes);
    b.last = pool_take(&at, b.lanes);
    b.also = pool_take(&at, b.lanes);
    b.position = pool_take(&at, b.lanes);
    b.slope = pool_take(&at, b.lanes);
    for (size_t lane = 0; lane < b.lanes; lane++) b.slope[lane] = sight_slope(t, 0, pool_row(t, lane));
    b.p = pool_take(&at, POOL_KEYS * b.lanes);
    b.bias = pool_take(&at, ATTN_KEY_TILE * b.lanes);
    if (pool_copies(t) || t->pages) b.v = pool_take(&at, POOL_KEYS * pool_v_row(t->d_v));
    if (t->pages || t->panels) b.k = pool_take(&at, ATTN_KEY_TILE * pool_v_row(t->d_k));
    pool_keys_begin(&b);
    struct pool_state all = pool_state_at(&at, b.lanes, t->d_v), one = pool_state_at(&at, b.lanes, t->d_v);
    const struct pool_range r = pool_range_of(t);
    for (size_t v = 0; v < b.lanes / VF32_N; v++) pool_vector_sight(t, &b, v);

    if (t->part && (r.lo >= (t->chunk + 1) * ATTN_CHUNK || r.hi <= t->chunk * ATTN_CHUNK)) {
        float *part = t->part;
        struct pool_state st = pool_state_at(&part, b.lanes, t->d_v);
        pool_chunk(&b, &r, t->chunk, &st); /* nothing is seen of it: no queries are needed */
        return;
    }
    pool_pack(t, b.lanes, t->d_k, t->q, t->q_row, t->q_head, additive ? v_set1(1.0f) : c, b.q);
    if (additive) {
        pool_pack(t, b.lanes, t->d_k, t->w, 0, t->w_head, c, b.w);
        additive_queries(&b);
    }

    if (t->part) {
        float *part = t->part;
        struct pool_state st = pool_state_at(&part, b.lanes, t->d_v);
        pool_chunk(&b, &r, t->chunk, &st);
        return;
    }
    size_t chunk = r.lo / ATTN_CHUNK;
    pool_chunk(&b, &r, chunk, &all);
    for (chunk++; chunk * ATTN_CHUNK < r.hi; chunk++) {
        pool_chunk(&b, &r, chunk, &one);
        pool_merge(b.lanes, t->d_v, &all, &one);
    }
    pool_finish(t, b.lanes, &all);
    if (t->weights || t->scores) pool_weights(&b, &r, &all);
}

static void pool_merge_body(const struct attn_pool_task *t, size_t n_chunks, size_t stride) {
    const size_t lanes = pool_lanes(t);
    float *at = t->part;
    struct pool_state all = pool_state_at(&at, lanes, t->d_v);
    for (size_t chunk = 1; chunk < n_chunks; chunk++) {
        at = t->part + chunk * stride;
        const struct pool_state one = pool_state_at(&at, lanes, t->d_v);
        pool_merge(lanes, t->d_v, &all, &one);
    }
    pool_finish(t, lanes, &all);
}

#endif
