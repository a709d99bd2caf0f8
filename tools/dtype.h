/* Element types of the files that the command reads, and their exact conversion to float and double. */
#ifndef ATTN_TOOL_DTYPE_H
#define ATTN_TOOL_DTYPE_H

#include <stddef.h>

enum dtype { DTYPE_F16, DTYPE_BF16, DTYPE_F32, DTYPE_F64, DTYPE_OTHER };

/* Bytes of one element; 0 for DTYPE_OTHER. */
size_t dtype_bytes(enum dtype dtype);

/* n little-endian elements at src (any alignment) as float: exact, but f64 is rounded to nearest. */
void dtype_to_float(float *dst, const void *src, size_t n, enum dtype dtype);

/* The same as double: exact for all. */
void dtype_to_double(double *dst, const void *src, size_t n, enum dtype dtype);

#endif
