/* A valid call of each pooling function, of which a test breaks one thing. */
#ifndef ERRORS_FIXTURE_H
#define ERRORS_FIXTURE_H

#include <attn/attn.h>
#include <stddef.h>

enum api { API_SDPA, API_ADDITIVE, API_HEAD, API_MULTIHEAD, API_HEAD_ADDITIVE, N_APIS };

/* Sizes of all fixtures. */
enum {
    BATCH = 2,
    N_SEQUENCES = 3, /* of a ragged batch */
    N_HEAD = 4,
    N_HEAD_KV = 2,
    N_Q = 3,
    N_KV = 5,
    P_Q = 3, /* additive */
    P_K = 4,
    P_V = 6,
    C = 7,
    D_Q = 6,
    D_K = 7,
    D_V = 8,
    P_O = 9
};

/* The tensors that every pooling function has; W is `w` of attn_additive and `w_a` of a layer, LSE_SINKS and SCORES
 * attn_sdpa's. */
enum tensor { T_Q, T_K, T_V, T_OUT, T_LSE, T_WEIGHTS, T_LSE_SINKS, T_SCORES, T_MASK, T_W, N_TENSORS };

enum { FIXTURE_FLOATS = 1024, FIXTURE_MATRICES = 12 };

struct fixture {
    enum api api;
    attn_context *context;
    /* The call's arguments: the pointer of a tensor is NULL or its entry of `tensor`. */
    const attn_tensor *argument[N_TENSORS];
    attn_tensor tensor[N_TENSORS];
    const attn_scoring *scoring_argument;
    attn_scoring scoring;
    size_t q_lengths[BATCH], kv_lengths[BATCH];
    ptrdiff_t offsets[BATCH];
    size_t window[2], prefixes[BATCH],
        starts[2][N_SEQUENCES + 1]; /* of q and of k and v; not given at first */
    int32_t q_documents[BATCH * N_Q], kv_documents[BATCH * N_KV];
    float slopes[N_HEAD], sinks[N_HEAD];
    attn_weights layer;
    const attn_weights *layer_argument;
    const attn_packed *a_q[N_HEAD], *a_k[N_HEAD_KV];
    const attn_packed *const *a_q_argument, *const *a_k_argument;
    size_t head;
    size_t args_size;         /* size member of the args; SIZE_MAX: args is NULL */
    float *memory[N_TENSORS]; /* FIXTURE_FLOATS each; outputs hold a canary */
    void *matrix[FIXTURE_MATRICES];
    size_t n_matrices;
};

/* Everything valid: a call succeeds. */
void fixture_open(struct fixture *f, enum api api, attn_context *context);
void fixture_close(struct fixture *f);

/* The same as a ragged batch of N_SEQUENCES in one element of the tensors' batch; valid too. */
void fixture_ragged(struct fixture *f);

/* The call with the arguments as they stand, and its scratch query. */
attn_status fixture_call(struct fixture *f);
attn_status fixture_query(struct fixture *f, size_t *bytes);

/* Whether all output memory still holds its canary. */
int fixture_untouched(const struct fixture *f);

/* A packed n x k matrix of small numbers that fixture_close() frees. */
attn_packed *fixture_matrix(struct fixture *f, size_t n, size_t k);

/* A context of one thread on the backend that the library chooses. */
attn_context *default_context(void);

/* What each tensor is called in messages of that function. */
const char *fixture_name(enum api api, enum tensor tensor);
const char *api_name(enum api api);

#endif
