/* Arithmetic of sizes. */
#ifndef ATTN_SIZE_H
#define ATTN_SIZE_H

#include <stddef.h>

static inline size_t attn_min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t attn_max(size_t a, size_t b) { return a > b ? a : b; }
static inline size_t attn_ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }

#endif
