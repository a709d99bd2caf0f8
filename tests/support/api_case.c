/* The inputs of api_case.h. */
#include "support/api_case.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/half.h"

int api_has_heads(const struct api_case *c) { return c->call == API_HEAD || c->call == API_MULTIHEAD; }

int api_is_additive(const struct api_case *c) {
    return c->call == API_ADDITIVE || (api_has_heads(c) && c->pooling == ATTN_POOLING_ADDITIVE);
}

void api_case_announce(const char *backend, const struct api_case *c) {
    static const char *const names[] = {"attn_sdpa", "attn_additive", "attn_head", "attn_multihead"};
    harness_case(
        "%s %s batch %zu heads %zu/%zu n_q %zu n_kv %zu d %zu %zu %zu p %zu %zu %zu o %zu pooling "
        "%d c %zu a %d %d "
        "bias %d self %d one_kv %d head %zu causal %d lengths %d %d ragged %zu offsets %d window %d "
        "prefixes %d documents %d alibi %d cap %g sinks %d mask %d bits %u scale %g lse %d %d weights %d %d "
        "spoiled %d fill %d layout %u workers %zu stream %llu",
        backend, names[c->call], c->batch, c->n_head, c->n_head_kv, c->n_q, c->n_kv, c->d_q, c->d_k, c->d_v,
        c->p_q, c->p_k, c->p_v, c->p_o, c->pooling, c->c, c->a_q, c->a_k, c->bias, c->self, c->one_kv,
        c->head, c->causal, c->q_lengths, c->kv_lengths, c->ragged, c->offsets, c->window, c->prefixes,
        c->documents, c->alibi, (double)c->soft_cap, c->sinks, c->mask, c->mask_bits, (double)c->scale,
        c->lse, c->lse_sinks, c->weights, c->scores, c->spoiled, c->fill, c->layout, c->n_workers,
        (unsigned long long)c->stream);
}

/* Of row i and key j of sequence s. */
static unsigned char *mask_at(const struct api_case *c, const struct api_data *d, size_t s, size_t h,
                              size_t i, size_t j) {
    return grid_u8(&d->mask, c->mask_bits & 1 ? s : 0, c->mask_bits & 2 ? h : 0, c->mask_bits & 4 ? i : 0) +
           (c->mask_bits & 8 ? j : 0) * d->mask.element;
}

float api_case_bias(const struct api_case *c, const struct api_data *d, size_t b, size_t h, size_t i,
                    size_t j) {
    const struct api_place p = api_case_place(c, d, b, i);
    uint16_t half = 0;
    float bias = 0;
    if (c->mask == API_MASK_F32) memcpy(&bias, mask_at(c, d, p.sequence, h, p.row, j), sizeof bias);
    if (c->mask == API_MASK_F16) memcpy(&half, mask_at(c, d, p.sequence, h, p.row, j), sizeof half);
    return c->mask == API_MASK_F16 ? half_value(half) : bias;
}

int api_case_sees(const struct api_case *c, const struct api_data *d, size_t b, size_t h, size_t i,
                  size_t j) {
    const struct api_place p = api_case_place(c, d, b, i);
    if (!api_case_in_sight(c, d, &p, j)) return 0;
    if (c->mask == API_MASK_BOOL) return *mask_at(c, d, p.sequence, h, p.row, j) != 0;
    return api_case_bias(c, d, b, h, i, j) != -INFINITY;
}

static void draw_mask(const struct api_case *c, struct rng *r, int in_sight, unsigned char *at) {
    float bias = 2 * rng_normal(r);
    if (c->mask == API_MASK_BOOL) {
        *at = rng_chance(r, 25) ? 0 : (unsigned char)(1 + rng_below(r, 255));
    } else if (in_sight && c->mask == API_MASK_F32) {
        bias = rng_chance(r, 25) ? -INFINITY : rng_chance(r, 3) ? -FLT_MAX : bias;
        memcpy(at, &bias, sizeof bias);
    } else if (in_sight) {
        const uint16_t half = half_draw(r);
        memcpy(at, &half, sizeof half);
    }
}

/* Elements of a f32 or f16 mask that no row in sight of them reads stay NaN. */
static void make_mask(const struct api_case *c, struct api_data *d, struct rng *r) {
    const size_t n_q = api_case_longest(c, d, 0), n_kv = api_case_longest(c, d, 1);
    const size_t size[4] = {c->mask_bits & 1 ? api_case_sequences(c) : 1, c->mask_bits & 2 ? c->n_head : 1,
                            c->mask_bits & 4 ? n_q : 1, c->mask_bits & 8 ? n_kv : 1};
    d->mask = grid_make(r, c->mask == API_MASK_BOOL ? 1 : c->mask == API_MASK_F16 ? 2 : 4, size, c->layout);
    if (c->mask == API_MASK_F16) half_fill(&d->mask, HALF_NAN);
    for (size_t b = 0; b < c->batch; b++)
        for (size_t h = 0; h < c->n_head; h++)
            for (size_t i = 0; i < c->n_q; i++) {
                const struct api_place p = api_case_place(c, d, b, i);
                for (size_t j = 0; p.inside && j < (c->ragged ? p.n_kv : c->n_kv); j++)
                    draw_mask(c, r, api_case_in_sight(c, d, &p, j), mask_at(c, d, p.sequence, h, p.row, j));
            }
    d->t_mask = grid_tensor(&d->mask);
    if (c->mask == API_MASK_F16 && d->t_mask.size[3] == 1) d->t_mask.stride[3] = 6;
    d->scoring.mask = &d->t_mask;
}

