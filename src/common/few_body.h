/*
 * Attention pooling of few rows (decoding): K and V are read once for all rows, in turns, and, where the
 * rows of several heads lie side by side, for all of these heads. Scores have keys in the lanes where the rows would not
 * fill a vector (few_columns), and rows in the lanes where they do (few_rows); the output has columns of v. The same order
 * of arithmetic as pool_body.h, hence the same bits.
 */
#ifndef ATTN_FEW_BODY_H
#define ATTN_FEW_BODY_H

#include "few_turn.h"
#include "pool_body.h"

/* The state of one chunk, from nothing, for all heads. */
static void few_chunk(struct few_block *b, const struct pool_range *range, size_t chunk) {
    const struct attn_pool_task *t = b->t;
    const size_t base = chunk * ATTN_CHUNK, lo = attn_max(base, range->lo);
    b->hi = attn_min(base + ATTN_CHUNK, range->hi);
    for (size_t g = 0; g < t->heads; g++) {
        struct few_head *h = &b->head[g];
        for (size_t r = 0; r < b->pitch; r++) {
            h->st.m[r] = -INFINITY;
            h->st.l[r] = 0.0f;
        }
        memset(h->st.o, 0, t->n_rows * b->columns * sizeof *h->st.o);
        h->from = lo;
    }
    for (b->first = lo - lo % ATTN_KEY_TILE; b->first < b->hi; b->first += b->turn) {
        b->end = attn_min(b->first + b->turn, b->hi);
        for (size_t j0 = b->first; j0 < b->end; j0 += ATTN_KEY_TILE)
            for (size_t g = 0; g < t->heads; g++)
                few_tile(b, g, j0, attn_max(j0, lo), attn_min(j0 + ATTN_KEY_TILE, b->hi),
                         pool_sight(t, range, b->head[g].shift, j0));
        for (size_t g = 0; g < t->heads; g++) few_values(b, g, b->end, 1);
    }
}

/* ---- Merging, the end --------------------------------------------------------------------------------- */

/* A row of a = merge of a and b, a's keys before b's. o and o_b hold d_v floats. */
static void few_merge(size_t d_v, float *m, float *l, float *o, float m_b, float l_b, const float *o_b) {
    if (l_b < 0.5f) return; /* as in pool_merge: nothing seen */
    if (*l < 0.5f) {
        *m = m_b;
        *l = l_b;
        memcpy(o, o_b, d_v * sizeof *o);
        return;
    }
    const float most = *m > m_b ? *m : m_b;
    const vf32 fa = v_exp2(v_set1(*m - most)), fb = v_exp2(v_set1(m_b - most));
    for (size_t c = 0; c < d_v; c += VF32_N) {
        const size_t left = attn_min(d_v - c, VF32_N);
        const vf32 xa = v_load_tail(o + c, left), xb = v_load_tail(o_b + c, left);
        v_store_tail(o + c, v_fma(xb, fb, v_mul(xa, fa)), left);
    }
    *l = v_lane0(v_fma(v_set1(l_b), fb, v_mul(v_set1(*l), fa)));
    *m = most;
}

/* Of the head whose queries lie `shift` heads on; o: rows of `columns` floats. */
static void few_finish(const struct attn_pool_task *t, size_t shift, size_t columns,
                       const struct few_state *st) {
    for (size_t r = 0; r < t->n_rows; r++) {
        const float sink = t->sinks ? t->sinks[shift + (t->first + r) % t->group] : 0.0f;
        const struct sight_end end = sight_end_of(t, v_set1(st->m[r]), v_set1(st->l[r]), v_set1(sink));
        void *out = pool_to(t, pool_offset(t, r, t->out_row, t->out_head) + (ptrdiff_t)shift * t->out_head);
        for (size_t c = 0; c < t->d_v; c += VF32_N) {
            const size_t left = attn_min(t->d_v - c, VF32_N);
            typed_store_tail(t->out_type, out, c,
                             pool_end(v_load_tail(st->o + r * columns + c, left), end.factor), left);
        }
        if (t->lse)
            t->lse[pool_offset(t, r, t->lse_row, t->lse_head) + (ptrdiff_t)shift * t->lse_head] =
                v_lane0(end.lse);
        if (t->lse_sinks)
            t->lse_sinks[pool_offset(t, r, t->lse_sinks_row, t->lse_sinks_head) +
                         (ptrdiff_t)shift * t->lse_sinks_head] = v_lane0(end.lse_sinks);
    }
}

