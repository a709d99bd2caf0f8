/* The NEON backend: the shared bodies over this folder's vectors and micro-kernels. */
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

const struct attn_backend attn_backend_neon = {
    .name = "neon", .requires = ATTN_CPU_NEON, .linear = linear_body, POOL_SLOTS, SLOTS};

#if HAVE_NEONDOT
const struct attn_backend attn_backend_neondot = {.name = "neondot",
                                                  .requires = ATTN_CPU_NEONDOT,
                                                  .exact = &attn_backend_neon,
                                                  .prepared_row = attn_prepared_row_neondot,
                                                  .prepare = attn_prepare_neondot,
                                                  .linear = attn_linear_neondot,
                                                  POOL_SLOTS,
                                                  SLOTS};
#endif

#if HAVE_NEONBF16
const struct attn_backend attn_backend_neonbf16 = {.name = "neonbf16",
                                                   .requires = ATTN_CPU_NEONBF16,
                                                   .exact = &attn_backend_neon,
                                                   .prepared_row = attn_prepared_row_neonbf16,
                                                   .prepare = attn_prepare_neonbf16,
                                                   .linear = attn_linear_neonbf16,
                                                   POOL_SLOTS,
                                                   SLOTS};
#endif
