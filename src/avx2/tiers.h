/* What the instruction tier of AVX2 has of its own: dot.c. */
#ifndef ATTN_AVX2_TIERS_H
#define ATTN_AVX2_TIERS_H

#include "backend.h"

/* int8 dot products for weights of block formats; the others as attn_backend_avx2. */
attn_linear_fn attn_linear_avx2dot;
attn_prepared_row_fn attn_prepared_row_avx2dot;
attn_prepare_fn attn_prepare_avx2dot;

#endif
