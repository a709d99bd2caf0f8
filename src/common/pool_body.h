/*
 * The pool and merge slots: fused attention with the online softmax of order.h. Included after the kernels, which also have
 * pool_queries(b): the block's queries to b->q, as they take them.
 */
#ifndef ATTN_POOL_BODY_H
#define ATTN_POOL_BODY_H

#include "pool_chunk.h"

static size_t pool_scratch_body(const struct attn_pool_size *z) {
    const size_t lanes = ((size_t)POOL_NV * VF32_N + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
    const size_t each = z->d_k * (z->score == ATTN_SCORE_ADDITIVE ? 4 : 1) + 2 * (2 + z->d_v) + 5;
    const size_t rows = z->blocks * each + POOL_KEYS + ATTN_KEY_TILE;
    const size_t gathered = z->gathers ? pool_gather_keys(z->d_k, z->d_v) : 0;
    return (rows * lanes + gathered * (pool_gather_row(z->d_k) + pool_gather_row(z->d_v))) * sizeof(float);
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
    b->t = t;
    b->lanes = pool_lanes(t);
    b->q = pool_take(at, t->d_k * b->lanes);
    if (t->score == ATTN_SCORE_ADDITIVE) {
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
    if (w->range.lo < w->range.hi) pool_queries(b);
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
            if (end == w[i].range.hi && w[i].t.out)
                pool_ask_rows(&w[i].t, w[i].t.out_type, w[i].t.out, w[i].t.out_row, w[i].t.out_head,
                              w[i].t.d_v);
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

/* The blocks of a task, with what they share. */
struct pool_works {
    size_t n, section; /* blocks; keys */
    struct pool_work w[ATTN_BLOCKS_MAX];
    struct pool_gather gather;
};

static void pool_body(const struct attn_pool_task *t, struct pool_works *all) {
    enum { ROWS = POOL_NV * VF32_N };
    struct pool_work *w = all->w;
    float *at = t->scratch;
    const size_t n = all->n = attn_ceil_div(t->n_rows, ROWS);
    struct pool_gather *g = pool_gather_of(t, &all->gather, &at);
    float *p = pool_take(&at, (size_t)POOL_KEYS * ROWS), *bias = pool_take(&at, (size_t)ATTN_KEY_TILE * ROWS);
    size_t lo = SIZE_MAX, hi = 0;
    for (size_t i = 0; i < n; i++) {
        w[i].t = pool_block_task(t, i, ROWS);
        w[i].b =
            (struct pool_block){.p = p, .s = p + (size_t)POOL_KEYS / 2 * ROWS, .bias = bias, .gather = g};
        pool_ask_rows(&w[i].t, t->q_type, w[i].t.q, t->q_row, t->q_head, t->d_k);
        pool_work_begin(&w[i], &at);
        if (w[i].range.lo >= w[i].range.hi) {
            if (!t->part) pool_chunk_begin(&w[i].b, &(struct pool_span){0}, 1, &w[i].all);
            continue;
        }
        lo = attn_min(lo, w[i].range.lo);
        hi = attn_max(hi, w[i].range.hi);
    }
    all->gather.lo = lo;
    all->gather.hi = hi;
    const size_t section = all->section = g ? pool_gather_keys(t->d_k, t->d_v) : ATTN_CHUNK;
    if (t->part) {
        pool_chunk(w, n, t->chunk, section);
        return;
    }
    for (size_t chunk = lo / ATTN_CHUNK; chunk * ATTN_CHUNK < hi; chunk++) pool_chunk(w, n, chunk, section);
    for (size_t i = 0; i < n; i++) pool_finish(&w[i].t, w[i].b.lanes, &w[i].all);
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
