/* Drawing what a shape of an API case leaves open. */
#ifndef TEST_API_DRAW_H
#define TEST_API_DRAW_H

#include "support/api_case.h"
#include "support/shapes.h"

static inline void api_draw(struct api_case *c, uint64_t stream) {
    struct rng r = rng_make(test_seed(), ~stream);
    c->stream = stream;
    c->causal = (attn_causal)rng_below(&r, 3);
    c->q_lengths = rng_chance(&r, 33);
    c->kv_lengths = rng_chance(&r, 33);
    c->mask = rng_chance(&r, 50) ? API_MASK_NONE : rng_chance(&r, 50) ? API_MASK_BOOL : API_MASK_F32;
    c->mask_bits = (unsigned)rng_below(&r, 16);
    c->scale = rng_chance(&r, 66) ? 0 : rng_chance(&r, 50) ? 0.375f : -0.2f;
    c->lse = rng_chance(&r, 50);
    c->weights = rng_chance(&r, 33);
    c->one_kv = !c->kv_lengths && !c->self && rng_chance(&r, 10);
    c->spoiled = rng_chance(&r, 15);
    c->fill = rng_chance(&r, 70) ? FILL_NORMAL : (enum fill)rng_below(&r, N_FILLS);
    c->layout = (unsigned)rng_below(&r, N_LAYOUTS);
    c->n_workers = 1 + rng_below(&r, 3);
    c->scores = c->call == API_SDPA && rng_chance(&r, 20);
}

static inline void api_expect(const char *backend, const struct api_case *c) {
    struct verdict v = {.ok = 1};
    api_case_announce(backend, c);
    api_case_check(backend, c, &v);
    HARNESS_ASSERT(&v);
}

#endif
