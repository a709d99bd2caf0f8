#include "plugin.h"

int type_of(int ggml, attn_dtype *type) {
    switch (ggml) {
    case GG_F32: *type = ATTN_F32; return 1;
    case GG_F16: *type = ATTN_F16; return 1;
    case GG_BF16: *type = ATTN_BF16; return 1;
    case GG_Q8_0: *type = ATTN_Q8_0; return 1;
    case GG_Q4_0: *type = ATTN_Q4_0; return 1;
    case GG_Q4_1: *type = ATTN_Q4_1; return 1;
    case GG_Q4_K: *type = ATTN_Q4_K; return 1;
    case GG_Q6_K: *type = ATTN_Q6_K; return 1;
    default: return 0;
    }
}

attn_tensor tensor_of(const struct gg_tensor *t, attn_dtype type) {
    attn_tensor x = {.data = t->data, .dtype = type};
    for (int i = 0; i < GG_DIMS; i++) {
        x.size[i] = (size_t)t->ne[GG_DIMS - 1 - i];
        x.stride[i] = (ptrdiff_t)t->nb[GG_DIMS - 1 - i];
    }
    return x;
}
