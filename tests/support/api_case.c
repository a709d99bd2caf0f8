/* The inputs of api_case.h. */
#include "support/api_case.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int api_has_heads(const struct api_case *c) { return c->call == API_HEAD || c->call == API_MULTIHEAD; }

int api_is_additive(const struct api_case *c) {
    return c->call == API_ADDITIVE || (api_has_heads(c) && c->pooling == ATTN_POOLING_ADDITIVE);
}

void api_case_announce(const char *backend, const struct api_case *c) {
    static const char *const names[] = {"attn_sdpa", "attn_additive", "attn_head", "attn_multihead"};
    harness_case("%s %s batch %zu heads %zu/%zu n_q %zu n_kv %zu d %zu %zu %zu p %zu %zu %zu o %zu pooling "
                 "%d c %zu a %d %d "
                 "bias %d self %d one_kv %d head %zu causal %d lengths %d %d mask %d bits %u scale %g lse %d "
                 "weights %d "
                 "spoiled %d fill %d layout %u workers %zu stream %llu",
                 backend, names[c->call], c->batch, c->n_head, c->n_head_kv, c->n_q, c->n_kv, c->d_q, c->d_k,
                 c->d_v, c->p_q, c->p_k, c->p_v, c->p_o, c->pooling, c->c, c->a_q, c->a_k, c->bias, c->self,
                 c->one_kv, c->head, c->causal, c->q_lengths, c->kv_lengths, c->mask, c->mask_bits,
                 (double)c->scale, c->lse, c->weights, c->spoiled, c->fill, c->layout, c->n_workers,
                 (unsigned long long)c->stream);
}

static size_t length(const struct api_case *c, const struct api_data *d, int keys, size_t b) {
    if (keys) return c->kv_lengths ? d->lengths[1][b] : c->n_kv;
    return c->q_lengths ? d->lengths[0][b] : c->n_q;
}

/* By causal order and lengths alone. */
static int in_range(const struct api_case *c, const struct api_data *d, size_t b, size_t i, size_t j) {
    const size_t n_q = length(c, d, 0, b), n_kv = length(c, d, 1, b);
    if (i >= n_q || j >= n_kv) return 0;
    if (c->causal == ATTN_CAUSAL_TOP_LEFT) return j <= i;
    return c->causal == ATTN_CAUSAL_NONE || j + n_q <= i + n_kv;
}

static unsigned char *mask_at(const struct api_case *c, const struct api_data *d, size_t b, size_t h,
                              size_t i, size_t j) {
    return grid_u8(&d->mask, c->mask_bits & 1 ? b : 0, c->mask_bits & 2 ? h : 0, c->mask_bits & 4 ? i : 0) +
           (c->mask_bits & 8 ? j : 0) * d->mask.element;
}

float api_case_bias(const struct api_case *c, const struct api_data *d, size_t b, size_t h, size_t i,
                    size_t j) {
    float bias = 0;
    if (c->mask == API_MASK_F32) memcpy(&bias, mask_at(c, d, b, h, i, j), sizeof bias);
    return bias;
}

int api_case_sees(const struct api_case *c, const struct api_data *d, size_t b, size_t h, size_t i,
                  size_t j) {
    if (!in_range(c, d, b, i, j)) return 0;
    if (c->mask == API_MASK_BOOL) return *mask_at(c, d, b, h, i, j) != 0;
    return api_case_bias(c, d, b, h, i, j) != -INFINITY;
}

/* Bits of a f32 mask that no visible range reaches stay NaN. */
static void make_mask(const struct api_case *c, struct api_data *d, struct rng *r) {
    const size_t size[4] = {c->mask_bits & 1 ? c->batch : 1, c->mask_bits & 2 ? c->n_head : 1,
                            c->mask_bits & 4 ? c->n_q : 1, c->mask_bits & 8 ? c->n_kv : 1};
    d->mask = grid_make(r, c->mask == API_MASK_BOOL ? 1 : sizeof(float), size, c->layout);
    for (size_t b = 0; b < c->batch; b++)
        for (size_t h = 0; h < c->n_head; h++)
            for (size_t i = 0; i < c->n_q; i++)
                for (size_t j = 0; j < c->n_kv; j++) {
                    unsigned char *at = mask_at(c, d, b, h, i, j);
                    float bias = 2 * rng_normal(r);
                    if (c->mask == API_MASK_BOOL) {
                        *at = rng_chance(r, 25) ? 0 : (unsigned char)(1 + rng_below(r, 255));
                    } else if (in_range(c, d, b, i, j)) {
                        bias = rng_chance(r, 25) ? -INFINITY : rng_chance(r, 3) ? -FLT_MAX : bias;
                        memcpy(at, &bias, sizeof bias);
                    }
                }
    d->t_mask = grid_tensor(&d->mask);
    d->scoring.mask = &d->t_mask;
}

/* Padding rows are NaN. */
static void poison(const struct api_case *c, const struct api_data *d, struct grid *g, int keys) {
    for (size_t b = 0; b < g->size[0]; b++)
        for (size_t h = 0; h < g->size[1]; h++)
            for (size_t i = length(c, d, keys, b); i < g->size[2]; i++)
                for (size_t j = 0; j < g->size[3]; j++) grid_f32(g, b, h, i)[j] = NAN;
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
    if (!d || c->n_head > API_HEADS_MAX || c->batch > 16) abort();
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
    d->q = grid_make(&r, 4, (size_t[4]){c->batch, n_head, c->n_q, heads ? c->d_q : c->p_q}, c->layout);
    const size_t batch_kv = c->one_kv && c->batch ? 1 : c->batch;
    d->k = grid_make(&r, 4, (size_t[4]){batch_kv, n_head_kv, c->n_kv, heads ? c->d_k : c->p_k}, c->layout);
    d->v = grid_make(&r, 4, (size_t[4]){batch_kv, n_head_kv, c->n_kv, heads ? c->d_v : c->p_v}, c->layout);
    grid_fill(&d->q, &r, c->fill);
    grid_fill(&d->k, &r, c->fill);
    grid_fill(&d->v, &r, c->fill);
    if (!c->self) {
        poison(c, d, &d->q, 0);
        poison(c, d, &d->k, 1);
        poison(c, d, &d->v, 1);
    }
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
