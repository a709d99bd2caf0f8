/* Rows of one element type to another, inside the library. */
#ifndef ATTN_CONVERT_H
#define ATTN_CONVERT_H

#include "backend.h"

/* n values, a multiple of both blocks. Between two types neither of which is f32 through f32, piece by piece. */
void attn_convert_row(const struct attn_backend *backend, attn_dtype from_type, const void *from,
                      attn_dtype to_type, void *to, size_t n);

#endif
