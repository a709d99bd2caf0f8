/* Pooling of few rows, the kernels of P V. */
#ifndef ATTN_FEW_PV_H
#define ATTN_FEW_PV_H

#include "few_tile.h"

/* Passes of P V over n keys, one for each of `blocks` blocks of columns; rows of p and o are p_key and o_row apart. */
struct few_pass {
    size_t n, blocks;
    const char *v; /* of block formats: the block of the pass's first column, which is column `at` of it */
    size_t at;
    const float *p;
    ptrdiff_t v_row; /* bytes */
    size_t p_key, p_row, o_row;
    float *o;
    struct few_ahead *ahead;
};

/* o[g][c..] = fma(p[g][j], v[j][c..], o) for ascending j: `rows` rows x `cols` vectors of columns, or, where tail is not 0,
 * `tail` columns. Each step asks for `lines` lines. */
ATTN_INLINE void few_pv(const struct few_pass *w, int rows, int cols, size_t p_row, int lines, size_t tail) {
    vf32 a[FEW_PV_ROWS][FEW_PV_COLS];
    const ptrdiff_t v_row = w->v_row / (ptrdiff_t)sizeof(float);
    const float *v = typed_f32(w->v), *p = w->p;
    float *o = w->o;
    struct few_ahead ahead = *w->ahead;
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int c = 0; c < cols; c++) a[g][c] = v_load(o + (size_t)g * w->o_row + c * VF32_N);
    }
    ATTN_NO_UNROLL for (size_t j = 0; j < w->n; j++, v += v_row, p += w->p_key) {
        vf32 x[FEW_PV_COLS];
        if (lines) few_ask(&ahead, lines);
        ATTN_UNROLL for (int c = 0; c < cols; c++) x[c] =
            tail ? v_load_tail(v, tail) : v_load(v + c * VF32_N);
        ATTN_UNROLL for (int g = 0; g < rows; g++) {
            const vf32 e = v_set1(p[(size_t)g * p_row]);
            ATTN_UNROLL for (int c = 0; c < cols; c++) a[g][c] = v_fma(e, x[c], a[g][c]);
        }
    }
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int c = 0; c < cols; c++) v_store(o + (size_t)g * w->o_row + c * VF32_N, a[g][c]);
    }
    *w->ahead = ahead;
}

/* A pass over values of 16 bits, each converted once for all rows. */
ATTN_INLINE void few_pv_of(const struct few_pass *w, int rows, int cols, attn_dtype type, size_t p_row,
                           int asks, size_t tail) {
    vf32 a[FEW_PV_ROWS][FEW_PV_COLS];
    const int bytes = few_bytes(type, cols * VF32_N), whole = bytes / FEW_LINE;
    const char *v = w->v;
    const float *p = w->p;
    float *o = w->o;
    struct few_ahead ahead = *w->ahead;
    int due = 0;
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int c = 0; c < cols; c++) a[g][c] = v_load(o + (size_t)g * w->o_row + c * VF32_N);
    }
    ATTN_NO_UNROLL for (size_t j = 0; j < w->n; j++, v += w->v_row, p += w->p_key) {
        vf32 x[FEW_PV_COLS];
        if (asks) {
            if (whole) few_ask(&ahead, whole);
            if (bytes % FEW_LINE) due += bytes % FEW_LINE;
            if (bytes % FEW_LINE && due >= FEW_LINE) {
                due -= FEW_LINE;
                few_ask(&ahead, 1);
            }
        }
        ATTN_UNROLL for (int c = 0; c < cols; c++) x[c] =
            tail ? typed_load_tail(type, v, 0, tail) : typed_load(type, v, (size_t)c * VF32_N);
        ATTN_UNROLL for (int g = 0; g < rows; g++) {
            const vf32 e = v_set1(p[(size_t)g * p_row]);
            ATTN_UNROLL for (int c = 0; c < cols; c++) a[g][c] = v_fma(e, x[c], a[g][c]);
        }
    }
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int c = 0; c < cols; c++) v_store(o + (size_t)g * w->o_row + c * VF32_N, a[g][c]);
    }
    *w->ahead = ahead;
}

