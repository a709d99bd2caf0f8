/*
 * Packed weights of block formats (src/weights.h), unit by unit. A unit is what shares a scale: 32 values of an output, 16 of
 * Q6_K. A quad is four values of it, the bytes of one vector.
 */
#ifndef ATTN_TYPES_H
#define ATTN_TYPES_H

#define TYPES_DOWN 0x1p-24f

/* What the functions below need to know of a block: its address and the panel's width. */
struct types_block {
    const uint8_t *at;
    size_t width;
};

ATTN_INLINE int types_unit(int type) { return type == ATTN_Q6_K ? 16 : 32; }
ATTN_INLINE int types_block_values(int type) { return type == ATTN_Q4_K || type == ATTN_Q6_K ? 256 : 32; }
ATTN_INLINE int types_block_bytes(int type) {
    switch (type) {
    case ATTN_Q8_0: return 34;
    case ATTN_Q4_0: return 18;
    case ATTN_Q4_1: return 20;
    case ATTN_Q4_K: return 144;
    default: return 210;
    }
}

/* Of VF32_N outputs from `column` on: an array of two or four bytes each, `at` bytes an output into the block. */
ATTN_INLINE vf32 types_halves(const struct types_block *b, size_t at, size_t column) {
    return v_load_f16((const uint16_t *)(const void *)(b->at + at * b->width + 2 * column));
}
ATTN_INLINE const uint8_t *types_lanes(const struct types_block *b, size_t at, size_t column) {
    return b->at + at * b->width + 4 * column;
}

/* The unit's scale times `down`, a power of two, and what is added (Q4_K, q4_1). */
ATTN_INLINE void types_scale(int type, const struct types_block *b, size_t column, int unit, float down,
                             vf32 *d, vf32 *m) {
    vf32 scale = types_halves(b, 0, column);
    if (down != 1.0f) scale = v_mul(scale, v_set1(down));
    *m = v_zero();
    if (type == ATTN_Q4_1) *m = types_halves(b, 2, column);
    if (type == ATTN_Q4_K) {
        const vbytes rest = v_bytes(types_lanes(b, 12, column));
        const vbytes s = v_bytes_or(v_lane_bits(v_bytes(types_lanes(b, 4, column)), 4 * unit, 15),
                                    v_lane_up4(v_lane_bits(rest, 2 * unit, 3)));
        const vbytes n = v_bytes_or(v_lane_bits(v_bytes(types_lanes(b, 8, column)), 4 * unit, 15),
                                    v_lane_up4(v_lane_bits(rest, 2 * unit + 16, 3)));
        scale = v_mul(scale, v_lane_f32(s));
        *m = v_sub(v_set1(-0.0f), v_mul(types_halves(b, 2, column), v_lane_f32(n)));
    }
    if (type == ATTN_Q6_K) { /* bytes that lie as quads do; the part's one moves to the bottom */
        const vbytes s =
            v_lane_bits(v_bytes(types_lanes(b, 2 + (size_t)(unit / 4 * 4), column)), unit % 4 * 8, 255);
        scale = v_mul(v_mul(scale, v_set1(TYPES_DOWN)), v_byte(s, 0)); /* a byte is 2^24 times too large */
    }
    *d = scale;
}

/* The bytes of a quad as they are stored: unsigned; q8_0's lack their -128, q4_0's their -8, Q6_K's their -32. */
ATTN_INLINE vbytes types_stored(int type, const struct types_block *b, size_t column, int unit, int quad) {
    const size_t pair = (size_t)(quad / 2 * 4);
    if (type == ATTN_Q8_0) return v_bytes(types_lanes(b, 2 + 4 * (size_t)quad, column));
    const size_t at = type == ATTN_Q4_0   ? 2
                      : type == ATTN_Q4_1 ? 4
                      : type == ATTN_Q4_K ? 16 + 16 * (size_t)unit
                                          : 18 + 12 * (size_t)unit;
    const vbytes both = v_bytes(types_lanes(b, at + pair, column));
    const vbytes q = quad % 2 ? v_bytes_high(both) : v_bytes_low(both);
    if (type != ATTN_Q6_K) return q;
    return v_bytes_or(q, v_bytes_two(v_bytes(types_lanes(b, at + 8, column)), quad));
}

/* The values that they stand for, but of Q4_K and q4_1, to which their minimum is to be added. */
ATTN_INLINE vbytes types_quad(int type, const struct types_block *b, size_t column, int unit, int quad) {
    const vbytes q = types_stored(type, b, column, unit, quad);
    if (type == ATTN_Q8_0) return v_bytes_minus(q, 128);
    if (type == ATTN_Q4_0) return v_bytes_minus(q, 8);
    return type == ATTN_Q6_K ? v_bytes_minus(q, 32) : q;
}

ATTN_INLINE vf32 types_value(int type, vbytes quad, int j, vf32 d, vf32 m) {
    return type == ATTN_Q4_K || type == ATTN_Q4_1 ? v_fma(d, v_byte(quad, j), m) : v_mul(d, v_byte(quad, j));
}

/* For what each type has a function of its own. */
#define TYPES_BLOCKS(X) \
    X(q8_0, ATTN_Q8_0) X(q4_0, ATTN_Q4_0) X(q4_1, ATTN_Q4_1) X(q4_k, ATTN_Q4_K) X(q6_k, ATTN_Q6_K)

#endif
