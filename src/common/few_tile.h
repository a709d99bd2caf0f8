/*
 * Pooling of few rows, the part within a run of keys: packing of queries, scores of a tile of keys, P V, and what a row
 * may see. few_body.h drives it. Lanes are keys for the scores and columns of v for the output.
 */
#ifndef ATTN_FEW_TILE_H
#define ATTN_FEW_TILE_H

#include "pool_tile.h"

enum {
    FEW_TILE_N = ATTN_KEY_TILE / VF32_N, /* vectors of a tile of keys */
    FEW_MOST = 8,                        /* rows of a block served this way */

    /* K and V are read in turns, and each turn starts the processor's prefetchers anew: runs are as long as a
     * chunk for one row, and shorter where more rows' probabilities have to wait (8 KiB in all). */
    FEW_WAITING = 2048,
    FEW_PV_LINES = 2, /* of V that a pass asks for at each key */
    FEW_PV_KEYS = 64, /* of V at a time for all rows: 32 KiB at d_v = 128, which stays in L1 */

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
            const size_t left = attn_min(t->d_k - d, VF32_N);
            v_store_tail(to + d, v_mul(v_load_tail(from + d, left), c), left);
        }
    }
}

/* a[g] = fma(q[g][i], column i of the keys x, a[g]) for ascending i in [0, n): x holds VF32_N keys, a row each. */
ATTN_INLINE void few_columns_step(int rows, size_t n, const float *q, size_t q_row, vf32 x[VF32_N],
                                  vf32 a[FEW_ROWS]) {
    v_transpose(x);
    ATTN_UNROLL for (int i = 0; i < VF32_N; i++) {
        if ((size_t)i >= n) break;
        ATTN_UNROLL for (int g = 0; g < rows; g++) a[g] =
            v_fma(v_set1(q[(size_t)g * q_row + (size_t)i]), x[i], a[g]);
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
        if (ahead && d % ATTN_LINE == 0) {
            ATTN_UNROLL for (int i = 0; i < VF32_N; i++) ATTN_PREFETCH_L2(ahead + i * t->k_row + d);
        }
        ATTN_UNROLL for (int i = 0; i < VF32_N; i++) x[i] =
            (size_t)i < n ? v_load(k + i * t->k_row + d) : v_zero();
        few_columns_step(rows, VF32_N, q + d, t->d_k, x, a);
    }
    if (d < t->d_k) {
        vf32 x[VF32_N];
        ATTN_UNROLL for (int i = 0; i < VF32_N; i++) x[i] =
            (size_t)i < n ? v_load_tail(k + i * t->k_row + d, t->d_k - d) : v_zero();
        few_columns_step(rows, t->d_k - d, q + d, t->d_k, x, a);
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
        ATTN_UNROLL for (int i = 0; i < lines; i++) ATTN_PREFETCH_L2(ahead + i * ATTN_LINE);
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
                asked += FEW_PV_LINES * ATTN_LINE;
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
        const size_t keys = attn_min(n - i, step);
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
            const vf32 x = v_load_tail(v + c, attn_min(t->d_v - c, VF32_N));
            v_store(o + c, v_fma(v_set1(p[i]), x, v_load(o + c)));
        }
    }
}

/* s[16] of one row and tile: mask and range; hidden scores become -inf, visible ones at least -FLT_MAX. Returns whether
 * any is hidden. */
static int few_hide(const struct attn_pool_task *t, size_t row, size_t j0, float *s) {
    const ptrdiff_t at = pool_offset(t, row, t->mask_row, t->mask_head);
    int hidden = 0;
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
        hidden |= !visible;
    }
    return hidden;
}

#endif