/* The same of block formats; half: of the blocks, where the columns are fewer than one. */
ATTN_INLINE void few_pv_blocks(const struct few_pass *w, int rows, int cols, attn_dtype type, int half,
                               size_t p_row, int asks) {
    enum { BLOCK = 32 / VF32_N };
    vf32 a[FEW_PV_ROWS][FEW_PV_COLS];
    const int bytes = few_bytes(type, cols * VF32_N);
    const size_t at = cols < BLOCK ? w->at % 16 : 0;
    const char *v = w->v;
    const float *p = w->p;
    float *o = w->o;
    struct few_ahead ahead = *w->ahead;
    int due = 0;
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int c = 0; c < cols; c++) a[g][c] = v_load(o + (size_t)g * w->o_row + c * VF32_N);
    }
    ATTN_NO_UNROLL for (size_t j = 0; j < w->n; j++, v += w->v_row, p += w->p_key) {
        vf32 x[FEW_PV_COLS], by = v_zero();
        if (asks && (due += bytes) >= FEW_LINE) {
            due -= FEW_LINE;
            few_ask(&ahead, 1);
            if (due >= FEW_LINE) due -= FEW_LINE, few_ask(&ahead, 1);
        }
        ATTN_UNROLL for (int c = 0; c < cols; c++) {
            const char *block = v + c / BLOCK * few_block_bytes(type);
            const int second = cols < BLOCK ? half : c % BLOCK >= BLOCK / 2;
            if (c % BLOCK == 0) by = few_scaling(type, block);
            x[c] = few_scaled(type, block, at + (size_t)(c % (BLOCK / 2) * VF32_N), second, by);
        }
        ATTN_UNROLL for (int g = 0; g < rows; g++) {
            const vf32 e = v_set1(p[(size_t)g * p_row]);
            ATTN_UNROLL for (int c = 0; c < cols; c++) a[g][c] = v_fma(e, x[c], a[g][c]);
        }
    }
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int c = 0; c < cols; c++) v_store(o + (size_t)g * w->o_row + c * VF32_N, a[g][c]);
    }
    *w->ahead = ahead;
}

/* ---- Variants -------------------------------------------------------------------------------------- */

/* To the next block of columns. */
ATTN_INLINE void few_pass_next(struct few_pass *w, attn_dtype type, int cols) {
    const size_t at = (few_is_block(type) ? w->at : 0) + (size_t)cols * VF32_N;
    w->v += few_at(type, at);
    w->at = at % 32;
    w->o += cols * VF32_N;
}

#define FEW_PV(rows, cols)                                                                \
    ATTN_NOINLINE void few_pv_##rows(const struct few_pass *all, int asks) {              \
        enum { R = (rows) <= FEW_PV_ROWS ? rows : 1, LINES = (cols)*VF32_N / ATTN_LINE }; \
        struct few_pass w = *all;                                                         \
        for (size_t i = 0; i < all->blocks; i++, few_pass_next(&w, ATTN_F32, cols)) {     \
            if (w.p_row == 1)                                                             \
                few_pv_lines(&w, R, cols, 1, asks, LINES);                                \
            else                                                                          \
                few_pv_lines(&w, R, cols, w.p_row, asks, LINES);                          \
        }                                                                                 \
    }                                                                                     \
    ATTN_NOINLINE void few_pv_tail_##rows(const struct few_pass *w, size_t tail) {        \
        few_pv(w, (rows) <= FEW_PV_ROWS ? rows : 1, 1, w->p_row, 0, tail);                \
    }
