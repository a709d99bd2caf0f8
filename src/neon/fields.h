/* NEON: the integers of packed weights (src/weights.h) to vectors of f32. Same names and semantics in every ISA folder. */
#ifndef ATTN_FIELDS_H
#define ATTN_FIELDS_H

#include "attn/attn.h"
#include "load.h"

/* VF32_N lanes of 32 bits, or of four bytes each. */
typedef uint32x4_t vbytes;

ATTN_INLINE vbytes v_bytes(const void *p) { return vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)p)); }

/* One vector of pairs of bf16: the first values, the second ones. */
ATTN_INLINE vf32 v_load_bf16_first(const void *p) {
    return vreinterpretq_f32_u32(vshlq_n_u32(v_bytes(p), 16));
}
ATTN_INLINE vf32 v_load_bf16_second(const void *p) {
    return vreinterpretq_f32_u32(vandq_u32(v_bytes(p), vdupq_n_u32(0xffff0000u)));
}

ATTN_INLINE vbytes v_bytes_mask(vbytes x, uint8_t mask) {
    return vandq_u32(x, vreinterpretq_u32_u8(vdupq_n_u8(mask)));
}
/* Of each byte: its low or high half; bits 2j and 2j + 1 as bits 4 and 5 (j in [0, 4), a constant). */
ATTN_INLINE vbytes v_bytes_low(vbytes x) { return v_bytes_mask(x, 15); }
ATTN_INLINE vbytes v_bytes_high(vbytes x) {
    return vreinterpretq_u32_u8(vshrq_n_u8(vreinterpretq_u8_u32(x), 4));
}
ATTN_INLINE vbytes v_bytes_two(vbytes x, int j) {
    switch (j) {
    case 0: return v_bytes_mask(vshlq_n_u32(x, 4), 0x30);
    case 1: return v_bytes_mask(vshlq_n_u32(x, 2), 0x30);
    case 2: return v_bytes_mask(x, 0x30);
    default: return v_bytes_mask(vshrq_n_u32(x, 2), 0x30);
    }
}
ATTN_INLINE vbytes v_bytes_or(vbytes a, vbytes b) { return vorrq_u32(a, b); }
ATTN_INLINE vbytes v_bytes_minus(vbytes x, int by) {
    return vreinterpretq_u32_u8(vsubq_u8(vreinterpretq_u8_u32(x), vdupq_n_u8((uint8_t)by)));
}

/* Byte j of each lane (signed; j a constant) times 2^24, exactly. */
ATTN_INLINE vf32 v_byte(vbytes x, int j) {
    const uint32_t a = 0x00ffffffu + ((uint32_t)j << 24); /* the lower bytes: beyond the table, 0 */
    const uint32x4_t to_top = {a, a + 0x04000000u, a + 0x08000000u, a + 0x0c000000u};
    const uint8x16_t y = vqtbl1q_u8(vreinterpretq_u8_u32(x), vreinterpretq_u8_u32(to_top));
    return vcvtq_f32_s32(vreinterpretq_s32_u8(y));
}
/* Of VF32_N rows `row` bytes apart: the binary16 at the start of each. */
ATTN_INLINE vf32 v_rows_f16(const char *p, ptrdiff_t row) {
    uint16x4_t x = vld1_dup_u16((const uint16_t *)(const void *)p);
    x = vld1_lane_u16((const uint16_t *)(const void *)(p + row), x, 1);
    x = vld1_lane_u16((const uint16_t *)(const void *)(p + 2 * row), x, 2);
    x = vld1_lane_u16((const uint16_t *)(const void *)(p + 3 * row), x, 3);
    return vcvt_f32_f16(vreinterpret_f16_u16(x));
}
/* Of such rows 16 bytes: x[i] has bytes 4 i to 4 i + 3, a row a lane. */
ATTN_INLINE void v_rows_quads(const char *p, ptrdiff_t row, vbytes x[4]) {
    vf32 r[4];
    ATTN_UNROLL for (int i = 0; i < 4; i++) r[i] = vreinterpretq_f32_u32(v_bytes(p + i * row));
    v_transpose(r);
    ATTN_UNROLL for (int i = 0; i < 4; i++) x[i] = vreinterpretq_u32_f32(r[i]);
}

/* Each lane shifted right and masked. */
ATTN_INLINE vbytes v_lane_bits(vbytes x, int shift, uint32_t mask) {
    return vandq_u32(vshlq_u32(x, vdupq_n_s32(-shift)), vdupq_n_u32(mask));
}
ATTN_INLINE vbytes v_lane_up4(vbytes x) { return vshlq_n_u32(x, 4); }
/* Lanes of numbers below 2^24 to f32, exactly. */
ATTN_INLINE vf32 v_lane_f32(vbytes x) { return vcvtq_f32_u32(x); }

#endif
