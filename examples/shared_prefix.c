/*
 * Eight sequences continue the same prompt, each by keys of its own, and decode one token. The prompt's keys
 * and values are stored once and read once: its part is one call in which the eight sequences' queries are
 * the rows of a block. The sequences' own keys are a second call; attn_merge joins the two.
 */
#include <attn/attn.h>
#include <stdio.h>

enum { SEQUENCES = 8, N_HEAD = 4, N_HEAD_KV = 2, PROMPT = 100, OWN = 22, D = 16 };
static float q[SEQUENCES][N_HEAD][D];
static float prompt_k[N_HEAD_KV][PROMPT][D], prompt_v[N_HEAD_KV][PROMPT][D];
static float own_k[SEQUENCES][N_HEAD_KV][OWN][D], own_v[SEQUENCES][N_HEAD_KV][OWN][D];
static float out[2][SEQUENCES][N_HEAD][D], lse[2][SEQUENCES][N_HEAD];

/* [sequence, head, 1, column] as [1, head, sequence, column]: the same memory, the sequences as rows. */
static attn_tensor as_rows(attn_tensor t) {
    t.size[2] = t.size[0];
    t.stride[2] = t.stride[0];
    t.size[0] = 1;
    return t;
}

/* Key j of a sequence scores ln 2 * head * (j mod 4), and its value is j / 128. */
static void fill(float *key, float *value, int j) {
    key[0] = (float)(j % 4);
    value[0] = j / 128.0f;
}

int main(void) {
    size_t own[SEQUENCES];
    for (int s = 0; s < SEQUENCES; s++) {
        own[s] = (size_t)(1 + 3 * s); /* keys that the sequence has behind the prompt */
        for (int h = 0; h < N_HEAD; h++) q[s][h][0] = (float)h;
        for (int i = 0; i < N_HEAD_KV * OWN; i++)
            fill(own_k[s][i / OWN][i % OWN], own_v[s][i / OWN][i % OWN], PROMPT + i % OWN);
    }
    for (int i = 0; i < N_HEAD_KV * PROMPT; i++)
        fill(prompt_k[i / PROMPT][i % PROMPT], prompt_v[i / PROMPT][i % PROMPT], i % PROMPT);

    attn_context *context;
    if (attn_context_create(NULL, &context) != ATTN_OK) return 1;
    attn_tensor queries = attn_tensor_contiguous(q, ATTN_F32, SEQUENCES, N_HEAD, 1, D),
                query_rows = as_rows(queries);
    attn_tensor outs[2], lses[2];
    for (int p = 0; p < 2; p++) {
        outs[p] = attn_tensor_contiguous(out[p], ATTN_F32, SEQUENCES, N_HEAD, 1, D);
        lses[p] = attn_tensor_contiguous(lse[p], ATTN_F32, SEQUENCES, N_HEAD, 1, 1);
    }

    attn_tensor k0 = attn_tensor_contiguous(prompt_k, ATTN_F32, 1, N_HEAD_KV, PROMPT, D);
    attn_tensor v0 = attn_tensor_contiguous(prompt_v, ATTN_F32, 1, N_HEAD_KV, PROMPT, D);
    attn_tensor out_rows = as_rows(outs[0]), lse_rows = as_rows(lses[0]);
    attn_scoring every_key = {.size = sizeof every_key, .scale = 0.693147181f};
    attn_sdpa_args prompt = {.size = sizeof prompt,
                             .q = &query_rows,
                             .k = &k0,
                             .v = &v0,
                             .out = &out_rows,
                             .scoring = &every_key,
                             .lse = &lse_rows};

    attn_tensor k1 = attn_tensor_contiguous(own_k, ATTN_F32, SEQUENCES, N_HEAD_KV, OWN, D);
    attn_tensor v1 = attn_tensor_contiguous(own_v, ATTN_F32, SEQUENCES, N_HEAD_KV, OWN, D);
    attn_scoring own_keys = every_key;
    own_keys.kv_lengths = own;
    attn_sdpa_args rest = {.size = sizeof rest,
                           .q = &queries,
                           .k = &k1,
                           .v = &v1,
                           .out = &outs[1],
                           .scoring = &own_keys,
                           .lse = &lses[1]};

    attn_merge_args merge = {
        .size = sizeof merge, .n_parts = 2, .outs = outs, .lses = lses, .out = &outs[0]}; /* in place */
    if (attn_sdpa(context, &prompt) != ATTN_OK || attn_sdpa(context, &rest) != ATTN_OK ||
        attn_merge(context, &merge) != ATTN_OK)
        return fprintf(stderr, "%s\n", attn_context_error(context)), 1;

    for (int s = 0; s < SEQUENCES; s++) /* a line a sequence, a column a head */
        printf("%.6f %.6f %.6f %.6f\n", out[0][s][0][0], out[0][s][1][0], out[0][s][2][0], out[0][s][3][0]);
    attn_context_destroy(context);
    return 0;
}
