#include "typed.h"

#include <stdint.h>
#include <string.h>

double typed_bytes(attn_dtype type, double n) {
    size_t block;
    const size_t bytes = attn_dtype_size(type, &block);

    return n / (double)block * (double)bytes;
}

/* The blocks begin with d and, but for Q6_K's, which ends with it, the minimum's scale: binary16 of these bits. */
static void fill_blocks(attn_dtype type, unsigned char *to, size_t n_blocks) {
    const uint16_t d = type == ATTN_Q4_1 ? 0x3000 : 0x1000, min = type == ATTN_Q4_1 ? 0xbc00 : 0x1800;
    const size_t bytes = attn_dtype_size(type, NULL);
    uint64_t state = 1;

    for (size_t i = 0; i < n_blocks; i++, to += bytes) {
        for (size_t j = 0; j < bytes; j++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            to[j] = (unsigned char)(state >> 56);
        }
        if (type == ATTN_Q6_K) {
            memcpy(to + bytes - sizeof d, &d, sizeof d);
        } else {
            memcpy(to, &d, sizeof d);
            memcpy(to + sizeof d, &min, sizeof min);
        }
    }
}

/* Pieces of the source, over and over. */
static attn_status fill(attn_context *context, attn_dtype type, const struct arena *source, size_t n,
                        char *to) {
    const size_t piece = (size_t)1 << 20;
    size_t block, done = 0;
    const size_t bytes = attn_dtype_size(type, &block);
    attn_status status = ATTN_OK;

    while (done < n && status == ATTN_OK) {
        const size_t some = n - done < piece ? n - done : piece;
        const attn_tensor from = attn_tensor_contiguous(source->base, ATTN_F32, 1, 1, 1, some);
        const attn_tensor into = attn_tensor_contiguous(to + done / block * bytes, type, 1, 1, 1, some);

        status = attn_convert(context, &from, &into);
        done += some;
    }
    return status;
}

attn_tensor typed_take(attn_context *context, attn_dtype type, struct arena *source, struct arena *work,
                       const size_t size[4], bool key_major) {
    const size_t n = size[0] * size[1] * size[2] * size[3];
    size_t block;
    const size_t bytes = attn_dtype_size(type, &block), row = size[3] / block * bytes;
    void *data = arena_take(type == ATTN_F32 ? source : work, n / block * bytes);
    attn_tensor t = attn_tensor_contiguous(data, type, size[0], size[1], size[2], size[3]);

    if (data && (type == ATTN_Q4_1 || type == ATTN_Q4_K || type == ATTN_Q6_K)) {
        fill_blocks(type, data, n / block);
    } else if (data && type != ATTN_F32 && fill(context, type, source, n, data) != ATTN_OK) {
        t.data = NULL;
    }
    if (key_major) {
        t.stride[1] = (ptrdiff_t)row;
        t.stride[2] = (ptrdiff_t)(size[1] * row);
    }
    return t;
}
