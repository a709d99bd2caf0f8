/* A valid attn_multihead_step() on the cache of kv_fixture.h, of which a test breaks one thing. */
#ifndef ERRORS_STEP_FIXTURE_H
#define ERRORS_STEP_FIXTURE_H

#include "kv_fixture.h"

enum { STEP_HEADS = 4, STEP_D = 7, STEP_P_O = 9, STEP_MATRICES = 8, STEP_FLOATS = 512, STEP_CANARY = 77 };

struct step {
    attn_context *context;
    struct cache cache; /* its rope, sequences, counts, starts and positions are the call's */
    float x_data[STEP_FLOATS], out_data[STEP_FLOATS], lse_data[STEP_FLOATS];
    attn_tensor x, out, lse, mask;
    float q_norm[KV_P_K], k_norm[KV_P_K], sinks[STEP_HEADS];
    unsigned char mask_data[64];
    size_t window[2], numbers[8];
    ptrdiff_t offsets[CALLS];
    attn_weights weights;
    attn_scoring scoring;
    attn_step_args args;
    const attn_step_args *argument;
    void *matrix[STEP_MATRICES];
    size_t n_matrices;
};

/* Everything valid: counts, sequences 0 and 2, norms, RoPE with positions, scoring with a window and a mask, W_o. */
void step_open(struct step *t, attn_context *context, int ring);
void step_close(struct step *t);

/* A packed n x k matrix that step_close() frees. */
const attn_packed *step_matrix(struct step *t, size_t n, size_t k);

/* The outputs hold what step_open() put there, and the cache what cache_watch() saw. */
int step_untouched(const struct step *t);

#endif
