/* Checks of tensors: everything a caller can get wrong is found here, before anything is written. */
#ifndef ATTN_TENSOR_H
#define ATTN_TENSOR_H

#include <stdint.h>

#include "attn/attn.h"
#include "context.h"
#include "dtype.h"

enum { BATCH, HEAD, ROW, COLUMN };

/* What tensor_check() lets pass. */
enum {
    TENSOR_F32 = 1u << ATTN_F32,
    TENSOR_BOOL = 1u << ATTN_BOOL,
    TENSOR_F16 = 1u << ATTN_F16,
    TENSOR_BF16 = 1u << ATTN_BF16,
    TENSOR_FLOATS = TENSOR_F32 | TENSOR_F16 | TENSOR_BF16,
    TENSOR_KV = TENSOR_FLOATS | 1u << ATTN_Q8_0 | 1u << ATTN_Q4_0, /* keys and values */
    TENSOR_WEIGHTS = TENSOR_KV | 1u << ATTN_Q4_K | 1u << ATTN_Q6_K | 1u << ATTN_Q4_1,
    TENSOR_OUTPUT = 1u << 16, /* written: elements must not alias each other */
    TENSOR_NO_DATA = 1u << 17 /* a size query: data is not looked at */
};
_Static_assert(ATTN_DTYPES <= 16, "a bit for each type");

/* Bytes [lo, hi) that a tensor or an array touches; lo == hi: none. */
struct attn_span {
    const char *name;
    uintptr_t lo, hi;
};

/*
 * name: what the error text calls it. Checks null, dtype, strides, alignment, self-aliasing of outputs and
 * that every offset fits a ptrdiff_t, and gives its span (may be NULL).
 */
attn_status attn_tensor_check(attn_context *c, const char *name, const attn_tensor *t, unsigned flags,
                              struct attn_span *span);

/* The tensor's sizes are those; SIZE_MAX lets any size pass. */
attn_status attn_tensor_expect(attn_context *c, const char *name, const attn_tensor *t, size_t batch,
                               size_t head, size_t row, size_t column);

/* The first n_outputs spans share no byte with each other or with any later one. */
attn_status attn_spans_check(attn_context *c, const struct attn_span *spans, size_t n, size_t n_outputs);

struct attn_span attn_span_of(const char *name, const void *p, size_t bytes);

/* A stride in elements, not of block formats; in bytes. 0 along a dimension that is broadcast. */
ptrdiff_t attn_stride(const attn_tensor *t, int dim);
static inline ptrdiff_t attn_stride_bytes(const attn_tensor *t, int dim) {
    return t->size[dim] <= 1 ? 0 : t->stride[dim];
}

#endif
