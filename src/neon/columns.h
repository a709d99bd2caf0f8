/* NEON: columns of VF32_N rows. Same names and semantics in every ISA folder; tests/vec checks each one. */
#ifndef ATTN_COLUMNS_H
#define ATTN_COLUMNS_H

#include "load.h"

enum { VF32_COLUMNS = 4 };
typedef uint16x8_t vcolumns; /* two columns of values of 16 bits */

/* x[i]: column i of VF32_N rows of floats, `row` bytes apart. */
ATTN_INLINE void v_load_columns(const char *p, ptrdiff_t row, vf32 x[VF32_COLUMNS]) {
    ATTN_UNROLL for (int i = 0; i < 4; i++) x[i] = v_load((const float *)(const void *)(p + i * row));
    v_transpose(x);
}

/* y[i]: columns 2i and 2i + 1 of VF32_N rows. */
ATTN_INLINE void v_load_columns_f16(const char *p, ptrdiff_t row, vcolumns y[VF32_COLUMNS]) {
    uint16x8_t r[4];
    ATTN_UNROLL for (int i = 0; i < 4; i++) r[i] = vld1q_u16((const uint16_t *)(const void *)(p + i * row));
    const uint16x8_t even = vzip1q_u16(r[0], r[2]), odd = vzip1q_u16(r[1], r[3]);
    const uint16x8_t even4 = vzip2q_u16(r[0], r[2]), odd4 = vzip2q_u16(r[1], r[3]);
    y[0] = vzip1q_u16(even, odd);
    y[1] = vzip2q_u16(even, odd);
    y[2] = vzip1q_u16(even4, odd4);
    y[3] = vzip2q_u16(even4, odd4);
}
ATTN_INLINE vf32 v_column_f16(vcolumns y, int second) {
    return vcvt_f32_f16(vreinterpret_f16_u16(second ? vget_high_u16(y) : vget_low_u16(y)));
}

ATTN_INLINE void v_load_columns_bf16(const char *p, ptrdiff_t row, vcolumns y[VF32_COLUMNS]) {
    v_load_columns_f16(p, row, y);
}
ATTN_INLINE vf32 v_column_bf16(vcolumns y, int second) {
    return vreinterpretq_f32_u32(vshll_n_u16(second ? vget_high_u16(y) : vget_low_u16(y), 16));
}

#endif
