/*
 * Attention pooling of few rows (decoding): keys are the lanes of the scores and columns of v the lanes of the output,
 * so that a single row fills whole vectors and K and V are read once, linearly. The same order of arithmetic as
 * pool_body.h, hence the same bits.
 */
#ifndef ATTN_FEW_BODY_H
#define ATTN_FEW_BODY_H

#include "pool_tile.h"

enum {
    FEW_TILE_N = ATTN_KEY_TILE / VF32_N, /* vectors of a tile of keys */
    FEW_MOST = 8,                        /* rows of a block served this way */

    /* K and V are read in turns, and each turn starts the processor's prefetchers anew: runs are as long as a
     * chunk for one row, and shorter where more rows' probabilities have to wait (8 KiB in all). */
    FEW_WAITING = 2048,
    FEW_PV_LINES = 2, /* of V that a pass asks for at each key */
    FEW_PV_KEYS = 64, /* of V at a time for all rows: 32 KiB at d_v = 128, which stays in L1 */

    FEW_LINE = 16,            /* floats in a cache line */
    FEW_AHEAD = ATTN_KEY_TILE /* keys by which K is asked for ahead: a tile is read in 16 streams, which the
                                     processor does not see as one */
};

struct few_block {
    const struct attn_pool_task *t;
    float *q;       /* [n_rows][d_k]: q * c */
    float *p;       /* [n_rows][run] */
    size_t run;     /* keys whose probabilities wait for P V at most: a multiple of ATTN_KEY_TILE */
    size_t columns; /* d_v rounded up to a vector */
};

/* As pool_state: m[row], l[row], o[row][columns]. */

static size_t few_columns(size_t d_v) { return (d_v + VF32_N - 1) / VF32_N * VF32_N; }

static void few_pack(const struct few_block *b, vf32 c) {
    const struct attn_pool_task *t = b->t;
    for (size_t r = 0; r < t->n_rows; r++) {
        const float *from = t->q + pool_offset(t, r, t->q_row, t->q_head);
        float *to = b->q + r * t->d_k;
        for (size_t d = 0; d < t->d_k; d += VF32_N) {
            const size_t left = pool_min(t->d_k - d, VF32_N);
            v_store_tail(to + d, v_mul(v_load_tail(from + d, left), c), left);
        }
    }
}

/*
 * Scores of `rows` rows from r on against VF32_N keys from k on (n of them exist): blocks of VF32_N x VF32_N are transposed
 * in registers, then each column is one multiply-add for each row.
 */
ATTN_INLINE void few_scores(const struct few_block *b, int rows, size_t r, const float *k, size_t n,
                            const float *ahead, float *s, size_t s_row) {
    const struct attn_pool_task *t = b->t;
    const float *q = b->q + r * t->d_k;
    vf32 a[FEW_ROWS];
    ATTN_UNROLL for (int g = 0; g < rows; g++) a[g] = v_zero();
    size_t d = 0;
    for (; d + VF32_N <= t->d_k; d += VF32_N) {
        vf32 x[VF32_N];
        if (ahead && d % FEW_LINE == 0) {
            ATTN_UNROLL for (int i = 0; i < VF32_N; i++) ATTN_PREFETCH_L2(ahead + i * t->k_row + d);
        }
        if (n == VF32_N) {
            ATTN_UNROLL for (int i = 0; i < VF32_N; i++) x[i] = v_load(k + i * t->k_row + d);
        } else {
            ATTN_UNROLL for (int i = 0; i < VF32_N; i++) x[i] =
                (size_t)i < n ? v_load(k + i * t->k_row + d) : v_zero();
        }
        v_transpose(x);
        ATTN_UNROLL for (int i = 0; i < VF32_N; i++) {
            ATTN_UNROLL for (int g = 0; g < rows; g++) a[g] =
                v_fma(v_set1(q[(size_t)g * t->d_k + d + (size_t)i]), x[i], a[g]);
        }
    }
    if (d < t->d_k) {
        const size_t left = t->d_k - d;
        vf32 x[VF32_N];
        ATTN_UNROLL for (int i = 0; i < VF32_N; i++) x[i] =
            (size_t)i < n ? v_load_tail(k + i * t->k_row + d, left) : v_zero();
        v_transpose(x);
        ATTN_UNROLL for (int i = 0; i < VF32_N; i++) {
            if ((size_t)i >= left) break;
            ATTN_UNROLL for (int g = 0; g < rows; g++) a[g] =
                v_fma(v_set1(q[(size_t)g * t->d_k + d + (size_t)i]), x[i], a[g]);
        }
    }
    ATTN_UNROLL for (int g = 0; g < rows; g++) v_store(s + (size_t)g * s_row, a[g]);
}

/* o[g][c..] = fma(p[g][j], v[j][c..], o) for ascending j: `rows` rows x `cols` vectors of columns, or, where tail is not 0,
 * `tail` columns. Each step asks for `lines` cache lines at `ahead`, which moves along with v. */
