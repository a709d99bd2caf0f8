/*
 * Elements of tensors as floats. A block type stores its blocks one after the other; the order of the
 * products and sums is that of ggml's reference, so that the floats are the same to the bit.
 */
#include <string.h>

#include "gguf.h"

enum { SMALL = 32, LARGE = 256 }; /* elements of a block of the plain and of the K types */

static float from_bits(uint32_t bits) {
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t half_at(const unsigned char *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }

/* IEEE binary16, exactly. A subnormal is its fraction times 2^-24. */
static float f16_at(const unsigned char *at) {
    uint32_t half = half_at(at), sign = (half & 0x8000) << 16, exponent = half >> 10 & 31,
             fraction = half & 0x3ff;

    if (exponent == 0) {
        float magnitude = (float)fraction * 0x1p-24f;

        return sign ? -magnitude : magnitude;
    }
    return from_bits(sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | fraction << 13);
}

static void f32_row(const unsigned char *from, size_t n, float *to) { memcpy(to, from, n * sizeof *to); }

static void f16_row(const unsigned char *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i++) {
        to[i] = f16_at(from + 2 * i);
    }
}

static void bf16_row(const unsigned char *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i++) {
        to[i] = from_bits(half_at(from + 2 * i) << 16);
    }
}

static void q8_0_row(const unsigned char *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i += SMALL, from += 34) {
        float d = f16_at(from);

        for (size_t j = 0; j < SMALL; j++) {
            to[i + j] = (float)(signed char)from[2 + j] * d;
        }
    }
}

/* Low and high nibbles are the first and the second half of the block. */
static void q4_0_row(const unsigned char *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i += SMALL, from += 18) {
        float d = f16_at(from);

        for (size_t j = 0; j < SMALL / 2; j++) {
            to[i + j] = (float)((from[2 + j] & 15) - 8) * d;
            to[i + j + SMALL / 2] = (float)((from[2 + j] >> 4) - 8) * d;
        }
    }
}

static void q4_1_row(const unsigned char *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i += SMALL, from += 20) {
        float d = f16_at(from), least = f16_at(from + 2);

        for (size_t j = 0; j < SMALL / 2; j++) {
            to[i + j] = (float)(from[4 + j] & 15) * d + least;
            to[i + j + SMALL / 2] = (float)(from[4 + j] >> 4) * d + least;
        }
    }
}

/* Element j of a q5 block: a nibble, and bit j of a 32-bit word as its fifth bit. */
static int fifth(const unsigned char *bits, const unsigned char *nibbles, size_t j) {
    int nibble = j < SMALL / 2 ? nibbles[j] & 15 : nibbles[j - SMALL / 2] >> 4;

    return nibble | (bits[j / 8] >> j % 8 & 1) << 4;
}

static void q5_0_row(const unsigned char *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i += SMALL, from += 22) {
        float d = f16_at(from);

        for (size_t j = 0; j < SMALL; j++) {
            to[i + j] = (float)(fifth(from + 2, from + 6, j) - 16) * d;
        }
    }
}

static void q5_1_row(const unsigned char *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i += SMALL, from += 24) {
        float d = f16_at(from), least = f16_at(from + 2);

        for (size_t j = 0; j < SMALL; j++) {
            to[i + j] = (float)fifth(from + 4, from + 8, j) * d + least;
        }
    }
}

/*
 * Scale and minimum of sub-block s (of 8) of a q4_K or q5_K block: 6 bits each in 12 bytes. Bytes 0-3 and
 * 4-7 hold those of sub-blocks 0-3 in their low 6 bits and the 2 high bits of sub-blocks 4-7 above; bytes
 * 8-11 the low nibbles of sub-blocks 4-7, scale below minimum.
 */
static void k_scale(const unsigned char *p, size_t s, int *scale, int *least) {
    if (s < 4) {
        *scale = p[s] & 63;
        *least = p[s + 4] & 63;
    } else {
        *scale = (p[s + 4] & 15) | (p[s - 4] >> 6) << 4;
        *least = p[s + 4] >> 4 | (p[s] >> 6) << 4;
    }
}

/* q4_K: d, dmin, 12 bytes of scales, 128 of nibbles; q5_K: 32 bytes of fifth bits before the nibbles.
 * Sub-blocks 2g and 2g + 1 are the low and high nibbles of the same 32 bytes; their fifth bits are bits 2g
 * and 2g + 1. */
static void k_block(const unsigned char *from, const unsigned char *high, const unsigned char *nibbles,
                    float *to) {
    float d = f16_at(from), d_least = f16_at(from + 2);

    for (size_t s = 0; s < 8; s++) {
        int scale, least;
        float step, base;

        k_scale(from + 4, s, &scale, &least);
        step = d * (float)scale;
        base = d_least * (float)least;
        for (size_t j = 0; j < 32; j++) {
            int q = nibbles[s / 2 * 32 + j] >> s % 2 * 4 & 15;

            if (high) {
                q |= (high[j] >> s & 1) << 4;
            }
            to[s * 32 + j] = step * (float)q - base;
        }
    }
}

static void q4_k_row(const unsigned char *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i += LARGE, from += 144) {
        k_block(from, NULL, from + 16, to + i);
    }
}

static void q5_k_row(const unsigned char *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i += LARGE, from += 176) {
        k_block(from, from + 16, from + 48, to + i);
    }
}

/* q6_K: 128 bytes of low nibbles, 64 of high pairs of bits, 16 scales of 16 elements each, d. In each half
 * of 128 elements, group g (of 4) of 32 has its nibbles in the first (g 0, 2) or second (1, 3) 32 bytes, low
 * ones for g 0 and 1; its pairs are bits 2g and 2g + 1 of the half's 32 bytes. */
static void q6_k_row(const unsigned char *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i += LARGE, from += 210) {
        const signed char *scales = (const signed char *)from + 192;
        float d = f16_at(from + 208);

        for (size_t e = 0; e < LARGE; e++) {
            size_t half = e / 128, group = e / 32 % 4, j = e % 32;
            int low = from[half * 64 + group % 2 * 32 + j] >> group / 2 * 4 & 15;
            int high = from[128 + half * 32 + j] >> 2 * group & 3;

            to[i + e] = d * (float)scales[e / 16] * (float)((low | high << 4) - 32);
        }
    }
}

typedef void row_fn(const unsigned char *from, size_t n, float *to);

static row_fn *const rows[] = {
    [GGUF_F32] = f32_row,   [GGUF_F16] = f16_row,   [GGUF_Q4_0] = q4_0_row, [GGUF_Q4_1] = q4_1_row,
    [GGUF_Q5_0] = q5_0_row, [GGUF_Q5_1] = q5_1_row, [GGUF_Q8_0] = q8_0_row, [GGUF_Q4_K] = q4_k_row,
    [GGUF_Q5_K] = q5_k_row, [GGUF_Q6_K] = q6_k_row, [GGUF_BF16] = bf16_row,
};

int gguf_has_floats(uint32_t type) { return type < sizeof rows / sizeof *rows && rows[type]; }

void gguf_floats(const struct gguf_tensor *tensor, size_t row, float *to) {
    rows[tensor->type]((const unsigned char *)tensor->data + row * tensor->row_bytes, tensor->size[0], to);
}
