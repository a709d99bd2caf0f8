/* Pooling of few rows: a block's state, and what of keys and values is asked for while others are computed with. */
#ifndef ATTN_FEW_AHEAD_H
#define ATTN_FEW_AHEAD_H

#include "few_ask.h"
#include "pool_block.h"

/* A row's state: m[row], l[row], o[row][columns]. */
struct few_state {
    float *m, *l, *o;
};

struct few_head {
    const char *k, *v;
    size_t shift; /* of the queries' heads: of the mask and the outputs */
    float *q;     /* [d_k][pitch]: q * c */
    float *p;     /* scores, then probabilities of a turn: key i of row r at i * p_key + r * p_row */
    struct few_state st;
    size_t from;   /* the first key that waits for P V */
    size_t scored; /* up to this key scores are there already */
};

struct few_block {
    const struct attn_pool_task *t;
    int by_rows;                 /* rows are the lanes of the scores */
    int page_heads;              /* a page has all rows of one head, then of the next */
    int turns;                   /* while one side is computed the other is asked for */
    size_t pitch;                /* rows rounded up to a vector then */
    size_t columns;              /* d_v rounded up to a vector */
    size_t turn, first, end, hi; /* keys a turn; the turn at hand: [first, end); where the chunk ends */
    size_t p_key, p_row;
    size_t k_bytes, v_bytes; /* of a row of one head */
    float *copies;           /* [ATTN_KEY_TILE][pool_gather_row(d_k)]: keys of several pages, or converted */
    struct few_head head[ATTN_HEADS_MAX];
};

/* Keys are asked for into L1: more rows' products leave the requests too little time there. */
ATTN_INLINE int few_near(const struct few_block *b) { return b->t->n_rows <= FEW_NEAR; }

/* ---- What is read next ------------------------------------------------------------------------------- */

/* Of keys or values in rows of `row` bytes; those of head 0 begin at x. Where none is left, for what is at hand anyway.
 * Values are asked for 16 KiB ahead (FEW_PV_BYTES), which is too much for L1. */
ATTN_INLINE void few_ahead_rows(const struct few_block *b, int values, const char *x, const char *at_hand,
                                ptrdiff_t stride, size_t row, size_t rows, size_t skip,
                                struct few_ahead *to) {
    to->near = b->turns || (!values && few_near(b));
    if (!rows) {
        to->at = at_hand;
        to->end = at_hand + row;
        to->stride = 0;
        to->gap = -(ptrdiff_t)row;
        return;
    }
    to->at = x + skip;
    to->stride = stride;
    to->gap = stride - (ptrdiff_t)row;
    to->end = x + (to->gap == 0 ? rows : 1) * row;
}

/* The same of pages and panels. A panel is a row, and so is a page where it has the heads' rows one head after the other. */
ATTN_NOINLINE void few_ahead_pages(const struct few_block *b, int values, size_t key, size_t end, size_t done,
                                   struct few_ahead *to) {
    const struct attn_pool_task *t = b->t;
    const size_t keys = b->page_heads          ? t->page_rows
                        : t->panels && !values ? ATTN_KEY_TILE
                                               : 1; /* of a row */
    const size_t row = keys * t->heads * (values ? b->v_bytes : b->k_bytes);
    const char *x = values ? t->v : t->k;
    key += done / row * keys;
    const ptrdiff_t at_hand = values ? attn_v_offset(t, b->first) : attn_k_offset(t, b->first);
    const ptrdiff_t at = key < end ? values ? attn_v_offset(t, key) : attn_k_offset(t, key) : at_hand;
    const size_t left = key < end ? attn_min(end - key, attn_keys_left(t, key)) : 0;
    few_ahead_rows(b, values, x + at, x + at_hand, values ? t->v_row : t->k_row, row,
                   keys == 1 ? left : attn_ceil_div(left, keys), done % row, to);
}

/* Requests for keys, or values, of [key, end), all heads, of which `done` bytes are asked for. */
ATTN_INLINE void few_ahead_at(const struct few_block *b, int values, size_t key, size_t end, size_t done,
                              struct few_ahead *to) {
    const struct attn_pool_task *t = b->t;
    if (ATTN_UNLIKELY(t->pages || t->panels)) {
        few_ahead_pages(b, values, key, end, done, to);
        return;
    }
    const size_t row = t->heads * (values ? b->v_bytes : b->k_bytes), skip = done ? done % row : 0;
    const ptrdiff_t stride = values ? t->v_row : t->k_row;
    const char *x = values ? t->v : t->k;
    if (done) key += done / row;
    few_ahead_rows(b, values, x + (ptrdiff_t)key * stride, x + (ptrdiff_t)b->first * stride, stride, row,
                   key < end ? end - key : 0, skip, to);
}

/*
 * While scores of the tile at j0 are computed for head g, of which keys from `within` on: one head's keys some tiles
 * ahead, or, after the last one, its values; of several heads, which together exceed L1, the values of the whole turn.
 */
static void few_ahead_scores(const struct few_block *b, size_t j0, size_t g, size_t within,
                             struct few_ahead *to) {
    const struct attn_pool_task *t = b->t;
    const size_t bytes = few_near(b) ? FEW_NEAR_BYTES : FEW_FAR_BYTES;
    const size_t at = j0 + attn_max(bytes / b->k_bytes / ATTN_KEY_TILE, 1) * ATTN_KEY_TILE;
    if (b->turns)
        few_ahead_at(b, 1, b->first, b->end,
                     ((j0 - b->first) * t->heads + g * ATTN_KEY_TILE + within) * b->k_bytes, to);
    else if (at < b->end)
        few_ahead_at(b, 0, at, b->hi, within * b->k_bytes, to);
    else
        few_ahead_at(b, 1, b->first + (at - b->end), b->end, within * b->k_bytes, to);
}

/* While P V of keys [from, to) is computed for head g: one head's next values; after them, keys of the next turn. */
static void few_ahead_values(const struct few_block *b, size_t g, size_t from, size_t to,
                             struct few_ahead *ahead) {
    const size_t done = b->turns ? g * (b->end - b->first) + (from - b->first) : 0;
    if (!b->turns && to < b->end)
        few_ahead_at(b, 1, to, b->end, 0, ahead);
    else
        few_ahead_at(b, 0, b->end, attn_min(b->end + b->turn, b->hi), done * b->v_bytes, ahead);
}

#endif
