/*
 * Pooling of few rows by bf16 dot products: what few_turn.h and few_body.h ask of the kernels. The same order as pairs_tile.h,
 * hence the same bits. Pairs of probabilities stand before the scores of their tile: pair i of row r at i * p_key + r * p_row.
 */
#ifndef ATTN_PAIRS_FEW_H
#define ATTN_PAIRS_FEW_H

#include "few_ahead.h"
#include "pairs_tile.h"

enum { FEW_UNIT = 2 * VF32_N };

/* ---- Queries and scores ------------------------------------------------------------------------------------ */

/* q[pair][pitch]. */
static void few_pack(const struct few_block *b, const struct few_head *h) {
    const struct attn_pool_task *t = b->t;
    const void *q = pool_from(t->q_type, t->q, (ptrdiff_t)h->shift * t->q_head);
    if (b->by_rows) {
        pairs_pack(t, b->pitch, q, h->q);
        return;
    }
    for (size_t r = 0; r < t->n_rows; r++) {
        const void *from = pool_from(t->q_type, q, pool_offset(t, r, t->q_row, t->q_head));
        for (size_t d = 0; d < t->d_k; d += 2 * VF32_N) {
            const size_t n = attn_min(t->d_k - d, 2 * VF32_N);
            float x[VF32_N];
            v_store(x, v_pairs_as_f32(pairs_of_row(t->q_type, from, d, n)));
            for (size_t i = 0; i < (n + 1) / 2; i++)
                memcpy(&h->q[(d / 2 + i) * t->n_rows + r], &x[i], sizeof *x);
        }
    }
}

struct pairs_few {
    const char *k;
    ptrdiff_t k_row;
    const float *q;
    size_t d_k, n; /* keys */
    vf32 scale;
    float *s;
    size_t s_row;
    struct few_ahead ahead;
};

/* Sums of the pairs x of VF32_N columns of keys with those of q; `asks` lines are asked for meanwhile. */
ATTN_INLINE void pairs_columns_step(int rows, size_t pairs, int asks, const float *q, const vf32 x[VF32_N],
                                    vf32 a[FEW_ROWS], struct few_ahead *ahead) {
    ATTN_UNROLL for (int i = 0; i < VF32_N; i++) {
        if ((size_t)i >= pairs) break;
        if (asks) { /* one at a time: they come as fast as they are made */
            few_ask(ahead, asks);
            ATTN_FENCE();
        }
        ATTN_UNROLL for (int g = 0; g < rows; g++) a[g] =
            v_bf16_dot(a[g], v_int_at(q + i * rows + g), v_pairs_from_f32(x[i]));
    }
}

ATTN_INLINE void pairs_columns_end(int rows, const struct pairs_few *w, const vf32 a[FEW_ROWS]) {
    ATTN_UNROLL for (int g = 0; g < rows; g++) v_store(w->s + (size_t)g * w->s_row, v_mul(a[g], w->scale));
}

/* Scores of a tile of keys in rows, which are the lanes: 32 columns of 16 keys are transposed as pairs. */
ATTN_INLINE void pairs_columns(int rows, const struct pairs_few *w) {
    vf32 a[FEW_ROWS];
    struct few_ahead ahead = w->ahead;
    const char *k = w->k;
    const float *q = w->q;
    size_t d = 0;
    ATTN_UNROLL for (int g = 0; g < rows; g++) a[g] = v_zero();
    for (; d + 2 * VF32_N <= w->d_k; d += 2 * VF32_N, k += 4 * VF32_N, q += VF32_N * rows) {
        vf32 x[VF32_N];
        ATTN_UNROLL for (int i = 0; i < VF32_N; i++) x[i] = v_pairs_as_f32(v_bytes(k + i * w->k_row));
        v_transpose(x);
        pairs_columns_step(rows, VF32_N, 1, q, x, a, &ahead);
    }
    if (d < w->d_k) {
        vf32 x[VF32_N];
        const size_t left = w->d_k - d;
        ATTN_UNROLL for (int i = 0; i < VF32_N; i++) x[i] =
            v_pairs_as_f32(v_pairs_load(k + i * w->k_row, left));
        v_transpose(x);
        pairs_columns_step(rows, (left + 1) / 2, 0, q, x, a, &ahead);
    }
    pairs_columns_end(rows, w, a);
}

