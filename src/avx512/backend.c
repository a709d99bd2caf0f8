/* The AVX-512 backend: the shared bodies over this folder's vectors and micro-kernels. */
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

/* What the tiers share with it: all but their names, projections and perhaps attention pooling. */
#define POOL .pool = pool_slot, .merge = merge_any, .pool_scratch = scratch_any
#define SLOTS                                                                                          \
    .layout = LINEAR_NR, .linear_rows = LINEAR_MR, .pool_rows = (size_t)POOL_NV * VF32_N,              \
    .pool_blocks = ATTN_BLOCKS_MAX, .pool_heads_rows = FEW_MOST, .splits = 1,                          \
    .linear_scratch = (size_t)LINEAR_NR * ATTN_K_BLOCK * sizeof(float), .rope_table = rope_table_body, \
    .rope = rope_body, .norm = norm_body, .combine = combine_body, .to_f32 = to_f32_body,              \
    .from_f32 = from_f32_body

const struct attn_backend attn_backend_avx512 = {
    .name = "avx512", .requires = ATTN_CPU_AVX512, .linear = linear_body, POOL, SLOTS};

#if HAVE_AVX512VNNI
const struct attn_backend attn_backend_avx512vnni = {.name = "avx512vnni",
                                                     .requires = ATTN_CPU_AVX512VNNI,
                                                     .exact = &attn_backend_avx512,
                                                     .prepared_row = attn_prepared_row_avx512vnni,
                                                     .prepare = attn_prepare_avx512vnni,
                                                     .linear = attn_linear_avx512vnni,
                                                     POOL,
                                                     SLOTS};
#endif

#if HAVE_AVX512BF16
const struct attn_backend attn_backend_avx512bf16 = {.name = "avx512bf16",
                                                     .requires = ATTN_CPU_AVX512BF16,
                                                     .exact = &attn_backend_avx512,
                                                     .prepared_row = attn_prepared_row_avx512bf16,
                                                     .prepare = attn_prepare_avx512bf16,
                                                     .linear = attn_linear_avx512bf16,
                                                     .pool = attn_pool_avx512bf16,
                                                     .merge = attn_merge_avx512bf16,
                                                     .pool_scratch = attn_pool_scratch_avx512bf16,
                                                     SLOTS};
#endif
