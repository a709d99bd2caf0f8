/* The best backend of this CPU with one slot broken in one way. */
#ifndef TEST_SABOTEURS_H
#define TEST_SABOTEURS_H

#include "backend.h"

struct saboteur {
    const char *name;
    attn_linear_fn *linear;
    attn_pool_fn *pool;
    attn_merge_fn *merge;
    attn_pool_scratch_fn *pool_scratch;
    int crash;    /* only a guard page can catch it */
    int in_calls; /* the public calls' tables catch it too */
    attn_combine_fn *combine;
};

extern const struct saboteur saboteurs[];
extern const size_t n_saboteurs;

/* The backend that they break; set before they run. */
extern const struct attn_backend *honest;

#endif
