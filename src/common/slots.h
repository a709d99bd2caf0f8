/* What the backends fill in alike, after all bodies; a tier shares it but for its projections, and perhaps its pooling. */
#ifndef ATTN_SLOTS_H
#define ATTN_SLOTS_H

#define SLOTS                                                                                          \
    .layout = LINEAR_NR, .linear_rows = LINEAR_MR, .pool_rows = (size_t)POOL_NV * VF32_N,              \
    .pool_blocks = ATTN_BLOCKS_MAX, .pool_heads_rows = FEW_MOST, .splits = 1,                          \
    .linear_scratch = (size_t)LINEAR_NR * ATTN_K_BLOCK * sizeof(float), .rope_table = rope_table_body, \
    .rope = rope_body, .norm = norm_body, .combine = combine_body, .to_f32 = to_f32_body,              \
    .from_f32 = from_f32_body
#define POOL_SLOTS .pool = pool_slot, .merge = merge_any, .pool_scratch = scratch_any

#endif
