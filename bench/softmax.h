/* The softmax pass of unfused attention: compiled once for each ISA, from the library's own operations. */
#ifndef BENCH_SOFTMAX_H
#define BENCH_SOFTMAX_H

#include <stddef.h>

struct softmax {
    /*
     * Rows of scores of which the first visible[i] count: s = exp2(c * s - max(c * s)) for those, 0 for the
     * others up to n, and inverse[i] = 1 / their sum. c > 0; row is the distance of rows in floats.
     */
    void (*rows)(float *s, size_t row, size_t n_rows, const size_t *visible, size_t n, float c,
                 float *inverse);
    /* y[i] *= inverse[i], n floats a row: the division by the sum, where it is cheapest. */
    void (*scale)(float *y, ptrdiff_t row, size_t n_rows, size_t n, const float *inverse);
};

extern const struct softmax softmax_avx512, softmax_avx2, softmax_neon;

#endif
