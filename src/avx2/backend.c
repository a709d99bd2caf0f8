/* The AVX2 backend: the shared bodies over this folder's vectors and micro-kernels. */
#include "backend.h"
#include "config.h"
#include "cpu.h"
#include "tiers.h"

#include "vec.h"
#include "vec64.h"
#include "load.h"
#include "fields.h"
#include "tile.h"
#include "ukernel.h"

#include "common/linear_body.h"
#include "common/pool_slots.h"
#include "common/combine_body.h"
#include "common/convert_body.h"
#include "common/rope_body.h"
#include "common/norm_body.h"

/* What the tier shares with it: all but its name and projections. */
#define SLOTS                                                                                          \
    .layout = LINEAR_NR, .linear_rows = LINEAR_MR, .pool_rows = (size_t)POOL_NV * VF32_N,              \
    .pool_blocks = ATTN_BLOCKS_MAX, .pool_heads_rows = FEW_MOST, .splits = 1,                          \
    .linear_scratch = (size_t)LINEAR_NR * ATTN_K_BLOCK * sizeof(float), .pool = pool_slot,             \
    .merge = merge_any, .pool_scratch = scratch_any, .rope_table = rope_table_body, .rope = rope_body, \
    .norm = norm_body, .combine = combine_body, .to_f32 = to_f32_body, .from_f32 = from_f32_body

const struct attn_backend attn_backend_avx2 = {
    .name = "avx2", .requires = ATTN_CPU_AVX2, .linear = linear_body, SLOTS};

#if HAVE_AVX2DOT
const struct attn_backend attn_backend_avx2dot = {.name = "avx2dot",
                                                  .requires = ATTN_CPU_AVX2,
                                                  .exact = &attn_backend_avx2,
                                                  .prepared_row = attn_prepared_row_avx2dot,
                                                  .prepare = attn_prepare_avx2dot,
                                                  .linear = attn_linear_avx2dot,
                                                  SLOTS};
#endif
