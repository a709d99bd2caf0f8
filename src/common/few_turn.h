/*
 * Pooling of few rows, the part within a turn of keys: what is asked for, scores and softmax of a tile, what a row may
 * see, P V. few_body.h drives it.
 */
#ifndef ATTN_FEW_TURN_H
#define ATTN_FEW_TURN_H

#include "few_ahead.h"
#include "few_pv.h"

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

/* ---- P V --------------------------------------------------------------------------------------------- */

/* The most rows of a pass: a power of two. */
ATTN_INLINE size_t few_pass_rows(size_t most, size_t left) {
    while (most > left) most /= 2;
    return most;
}

/* Rows are split between passes before columns are: the first pass of a single head is a linear read then. Not where each
 * pass would convert the values anew. */
ATTN_INLINE int few_splits(const struct few_block *b) {
    return (int)FEW_PV_ALONE < (int)FEW_PV_ROWS && !b->turns && b->t->v_type == ATTN_F32;
}

ATTN_INLINE size_t few_pass_most(const struct few_block *b) {
    return b->turns || b->t->v_type != ATTN_F32 ? FEW_PV_ROWS : FEW_PV_ALONE;
}

/* P V of keys [from, to). Columns outside, rows inside: each line of V is read by one pass after the other. */
static void few_values_keys(const struct few_block *b, size_t g, size_t from, size_t to, int asks) {
    static const size_t cols_of[] = {0, FEW_PV_COLS, FEW_PV_COLS_2, 0, FEW_PV_COLS_4, 0, 0, 0, FEW_PV_COLS_8};
    const struct attn_pool_task *t = b->t;
    const struct few_head *h = &b->head[g];
    const size_t most = few_pass_rows(few_pass_most(b), t->n_rows);
    const size_t cols = cols_of[most] * VF32_N;
    const char *v = h->v + attn_v_offset(t, from);
    struct few_ahead ahead;
    few_ahead_values(b, g, from, to, &ahead);
    for (size_t c = 0; c < t->d_v;) {
        const size_t n = c + cols <= t->d_v ? cols : attn_min(VF32_N, t->d_v - c);
        for (size_t r = 0; r < t->n_rows;) {
            const size_t rows = few_pass_rows(most, t->n_rows - r);
            struct few_pass w = {.n = to - from,
                                 .v = v + few_at(t->v_type, c),
                                 .at = c % 32,
                                 .p = h->p + (from - b->first) * b->p_key + r * b->p_row,
                                 .v_row = t->v_row,
                                 .p_key = b->p_key,
                                 .p_row = b->p_row,
                                 .o_row = b->columns,
                                 .o = h->st.o + r * b->columns + c,
                                 .ahead = &ahead};
            if (n == cols && rows == most) {
                struct few_ahead lines = ahead;
                if (!asks || (r && !few_splits(b)) || r >= 4 * most) {
                    few_pass_of(t->v_type, rows, &w, 0);
                } else if (few_splits(b) &&
                           t->n_rows > most) { /* each pass asks for two lines of every row */
                    lines.at += r * FEW_LINE;
                    lines.end = lines.at + 2 * FEW_LINE;
                    lines.gap = lines.stride - 2 * FEW_LINE;
                    lines.near = 0;
                    w.ahead = &lines;
                    few_pass_of(t->v_type, rows, &w, 2);
                } else {
                    few_pass_of(t->v_type, rows, &w, 8);
                }
            } else { /* a pass of fewer rows could take more columns, but the others set the pace */
                for (size_t i = 0; i < n; i += VF32_N, w.o += VF32_N) {
                    w.v = v + few_at(t->v_type, c + i);
                    w.at = (c + i) % 32;
                    few_tail_of(t->v_type, rows, &w, attn_min(VF32_N, n - i));
                }
            }
            r += rows;
        }
        c += n;
    }
}

