/*
 * A decoder of the Llama family in f32: RMS norm, attention with rotary embedding over a KV cache, RMS norm,
 * gated MLP, thirty times over for SmolLM2-135M. Weights are packed when the model is opened, in the types that they
 * have in the file; token embeddings are dequantised row by row from the mapping.
 */
#ifndef MODEL_H
#define MODEL_H

#include <attn/attn.h>
#include <stddef.h>
#include <stdint.h>

#include "gguf.h"

struct layer {
    const attn_packed *w_q, *w_k, *w_v, *w_o;
    const attn_packed *w_gate, *w_up, *w_down;
    float *attention_norm, *mlp_norm;
    attn_kv cache;
    void *cache_memory;
};

struct model {
    attn_context *context;
    size_t n_layer, n_token; /* n_token: size of the vocabulary */
    size_t d_model, d_head, d_mlp;
    size_t n_head, n_head_kv, d_rotary;
    size_t n_trained; /* longest context that the model was trained for */
    float rotary_base, epsilon;
    struct layer *layers;
    const struct gguf_tensor *embedding;
    const attn_packed *w_output;
    float *output_norm;

    size_t capacity;             /* tokens that the caches have room for */
    size_t chunk;                /* rows that are computed at once at most: no result depends on it */
    size_t weight_bytes;         /* of all packed weights */
    size_t cache_bytes;          /* of all caches */
    attn_dtype k_dtype, v_dtype; /* of the caches */
    /* for a chunk of rows: residual stream, its norm, what a sub-layer adds, MLP */
    float *x, *normed, *update, *mlp, *logits;
    double attention_seconds; /* time spent in attend() */
};

enum { CHUNK_MAX = 512, LOGIT_ROWS = 32 };

/* Tokens of a block of the cache. */
enum { CACHE_BLOCK = 256 };

/* The sizes from the file's metadata; dies where it is another kind of model. Loads nothing. */
void model_describe(struct model *m, const struct gguf *gguf);

/* Loads the weights, with a cache of the types k_dtype and v_dtype for `capacity` tokens, of which `chunk` (1 to CHUNK_MAX) are computed at once. The file
 * must stay open as long as the model. */
void model_load(struct model *m, const struct gguf *gguf, attn_context *context, size_t capacity,
                size_t chunk);
void model_close(struct model *m);

/* Appends n tokens (1 or more) to the cache; the logits of what follows the last one, [n_token]. */
const float *model_run(struct model *m, const uint32_t *ids, size_t n);

/* Appends n tokens; the sum of -log p over the n tokens that really follow them, next[i] behind ids[i]. */
double model_loss(struct model *m, const uint32_t *ids, const uint32_t *next, size_t n);

/* attention.c: out = W_o [heads of x] for the n new rows of x, already normed, whose keys and values go to the
 * layer's cache. */
void attend(struct model *m, struct layer *layer, float *x, size_t n, float *out);
void make_cache(struct model *m, struct layer *layer);

/* y = x W^T for n rows; sizes as packed. */
void linear(struct model *m, float *x, size_t n, const attn_packed *w, float *y);

/* Dies with the context's error unless status is ATTN_OK. */
void check(const struct model *m, attn_status status, const char *what);

double seconds(void);

#endif