/* The same of a panel. */
ATTN_INLINE void pairs_panel(int rows, const struct pairs_few *w) {
    enum { COLUMN = 2 * ATTN_KEY_TILE }; /* bytes */
    vf32 a[FEW_ROWS];
    struct few_ahead ahead = w->ahead;
    const char *k = w->k;
    const float *q = w->q;
    ATTN_UNROLL for (int g = 0; g < rows; g++) a[g] = v_zero();
    for (size_t d = 0; d < w->d_k; d += 2, k += 2 * COLUMN, q += rows) {
        const vint x = v_pairs_of(k, d + 1 < w->d_k ? k + COLUMN : NULL, VF32_N);
        few_ask(&ahead, 1);
        ATTN_UNROLL for (int g = 0; g < rows; g++) a[g] = v_bf16_dot(a[g], v_int_at(q + g), x);
    }
    pairs_columns_end(rows, w, a);
}

/* Scores of `keys` keys from k on, rows in the lanes. row[] has every third key, as in few_tile.h. */
ATTN_INLINE void pairs_rows(int keys, int nv, const struct pairs_few *w, const char *k,
                            struct few_ahead *ahead, float *s) {
    vf32 c[FEW_KEYS][FEW_NV];
    const char *row[FEW_KEYS];
    const float *q = w->q;
    ATTN_UNROLL for (int i = 0; i < keys; i++) {
        if (i % 3 == 0) row[i / 3] = k + i * w->k_row;
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_zero();
    }
    ATTN_UNROLL_4 for (size_t d = 0; d < w->d_k; d += 2, q += nv * VF32_N) {
        vint x[FEW_NV];
        if (keys >= 4 && d % 32 == 0) few_ask(ahead, keys);
        ATTN_UNROLL for (int v = 0; v < nv; v++) x[v] = v_bytes(q + v * VF32_N);
        ATTN_UNROLL for (int i = 0; i < keys; i++) {
            const vint a = v_int_at(row[i / 3] + 2 * d + i % 3 * w->k_row);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_bf16_dot(c[i][v], a, x[v]);
        }
    }
    ATTN_UNROLL for (int i = 0; i < keys; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) v_store(s + (i * nv + v) * VF32_N, v_mul(c[i][v], w->scale));
    }
}

ATTN_INLINE void pairs_rows_nv(int nv, int most, const struct pairs_few *w) {
    struct few_ahead ahead = w->ahead;
    size_t i = 0;
    for (; i + (size_t)most <= w->n; i += (size_t)most)
        pairs_rows(most, nv, w, w->k + (ptrdiff_t)i * w->k_row, &ahead, w->s + i * (size_t)nv * VF32_N);
    for (; i < w->n; i++)
        pairs_rows(1, nv, w, w->k + (ptrdiff_t)i * w->k_row, &ahead, w->s + i * (size_t)nv * VF32_N);
}
ATTN_NOINLINE void pairs_rows_1(const struct pairs_few *w) { pairs_rows_nv(1, FEW_KEYS, w); }
ATTN_NOINLINE void pairs_rows_2(const struct pairs_few *w) { pairs_rows_nv(2, FEW_KEYS_2, w); }

#define PAIRS_FEW(rows)                                                                            \
    ATTN_NOINLINE void pairs_columns_##rows(const struct pairs_few *w) { pairs_columns(rows, w); } \
    ATTN_NOINLINE void pairs_panel_##rows(const struct pairs_few *w) { pairs_panel(rows, w); }
