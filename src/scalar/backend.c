#include "scalar/scalar.h"

const struct attn_backend attn_backend_scalar = {
    .name = "scalar",
    .requires = 0,
    .layout = ATTN_PANEL_UNIT,
    .linear_rows = 8,
    .pool_rows = 8,
    .pool_blocks = 1,
    .splits = 0,
    .linear = attn_linear_scalar,
    .pool = attn_pool_scalar,
    .merge = attn_merge_scalar,
    .pool_scratch = attn_pool_scratch_scalar,
    .rope_table = attn_rope_table_scalar,
    .rope = attn_rope_scalar,
    .norm = attn_norm_scalar,
    .combine = attn_combine_scalar,
    .to_f32 = attn_to_f32_scalar,
    .from_f32 = attn_from_f32_scalar,
};
