/* Exact conversions; the hosts of this library are little-endian, like the files. */
#include "dtype.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

size_t dtype_bytes(enum dtype dtype) {
    static const size_t bytes[] = {2, 2, 4, 8, 0};

    return bytes[dtype];
}

static float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = h >> 10 & 31, fraction = h & 0x3ff, bits;
    float value;

    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24, exact in float */
        value = ldexpf((float)fraction, -24);
        return sign ? -value : value;
    }
    /* Infinity and NaN keep an exponent of all ones; the others move from bias 15 to bias 127. */
    bits = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float bfloat_to_float(uint16_t b) {
    uint32_t bits = (uint32_t)b << 16;
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

void dtype_to_float(float *dst, const void *src, size_t n, enum dtype dtype) {
    const char *from = src;
    uint16_t two;
    double eight;

    if (dtype == DTYPE_F32) {
        memcpy(dst, src, n * sizeof *dst);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (dtype == DTYPE_F64) {
            memcpy(&eight, from + 8 * i, sizeof eight);
            dst[i] = (float)eight;
        } else {
            memcpy(&two, from + 2 * i, sizeof two);
            dst[i] = dtype == DTYPE_F16 ? half_to_float(two) : bfloat_to_float(two);
        }
    }
}

void dtype_to_double(double *dst, const void *src, size_t n, enum dtype dtype) {
    const char *from = src;
    float value;

    if (dtype == DTYPE_F64) {
        memcpy(dst, src, n * sizeof *dst);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        dtype_to_float(&value, from + i * dtype_bytes(dtype), 1, dtype);
        dst[i] = value;
    }
}
