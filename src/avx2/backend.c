/* The AVX2 backend: the shared bodies over this folder's vectors and micro-kernels. */
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

const struct attn_backend attn_backend_avx2 = {
    .name = "avx2", .requires = ATTN_CPU_AVX2, .linear = linear_body, POOL_SLOTS, SLOTS};

#if HAVE_AVX2DOT
const struct attn_backend attn_backend_avx2dot = {.name = "avx2dot",
                                                  .requires = ATTN_CPU_AVX2,
                                                  .exact = &attn_backend_avx2,
                                                  .prepared_row = attn_prepared_row_avx2dot,
                                                  .prepare = attn_prepare_avx2dot,
                                                  .linear = attn_linear_avx2dot,
                                                  POOL_SLOTS,
                                                  SLOTS};
#endif