/* ---- The body ----------------------------------------------------------------------------------------- */

static size_t few_up(size_t n) { return (n + FEW_UNIT - 1) / FEW_UNIT * FEW_UNIT; }

static struct few_state few_state_at(const struct few_block *b, float **at) {
    struct few_state st;
    st.m = pool_take(at, b->pitch);
    st.l = pool_take(at, b->pitch);
    st.o = pool_take(at, b->t->n_rows * b->columns);
    return st;
}

static void few_whole(struct few_block *b, const struct pool_range *range, float *at) {
    const struct attn_pool_task *t = b->t;
    struct few_state all[ATTN_HEADS_MAX];
    size_t chunk = range->lo / ATTN_CHUNK;
    few_chunk(b, range, chunk);
    for (size_t g = 0; g < t->heads; g++) {
        all[g] = b->head[g].st;
        b->head[g].st = few_state_at(b, &at);
    }
    for (chunk++; chunk * ATTN_CHUNK < range->hi; chunk++) {
        few_chunk(b, range, chunk);
        for (size_t g = 0; g < t->heads; g++) {
            const struct few_state *st = &b->head[g].st;
            for (size_t r = 0; r < t->n_rows; r++)
                few_merge(t->d_v, &all[g].m[r], &all[g].l[r], all[g].o + r * b->columns, st->m[r], st->l[r],
                          st->o + r * b->columns);
        }
    }
    for (size_t g = 0; g < t->heads; g++) few_finish(t, b->head[g].shift, b->columns, &all[g]);
}

/* Keys a turn. Several heads: as many as keep what is read and what is asked for within half of a usual L2. */
static size_t few_turn(const struct few_block *b) {
    const struct attn_pool_task *t = b->t;
    const size_t most = b->turns ? attn_min(FEW_WAITING_TURNS / b->pitch, FEW_TURN)
                                 : attn_min(FEW_WAITING / b->pitch, ATTN_CHUNK);
    if (b->page_heads) return t->page_rows;
    const size_t fits = t->heads > 1 ? (1 << 18) / (t->heads * (b->k_bytes + b->v_bytes)) : most;
    return attn_max(attn_min(fits, most) / ATTN_KEY_TILE, 1) * ATTN_KEY_TILE;
}

