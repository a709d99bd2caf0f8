/* Pooling of few rows: values of the other types while they are read. */
#ifndef ATTN_FEW_VALUE_H
#define ATTN_FEW_VALUE_H

#include "typed.h"

ATTN_INLINE int few_is_block(attn_dtype type) { return type == ATTN_Q8_0 || type == ATTN_Q4_0; }

/* Bytes of 32 values of a block format. */
ATTN_INLINE int few_block_bytes(attn_dtype type) {
    return type == ATTN_Q8_0 ? (int)sizeof(struct attn_q8_0) : (int)sizeof(struct attn_q4_0);
}

/* Bytes of n values; n is a multiple of the block. */
ATTN_INLINE int few_bytes(attn_dtype type, int n) {
    return few_is_block(type) ? n * few_block_bytes(type) / 32 : n * (type == ATTN_F32 ? 4 : 2);
}

/* Where column c of a row is: of block formats its block. */
ATTN_INLINE size_t few_at(attn_dtype type, size_t c) {
    return few_is_block(type) ? c / 32 * (size_t)few_block_bytes(type) : c * (type == ATTN_F32 ? 4 : 2);
}

/* What the block at x is scaled by, in the form that few_scaled() wants. */
ATTN_INLINE vf32 few_scaling(attn_dtype type, const char *x) {
    const vf32 scale = v_f16_everywhere(x);
    return type == ATTN_Q8_0 ? scale : v_scaled4(scale);
}

/* VF32_N values of the block at x, from column `at` of its first or second half on. */
ATTN_INLINE vf32 few_scaled(attn_dtype type, const char *x, size_t at, int half, vf32 scaling) {
    if (type == ATTN_Q4_0)
        return v_load_scaled4(scaling, ((const struct attn_q4_0 *)(const void *)x)->q + at, half);
    return v_mul(scaling, v_load_i8(((const struct attn_q8_0 *)(const void *)x)->q + at + 16 * half));
}

/* Values [c, c + n) of a row, n <= VF32_N; c a multiple of VF32_N. */
ATTN_INLINE vf32 few_value(attn_dtype type, const char *row, size_t c, size_t n) {
    if (!few_is_block(type)) return typed_load_tail(type, row, c, n);
    row += few_at(type, c);
    return few_scaled(type, row, c % 16, c % 32 >= 16, few_scaling(type, row));
}

#endif
