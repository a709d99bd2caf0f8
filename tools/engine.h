/* The library at work: a context with a model's packed matrices, and calls that compute heads. */
#ifndef ATTN_TOOL_ENGINE_H
#define ATTN_TOOL_ENGINE_H

#include <attn/attn.h>
#include <stddef.h>

#include "model.h"

struct engine {
    attn_context *context;
    const struct model *model;
    attn_weights weights;
    attn_tensor w_a;
};

/* What is computed: the inputs, and what a query sees. */
struct job {
    const struct inputs *inputs;
    attn_scoring scoring;
};

struct job job_make(const struct inputs *inputs, const struct request *request);

/* backend NULL: the default. Dies when the library refuses. */
void engine_open(struct engine *engine, const struct model *model, const char *backend, size_t threads);

/* h_i [n_q, p_v] of head i, and its softmax weights [n_q, n_kv] where attention is not NULL. */
void engine_head(struct engine *engine, const struct job *job, size_t head, float *out, float *attention);

/* All h_i [n_head, n_q, p_v]. */
void engine_heads(struct engine *engine, const struct job *job, float *out);

/* W_o [h_1; ...; h_h] [n_q, p_o]. */
void engine_multihead(struct engine *engine, const struct job *job, float *out);

void engine_close(struct engine *engine);

/* The arguments of such a call, which must not outlive `tensors`: also what bound.h's oracle wants. */
struct job_tensors {
    attn_tensor q, k, v, out, attention;
};
attn_head_args job_args(const struct job *job, size_t head, float *out, size_t columns, float *attention,
                        struct job_tensors *tensors);

#endif