ATTN_INLINE void few_pv_lines(const struct few_pass *w, int rows, int cols, size_t p_row, int asks,
                              int lines) {
    if (asks == 2)
        few_pv(w, rows, cols, p_row, 2, 0);
    else if (asks)
        few_pv(w, rows, cols, p_row, lines, 0);
    else
        few_pv(w, rows, cols, p_row, 0, 0);
}
FEW_PV(1, FEW_PV_COLS)
FEW_PV(2, FEW_PV_COLS_2)
FEW_PV(4, FEW_PV_COLS_4)
FEW_PV(8, FEW_PV_COLS_8)

ATTN_INLINE void few_pv_typed(const struct few_pass *w, int rows, int cols, attn_dtype type, int asks,
                              size_t tail) {
    if (!few_is_block(type))
        few_pv_of(w, rows, cols, type, w->p_row, asks, tail);
    else if (cols * VF32_N < 32 && w->at >= 16)
        few_pv_blocks(w, rows, cols, type, 1, w->p_row, asks);
    else
        few_pv_blocks(w, rows, cols, type, 0, w->p_row, asks);
}
#define FEW_PV_TYPED(name, type, rows, cols)                                                \
    ATTN_NOINLINE void few_pv_##name##_##rows(const struct few_pass *all, int asks) {       \
        enum { R = (rows) <= FEW_PV_ROWS ? rows : 1 };                                      \
        struct few_pass w = *all;                                                           \
        for (size_t i = 0; i < all->blocks; i++, few_pass_next(&w, type, cols)) {           \
            if (asks)                                                                       \
                few_pv_typed(&w, R, cols, type, 1, 0);                                      \
            else                                                                            \
                few_pv_typed(&w, R, cols, type, 0, 0);                                      \
        }                                                                                   \
    }                                                                                       \
    ATTN_NOINLINE void few_pv_tail_##name##_##rows(const struct few_pass *w, size_t tail) { \
        few_pv_typed(w, (rows) <= FEW_PV_ROWS ? rows : 1, 1, type, 0, tail);                \
    }
#define FEW_PV_TYPE(name, type)                \
    FEW_PV_TYPED(name, type, 1, FEW_PV_COLS)   \
    FEW_PV_TYPED(name, type, 2, FEW_PV_COLS_2) \
    FEW_PV_TYPED(name, type, 4, FEW_PV_COLS_4) \
    FEW_PV_TYPED(name, type, 8, FEW_PV_COLS_8)
FEW_PV_TYPE(f16, ATTN_F16)
FEW_PV_TYPE(bf16, ATTN_BF16)
FEW_PV_TYPE(q8_0, ATTN_Q8_0)
FEW_PV_TYPE(q4_0, ATTN_Q4_0)

#define FEW_PV_ROWS_OF(name)        \
    switch (rows) {                 \
    case 1: name##_1(w, n); break;  \
    case 2: name##_2(w, n); break;  \
    case 4: name##_4(w, n); break;  \
    default: name##_8(w, n); break; \
    }
#define FEW_PV_DISPATCH(name)                          \
    switch (type) {                                    \
    case ATTN_F16: FEW_PV_ROWS_OF(name##_f16) break;   \
    case ATTN_BF16: FEW_PV_ROWS_OF(name##_bf16) break; \
    case ATTN_Q8_0: FEW_PV_ROWS_OF(name##_q8_0) break; \
    case ATTN_Q4_0: FEW_PV_ROWS_OF(name##_q4_0) break; \
    default: FEW_PV_ROWS_OF(name) break;               \
    }
/* n: 1: it asks for as much as it reads, 2: for two lines of a row; columns of the tail. */
static void few_pass_of(attn_dtype type, size_t rows, const struct few_pass *w, int n) {
    FEW_PV_DISPATCH(few_pv)
}
static void few_tail_of(attn_dtype type, size_t rows, const struct few_pass *w, size_t n) {
    FEW_PV_DISPATCH(few_pv_tail)
}

#endif
