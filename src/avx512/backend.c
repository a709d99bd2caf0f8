/* The AVX-512 backend: the shared bodies over this folder's vectors and micro-kernels. */
#include "backend.h"
#include "config.h"
#include "cpu.h"
#include "tiers.h"

#include "vec.h"
#include "vec64.h"
#include "load.h"
#include "columns.h"
#include "fields.h"
#include "tile.h"
#include "ukernel.h"

#include "common/linear_body.h"
#include "common/pool_slots.h"
#include "common/combine_body.h"
#include "common/convert_body.h"
#include "common/rope_body.h"
#include "common/norm_body.h"
#include "common/slots.h"

const struct attn_backend attn_backend_avx512 = {
    .name = "avx512", .requires = ATTN_CPU_AVX512, .linear = linear_body, POOL_SLOTS, SLOTS};

#if HAVE_AVX512VNNI
const struct attn_backend attn_backend_avx512vnni = {.name = "avx512vnni",
                                                     .requires = ATTN_CPU_AVX512VNNI,
                                                     .exact = &attn_backend_avx512,
                                                     .prepared_row = attn_prepared_row_avx512vnni,
                                                     .prepare = attn_prepare_avx512vnni,
                                                     .linear = attn_linear_avx512vnni,
                                                     POOL_SLOTS,
                                                     SLOTS};
#endif

#if HAVE_AVX512BF16
const struct attn_backend attn_backend_avx512bf16 = {.name = "avx512bf16",
                                                     .requires = ATTN_CPU_AVX512BF16,
                                                     .exact = &attn_backend_avx512,
                                                     .prepared_row = attn_prepared_row_avx512bf16,
                                                     .prepare = attn_prepare_avx512bf16,
                                                     .rounds = attn_rounds_avx512bf16,
                                                     .linear = attn_linear_avx512bf16,
                                                     .pool = attn_pool_avx512bf16,
                                                     .merge = attn_merge_avx512bf16,
                                                     .pool_scratch = attn_pool_scratch_avx512bf16,
                                                     SLOTS};
#endif
