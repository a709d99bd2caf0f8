/* What the instruction tiers of AVX-512 have of their own, each compiled with its flags: vnni.c, bf16.c. */
#ifndef ATTN_AVX512_TIERS_H
#define ATTN_AVX512_TIERS_H

#include "backend.h"

/* int8 dot products for weights of block formats; the others as attn_backend_avx512. */
attn_linear_fn attn_linear_avx512vnni;
attn_prepared_row_fn attn_prepared_row_avx512vnni;
attn_prepare_fn attn_prepare_avx512vnni;

/* bf16 dot products for weights of bf16; the others as avx512vnni. */
attn_linear_fn attn_linear_avx512bf16;
attn_prepared_row_fn attn_prepared_row_avx512bf16;
attn_prepare_fn attn_prepare_avx512bf16;
attn_rounds_fn attn_rounds_avx512bf16;
/* Dot products of keys and values that both are bf16; the others as attn_backend_avx512. */
attn_pool_fn attn_pool_avx512bf16;
attn_merge_fn attn_merge_avx512bf16;
attn_pool_scratch_fn attn_pool_scratch_avx512bf16;

#endif