static void few_body(const struct attn_pool_task *t) {
    struct few_block b = {.t = t, .columns = few_up(t->d_v)};
    const struct pool_range range = pool_range_of(t);
    float *at = t->scratch;
    b.by_rows = t->n_rows > FEW_ROWS;
    b.k_bytes = attn_dtype_row(t->k_type, t->d_k);
    b.v_bytes = attn_dtype_row(t->v_type, t->d_v);
    b.page_heads = t->pages && t->heads > 1 && t->k_head != (ptrdiff_t)b.k_bytes;
    b.turns = t->heads > 1 || t->n_rows >= FEW_TURNS_FROM;
    b.pitch = b.by_rows ? pool_lanes(t) : t->n_rows;
    b.p_key = b.by_rows ? b.pitch : 1;
    b.turn = few_turn(&b);
    b.p_row = b.by_rows ? 1 : b.turn + ATTN_LINE; /* rows do not share sets of the cache */
    b.copies = pool_take(&at, ATTN_KEY_TILE * pool_gather_row(t->d_k));
    for (size_t g = 0; g < t->heads; g++) {
        struct few_head *h = &b.head[g];
        h->k = t->k + (ptrdiff_t)g * t->k_head;
        h->v = t->v + (ptrdiff_t)g * t->v_head;
        h->shift = g * t->group;
        h->q = pool_take(&at, t->d_k * b.pitch);
        h->p = pool_take(&at, b.by_rows ? b.turn * b.pitch : b.p_row * b.pitch);
        h->st = few_state_at(&b, &at);
        few_pack(&b, h);
    }
    if (!t->part) {
        few_whole(&b, &range, at);
        return;
    }
    few_chunk(&b, &range, t->chunk);
    for (size_t g = 0; g < t->heads; g++) {
        const struct few_state *st = &b.head[g].st;
        float *part = t->part + g * t->part_head;
        memcpy(part, st->m, t->n_rows * sizeof *part);
        memcpy(part + t->n_rows, st->l, t->n_rows * sizeof *part);
        for (size_t r = 0; r < t->n_rows; r++)
            memcpy(part + 2 * t->n_rows + r * t->d_v, st->o + r * b.columns, t->d_v * sizeof *part);
    }
}

/* A part is m[n_rows], l[n_rows], o[n_rows][d_v]. */
static void few_merge_body(const struct attn_pool_task *t, size_t n_chunks, size_t stride) {
    const size_t n = t->n_rows, d_v = t->d_v;
    const struct few_state st = {t->part, t->part + n, t->part + 2 * n};
    for (size_t chunk = 1; chunk < n_chunks; chunk++) {
        const float *part = t->part + chunk * stride;
        for (size_t r = 0; r < n; r++)
            few_merge(d_v, &st.m[r], &st.l[r], st.o + r * d_v, part[r], part[n + r], part + 2 * n + r * d_v);
    }
    few_finish(t, 0, d_v, &st);
}

static size_t few_scratch(const struct attn_pool_size *z) {
    const size_t d_k = z->d_k, d_v = z->d_v, heads = z->heads;
    const size_t state = FEW_MOST * (2 + few_up(d_v)) + 3 * ATTN_PANEL_UNIT;
    const size_t waiting = (heads > 1 ? FEW_WAITING_TURNS : FEW_WAITING) + FEW_ROWS * ATTN_LINE;
    return (heads * (FEW_MOST * d_k + waiting + 2 * ATTN_PANEL_UNIT + 2 * state) +
            ATTN_KEY_TILE * pool_gather_row(d_k)) *
           sizeof(float);
}

/* ---- The slots: the one way or the other ---------------------------------------------------------- */

/* Blocks that this way serves. */
static int few_serves(const struct attn_pool_task *t) {
    return t->n_rows <= FEW_MOST && t->score == ATTN_SCORE_DOT && !t->weights && !t->scores;
}

static void pool_any(const struct attn_pool_task *t, struct pool_works *works) {
    enum { ROWS = POOL_NV * VF32_N };
    const size_t rest = t->n_rows % ROWS;
    if (few_serves(t)) {
        few_body(t);
    } else if (t->part && t->n_rows > ROWS && rest && rest <= FEW_MOST && t->score == ATTN_SCORE_DOT) {
        /* the merge takes the last block's parts for what few_body makes of so few rows */
        const struct attn_pool_task last = pool_block_task(t, t->n_rows / ROWS, ROWS);
        struct attn_pool_task others = *t;
        others.n_rows -= rest;
        pool_body(&others, works);
        few_body(&last);
    } else {
        pool_body(t, works);
    }
}
static void merge_any(const struct attn_pool_task *t, size_t n_chunks, size_t stride) {
    if (few_serves(t))
        few_merge_body(t, n_chunks, stride);
    else
        pool_merge_body(t, n_chunks, stride);
}
static size_t scratch_any(const struct attn_pool_size *size) {
    return attn_max(few_scratch(size), pool_scratch_body(size));
}

#endif
