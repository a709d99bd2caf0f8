/*
 * Rotary position embedding over v_* and v64_* operations.
 *
 * A row of the table, for pairs (2i, 2i + 1): [2 n_padded] cos, each twice, then [2 n_padded] -sin sin of each pair,
 * so that a vector of columns turns without a shuffle but the swap of neighbours. For pairs (i, i + n): [n_padded]
 * cos, [n_padded] sin, [n_padded] -sin, and as much that is not used.
 */
#ifndef ATTN_ROPE_BODY_H
#define ATTN_ROPE_BODY_H

/* sin and cos of 2 pi t, where t = position * (hi + lo) without its whole turns: the product with hi is kept whole
 * in two parts, its turns are taken off the first one, which is exact, and the others are small. */
ATTN_INLINE void rope_sincos(vf64 position, vf64 hi, vf64 lo, vf64 *sin, vf64 *cos) {
    const vf64 p = v64_mul(position, hi), rest = v64_fms(position, hi, p);
    const vf64 t = v64_add(v64_sub(p, v64_round(p)), v64_fma(position, lo, rest));
    v64_sincospi(v64_add(t, t), sin, cos);
}

static void rope_table_body(const struct attn_rope_table_task *task) {
    const struct attn_rope_table_task t = *task;
    const vf64 magnitude = v64_set1(t.magnitude), minus = v64_set1(-t.magnitude);
    for (size_t r = 0; r < t.n_rows; r++) {
        const int64_t at = t.first + (t.positions ? t.positions[r] : (int64_t)r);
        const vf64 position = v64_set1((double)at);
        float *row = t.table + r * 4 * t.n_padded;
        for (size_t i = 0; i < t.n_padded; i += VF64_N) {
            vf64 sin, cos;
            rope_sincos(position, v64_load(t.turns_hi + i), v64_load(t.turns_lo + i), &sin, &cos);
            cos = v64_mul(cos, magnitude);
            if (t.interleaved) {
                v64_store_pairs(row + 2 * i, cos, cos);
                v64_store_pairs(row + 2 * t.n_padded + 2 * i, v64_mul(sin, minus), v64_mul(sin, magnitude));
            } else {
                v64_store_f32(row + i, cos);
                v64_store_f32(row + t.n_padded + i, v64_mul(sin, magnitude));
                v64_store_f32(row + 2 * t.n_padded + i, v64_mul(sin, minus));
            }
        }
    }
}

ATTN_INLINE vf32 rope_neighbours(vf32 x, vf32 cos, vf32 sin) {
    return v_fma(v_swap(x, 1), sin, v_mul(x, cos));
}

ATTN_INLINE void rope_row_interleaved(const struct attn_rope_task *t, const float *x, float *y,
                                      const float *cos) {
    const float *sin = cos + 2 * t->n_padded;
    const size_t n = 2 * t->n, whole = n - n % VF32_N;
    for (size_t i = 0; i < whole; i += VF32_N)
        v_store(y + i, rope_neighbours(v_load(x + i), v_load(cos + i), v_load(sin + i)));
    if (whole < n)
        v_store_tail(
            y + whole,
            rope_neighbours(v_load_tail(x + whole, n - whole), v_load(cos + whole), v_load(sin + whole)),
            n - whole);
}

ATTN_INLINE void rope_row_split(const struct attn_rope_task *t, const float *x, float *y, const float *cos) {
    const float *sin = cos + t->n_padded, *minus = sin + t->n_padded;
    const size_t n = t->n, whole = n - n % VF32_N, left = n - whole;
    for (size_t i = 0; i < whole; i += VF32_N) {
        const vf32 x0 = v_load(x + i), x1 = v_load(x + n + i), c = v_load(cos + i);
        v_store(y + i, v_fma(x1, v_load(minus + i), v_mul(x0, c)));
        v_store(y + n + i, v_fma(x0, v_load(sin + i), v_mul(x1, c)));
    }
    if (left) {
        const vf32 x0 = v_load_tail(x + whole, left), x1 = v_load_tail(x + n + whole, left);
        const vf32 c = v_load(cos + whole);
        v_store_tail(y + whole, v_fma(x1, v_load(minus + whole), v_mul(x0, c)), left);
        v_store_tail(y + n + whole, v_fma(x0, v_load(sin + whole), v_mul(x1, c)), left);
    }
}

ATTN_INLINE void rope_copy(const float *x, float *y, size_t n) {
    const size_t whole = n - n % VF32_N;
    for (size_t i = 0; i < whole; i += VF32_N) v_store(y + i, v_load(x + i));
    v_store_tail(y + whole, v_load_tail(x + whole, n - whole), n - whole);
}

ATTN_INLINE void rope_rows(const struct attn_rope_task *t, int interleaved) {
    /* Along memory: the loop with the smaller stride is the inner one. */
    const size_t x_head = (size_t)(t->x_head < 0 ? -t->x_head : t->x_head),
                 x_row = (size_t)(t->x_row < 0 ? -t->x_row : t->x_row);
    const int heads_inside = x_head < x_row;
    const size_t n_outer = heads_inside ? t->n_rows : t->n_head,
                 n_inner = heads_inside ? t->n_head : t->n_rows;
    for (size_t i = 0; i < n_outer; i++)
        for (size_t j = 0; j < n_inner; j++) {
            const size_t r = heads_inside ? i : j;
            const ptrdiff_t row = (ptrdiff_t)r, head = (ptrdiff_t)(heads_inside ? j : i);
            const float *x = t->x + row * t->x_row + head * t->x_head;
            const float *table = t->table + r * 4 * t->n_padded;
            float *y = t->y + row * t->y_row + head * t->y_head;
            if (interleaved)
                rope_row_interleaved(t, x, y, table);
            else
                rope_row_split(t, x, y, table);
            if (x != y && t->columns > 2 * t->n) rope_copy(x + 2 * t->n, y + 2 * t->n, t->columns - 2 * t->n);
        }
}

static void rope_body(const struct attn_rope_task *task) {
    const struct attn_rope_task t = *task;
    if (t.interleaved)
        rope_rows(&t, 1);
    else
        rope_rows(&t, 0);
}

#endif
