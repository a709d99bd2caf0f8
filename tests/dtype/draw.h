/*
 * The values that the conversions are compared with ggml's on, and the digest of what comes out: counted, not stored, and
 * the same arithmetic in ggml.py, which asks ggml itself.
 */
#ifndef TEST_DTYPE_DRAW_H
#define TEST_DTYPE_DRAW_H

#include <stddef.h>
#include <stdint.h>

enum {
    DRAW_PIECE = 8192,  /* values at a time: whole blocks of every type, whole words of every result */
    DRAW_PIECES = 1221, /* 10,002,432 values */
    DRAW_FEW = 16       /* pieces of the thinned test */
};

/* splitmix64 of place i of a stream. */
static inline uint64_t draw_word(uint64_t stream, uint64_t i) {
    uint64_t z = (stream << 40) + (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/*
 * Value i as the bits of a finite float. Values come in blocks of 32 of one kind: any finite bits; within 16 powers of two
 * of each other; one magnitude in both signs; zeros of both signs; subnormal; almost the largest; small integers, whose
 * halves are ties; the same with one outlier.
 */
static inline uint32_t draw_float(uint64_t i) {
    const uint64_t block = draw_word(1, i / 32), z = draw_word(2, i);
    const uint32_t sign = (uint32_t)(z >> 63) << 31, fraction = (uint32_t)z & 0x7fffff;
    const uint32_t base = (uint32_t)(block >> 8) % 222 + 16; /* an exponent: base + 15 is finite */
    const uint32_t eighths = (uint32_t)(z >> 24) % 8;        /* exponent of an integer or a half */
    switch (block % 8) {
    case 0: return sign | (uint32_t)(z >> 24) % 255 << 23 | fraction;
    case 1: return sign | (base + (uint32_t)(z >> 24) % 16) << 23 | fraction;
    case 2: return sign | base << 23 | ((uint32_t)block >> 9);
    case 3: return sign;
    case 4: return sign | fraction;
    case 5: return sign | 254u << 23 | fraction;
    case 6: return sign | (126 + eighths) << 23 | (fraction & 0x7c0000);
    default: return sign | (126 + (i % 32 == block >> 59 ? 12 : eighths)) << 23 | (fraction & 0x7c0000);
    }
}

/* Of the words of all pieces in order: a word counts with its place. */
static inline uint64_t draw_digest(uint64_t sum, const uint64_t *words, size_t n, uint64_t first) {
    for (size_t i = 0; i < n; i++)
        sum += (words[i] ^ words[i] >> 29) * ((2 * (first + i) + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1);
    return sum;
}

#endif
