/*
 * Shapes that the tests and the benchmark share: what real models ask for, and awkward sizes. A kernel
 * that gains a shape here is tested and timed on it.
 */
#ifndef TEST_SHAPES_H
#define TEST_SHAPES_H

#include <stddef.h>

#define SHAPES_COUNT(table) (sizeof(table) / sizeof *(table))

/* y[m x n] = x[m x k] W^T */
struct shape_linear {
    const char *name;
    size_t m, n, k;
};

static const struct shape_linear shapes_linear[] = {
    {"minilm_qkv", 16, 384, 384}, /* all-MiniLM-L6-v2: one of its 12 heads makes 32 outputs */
    {"bert_base_qkv", 128, 768, 768},  {"gpt2_out_step", 1, 768, 768},
    {"llama7b_q_step", 1, 4096, 4096}, {"llama3_8b_kv_step", 1, 1024, 4096},
    {"falcon7b_q", 7, 4544, 4544}, /* 71 heads of 64 */
    {"llama7b_q", 512, 4096, 4096},    {"transformer_ffn_like", 64, 2048, 512},
};

/* Pooling: n_head heads of queries, n_head_kv of keys and values. */
struct shape_pool {
    const char *name;
    size_t batch, n_head, n_head_kv, n_q, n_kv, p_k, p_v;
    int causal; /* bottom-right */
};

static const struct shape_pool shapes_sdpa[] = {
    {"minilm", 1, 12, 12, 16, 16, 32, 32, 0},
    {"bert_base", 1, 12, 12, 128, 128, 64, 64, 0},
    {"vit_l", 1, 16, 16, 257, 257, 64, 64, 0},
    {"sd_self", 1, 8, 8, 256, 256, 40, 40, 0},
    {"sd_cross", 1, 8, 8, 256, 77, 40, 40, 0},
    {"prefill_2048", 1, 1, 1, 2048, 2048, 128, 128, 0},
    {"prefill_2048_causal", 1, 1, 1, 2048, 2048, 128, 128, 1},
    {"llama3_8b_step_4096", 1, 32, 8, 1, 4096, 128, 128, 1},
    {"llama7b_step_2048", 1, 32, 32, 1, 2048, 128, 128, 1},
    {"falcon7b_step_1024", 1, 71, 1, 1, 1024, 64, 64, 1},
    {"deepseek_mla_step_512", 1, 16, 1, 1, 512, 576, 512, 1}, /* 128 heads in the model */
    {"speculate_4_of_1024", 1, 32, 8, 4, 1024, 128, 128, 1},
};

static const struct shape_pool shapes_additive[] = {
    {"bahdanau", 4, 1, 1, 20, 20, 256, 256, 0},
    {"bahdanau_step", 4, 1, 1, 1, 30, 1000, 1000, 0},
    {"additive_512", 1, 4, 4, 64, 512, 64, 64, 0},
};

/* Sizes with no structure, next to what vectors, tiles and blocks like. */
static const size_t shapes_awkward[] = {1,  2,  3,  5,  7,  11, 13,  17,  23,  31,
                                        37, 53, 61, 67, 71, 97, 127, 131, 257, 509};

#endif
