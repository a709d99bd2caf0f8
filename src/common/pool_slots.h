/* The pool and merge slots with f32 arithmetic: few rows the one way, more the other. */
#ifndef ATTN_POOL_SLOTS_H
#define ATTN_POOL_SLOTS_H

#include "pool_floats.h"
#include "few_floats.h"

#include "few_body.h"
#include "pool_weights.h"

/* One way or the other; then weights and scores. */
static void pool_slot(const struct attn_pool_task *t) {
    struct pool_works works;
    pool_any(t, &works);
    for (size_t i = 0; (t->weights || t->scores) && i < works.n; i++)
        pool_weights(&works.w[i].b, &works.w[i].range, &works.w[i].all, works.section);
}

#endif
