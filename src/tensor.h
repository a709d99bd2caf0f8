/* Checks of tensors: everything a caller can get wrong is found here, before anything is written. */
#ifndef ATTN_TENSOR_H
#define ATTN_TENSOR_H

#include <stdint.h>

#include "attn/attn.h"
#include "context.h"

enum { BATCH, HEAD, ROW, COLUMN };

/* What tensor_check() lets pass. */
enum {
    TENSOR_F32 = 1u << 0,
    TENSOR_BOOL = 1u << 1,
    TENSOR_OUTPUT = 1u << 2,  /* written: elements must not alias each other */
    TENSOR_NO_DATA = 1u << 3, /* a size query: data is not looked at */
    TENSOR_F16 = 1u << 4
};

/* Bytes [lo, hi) that a tensor or an array touches; lo == hi: none. */
struct attn_span {
    const char *name;
    uintptr_t lo, hi;
};

size_t attn_dtype_bytes(attn_dtype dtype);

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

/* A stride in elements; 0 along a dimension that is broadcast. */
ptrdiff_t attn_stride(const attn_tensor *t, int dim);

#endif
