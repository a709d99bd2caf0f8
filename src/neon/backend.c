/* The NEON backend: the shared bodies over this folder's vectors and micro-kernels. */
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

/* What the tiers share with it: all but their names and projections. */
#define SLOTS                                                                                          \
    .layout = LINEAR_NR, .linear_rows = LINEAR_MR, .pool_rows = (size_t)POOL_NV * VF32_N,              \
    .pool_blocks = ATTN_BLOCKS_MAX, .pool_heads_rows = FEW_MOST, .splits = 1,                          \
    .linear_scratch = (size_t)LINEAR_NR * ATTN_K_BLOCK * sizeof(float), .pool = pool_slot,             \
    .merge = merge_any, .pool_scratch = scratch_any, .rope_table = rope_table_body, .rope = rope_body, \
    .norm = norm_body, .combine = combine_body, .to_f32 = to_f32_body, .from_f32 = from_f32_body

const struct attn_backend attn_backend_neon = {
    .name = "neon", .requires = ATTN_CPU_NEON, .linear = linear_body, SLOTS};

#if HAVE_NEONDOT
const struct attn_backend attn_backend_neondot = {.name = "neondot",
                                                  .requires = ATTN_CPU_NEONDOT,
                                                  .exact = &attn_backend_neon,
                                                  .prepared_row = attn_prepared_row_neondot,
                                                  .prepare = attn_prepare_neondot,
                                                  .linear = attn_linear_neondot,
                                                  SLOTS};
#endif

#if HAVE_NEONBF16
const struct attn_backend attn_backend_neonbf16 = {.name = "neonbf16",
                                                   .requires = ATTN_CPU_NEONBF16,
                                                   .exact = &attn_backend_neon,
                                                   .prepared_row = attn_prepared_row_neonbf16,
                                                   .prepare = attn_prepare_neonbf16,
                                                   .linear = attn_linear_neonbf16,
                                                   SLOTS};
#endif
