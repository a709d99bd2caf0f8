/* Packed weights: the format of attn_packed, and its use inside the library. */
#ifndef ATTN_PACK_H
#define ATTN_PACK_H

#include <stdint.h>

#include "context.h"

/* "attnpack" read as a little-endian word: a file from a machine of the other byte order does not match. */
#define ATTN_PACK_MAGIC UINT64_C(0x6b6361706e747461)
#define ATTN_PACK_VERSION 3u

/*
 * The header, then the panels (weights.h says how they lie), then the bias where there is one, zero-filled to
 * the panels' width. Every part starts at a multiple of 64 bytes.
 */
struct attn_packed {
    uint64_t magic;
    uint32_t version;
    uint32_t layout; /* the backend's: panel width */
    uint32_t dtype;  /* attn_dtype of the panels */
    uint32_t has_bias;
    uint64_t n, k;
    uint64_t bytes; /* of everything */
    uint64_t reserved[2];
};

_Static_assert(sizeof(struct attn_packed) == 64, "the panels start 64-byte aligned");

/* The packed weights are usable with the context; name is what an error calls them. */
attn_status attn_packed_check(attn_context *c, const char *name, const attn_packed *w);

/* Bytes of one output's weights in the panels. */
size_t attn_packed_row(const attn_packed *w);
const void *attn_packed_panels(const attn_packed *w);
const float *attn_packed_bias(const attn_packed *w); /* or NULL */

#endif