PAIRS_FEW(1)
PAIRS_FEW(2)
PAIRS_FEW(3)
PAIRS_FEW(4)
PAIRS_FEW(5)
PAIRS_FEW(6)
PAIRS_FEW(7)
PAIRS_FEW(8)
#define PAIRS_FEW_DISPATCH(name, rows, w) \
    switch (rows) {                       \
    case 1: name##_1(w); break;           \
    case 2: name##_2(w); break;           \
    case 3: name##_3(w); break;           \
    case 4: name##_4(w); break;           \
    case 5: name##_5(w); break;           \
    case 6: name##_6(w); break;           \
    case 7: name##_7(w); break;           \
    default: name##_8(w); break;          \
    }

/* Scores of the tile at j0, of which keys [j, end) are read: where they lie, or copied (those of several pages, an odd number
 * of columns, panels where rows are the lanes). Of other keys the caller hides what stands there. */
static void few_scores(const struct few_block *b, size_t g, size_t j0, size_t j, size_t end) {
    const struct attn_pool_task *t = b->t;
    const struct few_head *h = &b->head[g];
    const int whole = end - j == ATTN_KEY_TILE;
    struct pairs_few w = {.k = h->k + attn_k_offset(t, j),
                          .k_row = t->k_row,
                          .q = h->q,
                          .d_k = t->d_k,
                          .n = end - j,
                          .scale = pairs_scale(t),
                          .s = h->p + (j0 - b->first) * b->p_key,
                          .s_row = b->p_row};
    few_ahead_scores(b, j0, g, 0, &w.ahead);
    if (t->panels && !b->by_rows) {
        w.k = h->k + attn_k_offset(t, j0);
        PAIRS_FEW_DISPATCH(pairs_panel, t->n_rows, &w)
        return;
    }
    if (t->panels || (b->by_rows ? t->d_k % 2 != 0 : !whole) || attn_keys_left(t, j) < end - j) {
        struct attn_pool_task head = *t;
        head.k = h->k;
        w.k_row = (ptrdiff_t)(pool_gather_row(t->d_k) * sizeof(float));
        w.k = (const char *)b->copies + (ptrdiff_t)(b->by_rows ? j - j0 : 0) * w.k_row;
        pool_gather_k(&head, j, end, j0, b->copies, pool_gather_row(t->d_k));
    }
    if (b->by_rows) {
        w.s += (j - j0) * b->p_key;
        b->pitch == VF32_N ? pairs_rows_1(&w) : pairs_rows_2(&w);
        return;
    }
    PAIRS_FEW_DISPATCH(pairs_columns, t->n_rows, &w)
}

/* ---- Probabilities ----------------------------------------------------------------------------------------- */

ATTN_INLINE size_t few_keys(const struct few_block *b, size_t j0) { return (j0 - b->first) / 2 * b->p_key; }
ATTN_INLINE void few_keep(float *to, float *s, int i, vf32 e) {
    (void)s, (void)i;
    v_bf16_store(to, e);
}
ATTN_INLINE void few_keep_rows(float *to, float *s, size_t pitch, size_t i, const vf32 e[4]) {
    (void)s;
    v_pairs_store(to + 2 * i * pitch, v_bf16_pairs(e[0], e[1]));
    v_pairs_store(to + (2 * i + 1) * pitch, v_bf16_pairs(e[2], e[3]));
}

/* ---- P V --------------------------------------------------------------------------------------------------- */

/* One pass over n pairs of keys: `cols` times 32 columns of some rows. */
struct pairs_pass {
    size_t n;
    const char *v;
    ptrdiff_t v_row;
    const float *p;
    size_t p_key, p_row, o_row;
    float *o;
    struct few_ahead *ahead;
};

