/* One layer's attention: its matrices, its shape, and the inputs it is given. */
#ifndef ATTN_TOOL_MODEL_H
#define ATTN_TOOL_MODEL_H

#include <attn/attn.h>
#include <stddef.h>

#include "request.h"

/* n outputs, k inputs, rows contiguous; data NULL: there is none. bias: n floats or NULL. */
struct matrix {
    attn_tensor stored; /* in the file's type, but f32 where only the GGUF reader knows that */
    float *data, *bias; /* data: the same values as f32 */
    size_t n, k;
};

struct model {
    const char *path;
    char *title; /* "layer 0", or the name of its W_q */
    char *types; /* of the projections in the file: "F16", or "Q4_K and Q6_K" */
    struct matrix w_q, w_k, w_v, w_o;
    size_t n_head, n_head_kv;
    size_t d_q, d_k, d_v, p_q, p_k, p_v;
    int additive;
    size_t c;           /* length of w; 0 for the dot product */
    struct matrix *a_q; /* n_head of them, or NULL: the identity */
    struct matrix *a_k; /* n_head_kv of them, or NULL */
    float *w_a;         /* w_a_heads x c */
    size_t w_a_heads;   /* n_head or 1 */
};

/* Finds, loads and checks the matrices; dies on anything that does not fit. */
void model_load(struct model *model, const struct request *request);

/* An input [rows, columns]. Inputs that are the same file share their data. */
struct input {
    float *data;
    size_t rows, columns;
};

struct inputs {
    struct input q, k, v;
};

/* Reads the inputs and checks them against the model. */
void inputs_load(struct inputs *inputs, const struct model *model, const struct request *request);

#endif
