/*
 * Attention pooling of few rows (decoding): keys are the lanes of the scores and columns of v the lanes of the output,
 * so that a single row fills whole vectors and K and V are read once, linearly. The same order of arithmetic as
 * pool_body.h, hence the same bits.
 */
#ifndef ATTN_FEW_BODY_H
#define ATTN_FEW_BODY_H

#include "few_tile.h"
#include "pool_body.h"

/* The largest of all lanes, in all of them. */
ATTN_INLINE vf32 few_max(vf32 x) {
    ATTN_UNROLL for (int step = 1; step < VF32_N; step *= 2) x = v_max(x, v_swap(x, step));
    return x;
}
/* The tree over neighbouring lanes, in all of them. */
ATTN_INLINE vf32 few_sum(vf32 x) {
    ATTN_UNROLL for (int step = 1; step < VF32_N; step *= 2) x = v_add(x, v_swap(x, step));
    return x;
}

/* The row's state as its maximum moves to x. */
static void few_rescale(const struct few_block *b, float x, float *m, float *l, float *o) {
    if (*m >= -FLT_MAX) { /* otherwise l and o are 0 (or NaN) and stay it */
        const vf32 f = v_exp2(v_set1(*m - x));
        *l *= v_lane0(f);
        for (size_t c = 0; c < b->columns; c += VF32_N) v_store(o + c, v_mul(v_load(o + c), f));
    }
    *m = x;
}

/* Scores s of one row and tile to probabilities, in place, and their sum to l. m is the row's maximum. */
ATTN_INLINE void few_softmax(float *s, float m, float *l, int hides) {
    const vf32 lowest = v_set1(-FLT_MAX), mv = v_set1(m < -FLT_MAX ? 0.0f : m);
    vf32 sum[FEW_TILE_N];
    ATTN_UNROLL for (int i = 0; i < FEW_TILE_N; i++) {
        const vf32 x = v_load(s + i * VF32_N);
        vf32 e = v_exp2_inline(v_sub(v_max(lowest, x), mv));
        if (hides) e = v_select(v_lt(x, lowest), v_set1(-0.0f), e);
        v_store(s + i * VF32_N, e);
        sum[i] = few_sum(e);
    }
    ATTN_UNROLL for (int step = 1; step < FEW_TILE_N; step *= 2) {
        ATTN_UNROLL for (int i = 0; i < FEW_TILE_N; i += 2 * step) sum[i] = v_add(sum[i], sum[i + step]);
    }
    *l += v_lane0(sum[0]);
}

/* Scores of the tile at j0, of which keys [j, end) are read, for all rows: s[row][run]. */
static void few_tile_scores(const struct few_block *b, size_t j0, size_t j, size_t end, float *s) {
    const struct attn_pool_task *t = b->t;
    for (size_t at = 0; at < ATTN_KEY_TILE; at += VF32_N) {
        const size_t from = attn_max(j, j0 + at), to = attn_min(end, j0 + at + VF32_N);
        const size_t n = from < to ? to - from : 0;
        const float *k = t->k + (ptrdiff_t)from * t->k_row;
        const float *ahead = from + FEW_AHEAD + VF32_N <= t->n_kv ? k + FEW_AHEAD * t->k_row : NULL;
        for (size_t r = 0; r < t->n_rows; r += FEW_ROWS) {
            const size_t rows = attn_min(t->n_rows - r, FEW_ROWS);
            float part[FEW_ROWS * VF32_N];
            float *to_s = s + r * b->run + at;
            if (n == 0) continue; /* the caller hides these keys */
            if (n == VF32_N) {
                few_scores_of(b, rows, r, k, n, r == 0 ? ahead : NULL, to_s, b->run);
                continue;
            }
            few_scores_of(b, rows, r, k, n, NULL, part, VF32_N);
            for (size_t g = 0; g < rows; g++)
                memcpy(to_s + g * b->run + (from - j0 - at), part + g * VF32_N, n * sizeof *s);
        }
    }
}

/* The state of one chunk, from nothing. */
static void few_chunk(const struct few_block *b, const struct pool_range *range, size_t chunk, float *m,
                      float *l, float *o) {
    const struct attn_pool_task *t = b->t;
    const size_t base = chunk * ATTN_CHUNK;
    const size_t lo = attn_max(base, range->lo), hi = attn_min(base + ATTN_CHUNK, range->hi);
    for (size_t r = 0; r < t->n_rows; r++) {
        m[r] = -INFINITY;
        l[r] = 0.0f;
    }
    memset(o, 0, t->n_rows * b->columns * sizeof *o);
    size_t from = lo, run = lo - lo % ATTN_KEY_TILE; /* what waits for P V begins at from; p[0] is key run */
    for (size_t j0 = run; j0 < hi; j0 += ATTN_KEY_TILE) {
        const size_t j = attn_max(j0, lo), end = attn_min(j0 + ATTN_KEY_TILE, hi);
        if (j0 - run == b->run) {
            if (from < j) few_pv_all(b, from, j - from, b->p + (from - run), o);
            from = j;
            run = j0;
        }
        float *s = b->p + (j0 - run);
        few_tile_scores(b, j0, j, end, s);
        int hides = 0; /* a mask that hides nothing here leaves the tile to the common way */
        for (size_t r = 0; pool_hides(t, range, j0) && r < t->n_rows; r++)
            hides |= few_hide(t, r, j0, s + r * b->run);
        if (hides) {
            if (from < j) few_pv_all(b, from, j - from, b->p + (from - run), o);
            from = j;
        }
        for (size_t r = 0; r < t->n_rows; r++) {
            float *sr = s + r * b->run;
            vf32 x = v_set1(hides ? -INFINITY : -FLT_MAX);
            for (int i = 0; i < FEW_TILE_N; i++) x = v_max(x, v_load(sr + i * VF32_N));
            const float most = v_lane0(few_max(x));
            if (ATTN_UNLIKELY(most > m[r] + ATTN_RESCALE)) {
                if (from < j) few_pv_all(b, from, j - from, b->p + (from - run), o);
                from = j;
                few_rescale(b, most, &m[r], &l[r], o + r * b->columns);
            }
            few_softmax(sr, m[r], &l[r], hides);
            if (hides) few_pv_hiding(b, j, end - j, sr + (j - j0), o + r * b->columns);
        }
        if (hides) {
            from = end;
            run = j0 + ATTN_KEY_TILE;
        }
    }
    if (from < hi) few_pv_all(b, from, hi - from, b->p + (from - run), o);
}

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

