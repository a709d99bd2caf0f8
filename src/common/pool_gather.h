/*
 * Attention pooling: keys and values that the kernels cannot read where they lie, because they are of another type, or in
 * pages or panels, or (values) in rows far apart. They become rows of f32 in scratch, a section of keys at a time, which
 * stays in the second-level cache while all blocks of the task use it, and a tile of it when the first block comes to it: so
 * nothing is read that no row sees.
 */
#ifndef ATTN_POOL_GATHER_H
#define ATTN_POOL_GATHER_H

#include "convert_body.h"
#include "pool_rows.h"

struct pool_gather {
    const struct attn_pool_task *t; /* with all its blocks */
    size_t lo, hi;                  /* keys that some of its rows may see */
    int keys, values;               /* which are gathered; the others are read where they lie */
    size_t from;                    /* the section's first key; SIZE_MAX: none yet */
    uint64_t k_there, v_there;      /* a bit for each tile of the section */
    float *k, *v;                   /* row of key j: j - from */
    size_t k_row, v_row;            /* floats */
};

/* Floats of a gathered row: a line more than it has, so that rows of usual lengths do not share sets of the cache. */
static size_t pool_gather_row(size_t d) { return (d + ATTN_LINE - 1) / ATTN_LINE * ATTN_LINE + ATTN_LINE; }

/* Keys of a section: at most 384 KiB, if that leaves some tiles. */
static size_t pool_gather_keys(size_t d_k, size_t d_v) {
    size_t n = POOL_KEYS;
    while (n > 4 * ATTN_KEY_TILE && n * (d_k + d_v) > 3 << 15) n /= 2;
    return n;
}

static int pool_gathers_keys(const struct attn_pool_task *t) {
    return t->k_type != ATTN_F32 || t->pages || t->panels;
}
static int pool_gathers_values(const struct attn_pool_task *t) {
    return t->v_type != ATTN_F32 || t->pages || (POOL_COPIES && t->v_row != 0 && t->v_row % ATTN_FAR == 0);
}

ATTN_INLINE void pool_copy_row(const float *from, size_t n, float *to) {
    size_t c = 0;
    for (; c + VF32_N <= n; c += VF32_N) v_store(to + c, v_load(from + c));
    if (c < n) v_store_tail(to + c, v_load_tail(from + c, n - c), n - c);
}

/* `rows` rows of n values, `row` bytes apart, to rows of `to_row` floats. */
static void pool_convert_rows(attn_dtype type, const char *from, ptrdiff_t row, size_t rows, size_t n,
                              float *to, size_t to_row) {
#define POOL_CONVERT(call) \
    for (size_t i = 0; i < rows; i++, from += row, to += to_row) call
    switch (type) {
    case ATTN_F16: POOL_CONVERT(convert_f16(typed_u16(from), n, to)); break;
    case ATTN_BF16: POOL_CONVERT(convert_bf16(typed_u16(from), n, to)); break;
    case ATTN_Q8_0: POOL_CONVERT(convert_q8_0(from, n, to)); break;
    case ATTN_Q4_0: POOL_CONVERT(convert_q4_0(from, n, to)); break;
    default: POOL_CONVERT(pool_copy_row(typed_f32(from), n, to)); break;
    }
#undef POOL_CONVERT
}

/* The panel of 16 keys at x, transposed to rows. */
static void pool_unpanel(attn_dtype type, const char *x, size_t d_k, float *to, size_t row) {
    for (size_t at = 0; at < ATTN_KEY_TILE; at += VF32_N, to += VF32_N * row) {
        for (size_t d = 0; d < d_k; d += VF32_N) {
            const size_t n = attn_min(d_k - d, VF32_N);
            vf32 r[VF32_N];
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) r[i] =
                i < n ? typed_load(type, x, (d + i) * ATTN_KEY_TILE + at) : v_zero();
            v_transpose(r);
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) v_store_tail(to + i * row + d, r[i], n);
        }
    }
}

/* Keys [j, end) of one tile to the rows of `to` from j - from on. */
static void pool_gather_k(const struct attn_pool_task *t, size_t j, size_t end, size_t from, float *to,
                          size_t row) {
    if (t->panels) {
        const size_t j0 = j - j % ATTN_KEY_TILE;
        pool_unpanel(t->k_type, t->k + attn_k_offset(t, j0), t->d_k, to + (j0 - from) * row, row);
        return;
    }
    while (j < end) {
        const size_t n = attn_min(end - j, attn_keys_left(t, j));
        pool_convert_rows(t->k_type, t->k + attn_k_offset(t, j), t->k_row, n, t->d_k, to + (j - from) * row,
                          row);
        j += n;
    }
}

static void pool_gather_v(const struct attn_pool_task *t, size_t j, size_t end, size_t from, float *to,
                          size_t row) {
    while (j < end) {
        const size_t n = attn_min(end - j, attn_keys_left(t, j));
        pool_convert_rows(t->v_type, t->v + attn_v_offset(t, j), t->v_row, n, t->d_v, to + (j - from) * row,
                          row);
        j += n;
    }
}

/* The section that begins at key `from`. */
static void pool_gather_begin(struct pool_gather *g, size_t from) {
    if (g->from == from) return;
    g->from = from;
    g->k_there = g->v_there = 0;
}

/* The keys of the tile at j0 are there. */
ATTN_INLINE void pool_gather_tile(struct pool_gather *g, size_t j0) {
    const uint64_t bit = (uint64_t)1 << (j0 - g->from) / ATTN_KEY_TILE;
    if (!g->keys || g->k_there & bit) return;
    g->k_there |= bit;
    pool_gather_k(g->t, attn_max(j0, g->lo), attn_min(j0 + ATTN_KEY_TILE, g->hi), g->from, g->k, g->k_row);
}

/* The values of keys [j, j + n) are there. */
static void pool_gather_values(struct pool_gather *g, size_t j, size_t n) {
    for (size_t j0 = j - j % ATTN_KEY_TILE; g->values && j0 < j + n; j0 += ATTN_KEY_TILE) {
        const uint64_t bit = (uint64_t)1 << (j0 - g->from) / ATTN_KEY_TILE;
        if (g->v_there & bit) continue;
        g->v_there |= bit;
        pool_gather_v(g->t, attn_max(j0, g->lo), attn_min(j0 + ATTN_KEY_TILE, g->hi), g->from, g->v,
                      g->v_row);
    }
}

#endif
