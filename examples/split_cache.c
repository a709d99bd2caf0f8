/* One new token attends to a cache that lies in four parts, pooled part by part and merged; and to it as a
 * whole. */
#include <attn/attn.h>
#include <stdio.h>

enum { N_HEAD = 4, N_HEAD_KV = 2, N = 64, D = 8, PARTS = 4 };
static const int cuts[PARTS + 1] = {0, 5, 24, 32, N}; /* part p holds the keys [cuts[p], cuts[p + 1]) */
static float q[N_HEAD][D], k[N_HEAD_KV][N][D], v[N_HEAD_KV][N][D];
static float whole[N_HEAD][D], merged[N_HEAD][D], out[PARTS][N_HEAD][D], lse[PARTS][N_HEAD];

/* The keys [from, to) of a cache; the rest of its strides and heads stay as they are. */
static attn_tensor keys_of(attn_tensor cache, int from, int to) {
    cache.data = (char *)cache.data + from * cache.stride[2];
    cache.size[2] = (size_t)(to - from);
    return cache;
}

int main(void) {
    /* score = ln 2 * head * (j mod 4): key j weighs 2^(head (j mod 4)) */
    for (int h = 0; h < N_HEAD; h++) q[h][0] = (float)h;
    for (int i = 0; i < N_HEAD_KV * N; i++)
        k[i / N][i % N][0] = (float)(i % 4), v[i / N][i % N][0] = i % N / 64.0f;
    attn_context *context;
    if (attn_context_create(NULL, &context) != ATTN_OK) return 1;
    attn_tensor query = attn_tensor_contiguous(q, ATTN_F32, 1, N_HEAD, 1, D);
    attn_tensor keys = attn_tensor_contiguous(k, ATTN_F32, 1, N_HEAD_KV, N, D);
    attn_tensor values = attn_tensor_contiguous(v, ATTN_F32, 1, N_HEAD_KV, N, D);
    attn_tensor all = attn_tensor_contiguous(whole, ATTN_F32, 1, N_HEAD, 1, D);
    attn_tensor result = attn_tensor_contiguous(merged, ATTN_F32, 1, N_HEAD, 1, D);
    attn_tensor outs[PARTS], lses[PARTS];
    attn_scoring scoring = {.size = sizeof scoring, .scale = 0.693147181f};

    attn_sdpa_args args = {
        .size = sizeof args, .q = &query, .k = &keys, .v = &values, .out = &all, .scoring = &scoring};
    if (attn_sdpa(context, &args) != ATTN_OK) return fprintf(stderr, "%s\n", attn_context_error(context)), 1;

    for (int p = 0; p < PARTS; p++) {
        attn_tensor part_keys = keys_of(keys, cuts[p], cuts[p + 1]);
        attn_tensor part_values = keys_of(values, cuts[p], cuts[p + 1]);
        outs[p] = attn_tensor_contiguous(out[p], ATTN_F32, 1, N_HEAD, 1, D);
        lses[p] = attn_tensor_contiguous(lse[p], ATTN_F32, 1, N_HEAD, 1, 1);
        args.k = &part_keys, args.v = &part_values, args.out = &outs[p], args.lse = &lses[p];
        if (attn_sdpa(context, &args) != ATTN_OK)
            return fprintf(stderr, "%s\n", attn_context_error(context)), 1;
    }
    attn_merge_args merge = {
        .size = sizeof merge, .n_parts = PARTS, .outs = outs, .lses = lses, .out = &result};
    if (attn_merge(context, &merge) != ATTN_OK)
        return fprintf(stderr, "%s\n", attn_context_error(context)), 1;

    for (int h = 0; h < N_HEAD; h++)
        printf("%.6f %.6f\n", whole[h][0], merged[h][0]); /* the same numbers twice */
    attn_context_destroy(context);
    return 0;
}
