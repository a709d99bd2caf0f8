/* Attention pooling: keys and values of another type, in pages or panels, or (values) in rows far apart, become rows of f32. */
#ifndef ATTN_POOL_CONVERT_H
#define ATTN_POOL_CONVERT_H

#include "convert_body.h"
#include "pool_gather.h"

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

static void pool_gather_v(struct pool_gather *g, size_t j, size_t end) {
    const struct attn_pool_task *t = g->t;
    while (j < end) {
        const size_t n = attn_min(end - j, attn_keys_left(t, j));
        pool_convert_rows(t->v_type, t->v + attn_v_offset(t, j), t->v_row, n, t->d_v,
                          g->v + (j - g->from) * g->v_row, g->v_row);
        j += n;
    }
}

#endif
