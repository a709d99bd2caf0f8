/* What the instruction tiers of NEON have of their own, each compiled with its flags: dot.c, bf16.c. */
#ifndef ATTN_NEON_TIERS_H
#define ATTN_NEON_TIERS_H

#include "backend.h"

/* int8 dot products for weights of block formats; the others as attn_backend_neon. */
attn_linear_fn attn_linear_neondot;
attn_prepared_row_fn attn_prepared_row_neondot;
attn_prepare_fn attn_prepare_neondot;

/* bf16 dot products for weights of bf16; the others as neondot. */
attn_linear_fn attn_linear_neonbf16;
attn_prepared_row_fn attn_prepared_row_neonbf16;
attn_prepare_fn attn_prepare_neonbf16;

#endif
