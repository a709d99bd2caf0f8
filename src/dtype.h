/* The element types: their sizes, and ggml's blocks as they lie in memory. */
#ifndef ATTN_DTYPE_H
#define ATTN_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#include "attn/attn.h"

/* Block formats are `block` values in `bytes` bytes; the others are blocks of one value. */
struct attn_dtype_info {
    const char *name;
    uint32_t block, bytes;
    uint32_t align; /* of addresses and strides */
};

enum { ATTN_DTYPES = ATTN_Q4_1 + 1, ATTN_BLOCK_MAX = 256 };

extern const struct attn_dtype_info attn_dtype_table[ATTN_DTYPES];

static inline int attn_dtype_exists(attn_dtype type) { return (size_t)type < ATTN_DTYPES; }
static inline size_t attn_dtype_block(attn_dtype type) { return attn_dtype_table[type].block; }
static inline int attn_dtype_in_blocks(attn_dtype type) { return attn_dtype_block(type) > 1; }
static inline size_t attn_dtype_bytes(attn_dtype type) { return attn_dtype_table[type].bytes; }

/* Bytes of `n` values in a row; n is a multiple of the type's block. */
static inline size_t attn_dtype_row(attn_dtype type, size_t n) {
    return n / attn_dtype_block(type) * attn_dtype_bytes(type);
}

/*
 * ggml's blocks, byte for byte (ggml-common.h). d, m, dmin are binary16, q unsigned unless said:
 *
 *     q8_0  32 values: d * q_i, q signed
 *     q4_0  32 values: d * (q_i - 8); byte i has values i (low half) and i + 16
 *     q4_1  32 values: d * q_i + m; bytes as in q4_0
 *     Q4_K 256 values in 8 parts of 32: (d * scale) * q_i - (dmin * min). Scale and min of part p have 6 bits
 *          (attn_q4_k_part); bytes [32 p / 2, ..) hold parts p (low halves) and p + 1 of each pair
 *     Q6_K 256 values in 16 parts of 16: (d * scale) * (q_i - 32), scale signed. Of each half of 128 values, value
 *          32 a + l has its low 4 bits in ql[l + 32 (a % 2)] (a < 2: the low half) and its high 2 bits in
 *          qh[l] from bit 2 a on
 */
struct attn_q8_0 {
    uint16_t d;
    int8_t q[32];
};
struct attn_q4_0 {
    uint16_t d;
    uint8_t q[16];
};
struct attn_q4_1 {
    uint16_t d, m;
    uint8_t q[16];
};
struct attn_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t q[128];
};
struct attn_q6_k {
    uint8_t ql[128], qh[64];
    int8_t scales[16];
    uint16_t d;
};
_Static_assert(sizeof(struct attn_q8_0) == 34 && sizeof(struct attn_q4_0) == 18, "ggml's blocks");
_Static_assert(sizeof(struct attn_q4_1) == 20 && sizeof(struct attn_q4_k) == 144, "ggml's blocks");
_Static_assert(sizeof(struct attn_q6_k) == 210, "ggml's blocks");

/* The 6-bit scale and min of part p: of the first four parts in the low bits of bytes p and p + 4, of the others in the
 * halves of byte p + 4, their high bits above the first four's. */
static inline void attn_q4_k_part(const uint8_t scales[12], int p, int *scale, int *min) {
    if (p < 4) {
        *scale = scales[p] & 63;
        *min = scales[p + 4] & 63;
    } else {
        *scale = (scales[p + 4] & 15) | (scales[p - 4] >> 6 << 4);
        *min = scales[p + 4] >> 4 | (scales[p] >> 6 << 4);
    }
}

#endif
