/* The pool and merge slots where keys and values are multiplied by bf16 dot products. */
#ifndef ATTN_PAIRS_POOL_H
#define ATTN_PAIRS_POOL_H

#include "pairs_tile.h"
#include "pool_body.h"

/* What is served so: the others have the bits of the backend that the tier belongs to. */
static int pairs_serves(const struct attn_pool_task *t) {
    return t->k_type == ATTN_BF16 && t->v_type == ATTN_BF16 && t->score == ATTN_SCORE_DOT && !t->weights &&
           !t->scores;
}

/* Key/value head g of the task's alone. */
static struct attn_pool_task pairs_head(const struct attn_pool_task *t, size_t g) {
    struct attn_pool_task s = *t;
    const ptrdiff_t heads = (ptrdiff_t)(g * t->group);
    static const ptrdiff_t mask_bytes[] = {
        [ATTN_MASK_NONE] = 0, [ATTN_MASK_BOOL] = 1, [ATTN_MASK_F32] = 4, [ATTN_MASK_F16] = 2};
    s.heads = 1;
    s.k += (ptrdiff_t)g * t->k_head;
    s.v += (ptrdiff_t)g * t->v_head;
    s.q = pool_from(t->q_type, t->q, heads * t->q_head);
    if (t->out) s.out = pool_to(t, heads * t->out_head);
    if (t->lse) s.lse += heads * t->lse_head;
    if (t->lse_sinks) s.lse_sinks += heads * t->lse_sinks_head;
    if (t->mask) s.mask = (const char *)t->mask + heads * t->mask_head * mask_bytes[t->mask_kind];
    if (t->slopes) s.slopes += heads;
    if (t->sinks) s.sinks += heads;
    if (t->part) s.part += g * t->part_head;
    return s;
}

static void pairs_pool_body(const struct attn_pool_task *t) {
    struct pool_works works;
    for (size_t g = 0; g < t->heads; g++) {
        const struct attn_pool_task s = pairs_head(t, g);
        pool_body(&s, &works);
    }
}

static size_t pairs_scratch_body(const struct attn_pool_size *z) {
    struct attn_pool_size size = *z;
    size.gathers = 1;
    size.blocks = attn_max(size.blocks, 1);
    return pool_scratch_body(&size);
}

#endif
