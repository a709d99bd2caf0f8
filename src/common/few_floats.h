/* Pooling of few rows with f32 arithmetic: what few_turn.h and few_body.h ask of the kernels. */
#ifndef ATTN_FEW_FLOATS_H
#define ATTN_FEW_FLOATS_H

#include "few_ahead.h"
#include "few_blocks.h"
#include "few_pv.h"

enum { FEW_UNIT = VF32_N };

static void few_pack(const struct few_block *b, const struct few_head *h) {
    const struct attn_pool_task *t = b->t;
    const void *q = pool_from(t->q_type, t->q, (ptrdiff_t)h->shift * t->q_head);
    const float c = t->scale * ATTN_LOG2E;
    if (b->by_rows) {
        pool_pack(t, b->pitch, t->d_k, t->q_type, q, t->q_row, t->q_head, v_set1(c), h->q);
        return;
    }
    for (size_t r = 0; r < t->n_rows; r++) {
        const void *from = pool_from(t->q_type, q, pool_offset(t, r, t->q_row, t->q_head));
        for (size_t d = 0; d < t->d_k; d += VF32_N) {
            const size_t n = attn_min(t->d_k - d, VF32_N);
            float x[VF32_N];
            v_store(x, v_mul(typed_load_tail(t->q_type, from, d, n), v_set1(c)));
            for (size_t i = 0; i < n; i++) h->q[(d + i) * t->n_rows + r] = x[i];
        }
    }
}

/* ---- P V --------------------------------------------------------------------------------------------- */

/* The most rows of a pass: a power of two. */
ATTN_INLINE size_t few_pass_rows(size_t most, size_t left) {
    while (most > left) most /= 2;
    return most;
}

/* Where whole rows of V fit a pass, the first one is a linear read, which nothing else is as fast as; not for so many rows that
 * the products set the pace, nor where each pass would convert the values anew. */
ATTN_INLINE int few_linear(const struct few_block *b) {
    return FEW_PV_LINEAR < FEW_PV_ROWS && !b->turns && b->t->v_type == ATTN_F32 && b->t->n_rows < FEW_PV_ROWS;
}
ATTN_INLINE size_t few_pass_most(const struct few_block *b) {
    return few_pass_rows(few_linear(b) ? FEW_PV_LINEAR : FEW_PV_ROWS, b->t->n_rows);
}

static const size_t few_pass_cols[] = {0, FEW_PV_COLS, FEW_PV_COLS_2, 0, FEW_PV_COLS_4, 0,
                                       0, 0,           FEW_PV_COLS_8};

/* P V of keys [from, to), which are read again for rows beyond those of a pass. */
static void few_values_keys(const struct few_block *b, size_t g, size_t from, size_t to, int asks) {
    const struct attn_pool_task *t = b->t;
    const struct few_head *h = &b->head[g];
    const size_t most = few_pass_most(b), cols = few_pass_cols[most] * VF32_N;
    const char *v = h->v + attn_v_offset(t, from);
    struct few_ahead ahead;
    few_ahead_values(b, g, from, to, &ahead);
    for (size_t r = 0; r < t->n_rows;) {
        const size_t rows = few_pass_rows(most, t->n_rows - r);
        struct few_pass w = {.n = to - from,
                             .blocks = rows == most ? t->d_v / cols : 0,
                             .v = v,
                             .p = h->p + (from - b->first) * b->p_key + r * b->p_row,
                             .v_row = t->v_row,
                             .p_key = b->p_key,
                             .p_row = b->p_row,
                             .o_row = b->columns,
                             .o = h->st.o + r * b->columns,
                             .ahead = &ahead};
        struct few_ahead lines = ahead;
        int how = asks && !r;
        if (asks && few_linear(b) && t->n_rows > most) { /* each pass asks for two lines of every row */
            lines.at += r * FEW_LINE;
            lines.end = lines.at + 2 * FEW_LINE;
            lines.gap = lines.stride - 2 * FEW_LINE;
            w.ahead = &lines;
            how = 2;
        }
        if (w.blocks) few_pass_of(t->v_type, rows, &w, how);
        /* a pass of fewer rows could take more columns, but the others set the pace */
        for (size_t c = w.blocks * cols; c < t->d_v; c += VF32_N) {
            w.v = v + few_at(t->v_type, c);
            w.at = c % 32;
            w.o = h->st.o + r * b->columns + c;
            few_tail_of(t->v_type, rows, &w, attn_min(VF32_N, t->d_v - c));
        }
        r += rows;
    }
}

