#include "step/step_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *take(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    if (!p) abort();
    return p;
}

static float *normal(struct rng *r, size_t n, float scale) {
    float *x = take(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = rng_normal(r) * scale;
    return x;
}

/* ---- Cases --------------------------------------------------------------------------------------------- */

struct step_case step_case_draw(size_t i, int long_one) {
    struct rng r = rng_make(test_seed(), 7100 + i);
    struct step_case c = {.d = 3 + rng_below(&r, 40),
                          .n_head_kv = 1 + rng_below(&r, 3),
                          .p_v = 1 + rng_below(&r, 40),
                          .p_o = i % 3 ? 5 + rng_below(&r, 30) : 0,
                          .bias = i % 4 != 1,
                          .q_norm = i / 2 % 2,
                          .k_norm = i / 3 % 2,
                          .epsilon = i % 5 == 1 ? 0.125f : 0.0f,
                          .rope = i % 4 != 2,
                          .positions = i % 5 == 3,
                          .style = (attn_rope_style)(i % 2),
                          .scoring = (enum step_scoring)(i % N_STEP_SCORINGS),
                          .n_sequences = STEP_SEQUENCES,
                          .stream = i};
    static const size_t widths[] = {2, 16, 64, 10, 38, 80};
    c.p_k = widths[rng_below(&r, 6)];
    if (!c.rope) c.p_k += rng_below(&r, 2);
    c.dims = i % 7 == 3 && c.p_k > 2 ? 2 + 2 * rng_below(&r, c.p_k / 2) : 0;
    c.n_head = c.n_head_kv * (1 + rng_below(&r, 5));
    c.window = c.scoring == STEP_WINDOW || c.scoring == STEP_SHAPED ? rng_below(&r, 20) : 0;
    for (size_t s = 0; s < STEP_SEQUENCES; s++) c.lengths[s] = s == i % 6 ? 0 : 1 + rng_below(&r, 40);
    if (long_one) { /* small otherwise, for the scalar backend */
        c.lengths[i % STEP_SEQUENCES] = 2045 + rng_below(&r, 30);
        c.n_head_kv = 1;
        c.n_head = 1 + i % 2;
        c.p_k = c.p_k < 16 ? c.p_k : 16;
        c.dims = 0;
    }
    return c;
}

void step_case_announce(const char *backend, const struct step_case *c, const char *how) {
    harness_case("%s step %llu%s: d %zu, heads %zu/%zu, p %zu/%zu, p_o %zu, norms %d%d, rope %d, scoring %d, "
                 "lengths %zu %zu %zu",
                 backend, (unsigned long long)c->stream, how, c->d, c->n_head, c->n_head_kv, c->p_k, c->p_v,
                 c->p_o, c->q_norm, c->k_norm, c->rope, (int)c->scoring, c->lengths[0], c->lengths[1],
                 c->lengths[2]);
}

size_t step_case_tokens(const struct step_case *c) {
    size_t n = 0;
    for (size_t s = 0; s < c->n_sequences; s++) n += c->lengths[s];
    return n;
}

size_t step_case_width(const struct step_case *c) { return c->p_o ? c->p_o : c->n_head * c->p_v; }

struct step_data *step_data_make(const struct step_case *c) {
    struct rng r = rng_make(test_seed(), 7200 + c->stream);
    struct step_data *d = take(sizeof *d);
    const size_t rows[4] = {c->n_head * c->p_k, c->n_head_kv * c->p_k, c->n_head_kv * c->p_v, c->p_o};
    const size_t columns[4] = {c->d, c->d, c->d, c->n_head * c->p_v}, tokens = step_case_tokens(c);
    memset(d, 0, sizeof *d);
    for (int i = 0; i < 4; i++) {
        d->rows[i] = rows[i];
        d->columns[i] = columns[i];
        d->w[i] = normal(&r, rows[i] * columns[i], 1.0f / sqrtf((float)columns[i]));
        d->bias[i] = c->bias ? normal(&r, rows[i], 1.0f) : NULL;
    }
    d->x = normal(&r, tokens * c->d, 1.0f);
    d->q_norm = normal(&r, c->p_k, 1.0f);
    d->k_norm = normal(&r, c->p_k, 1.0f);
    d->positions = take(tokens * sizeof *d->positions);
    for (size_t i = 0; i < tokens; i++) d->positions[i] = (int64_t)rng_below(&r, 3000) - 1000;
    for (size_t h = 0; h < c->n_head; h++) {
        d->slopes[h] = 1.0f / (float)(2 + h);
        d->sinks[h] = h == 1 ? -INFINITY : rng_normal(&r);
    }
    d->rope = (attn_rope){.size = sizeof d->rope, .style = c->style, .dims = c->dims};
    return d;
}

void step_data_free(struct step_data *d) {
    for (int i = 0; i < 4; i++) {
        free(d->w[i]);
        free(d->bias[i]);
    }
    free(d->x);
    free(d->q_norm);
    free(d->k_norm);
    free(d->positions);
    free(d);
}

void step_layer_pack(attn_context *context, const struct step_case *c, const struct step_data *d,
                     struct step_layer *l) {
    const attn_packed *packed[4] = {NULL};
    for (int i = 0; i < 4; i++) {
        const attn_tensor w = attn_tensor_contiguous(d->w[i], ATTN_F32, 1, 1, d->rows[i], d->columns[i]);
        size_t bytes = 0;
        l->memory[i] = NULL;
        if (!d->rows[i]) continue;
        ck_assert_int_eq(attn_pack_linear_bytes(context, &w, &bytes), ATTN_OK);
        l->memory[i] = aligned_alloc(64, (bytes + 63) / 64 * 64);
        ck_assert_int_eq(attn_pack_linear(context, &w, d->bias[i], l->memory[i], bytes, &packed[i]), ATTN_OK);
    }
    l->weights = (attn_weights){.size = sizeof l->weights,
                                .n_head = c->n_head,
                                .n_head_kv = c->n_head_kv,
                                .w_q = packed[0],
                                .w_k = packed[1],
                                .w_v = packed[2],
                                .w_o = packed[3]};
}

void step_layer_free(struct step_layer *l) {
    for (int i = 0; i < 4; i++) free(l->memory[i]);
}

/* ---- Caches -------------------------------------------------------------------------------------------- */

void step_cache_make(attn_context *context, const struct step_case *c, const struct step_cache_shape *shape,
                     struct step_cache *to) {
    struct rng r = rng_make(test_seed(), 7300 + c->stream);
    const size_t unit = shape->layout == ATTN_KV_PANELS ? 16 : 1;
    size_t most = 1, bytes = 0;
    for (size_t s = 0; s < c->n_sequences; s++) most = c->lengths[s] > most ? c->lengths[s] : most;
    to->most = shape->ring ? 1 + rng_below(&r, 9) : most;
    const size_t keys =
        shape->ring ? c->window + to->most : most; /* the first of a call's rows sees its window */
    const size_t rows = ((shape->block_rows ? shape->block_rows : keys) + unit - 1) / unit * unit;
    const attn_kv_shape s = {.size = sizeof s,
                             .layout = shape->layout,
                             .ring = shape->ring,
                             .n_sequences = c->n_sequences + 1,
                             .blocks_per_sequence = (keys + rows - 1) / rows,
                             .block_rows = rows,
                             .n_head_kv = c->n_head_kv,
                             .p_k = c->p_k,
                             .p_v = c->p_v,
                             .k_dtype = shape->k_type,
                             .v_dtype = shape->v_type};
    ck_assert_msg(attn_kv_bytes(context, &s, &bytes) == ATTN_OK, "%s", attn_context_error(context));
    bytes = (bytes + 63) / 64 * 64;
    to->memory = guard_alloc(bytes, 0);
    to->kv = (attn_kv){.size = sizeof to->kv};
    ck_assert_msg(attn_kv_create(context, &s, to->memory.data, bytes, &to->kv) == ATTN_OK, "%s",
                  attn_context_error(context));
    if (shape->host) {
        to->kv.blocks = NULL;
        to->kv.references = NULL;
    }
    const size_t swap = rng_below(&r, c->n_sequences + 1);
    for (size_t i = 0; i < c->n_sequences; i++) to->sequences[i] = (i + swap) % (c->n_sequences + 1);
}

void step_cache_free(struct step_cache *x) { guard_free(&x->memory); }

struct step_outputs step_outputs_make(const struct step_case *c) {
    const size_t n = step_case_tokens(c);
    return (struct step_outputs){take(n * step_case_width(c) * sizeof(float)),
                                 take(n * c->n_head * sizeof(float))};
}

void step_outputs_free(struct step_outputs *o) {
    free(o->out);
    free(o->lse);
}
