/* Pooling of few rows, the kernels of scores of block formats. */
#ifndef ATTN_FEW_BLOCKS_H
#define ATTN_FEW_BLOCKS_H

#include "few_tile.h"

/* What v_byte() gives too much. */
#define FEW_BYTE_DOWN 0x1p-24f

/* Whether two vectors of keys are taken at once: of one row's sums each waits for the one before. */
ATTN_INLINE int few_pairs(size_t rows, attn_dtype type) { return rows <= FEW_PAIRS && few_is_block(type); }

/* Quants of four columns, a byte each: x is what is stored of them, as high or low halves (q4_0). */
ATTN_INLINE vbytes few_four(attn_dtype type, vbytes x, int high) {
    if (type == ATTN_Q8_0) return x;
    return v_bytes_minus(high ? v_bytes_high(x) : v_bytes_low(x), 8);
}

/* Of a block of `tiles` vectors of keys. 16 bytes of each key are transposed as lanes of four. */
ATTN_INLINE void few_columns_block(int rows, int tiles, attn_dtype type, const char *k, ptrdiff_t k_row,
                                   const float *q, struct few_ahead *ahead, vf32 a[2][FEW_ROWS]) {
    vf32 by[2];
    vbytes x[2][4];
    ATTN_UNROLL for (int t = 0; t < tiles; t++) by[t] =
        v_mul(v_rows_f16(k + t * VF32_N * k_row, k_row), v_set1(FEW_BYTE_DOWN));
    ATTN_UNROLL for (int i = 0; i < 8; i++) { /* four columns each */
        ATTN_UNROLL for (int t = 0; t < tiles; t++) {
            if (i == 0 || (type == ATTN_Q8_0 && i == 4))
                v_rows_quads(k + t * VF32_N * k_row + 2 + 4 * i, k_row, x[t]);
        }
        few_ask_of(ahead, tiles * VF32_N * few_block_bytes(type), i, 8);
        ATTN_FENCE();
        ATTN_UNROLL for (int c = 0; c < 4; c++) {
            const float *qi = q + (i * 4 + c) * rows;
            ATTN_UNROLL for (int t = 0; t < tiles; t++) {
                const vf32 y = v_mul(by[t], v_byte(few_four(type, x[t][i % 4], i >= 4), c));
                ATTN_UNROLL for (int g = 0; g < rows; g++) a[t][g] = v_fma(v_set1(qi[g]), y, a[t][g]);
            }
        }
    }
}

/* Of `tiles` vectors of keys. */
ATTN_INLINE void few_columns_tiles(int rows, int tiles, attn_dtype type, const struct few_scores *w) {
    struct few_ahead ahead = w->ahead;
    const char *k = w->k;
    const float *q = w->q;
    vf32 a[2][FEW_ROWS];
    ATTN_UNROLL for (int t = 0; t < tiles; t++) {
        ATTN_UNROLL for (int g = 0; g < rows; g++) a[t][g] = v_zero();
    }
    for (size_t d = 0; d < w->d_k; d += 32, k += few_block_bytes(type), q += 32 * rows)
        few_columns_block(rows, tiles, type, k, w->k_row, q, &ahead, a);
    ATTN_UNROLL for (int t = 0; t < tiles; t++) {
        ATTN_UNROLL for (int g = 0; g < rows; g++) v_store(w->s + (size_t)g * w->s_row + t * VF32_N, a[t][g]);
    }
}

/* Of n keys: VF32_N or, where few_pairs() says so, twice as many. */
ATTN_INLINE void few_columns_blocks(int rows, attn_dtype type, const struct few_scores *w) {
    if (few_pairs(rows, type) && w->n > VF32_N)
        few_columns_tiles(rows, 2, type, w);
    else
        few_columns_tiles(rows, 1, type, w);
}

/* ---- Variants -------------------------------------------------------------------------------------- */

#define FEW_BLOCKS(rows, r)                                                  \
    ATTN_NOINLINE void few_columns_q8_0_##rows(const struct few_scores *w) { \
        few_columns_blocks(r, ATTN_Q8_0, w);                                 \
    }                                                                        \
    ATTN_NOINLINE void few_columns_q4_0_##rows(const struct few_scores *w) { \
        few_columns_blocks(r, ATTN_Q4_0, w);                                 \
    }
FEW_BLOCKS(1, 1)
FEW_BLOCKS(2, 2)
FEW_BLOCKS(3, 3)
FEW_BLOCKS(4, 4)
FEW_BLOCKS(5, FEW_ROWS_OR(5))
FEW_BLOCKS(6, FEW_ROWS_OR(6))
FEW_BLOCKS(7, FEW_ROWS_OR(7))
FEW_BLOCKS(8, FEW_ROWS_OR(8))

#endif
