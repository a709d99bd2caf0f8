/* Causal attention of 8 query heads that share 2 key/value heads. */
#include <attn/attn.h>
#include <stdio.h>

enum { N_HEAD = 8, N_HEAD_KV = 2, N = 16, D = 64 };
static float q[N_HEAD][N][D], k[N_HEAD_KV][N][D], v[N_HEAD_KV][N][D], out[N_HEAD][N][D];

int main(void) {
    for (int i = 0; i < N_HEAD_KV * N * D; i++) v[i / N / D][i / D % N][i % D] = (float)(i / D % N);
    attn_context *context;
    if (attn_context_create(NULL, &context) != ATTN_OK) return 1;
    attn_tensor queries = attn_tensor_contiguous(q, ATTN_F32, 1, N_HEAD, N, D);
    attn_tensor keys = attn_tensor_contiguous(k, ATTN_F32, 1, N_HEAD_KV, N, D);
    attn_tensor values = attn_tensor_contiguous(v, ATTN_F32, 1, N_HEAD_KV, N, D);
    attn_tensor result = attn_tensor_contiguous(out, ATTN_F32, 1, N_HEAD, N, D);
    attn_scoring scoring = {.size = sizeof scoring, .causal = ATTN_CAUSAL_TOP_LEFT};
    attn_sdpa_args args = {.size = sizeof args, .q = &queries, .k = &keys, .v = &values,
                           .out = &result, .scoring = &scoring};
    attn_status status = attn_sdpa(context, &args);
    if (status != ATTN_OK) fprintf(stderr, "%s\n", attn_context_error(context));
    /* all scores are equal, so row i is the mean of value rows 0 to i: i / 2 */
    for (int i = 0; i < N; i++) printf("%g ", out[N_HEAD - 1][i][0]);
    attn_context_destroy(context);
    return status != ATTN_OK;
}
