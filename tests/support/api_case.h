/*
 * One call of attn_sdpa, attn_additive, attn_head or attn_multihead in guarded memory, with the scratch
 * that the query function asks for and not a byte more, checked against the oracle. Padding and whatever
 * else nobody may look at is NaN.
 */
#ifndef TEST_API_CASE_H
#define TEST_API_CASE_H

#include "attn/attn.h"
#include "bound.h"
#include "support/grid.h"
#include "support/harness.h"

enum api_call { API_SDPA, API_ADDITIVE, API_HEAD, API_MULTIHEAD };

enum api_mask { API_MASK_NONE, API_MASK_BOOL, API_MASK_F32, API_MASK_F16 };
enum api_offsets { API_OFFSETS_NONE, API_OFFSETS_NEAR, API_OFFSETS_FAR }; /* among the keys, anywhere */
enum api_window { API_WINDOW_NONE, API_WINDOW_BOTH, API_WINDOW_LEFT, API_WINDOW_RIGHT, API_WINDOW_SELF };
enum api_documents { API_DOCUMENTS_NONE, API_DOCUMENTS_SORTED, API_DOCUMENTS_SHUFFLED };
enum api_sinks { API_SINKS_NONE, API_SINKS_NORMAL, API_SINKS_ODD }; /* odd: -inf, far from all scores */

struct api_case {
    enum api_call call;
    attn_pooling pooling; /* of heads */
    size_t batch, n_head, n_head_kv, n_q, n_kv;
    size_t d_q, d_k, d_v; /* heads: before the projections */
    size_t p_q, p_k, p_v; /* of the rows that are pooled; p_q = p_k for dot products */
    size_t p_o;           /* multihead: 0 for no W_o */
    size_t c;             /* additive: of tanh's argument, where a_q or a_k is given */
    int a_q, a_k, bias;   /* which matrices there are */
    int self;             /* heads: q, k and v are one tensor */
    int one_kv;           /* keys and values are those of one sequence for all: a batch stride of 0 */
    size_t head;          /* of attn_head */
    size_t ragged;        /* sequences that the starts cut the rows in; 0: no starts. Then batch is 1 */
    attn_causal causal;
    enum api_offsets offsets;
    enum api_window window;
    int prefixes;
    enum api_documents documents;
    int alibi;
    float soft_cap;
    enum api_sinks sinks;
    int q_lengths, kv_lengths;
    enum api_mask mask;
    unsigned mask_bits;                  /* bit d: not broadcast in dimension d */
    float scale;                         /* 0: the default */
    int lse, weights, lse_sinks, scores; /* the last two: attn_sdpa's */
    unsigned
        cache; /* attn_sdpa: 0, or 1 + which of cache_shapes the keys and values come from, where they can */
    int spoiled; /* NaN here and there, +inf in a f32 mask; visible or not */
    enum fill fill;
    unsigned layout;
    size_t n_workers;
    uint64_t stream;
};

/* A matrix, packed for the context's backend. */
struct api_matrix {
    float *data; /* n x k, then the bias */
    size_t n, k;
    int bias;
    struct guard memory;
    const attn_packed *packed;
};

#define API_HEADS_MAX 128
#define API_SEQUENCES_MAX 16

struct api_data {
    struct grid q, k, v, w, mask;
    attn_tensor t_q, t_k, t_v, t_w, t_mask;
    size_t lengths[2][API_SEQUENCES_MAX];    /* of queries, of keys */
    size_t starts[2][API_SEQUENCES_MAX + 1]; /* the same */
    size_t prefixes[API_SEQUENCES_MAX], window[2];
    ptrdiff_t offsets[API_SEQUENCES_MAX];
    struct guard documents[2]; /* int32_t, of queries, of keys */
    float slopes[API_HEADS_MAX], sinks[API_HEADS_MAX];
    attn_scoring scoring;
    const attn_kv *kv; /* attn_sdpa: a cache that takes the place of t_k and t_v (cache_case.h) */
    const size_t *kv_sequences;
    struct api_matrix w_q, w_k, w_v, w_o, a_q[API_HEADS_MAX], a_k[API_HEADS_MAX];
};

struct api_outputs {
    struct grid out, lse, weights, lse_sinks, scores;
    size_t n_head; /* of all but out */
};

int api_has_heads(const struct api_case *c); /* attn_head or attn_multihead */
int api_is_additive(const struct api_case *c);

struct api_data *api_case_make(const struct api_case *c);
void api_case_free(struct api_data *d);
void api_case_announce(const char *backend, const struct api_case *c);

/* Where row i of element b of the tensors' batch belongs: its sequence, its number there, what the sequence
 * has. inside: 0 for a row outside all sequences, and then the rest is 0 too. */
struct api_place {
    int inside;
    size_t sequence, row;
    size_t n_q, n_kv; /* rows and keys of the sequence, by its lengths */
    size_t first_key; /* its key 0 among the rows of k and v */
    int64_t position; /* of the row; offsets beyond +-2^62 count as that */
};
struct api_place api_case_place(const struct api_case *c, const struct api_data *d, size_t b, size_t i);

/* Sequences of a case; rows (keys: 0) or keys (1) of the longest, by tensors or starts. */
size_t api_case_sequences(const struct api_case *c);
size_t api_case_longest(const struct api_case *c, const struct api_data *d, int keys);

/* Whether that row sees key j by everything but the mask. */
int api_case_in_sight(const struct api_case *c, const struct api_data *d, const struct api_place *p,
                      size_t j);

/* Whether row (b, h, i) of the tensors sees key j of its sequence, and what the mask adds to the score. */
int api_case_sees(const struct api_case *c, const struct api_data *d, size_t b, size_t h, size_t i, size_t j);
float api_case_bias(const struct api_case *c, const struct api_data *d, size_t b, size_t h, size_t i,
                    size_t j);

/* Draws what the features need, before the mask and after it (api_features.c). */
void api_features_make(const struct api_case *c, struct api_data *d);
void api_features_poison(const struct api_case *c, struct api_data *d);

/* Packs the matrices for the context's backend, into new memory. */
void api_case_pack(attn_context *context, const struct api_case *c, struct api_data *d);

/* Calls with packed matrices and hands out the outputs, which the caller frees. */
struct api_outputs api_case_run(attn_context *context, const struct api_case *c, const struct api_data *d,
                                struct verdict *v);
void api_outputs_free(struct api_outputs *o);

/* Scratch that the packed case needs. */
size_t api_case_scratch(attn_context *context, const struct api_case *c, const struct api_data *d);

/* The textbook's results, contiguous: out [batch, head, n_q, p] with what attn_head and attn_multihead give,
 * lse, weights (of the longest sequence's keys), lse_sinks, scores; one allocation at .out. */
struct api_answers {
    double *out, *lse, *weights, *lse_sinks, *scores;
    size_t n_out, n_lse, n_weights; /* n_weights: scores too */
};
struct api_answers api_case_answers(const struct api_case *c, const struct api_data *d);

/* Bounds from tools/bound.c in the same shape, with its own results. */
void api_case_bounds(const char *backend, const struct api_case *c, struct api_data *d,
                     struct attn_bound_result *to);

/* NULL, or what api_case_check() puts in the place of its context's backend: for saboteurs, whose panels are
 * those of the backend named. */
extern const struct attn_backend *api_case_substitute;

/* All of it. */
void api_case_check(const char *backend, const struct api_case *c, struct verdict *v);

#endif
