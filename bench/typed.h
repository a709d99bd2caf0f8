/* Inputs of any element type. */
#ifndef BENCH_TYPED_H
#define BENCH_TYPED_H

#include <attn/attn.h>

#include "memory.h"

/*
 * A contiguous tensor of values of variance about 1: f32 is a piece of source itself, the other types are converted into a
 * piece of work (q4_1, Q4_K and Q6_K, which the library does not convert to, are random blocks with scales of that size).
 * key_major: stored [batch, row, head, column]. data is NULL when there is no room.
 */
attn_tensor typed_take(attn_context *context, attn_dtype type, struct arena *source, struct arena *work,
                       const size_t size[4], bool key_major);

/* Bytes of n values. */
double typed_bytes(attn_dtype type, double n);

#endif
