/* The tier neonbf16: projections by bf16 dot products. */
#include "tiers.h"

#include "vec.h"
#include "load.h"
#include "fields.h"
#include "dots.h"
#include "tile.h"

#include "common/dots_bf16.h"

size_t attn_prepared_row_neonbf16(attn_dtype weights, size_t k) {
    return weights == ATTN_BF16 ? pairs_row_bytes(k) : attn_prepared_row_neondot(weights, k);
}

void attn_prepare_neonbf16(attn_dtype weights, const float *x, size_t k, void *to) {
    if (weights == ATTN_BF16)
        pairs_prepare(x, k, to);
    else
        attn_prepare_neondot(weights, x, k, to);
}

void attn_linear_neonbf16(const struct attn_linear_task *t) {
    if (t->dtype == ATTN_BF16)
        pairs_body(t);
    else
        attn_linear_neondot(t);
}
