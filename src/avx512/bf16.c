/* The tier avx512bf16: projections and attention pooling by bf16 dot products. */
#include "tiers.h"

#include "vec.h"
#include "load.h"
#include "fields.h"
#include "dots.h"
#include "tile.h"

#include "common/dots_bf16.h"
#include "common/pairs_pool.h"

size_t attn_prepared_row_avx512bf16(attn_dtype weights, size_t k) {
    return weights == ATTN_BF16 ? pairs_row_bytes(k) : attn_prepared_row_avx512vnni(weights, k);
}

void attn_prepare_avx512bf16(attn_dtype weights, const float *x, size_t k, void *to) {
    if (weights == ATTN_BF16)
        pairs_prepare(x, k, to);
    else
        attn_prepare_avx512vnni(weights, x, k, to);
}

int attn_rounds_avx512bf16(attn_dtype weights, size_t n, size_t k) {
    return weights == ATTN_BF16 && pairs_rounds(n, k);
}

void attn_linear_avx512bf16(const struct attn_linear_task *t) {
    if (t->dtype == ATTN_BF16 && !t->prepared)
        pairs_rounding_body(t);
    else if (t->dtype == ATTN_BF16)
        pairs_body(t);
    else
        attn_linear_avx512vnni(t);
}

void attn_pool_avx512bf16(const struct attn_pool_task *t) {
    if (pairs_serves(t))
        pairs_pool(t);
    else
        attn_backend_avx512.pool(t);
}

void attn_merge_avx512bf16(const struct attn_pool_task *t, size_t n_chunks, size_t stride) {
    if (pairs_serves(t))
        merge_any(t, n_chunks, stride);
    else
        attn_backend_avx512.merge(t, n_chunks, stride);
}

size_t attn_pool_scratch_avx512bf16(const struct attn_pool_size *size) {
    return attn_max(attn_backend_avx512.pool_scratch(size), pairs_scratch(size));
}