/* Accumulators hold the columns as v_zip makes them. tail: columns, where they are fewer than 32. */
ATTN_INLINE void pairs_few_pv(const struct pairs_pass *w, int rows, int cols, int asks, size_t tail) {
    vf32 a[FEW_PV_ROWS][FEW_PV_COLS];
    const char *v = w->v;
    const float *p = w->p;
    struct few_ahead ahead = *w->ahead;
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int c = 0; c < 2 * cols; c += 2) {
            const float *o = w->o + (size_t)g * w->o_row + c * VF32_N;
            v_zip_order(v_load(o), v_load(o + VF32_N), &a[g][c], &a[g][c + 1]);
        }
    }
    ATTN_NO_UNROLL for (size_t j = 0; j < w->n; j++, v += 2 * w->v_row, p += w->p_key) {
        vint e[FEW_PV_ROWS];
        if (asks) few_ask(&ahead, 2 * cols);
        ATTN_UNROLL for (int g = 0; g < rows; g++) e[g] = v_int_at(p + (size_t)g * w->p_row);
        ATTN_UNROLL for (int c = 0; c < cols; c++) {
            const char *at = v + 4 * c * VF32_N;
            vint x, y;
            if (tail)
                v_zip(v_pairs_load(at, tail), v_pairs_load(at + w->v_row, tail), &x, &y);
            else
                v_zip(v_bytes(at), v_bytes(at + w->v_row), &x, &y);
            ATTN_UNROLL for (int g = 0; g < rows; g++) {
                a[g][2 * c] = v_bf16_dot(a[g][2 * c], e[g], x);
                a[g][2 * c + 1] = v_bf16_dot(a[g][2 * c + 1], e[g], y);
            }
        }
    }
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int c = 0; c < 2 * cols; c += 2) {
            float *o = w->o + (size_t)g * w->o_row + c * VF32_N;
            vf32 first, second;
            v_unzip_order(a[g][c], a[g][c + 1], &first, &second);
            v_store(o, first);
            v_store(o + VF32_N, second);
        }
    }
    *w->ahead = ahead;
}

#define PAIRS_FEW_PV(rows, cols)                                                        \
    ATTN_NOINLINE void pairs_few_pv_##rows(const struct pairs_pass *w, int asks) {      \
        if (asks)                                                                       \
            pairs_few_pv(w, rows, cols, 1, 0);                                          \
        else                                                                            \
            pairs_few_pv(w, rows, cols, 0, 0);                                          \
    }                                                                                   \
    ATTN_NOINLINE void pairs_few_tail_##rows(const struct pairs_pass *w, size_t tail) { \
        pairs_few_pv(w, rows, 1, 0, tail);                                              \
    }
PAIRS_FEW_PV(1, FEW_PV_COLS / 2)
PAIRS_FEW_PV(2, FEW_PV_COLS_2 / 2)
PAIRS_FEW_PV(3, FEW_PV_COLS_3 / 2)
PAIRS_FEW_PV(4, FEW_PV_COLS_4 / 2)
PAIRS_FEW_PV(8, FEW_PV_COLS_8 / 2)
#define PAIRS_PV_DISPATCH(name, rows, ...) \
    switch (rows) {                        \
    case 1: name##_1(__VA_ARGS__); break;  \
    case 2: name##_2(__VA_ARGS__); break;  \
    case 3: name##_3(__VA_ARGS__); break;  \
    case 4: name##_4(__VA_ARGS__); break;  \
    default: name##_8(__VA_ARGS__); break; \
    }

/* Rows of a pass, of `left`. Of a single head as many as leave room for whole rows of V: a linear read, at which the processor
 * reads ahead by itself. Requests in between cost more than they brought (Zen 4, group 4: 37 cycles a key without, 57 with). */
ATTN_INLINE size_t pairs_pass_rows(const struct few_block *b, size_t left) {
    size_t most = FEW_PV_ROWS;
    if (!b->turns) return attn_min(FEW_PAIRS_ALONE, left);
    while (most > left) most /= 2;
    return most;
}

