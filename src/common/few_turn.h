/*
 * Pooling of few rows, the part within a turn of keys: softmax of a tile and what a row may see. few_body.h drives it.
 * Included after the kernels (few_floats.h, pairs_few.h), which have the same names:
 *
 * few_scores(b, g, j0, j, end)            scores of the tile at j0, of which keys [j, end) are read
 * few_values(b, g, to, asks)              P V of what waits up to key `to`
 * few_values_hiding(b, h, row, j, end)    of one row and keys of a tile, some of which it does not see
 * few_keep(to, s, i, e), few_keep_rows()  probabilities to where P V wants them; s: their scores' place
 * few_keys(b, j0)                         where those of a tile begin
 * few_pack(b, h)                          queries, once
 * pool_exp2(x)                            of probabilities
 * FEW_UNIT                                columns of an output are a multiple of it
 */
#ifndef ATTN_FEW_TURN_H
#define ATTN_FEW_TURN_H

#include "few_ahead.h"

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

/* ---- Scores and softmax of a tile --------------------------------------------------------------------- */

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
ATTN_INLINE void few_softmax(float *s, float *to, float m, float *l, int hides) {
    const vf32 lowest = v_set1(-FLT_MAX), mv = v_set1(m < -FLT_MAX ? 0.0f : m);
    vf32 sum[FEW_TILE_N];
    ATTN_UNROLL for (int i = 0; i < FEW_TILE_N; i++) {
        const vf32 x = v_load(s + i * VF32_N);
        vf32 e = pool_exp2(v_sub(v_max(lowest, x), mv));
        if (hides) e = v_select(v_lt(x, lowest), v_set1(-0.0f), e);
        few_keep(to, s, i, e);
        sum[i] = few_sum(e);
    }
    ATTN_UNROLL for (int step = 1; step < FEW_TILE_N; step *= 2) {
        ATTN_UNROLL for (int i = 0; i < FEW_TILE_N; i += 2 * step) sum[i] = v_add(sum[i], sum[i + step]);
    }
    *l += v_lane0(sum[0]);
}

/* The same with rows in the lanes, for a vector of them: 16 keys, `pitch` apart. */
ATTN_INLINE void few_softmax_rows(float *s, float *to, size_t pitch, const float *m, float *l, int hides) {
    const vf32 lowest = v_set1(-FLT_MAX), m0 = v_load(m), mv = v_select(v_lt(m0, lowest), v_zero(), m0);
    vf32 sum[4];
    ATTN_UNROLL for (int i = 0; i < 4; i++) {
        vf32 e[4];
        ATTN_UNROLL for (int k = 0; k < 4; k++) {
            const vf32 x = v_load(s + (size_t)(4 * i + k) * pitch);
            e[k] = pool_exp2(v_sub(v_max(lowest, x), mv));
            if (hides) e[k] = v_select(v_lt(x, lowest), v_set1(-0.0f), e[k]);
        }
        few_keep_rows(to, s, pitch, (size_t)i, e);
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
        if (ATTN_UNLIKELY(v_any(v_lt(v_set1(h->st.m[r] + ATTN_RESCALE), x)))) {
            const float most = v_lane0(few_max(x));
            if (most > h->st.m[r] + ATTN_RESCALE) { /* not NaN */
                few_values(b, g, j, 0);
                few_rescale(b, &h->st, r, most);
            }
        }
        few_softmax(s, h->p + few_keys(b, j0) + r * b->p_row, h->st.m[r], &h->st.l[r], hides);
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
        few_softmax_rows(s, h->p + few_keys(b, j0) + lane, b->pitch, h->st.m + lane, h->st.l + lane, hides);
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