ATTN_INLINE void few_pv(int rows, int cols, int lines, size_t tail, size_t keys, const float *v,
                        ptrdiff_t v_row, const float *ahead, const float *p, size_t p_row, float *o,
                        size_t o_row) {
    vf32 a[2][FEW_PV_COLS];
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int c = 0; c < cols; c++) a[g][c] = v_load(o + (size_t)g * o_row + c * VF32_N);
    }
    ATTN_NO_UNROLL for (size_t j = 0; j < keys; j++, v += v_row, p++) {
        vf32 e[2];
        ATTN_UNROLL for (int i = 0; i < lines; i++) ATTN_PREFETCH_L2(ahead + i * FEW_LINE);
        if (lines) ahead += v_row;
        ATTN_UNROLL for (int g = 0; g < rows; g++) e[g] = v_set1(p[(size_t)g * p_row]);
        ATTN_UNROLL for (int c = 0; c < cols; c++) {
            const vf32 x = tail ? v_load_tail(v, tail) : v_load(v + c * VF32_N);
            ATTN_UNROLL for (int g = 0; g < rows; g++) a[g][c] = v_fma(e[g], x, a[g][c]);
        }
    }
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int c = 0; c < cols; c++) v_store(o + (size_t)g * o_row + c * VF32_N, a[g][c]);
    }
}

#define FEW_VARIANT(rows)                                                                               \
    ATTN_NOINLINE void few_scores_##rows(const struct few_block *b, size_t r, const float *k, size_t n, \
                                         const float *ahead, float *s, size_t s_row) {                  \
        few_scores(b, (rows) <= FEW_ROWS ? rows : 1, r, k, n, ahead, s, s_row);                         \
    }
FEW_VARIANT(1)
FEW_VARIANT(2)
FEW_VARIANT(3)
FEW_VARIANT(4)
FEW_VARIANT(5)
FEW_VARIANT(6)
FEW_VARIANT(7)
FEW_VARIANT(8)

static void few_scores_of(const struct few_block *b, size_t rows, size_t r, const float *k, size_t n,
                          const float *ahead, float *s, size_t s_row) {
    switch (rows) {
    case 1: few_scores_1(b, r, k, n, ahead, s, s_row); break;
    case 2: few_scores_2(b, r, k, n, ahead, s, s_row); break;
    case 3: few_scores_3(b, r, k, n, ahead, s, s_row); break;
    case 4: few_scores_4(b, r, k, n, ahead, s, s_row); break;
    case 5: few_scores_5(b, r, k, n, ahead, s, s_row); break;
    case 6: few_scores_6(b, r, k, n, ahead, s, s_row); break;
    case 7: few_scores_7(b, r, k, n, ahead, s, s_row); break;
    default: few_scores_8(b, r, k, n, ahead, s, s_row); break;
    }
}

/* One pass over n rows of V: FEW_PV_COLS vectors of columns, or fewer at the end; one row or two. */
struct few_pass {
    const float *v, *ahead, *p;
    float *o;
    size_t n;
};

ATTN_INLINE void few_pass_rows(const struct few_block *b, const struct few_pass *w, int rows, int cols,
                               int lines, size_t tail) {
    few_pv(rows, cols, lines, tail, w->n, w->v, b->t->v_row, w->ahead, w->p, b->run, w->o, b->columns);
}
static void few_pass_1(const struct few_block *b, const struct few_pass *w) {
    few_pass_rows(b, w, 1, FEW_PV_COLS, 0, 0);
}
static void few_pass_2(const struct few_block *b, const struct few_pass *w) {
    few_pass_rows(b, w, 2, FEW_PV_COLS, 0, 0);
}
static void few_pass_2_asking(const struct few_block *b, const struct few_pass *w) {
    few_pass_rows(b, w, 2, FEW_PV_COLS, FEW_PV_LINES, 0);
}

/* P V of all rows for keys [j, j + n), whose probabilities start at p. The passes together ask for the n rows of V that
 * follow, if `asks`. */
static void few_pv_keys(const struct few_block *b, size_t j, size_t n, int asks, const float *p, float *o) {
    const struct attn_pool_task *t = b->t;
    const float *v = t->v + (ptrdiff_t)j * t->v_row;
    const size_t whole = t->d_v / VF32_N, tail = t->d_v % VF32_N;
    size_t asked = asks ? 0 : t->d_v;
    for (size_t r = 0; r < t->n_rows;) {
        const int rows = r + 2 <= t->n_rows ? 2 : 1;
        struct few_pass w = {.p = p + r * b->run, .n = n};
        size_t c = 0;
        for (; c + FEW_PV_COLS <= whole; c += FEW_PV_COLS) {
            w.v = v + c * VF32_N;
            w.o = o + r * b->columns + c * VF32_N;
            w.ahead = v + (ptrdiff_t)n * t->v_row + asked;
            if (rows == 2 && asked < t->d_v) {
                few_pass_2_asking(b, &w);
                asked += FEW_PV_LINES * FEW_LINE;
            } else if (rows == 2) {
                few_pass_2(b, &w);
            } else {
                few_pass_1(b, &w);
            }
        }
        for (; c < whole + (tail != 0); c++) {
            w.v = v + c * VF32_N;
            w.o = o + r * b->columns + c * VF32_N;
            if (rows == 2)
                few_pass_rows(b, &w, 2, 1, 0, c < whole ? (size_t)VF32_N : tail);
            else
                few_pass_rows(b, &w, 1, 1, 0, c < whole ? (size_t)VF32_N : tail);
        }
        r += (size_t)rows;
    }
}