/* P V of keys [from, to), even both. Columns outside, rows inside: each line of V is read by one pass after the other. */
static void pairs_values_keys(const struct few_block *b, size_t g, size_t from, size_t to, int asks) {
    static const size_t cols_of[] = {0, FEW_PV_COLS, FEW_PV_COLS_2, FEW_PV_COLS_3, FEW_PV_COLS_4, 0,
                                     0, 0,           FEW_PV_COLS_8};
    const struct attn_pool_task *t = b->t;
    const struct few_head *h = &b->head[g];
    const size_t most = pairs_pass_rows(b, t->n_rows), cols = cols_of[most] * VF32_N;
    const char *v = h->v + attn_v_offset(t, from);
    const ptrdiff_t v_row = attn_v_offset(t, from + 1) - attn_v_offset(t, from);
    struct few_ahead ahead;
    few_ahead_values(b, g, from, to, &ahead);
    for (size_t c = 0; c < t->d_v;) {
        const size_t n = c + cols <= t->d_v ? cols : attn_min(FEW_UNIT, t->d_v - c);
        for (size_t r = 0; r < t->n_rows;) {
            const size_t rows = pairs_pass_rows(b, t->n_rows - r);
            struct pairs_pass w = {.n = (to - from) / 2,
                                   .v = v + 2 * c,
                                   .v_row = v_row,
                                   .p = h->p + few_keys(b, from) + r * b->p_row,
                                   .p_key = b->p_key,
                                   .p_row = b->p_row,
                                   .o_row = b->columns,
                                   .o = h->st.o + r * b->columns + c,
                                   .ahead = &ahead};
            if (n == cols && cols_of[rows] * VF32_N == n) {
                PAIRS_PV_DISPATCH(pairs_few_pv, rows, &w, asks && r < (b->turns ? 4 * most : 1))
            } else {
                for (size_t i = 0; i < n; i += FEW_UNIT, w.o += FEW_UNIT, w.v += 2 * FEW_UNIT)
                    PAIRS_PV_DISPATCH(pairs_few_tail, rows, &w, attn_min(FEW_UNIT, n - i))
            }
            r += rows;
        }
        c += n;
    }
}

/* P V of what waits up to key `to`: whole tiles. */
static void few_values(struct few_block *b, size_t g, size_t to, int asks) {
    const struct attn_pool_task *t = b->t;
    struct few_head *h = &b->head[g];
    const int passes = b->turns || t->pages || t->d_v > FEW_PV_COLS * VF32_N;
    while (h->from < to) { /* a pair of two pages is a piece of its own */
        const size_t left = attn_min(to - h->from, attn_max(2, attn_keys_left(t, h->from) / 2 * 2));
        const size_t next = h->from + (passes ? attn_min(left, FEW_PV_KEYS) : left);
        pairs_values_keys(b, g, h->from, next, passes && asks);
        h->from = next;
    }
}

/* The same for one row and keys [j, end), of which those with a set sign bit of p are hidden from it. */
static void few_values_hiding(const struct few_block *b, const struct few_head *h, size_t row, size_t j,
                              size_t end) {
    const struct attn_pool_task *t = b->t;
    float *o = h->st.o + row * b->columns;
    for (j -= j % 2; j < end; j += 2) {
        uint32_t p;
        memcpy(&p, h->p + few_keys(b, j) + row * b->p_row, sizeof p);
        const char *first = p & 0x8000 ? NULL : h->v + attn_v_offset(t, j);
        const char *second = p & 0x80000000 ? NULL : h->v + attn_v_offset(t, j + 1);
        if (!first && !second) continue;
        for (size_t c = 0; c < t->d_v; c += VF32_N) {
            const vint x = v_pairs_of(first ? first + 2 * c : NULL, second ? second + 2 * c : NULL,
                                      attn_min(t->d_v - c, VF32_N));
            v_store(o + c, v_bf16_dot(v_load(o + c), v_int_at(&p), x));
        }
    }
}

#endif
