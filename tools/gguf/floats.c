/*
 * Elements of tensors as floats: by attn_convert(), but for the three types that the library does not have. Those are
 * converted here in the order of ggml's reference; their products are exact, so that only a sum rounds.
 */
#include <string.h>

#include "gguf.h"

enum { SMALL = 32, LARGE = 256 }; /* elements of a block of the plain and of the K type */

/* IEEE binary16, exactly. A subnormal is its fraction times 2^-24. */
static float f16_at(const unsigned char *at) {
    uint32_t half = (uint32_t)at[0] | (uint32_t)at[1] << 8, sign = (half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 31, fraction = half & 0x3ff, bits;
    float value;

    if (exponent == 0) {
        value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    bits = sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | fraction << 13;
    memcpy(&value, &bits, sizeof value);
    return value;
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
 * Scale and minimum of sub-block s (of 8) of a q5_K block: 6 bits each in 12 bytes. Bytes 0-3 and 4-7 hold
 * those of sub-blocks 0-3 in their low 6 bits and the 2 high bits of sub-blocks 4-7 above; bytes 8-11 the low
 * nibbles of sub-blocks 4-7, scale below minimum.
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

/* d, dmin, 12 bytes of scales, 32 of fifth bits, 128 of nibbles. Sub-blocks 2g and 2g + 1 are the low and high nibbles
 * of the same 32 bytes; their fifth bits are bits 2g and 2g + 1. */
static void q5_k_row(const unsigned char *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i += LARGE, from += 176) {
        float d = f16_at(from), d_least = f16_at(from + 2);

        for (size_t s = 0; s < 8; s++) {
            int scale, least;
            float step, base;

            k_scale(from + 4, s, &scale, &least);
            step = d * (float)scale;
            base = d_least * (float)least;
            for (size_t j = 0; j < 32; j++) {
                int q = (from[48 + s / 2 * 32 + j] >> s % 2 * 4 & 15) | (from[16 + j] >> s & 1) << 4;

                to[i + s * 32 + j] = step * (float)q - base;
            }
        }
    }
}

typedef void row_fn(const unsigned char *from, size_t n, float *to);

static row_fn *own_row(uint32_t type) {
    return type == GGUF_Q5_0 ? q5_0_row : type == GGUF_Q5_1 ? q5_1_row : type == GGUF_Q5_K ? q5_k_row : NULL;
}

int gguf_has_floats(uint32_t type) {
    attn_dtype dtype;

    return own_row(type) || gguf_attn_type(type, &dtype);
}

int gguf_view(const struct gguf_tensor *tensor, size_t row, size_t n, attn_tensor *view) {
    unsigned char *data = (unsigned char *)(uintptr_t)tensor->data + row * tensor->row_bytes;
    attn_dtype dtype;

    if (!gguf_attn_type(tensor->type, &dtype)) {
        return 0;
    }
    *view = attn_tensor_contiguous(data, dtype, 1, 1, n, tensor->size[0]);
    return 1;
}

attn_status gguf_floats(attn_context *context, const struct gguf_tensor *tensor, size_t row, size_t n,
                        float *to) {
    attn_tensor from, floats = attn_tensor_contiguous(to, ATTN_F32, 1, 1, n, tensor->size[0]);

    if (n == 0 || tensor->size[0] == 0) {
        return ATTN_OK;
    }
    if (gguf_view(tensor, row, n, &from)) {
        return attn_convert(context, &from, &floats);
    }
    for (size_t i = 0; i < n; i++) {
        own_row(tensor->type)((const unsigned char *)tensor->data + (row + i) * tensor->row_bytes,
                              tensor->size[0], to + i * tensor->size[0]);
    }
    return ATTN_OK;
}