/* Keys whose values stay in L1 while several passes read them. */
ATTN_INLINE size_t few_values_at_once(const struct few_block *b) {
    const size_t fits = FEW_PV_BYTES / b->v_bytes;
    return attn_max(fits - fits % ATTN_KEY_TILE, ATTN_KEY_TILE);
}

/* P V of what waits up to key `to`. A single pass is a linear read, which needs no pieces and no asking, but of pages. */
static void few_values(struct few_block *b, size_t g, size_t to, int asks) {
    const struct attn_pool_task *t = b->t;
    struct few_head *h = &b->head[g];
    const size_t most = few_pass_most(b);
    const int passes = b->turns || t->pages || t->n_rows > most || t->d_v > few_pass_cols[most] * VF32_N;
    while (h->from < to) {
        const size_t left = attn_min(to - h->from, attn_keys_left(t, h->from));
        const size_t next = h->from + (passes ? attn_min(left, few_values_at_once(b)) : left);
        few_values_keys(b, g, h->from, next, passes && asks);
        h->from = next;
    }
}

/* The same for one row and keys [j, end), of which those with a set sign bit of p are hidden from it. */
static void few_values_hiding(const struct few_block *b, const struct few_head *h, size_t row, size_t j,
                              size_t end) {
    const struct attn_pool_task *t = b->t;
    float *o = h->st.o + row * b->columns;
    for (; j < end; j++) {
        const float p = h->p[(j - b->first) * b->p_key + row * b->p_row];
        if (signbit(p)) continue;
        const char *v = h->v + attn_v_offset(t, j);
        for (size_t c = 0; c < t->d_v; c += VF32_N) {
            const vf32 x = few_value(t->v_type, v, c, attn_min(t->d_v - c, VF32_N));
            v_store(o + c, v_fma(v_set1(p), x, v_load(o + c)));
        }
    }
}

/* ---- Scores ---------------------------------------------------------------------------------------------- */

/* Keys [j, j + w->n) of one tile as rows of f32, or as a panel of it, in the block's copies. */
ATTN_NOINLINE void few_keys_copy(const struct few_block *b, const struct few_head *h, size_t j,
                                 struct few_scores *w) {
    struct attn_pool_task t = *b->t;
    const size_t row = pool_gather_row(t.d_k);
    t.k = h->k;
    w->k = (const char *)b->copies;
    w->type = ATTN_F32;
    if (t.panels) { /* of which key j is looked for */
        const char *panel = t.k + attn_k_offset(&t, j - j % ATTN_KEY_TILE);
        pool_convert_rows(t.k_type, panel, 0, 1, ATTN_KEY_TILE * t.d_k, b->copies, 0);
        w->k += j % ATTN_KEY_TILE * sizeof(float);
        return;
    }
    pool_gather_k(&t, j, j + w->n, j, b->copies, row);
    if (w->n < VF32_N) memset(b->copies + w->n * row, 0, (VF32_N - w->n) * row * sizeof *b->copies);
    w->k_row = (ptrdiff_t)(row * sizeof(float));
}

/* Keys [j, end) of the tile at hand, `all` of which a kernel reads: where they lie, or copied: those of several pages, fewer
 * than all, and those of another type where the kernel does not take it (as_f32). */
ATTN_INLINE void few_keys_at(const struct few_block *b, const struct few_head *h, size_t j, size_t end,
                             size_t all, int as_f32, struct few_scores *w) {
    const struct attn_pool_task *t = b->t;
    w->k = h->k + attn_k_offset(t, j);
    w->k_row = t->k_row;
    w->n = end - j;
    w->type = t->k_type;
    if (ATTN_UNLIKELY(w->n < all || (!t->panels && attn_keys_left(t, j) < w->n) ||
                      (t->k_type != ATTN_F32 && as_f32)))
        few_keys_copy(b, h, j, w);
}

