/* One attention head, end to end: softmax(q k^T / sqrt(p)) v with q = x W_q^T, k = x W_k^T, v = x W_v^T. */
#include <attn/attn.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 4, D = 8, P = 3 }; /* tokens, width of the model, width of the head */

int main(void) {
    float x[N][D], w[3][P][D], h[N][P]; /* the input; W_q, W_k, W_v; the output */
    const attn_packed *packed[3];
    attn_context *context;

    for (int i = 0; i < N * D; i++) x[i / D][i % D] = (float)(i % 7) - 3;
    for (int i = 0; i < 3 * P * D; i++) w[i / (P * D)][i / D % P][i % D] = (float)(i % 5) / 4 - 0.5f;
    if (attn_context_create(NULL, &context) != ATTN_OK) return 1;
    for (int i = 0; i < 3; i++) {
        attn_tensor matrix = attn_tensor_contiguous(w[i], ATTN_F32, 1, 1, P, D);
        size_t bytes;
        if (attn_pack_linear_bytes(context, &matrix, &bytes) != ATTN_OK) return 1;
        void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
        if (attn_pack_linear(context, &matrix, NULL, memory, bytes, &packed[i]) != ATTN_OK) return 1;
    }
    attn_tensor in = attn_tensor_contiguous(x, ATTN_F32, 1, 1, N, D);
    attn_tensor out = attn_tensor_contiguous(h, ATTN_F32, 1, 1, N, P);
    attn_weights weights = {.size = sizeof weights,
                            .n_head = 1,
                            .n_head_kv = 1,
                            .w_q = packed[0],
                            .w_k = packed[1],
                            .w_v = packed[2]};
    attn_head_args args = {
        .size = sizeof args, .weights = &weights, .q = &in, .k = &in, .v = &in, .out = &out};
    if (attn_head(context, &args) != ATTN_OK) return fprintf(stderr, "%s\n", attn_context_error(context)), 1;
    for (int i = 0; i < N; i++) printf("%9.6f %9.6f %9.6f\n", h[i][0], h[i][1], h[i][2]);
    attn_context_destroy(context);
    return 0;
}
