/*
 * A layer, tokens of several sequences, and attn_multihead_step() calls that bring them: one by one, in pieces, alone or
 * beside each other, into any cache. What a call must not read is NaN.
 */
#ifndef TEST_STEP_CASE_H
#define TEST_STEP_CASE_H

#include "support/guard.h"
#include "support/harness.h"

enum { STEP_SEQUENCES = 3, STEP_KEY_MASK = 7 /* one key in so many is hidden */ };

enum step_scoring {
    STEP_DEFAULT, /* scoring is NULL */
    STEP_WINDOW,
    STEP_SHAPED,  /* window, soft cap, ALiBi, sinks */
    STEP_OFFSETS, /* the cache's lengths before the call, given */
    STEP_MASK,    /* some keys hidden from all */
    N_STEP_SCORINGS
};

struct step_case {
    size_t d, n_head, n_head_kv, p_k, p_v, p_o; /* p_o 0: without W_o */
    int bias, q_norm, k_norm;
    float epsilon;
    int rope, positions; /* given positions */
    attn_rope_style style;
    size_t dims;
    enum step_scoring scoring;
    size_t window;
    size_t n_sequences, lengths[STEP_SEQUENCES];
    uint64_t stream;
};

/* Case number i; long_one: a sequence of more than a chunk of keys. */
struct step_case step_case_draw(size_t i, int long_one);
void step_case_announce(const char *backend, const struct step_case *c, const char *how);
size_t step_case_tokens(const struct step_case *c);
size_t step_case_width(const struct step_case *c); /* of an output row */

/* The layer and the tokens, sequence after sequence. */
struct step_data {
    float *w[4], *bias[4]; /* W_q, W_k, W_v, W_o; bias NULL: none */
    size_t rows[4], columns[4];
    float *x; /* [tokens][d] */
    float *q_norm, *k_norm;
    int64_t *positions; /* [tokens] */
    float slopes[16], sinks[16];
    attn_rope rope;
};
struct step_data *step_data_make(const struct step_case *c);
void step_data_free(struct step_data *d);

/* The matrices for a context. */
struct step_layer {
    void *memory[4];
    attn_weights weights;
};
void step_layer_pack(attn_context *context, const struct step_case *c, const struct step_data *d,
                     struct step_layer *l);
void step_layer_free(struct step_layer *l);

struct step_cache_shape {
    attn_kv_layout layout;
    size_t block_rows; /* 0: one block a sequence */
    int ring;          /* only with a window */
    int host;          /* one block a sequence without a table */
    attn_dtype k_type, v_type;
};

struct step_cache {
    struct guard memory;
    attn_kv kv;
    size_t sequences[STEP_SEQUENCES]; /* of the case's */
    size_t most;                      /* tokens of a sequence in a call */
};
void step_cache_make(attn_context *context, const struct step_case *c, const struct step_cache_shape *shape,
                     struct step_cache *to);
void step_cache_free(struct step_cache *x);

enum step_schedule {
    STEP_PREFILL, /* each sequence alone, at once (but what a ring allows) */
    STEP_TOKENS,  /* alone, token by token; a long one's beginning at once */
    STEP_CHUNKS,  /* alone, in pieces */
    STEP_BATCH,   /* side by side with counts */
    STEP_RAGGED,  /* one behind the other with starts */
    N_STEP_SCHEDULES
};

struct step_outputs {
    float *out, *lse; /* [tokens][width], [tokens][n_head] */
};
struct step_outputs step_outputs_make(const struct step_case *c);
void step_outputs_free(struct step_outputs *o);

/* One call: counts[s] tokens of each sequence from token done[s] on, arranged for the schedule. */
struct step_call {
    enum step_schedule schedule;
    size_t done[STEP_SEQUENCES], counts[STEP_SEQUENCES];
    int exact; /* on exactly the scratch that the query names for its shapes */
};

/* Runs it, with rows beyond the counts; checks that those are 0 and -inf. */
void step_call_run(attn_context *context, const struct step_case *c, const struct step_data *d,
                   const struct step_layer *l, const struct step_cache *cache, const struct step_call *call,
                   struct step_outputs *o, struct verdict *v);

/* Sequence s, whose first token is `first`, in one call of each function that attn_multihead_step() stands for.
 * from_tensors: the pooling reads f32 tensors with what the cache, which has rows and one block a sequence, dequantises to. */
void step_compose(attn_context *context, const struct step_case *c, const struct step_data *d,
                  const struct step_layer *l, const struct step_cache *cache, size_t s, size_t first,
                  int from_tensors, struct step_outputs *o);

/* All tokens by a schedule. */
void step_case_run(attn_context *context, const struct step_case *c, const struct step_data *d,
                   const struct step_cache_shape *shape, enum step_schedule schedule, struct step_outputs *o,
                   struct verdict *v);

/* What the calls' scoring says, for calls that put it together themselves. */
struct step_scoring_memory {
    attn_scoring scoring;
    size_t window[2];
    ptrdiff_t offsets[STEP_SEQUENCES];
    attn_tensor mask;
    unsigned char *hidden;
};
const attn_scoring *step_scoring_make(const struct step_case *c, const struct step_data *d, size_t n_kv,
                                      struct step_scoring_memory *m);
void step_scoring_free(struct step_scoring_memory *m);

#endif
