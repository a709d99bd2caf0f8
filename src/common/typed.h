/* Values of rows of f32, f16 or bf16 to vectors of f32 and back. The type is a constant in loops that matter. */
#ifndef ATTN_TYPED_H
#define ATTN_TYPED_H

#include "dtype.h"

ATTN_INLINE const float *typed_f32(const void *p) { return (const float *)p; }
ATTN_INLINE const uint16_t *typed_u16(const void *p) { return (const uint16_t *)p; }

/* VF32_N values from column `at` on. */
ATTN_INLINE vf32 typed_load(attn_dtype type, const void *row, size_t at) {
    if (type == ATTN_F16) return v_load_f16(typed_u16(row) + at);
    if (type == ATTN_BF16) return v_load_bf16(typed_u16(row) + at);
    return v_load(typed_f32(row) + at);
}

/* Exactly n of them, then zeros. */
ATTN_INLINE vf32 typed_load_tail(attn_dtype type, const void *row, size_t at, size_t n) {
    if (type == ATTN_F16) return v_load_f16_tail(typed_u16(row) + at, n);
    if (type == ATTN_BF16) return v_load_bf16_tail(typed_u16(row) + at, n);
    return v_load_tail(typed_f32(row) + at, n);
}

/* Rounded to nearest even. */
ATTN_INLINE void typed_store(attn_dtype type, void *row, size_t at, vf32 x) {
    if (type == ATTN_F16)
        v_store_f16((uint16_t *)row + at, x);
    else if (type == ATTN_BF16)
        v_store_bf16((uint16_t *)row + at, x);
    else
        v_store((float *)row + at, x);
}
ATTN_INLINE void typed_store_tail(attn_dtype type, void *row, size_t at, vf32 x, size_t n) {
    if (type == ATTN_F16)
        v_store_f16_tail((uint16_t *)row + at, x, n);
    else if (type == ATTN_BF16)
        v_store_bf16_tail((uint16_t *)row + at, x, n);
    else
        v_store_tail((float *)row + at, x, n);
}

#endif