/* P V of what waits up to key `to`. A single pass is a linear read, which needs no pieces and no asking, but of pages. */
static void few_values(struct few_block *b, size_t g, size_t to, int asks) {
    const struct attn_pool_task *t = b->t;
    struct few_head *h = &b->head[g];
    const int passes = b->turns || t->pages || t->n_rows > few_pass_most(b) || t->d_v > FEW_PV_COLS * VF32_N;
    while (h->from < to) {
        const size_t left = attn_min(to - h->from, attn_keys_left(t, h->from));
        const size_t next = h->from + (passes ? attn_min(left, FEW_PV_KEYS) : left);
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

/* ---- Scores and softmax of a tile --------------------------------------------------------------------- */

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
    w->k_row = (ptrdiff_t)(row * sizeof(float));
}

/* Keys [j, end) of the tile at hand: where they lie, or copied: those of several pages, and those of another type where the
 * kernels do not take it (`as_f32`, or not all of a vector of keys). */
ATTN_INLINE void few_keys(const struct few_block *b, const struct few_head *h, size_t j, size_t end,
                          int as_f32, struct few_scores *w) {
    const struct attn_pool_task *t = b->t;
    w->k = h->k + attn_k_offset(t, j);
    w->k_row = t->k_row;
    w->n = end - j;
    w->type = t->k_type;
    if (ATTN_UNLIKELY((!t->panels && attn_keys_left(t, j) < w->n) ||
                      (t->k_type != ATTN_F32 && (as_f32 || w->n < VF32_N))))
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
static void few_scores(const struct few_block *b, size_t g, size_t j0, size_t j, size_t end) {
    const struct attn_pool_task *t = b->t;
    const struct few_head *h = &b->head[g];
    struct few_scores w = {.d_k = t->d_k, .q = h->q, .s_row = b->p_row, .panel = t->panels};
    if (b->by_rows || t->panels) few_ahead_scores(b, j0, g, 0, &w.ahead);
    if (b->by_rows) {
        few_keys(b, h, j, end, 1, &w);
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
    for (size_t at = j0; at < j0 + ATTN_KEY_TILE; at += VF32_N) {
        const size_t from = attn_max(j, at), to = attn_min(end, at + VF32_N);
        float part[FEW_ROWS * VF32_N];
        if (from >= to) continue; /* the caller hides these keys */
        few_keys(b, h, from, to, 0, &w);
        few_ahead_scores(b, j0, g, at - j0, &w.ahead);
        if (w.n == VF32_N) {
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

/* One row's scores of the tile at j0: mask and range; hidden ones become -inf, visible ones at least -FLT_MAX. Returns
 * whether any is hidden. */
static int few_hide(const struct few_block *b, const struct few_head *h, size_t row, size_t j0) {
    const struct attn_pool_task *t = b->t;
    const ptrdiff_t at = pool_offset(t, row, t->mask_row, t->mask_head) + (ptrdiff_t)h->shift * t->mask_head;
    const int additive = t->mask_kind == ATTN_MASK_F32 || t->mask_kind == ATTN_MASK_F16;
    float *s = h->p + (j0 - b->first) * b->p_key + row * b->p_row;
    const size_t lo = t->lo[row], hi = t->hi[row], also = t->also[row];
    float bias[ATTN_KEY_TILE];
    int hidden = 0;
    sight_bias(t, row, j0, attn_min(ATTN_KEY_TILE, t->n_kv - j0), at, bias);
    for (size_t i = 0; i < ATTN_KEY_TILE; i++, s += b->p_key) {
        const size_t key = j0 + i;
        const int visible = (((key >= lo) & (key < hi)) | (key < also)) & (bias[i] != -INFINITY);
        const float x = additive ? fmaf(bias[i], ATTN_LOG2E, *s) : *s;
        *s = !visible ? -INFINITY : x < -FLT_MAX ? -FLT_MAX : x;
        hidden |= !visible;
    }
    return hidden;
}

/* Shapes the scores of the tile at j0: keys in the lanes, or rows. */
static void few_shape(const struct few_block *b, const struct few_head *h, size_t j0) {
    const struct attn_pool_task *t = b->t;
    float lanes[ATTN_KEY_TILE], slopes[FEW_MOST];
    float *s = h->p + (j0 - b->first) * b->p_key;
    for (size_t r = 0; r < b->pitch; r++) slopes[r] = sight_slope(t, h->shift, pool_row(t, r));
    if (!b->by_rows) {
        for (size_t r = 0; r < t->n_rows; r++, s += b->p_row) {
            const vf32 slope = v_set1(slopes[r]);
            for (size_t i = 0; i < ATTN_KEY_TILE; i++) lanes[i] = sight_position(t, r, j0 + i);
            for (size_t i = 0; i < ATTN_KEY_TILE; i += VF32_N)
                v_store(s + i, sight_shape(t, v_load(s + i), v_load(lanes + i), slope));
        }
        return;
    }
    for (size_t r = 0; r < b->pitch; r += VF32_N) {
        const vf32 slope = v_load(slopes + r);
        for (size_t i = 0; i < VF32_N; i++) lanes[i] = sight_position(t, pool_row(t, r + i), j0);
        for (size_t i = 0; i < ATTN_KEY_TILE; i++) {
            float *at = s + i * b->pitch + r;
            v_store(at, sight_shape(t, v_load(at), v_sub(v_load(lanes), v_set1((float)i)), slope));
        }
    }
}

/* The row's state as its maximum moves to x. */
static void few_rescale(const struct few_block *b, const struct few_state *st, size_t row, float x) {
    float *m = &st->m[row], *o = st->o + row * b->columns;
    if (*m >= -FLT_MAX) { /* otherwise l and o are 0 (or NaN) and stay it */
        const vf32 f = v_exp2(v_set1(*m - x));
        st->l[row] *= v_lane0(f);
        for (size_t c = 0; c < b->columns; c += VF32_N) v_store(o + c, v_mul(v_load(o + c), f));
    }
    *m = x;
}

/* Scores to probabilities, in place, and their sum to l: keys in the lanes, one row. m is its maximum. */
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

/* The same with rows in the lanes, for a vector of them: 16 keys, `pitch` apart. */
ATTN_INLINE void few_softmax_rows(float *s, size_t pitch, const float *m, float *l, int hides) {
    const vf32 lowest = v_set1(-FLT_MAX), m0 = v_load(m), mv = v_select(v_lt(m0, lowest), v_zero(), m0);
    vf32 sum[4];
    ATTN_UNROLL for (int i = 0; i < 4; i++) {
        vf32 e[4];
        ATTN_UNROLL for (int k = 0; k < 4; k++) {
            float *at = s + (size_t)(4 * i + k) * pitch;
            const vf32 x = v_load(at);
            e[k] = v_exp2_inline(v_sub(v_max(lowest, x), mv));
            if (hides) e[k] = v_select(v_lt(x, lowest), v_set1(-0.0f), e[k]);
            v_store(at, e[k]);
        }
        sum[i] = v_add(v_add(e[0], e[1]), v_add(e[2], e[3]));
    }
    v_store(l, v_add(v_load(l), v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]))));
}

static void few_tile_columns(struct few_block *b, size_t g, size_t j0, size_t j, size_t end, int hides) {
    struct few_head *h = &b->head[g];
    for (size_t r = 0; r < b->t->n_rows; r++) {
        float *s = h->p + (j0 - b->first) + r * b->p_row;
        vf32 x = v_set1(hides ? -INFINITY : -FLT_MAX);
        for (int i = 0; i < FEW_TILE_N; i++) x = v_max(x, v_load(s + i * VF32_N));
        const float most = v_lane0(few_max(x));
        if (ATTN_UNLIKELY(most > h->st.m[r] + ATTN_RESCALE)) {
            few_values(b, g, j, 0);
            few_rescale(b, &h->st, r, most);
        }
        few_softmax(s, h->st.m[r], &h->st.l[r], hides);
        if (hides) few_values_hiding(b, h, r, j, end);
    }
}

static void few_tile_rows(struct few_block *b, size_t g, size_t j0, size_t j, size_t end, int hides) {
    const struct attn_pool_task *t = b->t;
    struct few_head *h = &b->head[g];
    for (size_t lane = 0; lane < b->pitch; lane += VF32_N) {
        float *s = h->p + (j0 - b->first) * b->pitch + lane;
        vf32 x = v_set1(hides ? -INFINITY : -FLT_MAX);
        ATTN_UNROLL for (int i = 0; i < ATTN_KEY_TILE; i++) x = v_max(x, v_load(s + (size_t)i * b->pitch));
        if (ATTN_UNLIKELY(v_any(v_lt(v_add(v_load(h->st.m + lane), v_set1(ATTN_RESCALE)), x)))) {
            float most[VF32_N];
            v_store(most, x);
            few_values(b, g, j, 0);
            for (size_t i = 0; i < VF32_N && lane + i < t->n_rows; i++)
                if (most[i] > h->st.m[lane + i] + ATTN_RESCALE) few_rescale(b, &h->st, lane + i, most[i]);
        }
        few_softmax_rows(s, b->pitch, h->st.m + lane, h->st.l + lane, hides);
    }
    for (size_t r = 0; hides && r < t->n_rows; r++) few_values_hiding(b, h, r, j, end);
}

static void few_tile(struct few_block *b, size_t g, size_t j0, size_t j, size_t end, enum sight sight) {
    struct few_head *h = &b->head[g];
    int hides = 0; /* a mask that hides nothing here leaves the tile to the common way */
    if (sight == SIGHT_NONE) {
        few_values(b, g, j, 0);
        h->from = end;
        return;
    }
    few_scores(b, g, j0, j, end);
    if (sight_shapes(b->t)) few_shape(b, h, j0);
    for (size_t r = 0; sight == SIGHT_SOME && r < b->t->n_rows; r++) hides |= few_hide(b, h, r, j0);
    if (hides) few_values(b, g, j, 0);
    if (b->by_rows)
        few_tile_rows(b, g, j0, j, end, hides);
    else
        few_tile_columns(b, g, j0, j, end, hides);
    if (hides) h->from = end;
}

#endif
