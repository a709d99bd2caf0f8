/* NEON: values of the other types to vectors of f32 and back. Same names and semantics in every ISA folder. */
#ifndef ATTN_LOAD_H
#define ATTN_LOAD_H

#include "vec.h"

#include <stdint.h>
#include <string.h>

/* n <= 4 values of two bytes, then zeros. */
ATTN_INLINE uint16x4_t v_load_u16_tail(const uint16_t *p, size_t n) {
    uint16_t x[VF32_N] = {0};
    memcpy(x, p, n * sizeof *x);
    return vld1_u16(x);
}
ATTN_INLINE void v_store_u16_tail(uint16_t *p, uint16x4_t x, size_t n) {
    uint16_t to[VF32_N];
    vst1_u16(to, x);
    memcpy(p, to, n * sizeof *to);
}

/* VF32_N values, or n of them (the lanes from n on are 0), exactly. */
ATTN_INLINE vf32 v_load_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
ATTN_INLINE vf32 v_load_f16_tail(const uint16_t *p, size_t n) {
    return vcvt_f32_f16(vreinterpret_f16_u16(v_load_u16_tail(p, n)));
}
ATTN_INLINE vf32 v_load_bf16(const uint16_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
ATTN_INLINE vf32 v_load_bf16_tail(const uint16_t *p, size_t n) {
    return vreinterpretq_f32_u32(vshll_n_u16(v_load_u16_tail(p, n), 16));
}

/* Rounded to nearest even; a NaN stays one, quiet. */
ATTN_INLINE void v_store_f16(uint16_t *p, vf32 x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))); }
ATTN_INLINE void v_store_f16_tail(uint16_t *p, vf32 x, size_t n) {
    v_store_u16_tail(p, vreinterpret_u16_f16(vcvt_f16_f32(x)), n);
}
ATTN_INLINE uint16x4_t v_f32_to_bf16(vf32 x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t even = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t up = vaddq_u32(bits, vaddq_u32(even, vdupq_n_u32(0x7fff)));
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), up, quiet), 16);
}
ATTN_INLINE void v_store_bf16(uint16_t *p, vf32 x) { vst1_u16(p, v_f32_to_bf16(x)); }
ATTN_INLINE void v_store_bf16_tail(uint16_t *p, vf32 x, size_t n) {
    v_store_u16_tail(p, v_f32_to_bf16(x), n);
}

/* Four bytes, as the low ones of 16 bits each. */
ATTN_INLINE uint8x8_t v_load_u8x4(const void *p) {
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return vreinterpret_u8_u32(vdup_n_u32(x));
}
/* VF32_N signed bytes; the low or the high halves of VF32_N bytes, from 0 to 15. */
ATTN_INLINE vf32 v_load_i8(const int8_t *p) {
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(v_load_u8x4(p))))));
}
ATTN_INLINE vf32 v_u8_to_f32(uint8x8_t x) { return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(x)))); }
ATTN_INLINE vf32 v_load_low4(const uint8_t *p) { return v_u8_to_f32(vand_u8(v_load_u8x4(p), vdup_n_u8(15))); }
ATTN_INLINE vf32 v_load_high4(const uint8_t *p) { return v_u8_to_f32(vshr_n_u8(v_load_u8x4(p), 4)); }

/* What the 16 values of four bits less 8 become when they are scaled (here: the scale); VF32_N of them, of the low or high
 * halves of bytes. */
ATTN_INLINE vf32 v_scaled4(vf32 scale) { return scale; }
ATTN_INLINE vf32 v_load_scaled4(vf32 scaled, const uint8_t *p, int high) {
    return v_mul(v_sub(high ? v_load_high4(p) : v_load_low4(p), v_set1(8.0f)), scaled);
}

/* The binary16 at p, of which eight bytes may be read, in every lane. */
ATTN_INLINE vf32 v_f16_everywhere(const void *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_dup_u16((const uint16_t *)p)));
}
/* One binary16. */
ATTN_INLINE float v_f16(uint16_t x) {
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(x))), 0);
}
ATTN_INLINE uint16_t v_to_f16(float x) {
    return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(x))), 0);
}

#endif
