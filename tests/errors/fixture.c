#include "fixture.h"

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CANARY = 0xa5 };

attn_context *default_context(void) {
    attn_options options = {.size = sizeof options, .n_threads = 1};
    attn_context *context;
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    return context;
}

static int is_output(int tensor) {
    return tensor == T_OUT || tensor == T_LSE || tensor == T_WEIGHTS || tensor == T_LSE_SINKS ||
           tensor == T_SCORES;
}

attn_packed *fixture_matrix(struct fixture *f, size_t n, size_t k) {
    float w[FIXTURE_FLOATS];
    attn_tensor t = attn_tensor_contiguous(w, ATTN_F32, 1, 1, n, k);
    const attn_packed *packed;
    size_t bytes;
    ck_assert_uint_le(n * k, FIXTURE_FLOATS);
    ck_assert_uint_lt(f->n_matrices, FIXTURE_MATRICES);
    for (size_t i = 0; i < n * k; i++) w[i] = (float)(i % 7) / 8;
    ck_assert_int_eq(attn_pack_linear_bytes(f->context, &t, &bytes), ATTN_OK);
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    ck_assert_ptr_nonnull(memory);
    ck_assert_int_eq(attn_pack_linear(f->context, &t, NULL, memory, bytes, &packed), ATTN_OK);
    f->matrix[f->n_matrices++] = memory;
    return memory;
}

static void set_tensor(struct fixture *f, int i, size_t batch, size_t head, size_t row, size_t column) {
    ck_assert_uint_le(batch * head * row * column, FIXTURE_FLOATS / 2); /* room for mutations */
    f->tensor[i] = attn_tensor_contiguous(f->memory[i], ATTN_F32, batch, head, row, column);
    f->argument[i] = &f->tensor[i];
}

static void set_additive(struct fixture *f, size_t p_q, size_t p_k) {
    for (int i = 0; i < N_HEAD; i++) f->a_q[i] = fixture_matrix(f, C, p_q);
    for (int i = 0; i < N_HEAD_KV; i++) f->a_k[i] = fixture_matrix(f, C, p_k);
    f->a_q_argument = f->a_q;
    f->a_k_argument = f->a_k;
    set_tensor(f, T_W, 1, N_HEAD, 1, C);
}

static void set_layer(struct fixture *f, int additive) {
    size_t p_q = additive ? P_Q : P_K;
    f->layer = (attn_weights){.size = sizeof f->layer,
                              .n_head = N_HEAD,
                              .n_head_kv = N_HEAD_KV,
                              .pooling = additive ? ATTN_POOLING_ADDITIVE : ATTN_POOLING_DOT};
    f->layer.w_q = fixture_matrix(f, N_HEAD * p_q, D_Q);
    f->layer.w_k = fixture_matrix(f, N_HEAD_KV * P_K, D_K);
    f->layer.w_v = fixture_matrix(f, N_HEAD_KV * P_V, D_V);
    f->layer.w_o = fixture_matrix(f, P_O, N_HEAD * P_V);
    f->layer_argument = &f->layer;
    if (additive) set_additive(f, P_Q, P_K);
    set_tensor(f, T_Q, BATCH, 1, N_Q, D_Q);
    set_tensor(f, T_K, BATCH, 1, N_KV, D_K);
    set_tensor(f, T_V, BATCH, 1, N_KV, D_V);
}

/* Everything that attn_scoring has, but starts. */
static void set_scoring(struct fixture *f) {
    f->window[0] = 3;
    f->window[1] = SIZE_MAX;
    for (int i = 0; i < N_HEAD; i++) f->slopes[i] = f->sinks[i] = 0.5f;
    for (int i = 0; i < BATCH; i++) f->prefixes[i] = (size_t)i;
    f->scoring = (attn_scoring){.size = sizeof f->scoring,
                                .q_lengths = f->q_lengths,
                                .kv_lengths = f->kv_lengths,
                                .offsets = f->offsets,
                                .window = f->window,
                                .prefixes = f->prefixes,
                                .q_documents = f->q_documents,
                                .kv_documents = f->kv_documents,
                                .alibi_slopes = f->slopes,
                                .soft_cap = 20,
                                .sinks = f->sinks};
}

void fixture_open(struct fixture *f, enum api api, attn_context *context) {
    size_t heads = api == API_HEAD || api == API_HEAD_ADDITIVE ? 1 : N_HEAD;
    memset(f, 0, sizeof *f);
    f->api = api;
    f->context = context;
    f->args_size = api == API_SDPA       ? sizeof(attn_sdpa_args)
                   : api == API_ADDITIVE ? sizeof(attn_additive_args)
                                         : sizeof(attn_head_args);
    f->head = N_HEAD - 1;
    for (int i = 0; i < N_TENSORS; i++) {
        f->memory[i] = malloc(FIXTURE_FLOATS * sizeof(float));
        ck_assert_ptr_nonnull(f->memory[i]);
        memset(f->memory[i], is_output(i) ? CANARY : 0, FIXTURE_FLOATS * sizeof(float));
    }
    if (api == API_SDPA || api == API_ADDITIVE) {
        set_tensor(f, T_Q, BATCH, N_HEAD, N_Q, api == API_SDPA ? P_K : P_Q);
        set_tensor(f, T_K, BATCH, N_HEAD_KV, N_KV, P_K);
        set_tensor(f, T_V, BATCH, N_HEAD_KV, N_KV, P_V);
        set_tensor(f, T_OUT, BATCH, N_HEAD, N_Q, P_V);
        if (api == API_ADDITIVE) set_additive(f, P_Q, P_K);
    } else {
        set_layer(f, api == API_HEAD_ADDITIVE);
        set_tensor(f, T_OUT, BATCH, 1, N_Q, api == API_MULTIHEAD ? P_O : P_V);
    }
    set_tensor(f, T_LSE, BATCH, heads, N_Q, 1);
    set_tensor(f, T_WEIGHTS, BATCH, heads, N_Q, N_KV);
    if (api == API_SDPA) set_tensor(f, T_LSE_SINKS, BATCH, heads, N_Q, 1);
    if (api == API_SDPA) set_tensor(f, T_SCORES, BATCH, heads, N_Q, N_KV);
    set_tensor(f, T_MASK, BATCH, N_HEAD, N_Q, N_KV);
    for (int i = 0; i < BATCH; i++) {
        f->q_lengths[i] = N_Q;
        f->kv_lengths[i] = N_KV;
    }
    set_scoring(f);
    f->scoring_argument = &f->scoring;
}