static void few_pv_all(const struct few_block *b, size_t j, size_t n, const float *p, float *o) {
    const int passes =
        b->t->n_rows > 2; /* a single one is a linear read, which needs no blocks and no asking */
    const size_t step = passes ? (size_t)FEW_PV_KEYS : n;
    for (size_t i = 0; i < n; i += step) {
        const size_t keys = pool_min(n - i, step);
        few_pv_keys(b, j + i, keys, passes && i + 2 * step <= n, p + i, o);
    }
}

/* The same for one row where keys with a set sign bit of p are hidden from it. */
static void few_pv_hiding(const struct few_block *b, size_t j, size_t n, const float *p, float *o) {
    const struct attn_pool_task *t = b->t;
    for (size_t i = 0; i < n; i++) {
        if (signbit(p[i])) continue;
        const float *v = t->v + (ptrdiff_t)(j + i) * t->v_row;
        for (size_t c = 0; c < t->d_v; c += VF32_N) {
            const vf32 x = v_load_tail(v + c, pool_min(t->d_v - c, VF32_N));
            v_store(o + c, v_fma(v_set1(p[i]), x, v_load(o + c)));
        }
    }
}

/* s[16] of one row and tile: mask and range; hidden scores become -inf, visible ones at least -FLT_MAX. */
static void few_hide(const struct attn_pool_task *t, size_t row, size_t j0, float *s) {
    const ptrdiff_t at = pool_offset(t, row, t->mask_row, t->mask_head);
    for (size_t i = 0; i < ATTN_KEY_TILE; i++) {
        const size_t key = j0 + i;
        const ptrdiff_t m = at + (ptrdiff_t)key * t->mask_key;
        int visible = key >= t->lo[row] && key < t->hi[row];
        float x = s[i];
        if (visible && t->mask_kind == ATTN_MASK_BOOL) visible = ((const uint8_t *)t->mask)[m] != 0;
        if (visible && t->mask_kind == ATTN_MASK_F32) {
            const float bias = ((const float *)t->mask)[m];
            visible = bias != -INFINITY;
            x = fmaf(bias, ATTN_LOG2E, x);
        }
        s[i] = !visible ? -INFINITY : x < -FLT_MAX ? -FLT_MAX : x;
    }
}

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
        const size_t from = pool_max(j, j0 + at), to = pool_min(end, j0 + at + VF32_N);
        const size_t n = from < to ? to - from : 0;
        const float *k = t->k + (ptrdiff_t)from * t->k_row;
        const float *ahead = from + FEW_AHEAD + VF32_N <= t->n_kv ? k + FEW_AHEAD * t->k_row : NULL;
        for (size_t r = 0; r < t->n_rows; r += FEW_ROWS) {
            const size_t rows = pool_min(t->n_rows - r, FEW_ROWS);
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
    const size_t lo = pool_max(base, range->lo), hi = pool_min(base + ATTN_CHUNK, range->hi);
    for (size_t r = 0; r < t->n_rows; r++) {
        m[r] = -INFINITY;
        l[r] = 0.0f;
    }
    memset(o, 0, t->n_rows * b->columns * sizeof *o);
    size_t from = lo, run = lo - lo % ATTN_KEY_TILE; /* what waits for P V begins at from; p[0] is key run */
    for (size_t j0 = run; j0 < hi; j0 += ATTN_KEY_TILE) {
        const size_t j = pool_max(j0, lo), end = pool_min(j0 + ATTN_KEY_TILE, hi);
        const int hides = pool_hides(t, range, j0);
        if (hides || j0 - run == b->run) {
            if (from < j) few_pv_all(b, from, j - from, b->p + (from - run), o);
            from = j;
            run = j0;
        }
        float *s = b->p + (j0 - run);
        few_tile_scores(b, j0, j, end, s);
        for (size_t r = 0; r < t->n_rows; r++) {
            float *sr = s + r * b->run;
            if (hides) few_hide(t, r, j0, sr);
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
        const size_t left = pool_min(d_v - c, VF32_N);
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
            const size_t left = pool_min(t->d_v - c, VF32_N);
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
    b.run = pool_min(FEW_WAITING / t->n_rows / ATTN_KEY_TILE * ATTN_KEY_TILE, ATTN_CHUNK);
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
    return pool_max(few_scratch(d_k, d_v), pool_scratch_body(score, d_k, d_v));
}

#endif
