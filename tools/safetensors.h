/*
 * The .safetensors format: a 64-bit little-endian length, a JSON object of that many bytes that names each
 * tensor with its dtype, shape and byte range, then the bytes.
 */
#ifndef ATTN_TOOL_SAFETENSORS_H
#define ATTN_TOOL_SAFETENSORS_H

#include "weights.h"

/* Fills in the tensors of an open file, in the order of their bytes, and checks the whole header; dies on anything that
 * the format does not allow. */
void st_read(struct weights *weights);

#endif
