/* The tier neondot: projections by int8 dot products. */
#include "tiers.h"

#include "vec.h"
#include "load.h"
#include "fields.h"
#include "dots.h"
#include "tile.h"

#include "common/dots_int8.h"

size_t attn_prepared_row_neondot(attn_dtype weights, size_t k) {
    return attn_dtype_in_blocks(weights) ? dots_row_bytes(weights, k) : 0;
}

void attn_prepare_neondot(attn_dtype weights, const float *x, size_t k, void *to) {
    dots_prepare(weights, x, k, to);
}

void attn_linear_neondot(const struct attn_linear_task *t) {
    if (attn_dtype_in_blocks(t->dtype))
        dots_int8_body(t);
    else
        attn_backend_neon.linear(t);
}
