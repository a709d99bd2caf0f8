/*
 * The pool and merge slots: fused attention with the online softmax of order.h.
 */
#ifndef ATTN_POOL_BODY_H
#define ATTN_POOL_BODY_H

#include "pool_chunk.h"

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
        void *to[VF32_N];
        for (size_t i = 0; i < rows; i++)
            to[i] = pool_to(t, pool_offset(t, lane + i, t->out_row, t->out_head));
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
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) typed_store(t->out_type, to[i], c, r[i]);
        }
        for (; c < t->d_v; c += VF32_N) {
            const size_t left = attn_min(t->d_v - c, VF32_N);
            vf32 r[VF32_N];
            for (size_t i = 0; i < VF32_N; i++)
                r[i] = i < left ? v_mul(v_load(st->o + (c + i) * lanes + lane), inv) : v_zero();
            v_transpose(r);
            for (size_t i = 0; i < rows; i++) typed_store_tail(t->out_type, to[i], c, r[i], left);
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

static size_t pool_scratch_body(const struct attn_pool_size *z) {
    const size_t lanes = ((size_t)POOL_NV * VF32_N + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
    const size_t each = z->d_k * (z->score == ATTN_SCORE_ADDITIVE ? 4 : 1) + 2 * (2 + z->d_v) + 5;
    const size_t rows = z->blocks * each + POOL_KEYS + ATTN_KEY_TILE;
    const size_t gathered = z->gathers ? pool_gather_keys(z->d_k, z->d_v) : 0;
    return (rows * lanes + gathered * (pool_gather_row(z->d_k) + pool_gather_row(z->d_v))) * sizeof(float);
}

static size_t pool_lanes(const struct attn_pool_task *t) {
    return (t->n_rows + VF32_N - 1) / VF32_N * VF32_N;
}

/* A block of the task, and what has been computed of it. */
struct pool_work {
    struct attn_pool_task t;
    struct pool_block b;
    struct pool_range range;
    struct pool_state all, one;
};

static void pool_work_begin(struct pool_work *w, float **at) {
    const struct attn_pool_task *t = &w->t;
    struct pool_block *b = &w->b;
    const int additive = t->score == ATTN_SCORE_ADDITIVE;
    const vf32 c = v_set1(t->scale * ATTN_LOG2E);
    b->t = t;
    b->lanes = pool_lanes(t);
    b->q = pool_take(at, t->d_k * b->lanes);
    if (additive) {
        b->w = pool_take(at, t->d_k * b->lanes);
        b->eq = pool_take(at, t->d_k * b->lanes);
        b->ek = pool_take(at, t->d_k * ATTN_KEY_TILE);
    }
    b->lo = pool_take(at, b->lanes);
    b->last = pool_take(at, b->lanes);
    b->also = pool_take(at, b->lanes);
    b->position = pool_take(at, b->lanes);
    b->slope = pool_take(at, b->lanes);
    for (size_t lane = 0; lane < b->lanes; lane++) b->slope[lane] = sight_slope(t, 0, pool_row(t, lane));
    float *part = t->part;
    w->all = pool_state_at(part ? &part : at, b->lanes, t->d_v);
    if (!part) w->one = pool_state_at(at, b->lanes, t->d_v);
    w->range = pool_range_of(t);
    for (size_t v = 0; v < b->lanes / VF32_N; v++) pool_vector_sight(t, b, v);
    if (w->range.lo >= w->range.hi) return; /* no queries are needed */
    pool_pack(t, b->lanes, t->d_k, t->q_type, t->q, t->q_row, t->q_head, additive ? v_set1(1.0f) : c, b->q);
    if (additive) {
        pool_pack(t, b->lanes, t->d_k, ATTN_F32, t->w, 0, t->w_head, c, b->w);
        additive_queries(b);
    }
}

/* Chunk `chunk` of all blocks, section by section; of blocks that see something of it. */
static void pool_chunk(struct pool_work *w, size_t n, size_t chunk, size_t section) {
    struct pool_span span[ATTN_BLOCKS_MAX];
    struct pool_state *st[ATTN_BLOCKS_MAX];
    const size_t base = chunk * ATTN_CHUNK;
    size_t lo = SIZE_MAX, hi = 0;
    for (size_t i = 0; i < n; i++) {
        span[i] = pool_span_of(&w[i].range, chunk);
        st[i] = w[i].t.part || chunk == w[i].range.lo / ATTN_CHUNK ? &w[i].all : &w[i].one;
        /* of a chunk that a block does not see the merge reads no output; the first one is what it begins with */
        if (w[i].t.part || span[i].lo < span[i].hi)
            pool_chunk_begin(&w[i].b, &span[i], chunk == w[i].t.first_chunk, st[i]);
        if (span[i].lo >= span[i].hi) continue;
        lo = attn_min(lo, span[i].lo);
        hi = attn_max(hi, span[i].hi);
    }
    if (lo >= hi) return;
    for (size_t from = base + (lo - base) / section * section; from < hi; from += section)
        for (size_t i = 0; i < n; i++) {
            const size_t j = attn_max(from, span[i].lo), end = attn_min(from + section, span[i].hi);
            if (j >= end) continue;
            pool_keys_begin(&w[i].b, from);
            pool_section(&w[i].b, &w[i].range, base, span[i].lo, j, end, st[i]);
        }
    for (size_t i = 0; i < n; i++)
        if (st[i] == &w[i].one && span[i].lo < span[i].hi)
            pool_merge(w[i].b.lanes, w[i].t.d_v, &w[i].all, &w[i].one);
}

/* Where a task's keys or values have to be gathered. */
static struct pool_gather *pool_gather_of(const struct attn_pool_task *t, struct pool_gather *g, float **at) {
    const size_t n = pool_gather_keys(t->d_k, t->d_v);
    *g = (struct pool_gather){.t = t, .lo = SIZE_MAX, .from = SIZE_MAX};
    g->keys = pool_gathers_keys(t);
    g->values = pool_gathers_values(t);
    g->k_row = pool_gather_row(t->d_k);
    g->v_row = pool_gather_row(t->d_v);
    if (g->keys) g->k = pool_take(at, n * g->k_row);
    if (g->values) g->v = pool_take(at, n * g->v_row);
    return g->keys || g->values ? g : NULL;
}

static void pool_body(const struct attn_pool_task *t) {
    enum { ROWS = POOL_NV * VF32_N };
    struct pool_work w[ATTN_BLOCKS_MAX];
    struct pool_gather gather;
    float *at = t->scratch;
    const size_t n = attn_ceil_div(t->n_rows, ROWS);
    struct pool_gather *g = pool_gather_of(t, &gather, &at);
    float *p = pool_take(&at, (size_t)POOL_KEYS * ROWS), *bias = pool_take(&at, (size_t)ATTN_KEY_TILE * ROWS);
    size_t lo = SIZE_MAX, hi = 0;
    for (size_t i = 0; i < n; i++) {
        w[i].t = pool_block_task(t, i, ROWS);
        w[i].b = (struct pool_block){.p = p, .bias = bias, .gather = g};
        pool_work_begin(&w[i], &at);
        if (w[i].range.lo >= w[i].range.hi) {
            if (!t->part) pool_chunk_begin(&w[i].b, &(struct pool_span){0}, 1, &w[i].all);
            continue;
        }
        lo = attn_min(lo, w[i].range.lo);
        hi = attn_max(hi, w[i].range.hi);
    }
    gather.lo = lo;
    gather.hi = hi;
    const size_t section = g ? pool_gather_keys(t->d_k, t->d_v) : ATTN_CHUNK;
    if (t->part) {
        pool_chunk(w, n, t->chunk, section);
        return;
    }
    for (size_t chunk = lo / ATTN_CHUNK; chunk * ATTN_CHUNK < hi; chunk++) pool_chunk(w, n, chunk, section);
    for (size_t i = 0; i < n; i++) {
        pool_finish(&w[i].t, w[i].b.lanes, &w[i].all);
        if (t->weights || t->scores) pool_weights(&w[i].b, &w[i].range, &w[i].all, section);
    }
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