static void few_columns_any(size_t rows, const struct few_scores *w) {
    switch (w->type) {
    case ATTN_F16: FEW_DISPATCH(few_columns_f16, rows, w) break;
    case ATTN_BF16: FEW_DISPATCH(few_columns_bf16, rows, w) break;
    case ATTN_Q8_0: FEW_DISPATCH(few_columns_q8_0, rows, w) break;
    case ATTN_Q4_0: FEW_DISPATCH(few_columns_q4_0, rows, w) break;
    default: FEW_DISPATCH(few_columns, rows, w) break;
    }
}

static void few_panels_any(size_t rows, const struct few_scores *w) {
    switch (w->type) {
    case ATTN_F16: FEW_DISPATCH(few_panel_f16, rows, w) break;
    case ATTN_BF16: FEW_DISPATCH(few_panel_bf16, rows, w) break;
    default: FEW_DISPATCH(few_panel, rows, w) break;
    }
}

static void few_scores_rows(const struct few_block *b, struct few_scores *w) {
    if (b->pitch == VF32_N)
        w->panel ? few_rows_panel_1(w) : few_rows_1(w);
    else
        w->panel ? few_rows_panel_2(w) : few_rows_2(w);
}

/* Scores of the tile at j0, of which keys [j, end) are read. */
static void few_scores(struct few_block *b, size_t g, size_t j0, size_t j, size_t end) {
    const struct attn_pool_task *t = b->t;
    struct few_head *h = &b->head[g];
    struct few_scores w = {.d_k = t->d_k, .q = h->q, .s_row = b->p_row, .panel = t->panels};
    if (b->by_rows || t->panels) few_ahead_scores(b, j0, g, 0, &w.ahead);
    if (b->by_rows) {
        few_keys_at(b, h, j, end, 0, 1, &w);
        w.s = h->p + (j - b->first) * b->p_key;
        few_scores_rows(b, &w);
        return;
    }
    if (t->panels) { /* what is not seen of it the caller hides */
        w.type = t->k_type;
        w.k = h->k + attn_k_offset(t, j - j % ATTN_KEY_TILE);
        w.s = h->p + (j0 - b->first);
        few_panels_any(t->n_rows, &w);
        return;
    }
    for (size_t at = attn_max(j0, h->scored); at < j0 + ATTN_KEY_TILE; at += VF32_N) {
        const size_t from = attn_max(j, at), to = attn_min(end, at + VF32_N);
        float part[FEW_ROWS * VF32_N];
        if (from >= to) continue; /* the caller hides these keys */
        few_keys_at(b, h, from, to, VF32_N, 0, &w);
        few_ahead_scores(b, j0, g, at - j0, &w.ahead);
        if (w.n == VF32_N) {
            if (few_pairs(t->n_rows, w.type) && from + 2 * VF32_N <= b->end &&
                attn_keys_left(t, from) >= 2 * VF32_N) {
                w.n = 2 * VF32_N;
                h->scored = from + w.n;
                few_ahead_scores(b, j0, g, at - j0 + VF32_N, &w.ahead);
                at += VF32_N;
            }
            w.s = h->p + (from - b->first);
            w.s_row = b->p_row;
            few_columns_any(t->n_rows, &w);
            continue;
        }
        w.s = part;
        w.s_row = VF32_N;
        FEW_DISPATCH(few_columns, t->n_rows, &w)
        for (size_t r = 0; r < t->n_rows; r++)
            memcpy(h->p + r * b->p_row + (from - b->first), part + r * VF32_N, w.n * sizeof *part);
    }
}

/* ---- Probabilities: in their scores' place ------------------------------------------------------------ */

ATTN_INLINE size_t few_keys(const struct few_block *b, size_t j0) { return (j0 - b->first) * b->p_key; }
ATTN_INLINE void few_keep(float *to, float *s, int i, vf32 e) {
    (void)s;
    v_store(to + i * VF32_N, e);
}
ATTN_INLINE void few_keep_rows(float *to, float *s, size_t pitch, size_t i, const vf32 e[4]) {
    (void)s;
    ATTN_UNROLL for (size_t k = 0; k < 4; k++) v_store(to + (4 * i + k) * pitch, e[k]);
}

#endif
