#include "step_fixture.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

const attn_packed *step_matrix(struct step *t, size_t n, size_t k) {
    float w[STEP_FLOATS];
    const attn_tensor x = attn_tensor_contiguous(w, ATTN_F32, 1, 1, n, k);
    const attn_packed *packed;
    size_t bytes;
    ck_assert(n * k <= STEP_FLOATS && t->n_matrices < STEP_MATRICES);
    for (size_t i = 0; i < n * k; i++) w[i] = (float)(i % 7) / 8;
    ck_assert_int_eq(attn_pack_linear_bytes(t->context, &x, &bytes), ATTN_OK);
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    ck_assert_ptr_nonnull(memory);
    ck_assert_int_eq(attn_pack_linear(t->context, &x, NULL, memory, bytes, &packed), ATTN_OK);
    t->matrix[t->n_matrices++] = memory;
    return packed;
}

static void set_call(struct step *t) {
    t->x = attn_tensor_contiguous(t->x_data, ATTN_F32, CALLS, 1, ROWS, STEP_D);
    t->out = attn_tensor_contiguous(t->out_data, ATTN_F32, CALLS, 1, ROWS, STEP_P_O);
    t->lse = attn_tensor_contiguous(t->lse_data, ATTN_F32, CALLS, STEP_HEADS, ROWS, 1);
    t->mask = attn_tensor_contiguous(t->mask_data, ATTN_BOOL, 1, 1, 1, KEYS_0 + ROWS);
    memset(t->mask_data, 1, sizeof t->mask_data);
    t->window[0] = 3;
    t->window[1] = SIZE_MAX;
    t->scoring = (attn_scoring){.size = sizeof t->scoring,
                                .causal = ATTN_CAUSAL_BOTTOM_RIGHT,
                                .window = t->window,
                                .sinks = t->sinks,
                                .mask = &t->mask};
    t->args = (attn_step_args){.size = sizeof t->args,
                               .weights = &t->weights,
                               .x = &t->x,
                               .out = &t->out,
                               .kv = &t->cache.kv,
                               .sequences = t->cache.sequences,
                               .counts = t->cache.counts,
                               .q_norm = t->q_norm,
                               .k_norm = t->k_norm,
                               .rope = &t->cache.rope,
                               .positions = t->cache.positions,
                               .scoring = &t->scoring,
                               .lse = &t->lse};
    t->argument = &t->args;
}

void step_open(struct step *t, attn_context *context, int ring) {
    memset(t, 0, sizeof *t);
    t->context = context;
    cache_open(&t->cache, context, ring);
    for (int i = 0; i < STEP_FLOATS; i++) t->out_data[i] = t->lse_data[i] = STEP_CANARY;
    for (int i = 0; i < STEP_FLOATS; i++) t->x_data[i] = 0.25f;
    for (int i = 0; i < KV_P_K; i++) t->q_norm[i] = t->k_norm[i] = 1.0f;
    t->weights = (attn_weights){.size = sizeof t->weights,
                                .n_head = STEP_HEADS,
                                .n_head_kv = KV_HEADS,
                                .w_q = step_matrix(t, (size_t)STEP_HEADS * KV_P_K, STEP_D),
                                .w_k = step_matrix(t, (size_t)KV_HEADS * KV_P_K, STEP_D),
                                .w_v = step_matrix(t, (size_t)KV_HEADS * KV_P_V, STEP_D),
                                .w_o = step_matrix(t, STEP_P_O, (size_t)STEP_HEADS * KV_P_V)};
    set_call(t);
    cache_watch(&t->cache);
}

void step_close(struct step *t) {
    for (size_t i = 0; i < t->n_matrices; i++) free(t->matrix[i]);
}

int step_untouched(const struct step *t) {
    int same = cache_untouched(&t->cache);
    for (int i = 0; i < STEP_FLOATS; i++)
        same &= t->out_data[i] == STEP_CANARY && t->lse_data[i] == STEP_CANARY;
    return same;
}