static struct api_matrix make_matrix(struct rng *r, size_t n, size_t k, int bias) {
    struct api_matrix m = {.data = malloc(n * (k + 1) * sizeof(float)), .n = n, .k = k, .bias = bias};
    if (!m.data) abort();
    for (size_t i = 0; i < n * (k + 1); i++) m.data[i] = rng_normal(r) / sqrtf((float)k);
    return m;
}

static void make_matrices(const struct api_case *c, struct api_data *d, struct rng *r) {
    if (api_has_heads(c)) {
        d->w_q = make_matrix(r, c->n_head * c->p_q, c->d_q, c->bias);
        d->w_k = make_matrix(r, c->n_head_kv * c->p_k, c->d_k, c->bias);
        d->w_v = make_matrix(r, c->n_head_kv * c->p_v, c->d_v, c->bias);
        if (c->p_o) d->w_o = make_matrix(r, c->p_o, c->n_head * c->p_v, c->bias);
    }
    for (size_t h = 0; c->a_q && h < c->n_head; h++)
        d->a_q[h] = make_matrix(r, c->c, c->p_q, c->bias && h % 2);
    for (size_t h = 0; c->a_k && h < c->n_head_kv; h++) d->a_k[h] = make_matrix(r, c->c, c->p_k, c->bias);
}

struct api_data *api_case_make(const struct api_case *c) {
    struct rng r = rng_make(test_seed(), c->stream);
    struct api_data *d = calloc(1, sizeof *d);
    if (!d || c->n_head > API_HEADS_MAX || api_case_sequences(c) > API_SEQUENCES_MAX) abort();
    if (c->ragged && (c->batch != 1 || c->q_lengths)) abort();
    const int heads = api_has_heads(c);
    const size_t n_head = heads ? 1 : c->n_head, n_head_kv = heads ? 1 : c->n_head_kv;
    for (size_t b = 0; b < c->batch; b++) {
        d->lengths[0][b] = rng_below(&r, c->n_q + 1);
        d->lengths[1][b] = rng_below(&r, c->n_kv + 1);
    }
    d->scoring = (attn_scoring){.size = sizeof d->scoring,
                                .scale = c->scale,
                                .causal = c->causal,
                                .q_lengths = c->q_lengths ? d->lengths[0] : NULL,
                                .kv_lengths = c->kv_lengths ? d->lengths[1] : NULL};
    api_features_make(c, d);
    d->q = grid_make(&r, 4, (size_t[4]){c->batch, n_head, c->n_q, heads ? c->d_q : c->p_q}, c->layout);
    const size_t batch_kv = c->one_kv && c->batch ? 1 : c->batch;
    d->k = grid_make(&r, 4, (size_t[4]){batch_kv, n_head_kv, c->n_kv, heads ? c->d_k : c->p_k}, c->layout);
    d->v = grid_make(&r, 4, (size_t[4]){batch_kv, n_head_kv, c->n_kv, heads ? c->d_v : c->p_v}, c->layout);
    grid_fill(&d->q, &r, c->fill);
    grid_fill(&d->k, &r, c->fill);
    grid_fill(&d->v, &r, c->fill);
    api_features_poison(c, d);
    d->t_q = grid_tensor(&d->q);
    d->t_k = c->self ? d->t_q : grid_tensor(&d->k);
    d->t_v = c->self ? d->t_q : grid_tensor(&d->v);
    d->t_k.size[0] = d->t_v.size[0] = c->batch;
    if (c->one_kv && !c->self) d->t_k.stride[0] = d->t_v.stride[0] = 0;
    if (api_is_additive(c)) {
        const size_t width = c->a_q || c->a_k ? c->c : c->p_q;
        d->w = grid_make(&r, 4, (size_t[4]){1, rng_chance(&r, 50) ? c->n_head : 1, 1, width}, c->layout);
        grid_fill(&d->w, &r, FILL_NORMAL);
        d->t_w = grid_tensor(&d->w);
    }
    if (c->mask != API_MASK_NONE) make_mask(c, d, &r);
    make_matrices(c, d, &r);
    if (c->spoiled) {
        struct grid *const inputs[] = {&d->q, &d->k, &d->v, &d->mask};
        const size_t which = rng_below(&r, c->mask == API_MASK_F32 ? 4 : 3);
        grid_spoil(inputs[which], &r, which == 3);
    }
    return d;
}

static void free_matrix(struct api_matrix *m) {
    free(m->data);
    guard_free(&m->memory);
}

void api_case_free(struct api_data *d) {
    grid_free(&d->q);
    grid_free(&d->k);
    grid_free(&d->v);
    grid_free(&d->w);
    grid_free(&d->mask);
    guard_free(&d->documents[0]);
    guard_free(&d->documents[1]);
    free_matrix(&d->w_q);
    free_matrix(&d->w_k);
    free_matrix(&d->w_v);
    free_matrix(&d->w_o);
    for (size_t h = 0; h < API_HEADS_MAX; h++) {
        free_matrix(&d->a_q[h]);
        free_matrix(&d->a_k[h]);
    }
    free(d);
}
