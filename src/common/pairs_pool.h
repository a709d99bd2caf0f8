/* The pool and merge slots where keys and values are multiplied by bf16 dot products. */
#ifndef ATTN_PAIRS_POOL_H
#define ATTN_PAIRS_POOL_H

#include "pairs_few.h"
#include "pairs_tile.h"

#include "few_body.h"

/* What is served so: the others have the bits of the backend that the tier belongs to. */
static int pairs_serves(const struct attn_pool_task *t) {
    return t->k_type == ATTN_BF16 && t->v_type == ATTN_BF16 && t->score == ATTN_SCORE_DOT && !t->weights &&
           !t->scores;
}

static void pairs_pool(const struct attn_pool_task *t) {
    struct pool_works works;
    pool_any(t, &works);
}

/* Values are always gathered. */
static size_t pairs_scratch(const struct attn_pool_size *z) {
    struct attn_pool_size size = *z;
    size.gathers = 1;
    return scratch_any(&size);
}

#endif
