/*
 * The scalar backend: the textbook, in double, sharing no code with the SIMD backends. Reference for
 * correctness and fallback for any CPU.
 */
#ifndef ATTN_SCALAR_H
#define ATTN_SCALAR_H

#include "backend.h"

/* y = x W^T + b as three loops; each output is a double sum, rounded once. */
attn_linear_fn attn_linear_scalar;

/* Two-pass softmax over all keys a row sees; scores, sums and outputs in double, rounded once. */
attn_pool_fn attn_pool_scalar;
attn_pool_scratch_fn attn_pool_scratch_scalar;
attn_merge_fn attn_merge_scalar;

/* Weights from e^(lse - largest), sums in double, rounded once. */
attn_combine_fn attn_combine_scalar;
/* libm's cos and sin; the table holds doubles, each output is rounded once. */
attn_rope_table_fn attn_rope_table_scalar;
attn_rope_fn attn_rope_scalar;

/* The root in double, each output rounded once. */
attn_norm_fn attn_norm_scalar;

/* Value by value, from the formats' definitions. */
attn_to_f32_fn attn_to_f32_scalar;
attn_from_f32_fn attn_from_f32_scalar;

#endif
