#include "dtype.h"

const struct attn_dtype_info attn_dtype_table[ATTN_DTYPES] = {
    [ATTN_F32] = {"f32", 1, 4, 4},
    [ATTN_BOOL] = {"bool", 1, 1, 1},
    [ATTN_F16] = {"f16", 1, 2, 2},
    [ATTN_BF16] = {"bf16", 1, 2, 2},
    [ATTN_Q8_0] = {"q8_0", 32, sizeof(struct attn_q8_0), 2},
    [ATTN_Q4_0] = {"q4_0", 32, sizeof(struct attn_q4_0), 2},
    [ATTN_Q4_K] = {"q4_K", 256, sizeof(struct attn_q4_k), 2},
    [ATTN_Q6_K] = {"q6_K", 256, sizeof(struct attn_q6_k), 2},
    [ATTN_Q4_1] = {"q4_1", 32, sizeof(struct attn_q4_1), 2},
};

const char *attn_dtype_name(attn_dtype dtype) {
    return attn_dtype_exists(dtype) ? attn_dtype_table[dtype].name : "unknown";
}

size_t attn_dtype_size(attn_dtype dtype, size_t *block) {
    if (block) *block = attn_dtype_exists(dtype) ? attn_dtype_block(dtype) : 0;
    return attn_dtype_exists(dtype) ? attn_dtype_bytes(dtype) : 0;
}