void fixture_ragged(struct fixture *f) {
    static const size_t starts[2][N_SEQUENCES + 1] = {{0, 1, 1, N_Q}, {0, 2, 3, N_KV}};
    memcpy(f->starts, starts, sizeof starts);
    for (int i = 0; i < T_MASK; i++) f->tensor[i].size[0] = 1;
    f->argument[T_MASK] = NULL;
    f->tensor[T_WEIGHTS].size[3] = f->tensor[T_SCORES].size[3] = 2; /* both longest sequences have 2 */
    f->scoring.q_lengths = f->scoring.kv_lengths = NULL;
    f->scoring.offsets = NULL;
    f->scoring.prefixes = NULL;
    f->scoring.n_sequences = N_SEQUENCES;
    f->scoring.q_starts = f->starts[0];
    f->scoring.kv_starts = f->starts[1];
}

void fixture_close(struct fixture *f) {
    for (int i = 0; i < N_TENSORS; i++) free(f->memory[i]);
    for (size_t i = 0; i < f->n_matrices; i++) free(f->matrix[i]);
}

int fixture_untouched(const struct fixture *f) {
    for (int i = 0; i < N_TENSORS; i++)
        for (size_t at = 0; is_output(i) && at < FIXTURE_FLOATS * sizeof(float); at++)
            if (((const unsigned char *)f->memory[i])[at] != CANARY) return 0;
    return 1;
}

/* ---- The call, or (bytes != NULL) its scratch query ----------------------------------------------- */

static attn_status run(struct fixture *f, int query, size_t *bytes) {
    const attn_tensor *const *t = f->argument;
    int null = f->args_size == SIZE_MAX;
    f->scoring.mask = t[T_MASK];
    attn_sdpa_args sdpa = {.size = f->args_size,
                           .q = t[T_Q],
                           .k = t[T_K],
                           .v = t[T_V],
                           .out = t[T_OUT],
                           .scoring = f->scoring_argument,
                           .lse = t[T_LSE],
                           .weights = t[T_WEIGHTS],
                           .lse_sinks = t[T_LSE_SINKS],
                           .scores = t[T_SCORES]};
    attn_additive_args additive = {.size = f->args_size,
                                   .q = t[T_Q],
                                   .k = t[T_K],
                                   .v = t[T_V],
                                   .a_q = f->a_q_argument,
                                   .a_k = f->a_k_argument,
                                   .w = t[T_W],
                                   .out = t[T_OUT],
                                   .scoring = f->scoring_argument,
                                   .lse = t[T_LSE],
                                   .weights = t[T_WEIGHTS]};
    attn_head_args head = {.size = f->args_size,
                           .weights = f->layer_argument,
                           .head = f->head,
                           .q = t[T_Q],
                           .k = t[T_K],
                           .v = t[T_V],
                           .out = t[T_OUT],
                           .scoring = f->scoring_argument,
                           .lse = t[T_LSE],
                           .attention = t[T_WEIGHTS]};
    f->layer.a_q = f->a_q_argument;
    f->layer.a_k = f->a_k_argument;
    f->layer.w_a = t[T_W];
    const attn_sdpa_args *sdpa_args = null ? NULL : &sdpa;
    const attn_additive_args *additive_args = null ? NULL : &additive;
    const attn_head_args *head_args = null ? NULL : &head;
    switch (f->api) {
    case API_SDPA:
        return query ? attn_sdpa_scratch(f->context, sdpa_args, bytes) : attn_sdpa(f->context, sdpa_args);
    case API_ADDITIVE:
        return query ? attn_additive_scratch(f->context, additive_args, bytes)
                     : attn_additive(f->context, additive_args);
    case API_MULTIHEAD:
        return query ? attn_multihead_scratch(f->context, head_args, bytes)
                     : attn_multihead(f->context, head_args);
    default:
        return query ? attn_head_scratch(f->context, head_args, bytes) : attn_head(f->context, head_args);
    }
}

attn_status fixture_call(struct fixture *f) { return run(f, 0, NULL); }

attn_status fixture_query(struct fixture *f, size_t *bytes) { return run(f, 1, bytes); }

const char *fixture_name(enum api api, enum tensor tensor) {
    static const char *const names[] = {"q",       "k",         "v",      "out",  "lse",
                                        "weights", "lse_sinks", "scores", "mask", "w"};
    if (tensor == T_WEIGHTS && api != API_SDPA && api != API_ADDITIVE) return "attention";
    if (tensor == T_W && api != API_ADDITIVE) return "w_a";
    return names[tensor];
}

const char *api_name(enum api api) {
    static const char *const names[] = {"attn_sdpa", "attn_additive", "attn_head", "attn_multihead",
                                        "attn_head (additive)"};
    return names[api];
}
