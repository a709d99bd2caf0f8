/* libggml-attn.so: a backend of ggml that computes attention and projections by libattn. */
#ifndef GGML_ATTN_PLUGIN_H
#define GGML_ATTN_PLUGIN_H

#include "attn/attn.h"
#include "host.h"

/* ---- log.c ---- */

/* What was taken and declined, and why, where ATTN_GGML_LOG=1; each line once. */
int log_wanted(void);
__attribute__((format(printf, 1, 2))) void log_once(const char *format, ...);
/* A line that is always worth it. */
__attribute__((format(printf, 1, 2))) void log_error(const char *format, ...);

/* ---- backend.c ---- */

/* The state of a backend: one a llama_context. */
struct backend {
    attn_context *context;
    int n_threads;
    void *memory; /* of masks */
    size_t memory_bytes;
};

/* At least so many bytes, or NULL. */
void *backend_memory(struct backend *b, size_t bytes);

/* ---- types.c ---- */

/* Whether libattn has the type, and which it is. */
int type_of(int ggml, attn_dtype *type);
/* A tensor of ggml with its dimensions in the order [3, 2, 1, 0]. */
attn_tensor tensor_of(const struct gg_tensor *t, attn_dtype type);

/* ---- attention.c ---- */

/* NULL, or why the node is left to others. */
const char *attention_declined(const struct gg_tensor *node);
attn_status attention_compute(struct backend *b, const struct gg_tensor *node);

/* ---- mask.c ---- */

/* What a dense mask turns out to be. */
struct mask_shape {
    int dense;    /* 1: nothing else fits */
    int causal;   /* row i of sequence b sees keys up to offsets[b] + i; otherwise all have kv_length keys */
    size_t left;  /* at most so many keys before its own; SIZE_MAX: no bound */
    size_t first; /* where dense is 0: keys before it are hidden from all */
};

/*
 * Looks at a mask [n_seq][n_q][n_kv] of 0 and -inf in f16. offsets[n_seq] and kv_lengths[n_seq] are filled where it is not
 * dense.
 */
struct mask_shape mask_look(const attn_tensor *mask, ptrdiff_t *offsets, size_t *kv_lengths);

/* ---- weights.c ---- */

struct gg_buffer_type *weights_buffer_type(void);
void weights_open(struct gg_device *device);
int weights_wanted(void);
void weights_set_wanted(int wanted);
/* NULL, or why the node is left to others. */
const char *product_declined(const struct gg_tensor *node);
/* How many of n nodes, the first of which is a product, can be computed together: products of the same rows. */
size_t products_together(struct gg_tensor *const *nodes, size_t n);
attn_status products_compute(struct backend *b, struct gg_tensor *const *nodes, size_t n);

#endif
