/*
 * The plugin loaded into ggml by a C program, a short look at everything that it allocates and frees: for valgrind and
 * AddressSanitizer (scripts/test-llamacpp.sh). What it computes is compared with ggml's CPU backend, loosely: test_nodes.py
 * has the bounds.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

static void need(int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "nodes: %s\n", what);
    exit(1);
}

static unsigned long long state = 1;
static float draw(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int)(state >> 40) / (1 << 23) - 1.0f;
}

struct side { /* the plugin, or ggml's own backend */
    ggml_backend_t backend;
    ggml_backend_buffer_type_t weights, plain;
};

static struct ggml_context *context(void) {
    const struct ggml_init_params params = {.mem_size = 1 << 20, .no_alloc = true};
    struct ggml_context *c = ggml_init(params);
    need(c != NULL, "ggml_init");
    return c;
}

static void set_random(struct ggml_tensor *t, unsigned long long seed) {
    const size_t n = (size_t)ggml_nelements(t);
    float *x = malloc(n * sizeof *x);
    char *raw = malloc(ggml_nbytes(t));
    state = seed;
    for (size_t i = 0; i < n; i++) x[i] = draw();
    if (t->type == GGML_TYPE_F32)
        memcpy(raw, x, n * sizeof *x);
    else
        ggml_quantize_chunk(t->type, x, raw, 0, ggml_nrows(t), t->ne[0], NULL);
    ggml_backend_tensor_set(t, raw, 0, ggml_nbytes(t));
    free(raw);
    free(x);
}

/* Computes a node that is the only one and returns its values. */
static float *result_of(const struct side *s, struct ggml_context *c, struct ggml_tensor *node) {
    const size_t bytes = ggml_nbytes(node);
    struct ggml_cgraph *graph = ggml_new_graph(c);
    float *y = malloc(bytes);
    ggml_build_forward_expand(graph, node);
    need(ggml_backend_graph_compute(s->backend, graph) == GGML_STATUS_SUCCESS, "graph_compute");
    ggml_backend_tensor_get(node, y, 0, bytes);
    return y;
}

static float *product(const struct side *s, enum ggml_type type, int64_t k, int64_t n, int64_t m) {
    struct ggml_context *held = context(), *c = context();
    struct ggml_tensor *w = ggml_new_tensor_2d(held, type, k, n);
    ggml_backend_buffer_t weights = ggml_backend_alloc_ctx_tensors_from_buft(held, s->weights);
    struct ggml_tensor *x = ggml_new_tensor_2d(c, GGML_TYPE_F32, k, m);
    struct ggml_tensor *node = ggml_mul_mat(c, w, x);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(c, s->plain);
    char *back = malloc(ggml_nbytes(w));
    set_random(w, 1);
    set_random(x, 2);
    ggml_backend_tensor_get(w, back, 0, ggml_nbytes(w));
    ggml_backend_tensor_set(w, back + 2 * ggml_row_size(type, k), 2 * ggml_row_size(type, k),
                            ggml_row_size(type, k));
    float *y = result_of(s, c, node);
    free(back);
    ggml_backend_buffer_free(buffer);
    ggml_backend_buffer_free(weights);
    ggml_free(c);
    ggml_free(held);
    return y;
}

static float *attention(const struct side *s, enum ggml_type type, int64_t n_q, int64_t n_kv, int kind,
                        float max_bias) {
    enum { D = 64, HEADS = 4, HEADS_KV = 2 };
    struct ggml_context *c = context();
    struct ggml_tensor *q = ggml_new_tensor_3d(c, GGML_TYPE_F32, D, n_q, HEADS);
    struct ggml_tensor *k = ggml_new_tensor_3d(c, type, D, n_kv, HEADS_KV);
    struct ggml_tensor *v = ggml_new_tensor_3d(c, type, D, n_kv, HEADS_KV);
    struct ggml_tensor *mask = ggml_new_tensor_2d(c, GGML_TYPE_F16, n_kv, n_q);
    struct ggml_tensor *sinks = ggml_new_tensor_1d(c, GGML_TYPE_F32, HEADS);
    struct ggml_tensor *node = ggml_flash_attn_ext(c, q, k, v, mask, 0.125f, max_bias, 0.0f);
    if (kind == 1) ggml_flash_attn_ext_add_sinks(node, sinks);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(c, s->plain);
    set_random(q, 3);
    set_random(k, 4);
    set_random(v, 5);
    set_random(sinks, 6);
    ggml_fp16_t *m = malloc(ggml_nbytes(mask));
    for (int64_t i = 0; i < n_q; i++)
        for (int64_t j = 0; j < n_kv; j++) {
            const int64_t own = n_kv - n_q + i;
            const int sees = j <= own && (kind != 2 || (j * 7 + i) % 3);
            m[i * n_kv + j] = ggml_fp32_to_fp16(sees ? (max_bias > 0 ? (float)(j - own) : 0.0f) : -INFINITY);
        }
    ggml_backend_tensor_set(mask, m, 0, ggml_nbytes(mask));
    free(m);
    float *y = result_of(s, c, node);
    ggml_backend_buffer_free(buffer);
    ggml_free(c);
    return y;
}

static void same(float *ours, float *theirs, size_t n, float most, const char *what) {
    for (size_t i = 0; i < n; i++) need(fabsf(ours[i] - theirs[i]) <= most, what);
    free(ours);
    free(theirs);
}

int main(int argc, char **argv) {
    static const enum ggml_type types[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q8_0,
                                           GGML_TYPE_Q4_0, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K};
    need(argc == 2, "usage: nodes PLUGIN");
    ggml_backend_reg_t reg = ggml_backend_load(argv[1]);
    need(reg != NULL, "the plugin is not loaded");
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(reg, 0);
    ggml_backend_set_n_threads_t set_n_threads =
        (ggml_backend_set_n_threads_t)ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    ggml_backend_t cpu = ggml_backend_cpu_init();
    const ggml_backend_buffer_type_t plain = ggml_backend_get_default_buffer_type(cpu);
    const struct side theirs = {cpu, plain, plain};
    for (int threads = 1; threads <= 2; threads++) {
        const struct side ours = {ggml_backend_dev_init(device, NULL), ggml_backend_dev_buffer_type(device),
                                  plain};
        set_n_threads(ours.backend, threads);
        for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
            for (int64_t m = 1; m < 40; m += 19)
                same(product(&ours, types[i], 512, 70, m), product(&theirs, types[i], 512, 70, m),
                     (size_t)(70 * m), 1.0f, "MUL_MAT differs");
            if (types[i] == GGML_TYPE_Q4_K || types[i] == GGML_TYPE_Q6_K) continue;
            for (int kind = 0; kind < 3; kind++)
                for (int64_t n_q = 1; n_q < 40; n_q += 19)
                    same(attention(&ours, types[i], n_q, 100, kind, kind == 2 ? 8.0f : 0.0f),
                         attention(&theirs, types[i], n_q, 100, kind, kind == 2 ? 8.0f : 0.0f),
                         (size_t)(n_q * 64 * 4), 0.02f, "FLASH_ATTN_EXT differs");
        }
        ggml_backend_free(ours.backend);
    }
    ggml_backend_free(cpu);
    ggml_quantize_free();
    puts("nodes: all agree");
    return 0;
}