/* o: rows of `columns` floats. */
static void few_finish(const struct attn_pool_task *t, size_t columns, const float *m, const float *l,
                       const float *o) {
    for (size_t r = 0; r < t->n_rows; r++) {
        const vf32 lv = v_set1(l[r]);
        const vf32 inv = l[r] < 0.5f ? v_zero() : v_div(v_set1(1.0f), lv);
        float *out = t->out + pool_offset(t, r, t->out_row, t->out_head);
        for (size_t c = 0; c < t->d_v; c += VF32_N) {
            const size_t left = attn_min(t->d_v - c, VF32_N);
            v_store_tail(out + c, v_mul(v_load_tail(o + r * columns + c, left), inv), left);
        }
        if (t->lse)
            t->lse[pool_offset(t, r, t->lse_row, t->lse_head)] =
                v_lane0(v_mul(v_add(v_set1(m[r]), v_log2(lv)), v_set1(ATTN_LN2)));
    }
}

/* Blocks that this way serves: fewer rows than fill a vector of rows usefully. */
static int few_serves(const struct attn_pool_task *t) {
    return t->n_rows <= FEW_MOST && t->score == ATTN_SCORE_DOT && !t->weights;
}

static void few_body(const struct attn_pool_task *t) {
    struct few_block b = {.t = t, .columns = few_columns(t->d_v)};
    const size_t state = t->n_rows * b.columns;
    float *at = t->scratch, m[FEW_MOST], l[FEW_MOST], m1[FEW_MOST], l1[FEW_MOST];
    b.q = pool_take(&at, t->n_rows * t->d_k);
    b.run = attn_min(FEW_WAITING / t->n_rows / ATTN_KEY_TILE * ATTN_KEY_TILE, ATTN_CHUNK);
    b.p = pool_take(&at, t->n_rows * b.run);
    float *o = pool_take(&at, state), *o1 = pool_take(&at, state);
    const struct pool_range range = pool_range_of(t);
    few_pack(&b, v_set1(t->scale * ATTN_LOG2E));
    if (t->part) {
        float *part = t->part;
        few_chunk(&b, &range, t->chunk, part, part + t->n_rows, o);
        for (size_t r = 0; r < t->n_rows; r++)
            memcpy(part + 2 * t->n_rows + r * t->d_v, o + r * b.columns, t->d_v * sizeof *o);
        return;
    }
    size_t chunk = range.lo / ATTN_CHUNK;
    few_chunk(&b, &range, chunk, m, l, o);
    for (chunk++; chunk * ATTN_CHUNK < range.hi; chunk++) {
        few_chunk(&b, &range, chunk, m1, l1, o1);
        for (size_t r = 0; r < t->n_rows; r++)
            few_merge(t->d_v, &m[r], &l[r], o + r * b.columns, m1[r], l1[r], o1 + r * b.columns);
    }
    few_finish(t, b.columns, m, l, o);
}

/* A part is m[n_rows], l[n_rows], o[n_rows][d_v]. */
static void few_merge_body(const struct attn_pool_task *t, size_t n_chunks, size_t stride) {
    const size_t n = t->n_rows, d_v = t->d_v;
    float *m = t->part, *l = m + n, *o = l + n;
    for (size_t chunk = 1; chunk < n_chunks; chunk++) {
        const float *part = t->part + chunk * stride;
        for (size_t r = 0; r < n; r++)
            few_merge(d_v, &m[r], &l[r], o + r * d_v, part[r], part[n + r], part + 2 * n + r * d_v);
    }
    few_finish(t, d_v, m, l, o);
}

static size_t few_scratch(size_t d_k, size_t d_v) {
    return (FEW_MOST * (d_k + 2 * few_columns(d_v)) + FEW_WAITING + 4 * ATTN_PANEL_UNIT) * sizeof(float);
}

/* ---- The slots: the one way or the other ---------------------------------------------------------- */

static void pool_any(const struct attn_pool_task *t) {
    if (few_serves(t))
        few_body(t);
    else
        pool_body(t);
}
static void merge_any(const struct attn_pool_task *t, size_t n_chunks, size_t stride) {
    if (few_serves(t))
        few_merge_body(t, n_chunks, stride);
    else
        pool_merge_body(t, n_chunks, stride);
}
static size_t scratch_any(enum attn_score_kind score, size_t d_k, size_t d_v) {
    return attn_max(few_scratch(d_k, d_v), pool_scratch_body(score, d_k, d_v));
}

#endif
