#include "exact/exact.h"

#include <string.h>

#include "order.h"

uint64_t exact_hash_floats(uint64_t hash, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        for (int byte = 0; byte < 4; byte++) hash = (hash ^ (bits >> 8 * byte & 0xff)) * 0x100000001b3u;
    }
    return hash;
}

static uint64_t hash_grid(uint64_t hash, const struct grid *g) {
    for (size_t b = 0; b < g->size[0]; b++)
        for (size_t h = 0; h < g->size[1]; h++)
            for (size_t i = 0; i < g->size[2]; i++)
                hash = exact_hash_floats(hash, grid_f32(g, b, h, i), g->size[3]);
    return hash;
}

uint64_t exact_hash(const struct api_case *c, const struct api_outputs *o) {
    uint64_t hash = hash_grid(EXACT_HASH_START, &o->out);
    hash = c->lse ? hash_grid(hash, &o->lse) : hash;
    hash = c->weights ? hash_grid(hash, &o->weights) : hash;
    hash = c->lse_sinks ? hash_grid(hash, &o->lse_sinks) : hash;
    return c->scores ? hash_grid(hash, &o->scores) : hash;
}

struct exact_part exact_whole(const struct api_case *c) {
    return (struct exact_part){0, c->batch, 0, c->n_head, 0, c->n_q, c->n_kv};
}

/* Indices [from, from + n) of a dimension; a broadcast one stays. */
static void slice(attn_tensor *t, int dim, size_t from, size_t n, int broadcasts) {
    if (broadcasts && t->size[dim] == 1) return;
    t->data = (char *)t->data + (ptrdiff_t)from * t->stride[dim];
    t->size[dim] = n;
}

static int same_row(const struct grid *a, size_t b, size_t h, size_t i, const struct grid *part, size_t pb,
                    size_t ph, size_t pi) {
    return memcmp(grid_f32(a, b, h, i), grid_f32(part, pb, ph, pi), part->size[3] * sizeof(float)) == 0;
}

void exact_check_part(const struct exact_run *e, const struct exact_part *p, const struct api_outputs *all,
                      struct verdict *v) {
    struct api_case c = e->c;
    struct api_data d = *e->d;
    const size_t group = c.n_head / c.n_head_kv;
    const int one = api_has_heads(&c); /* attn_head's head, or all side by side in one row */
    const size_t n_head = one ? 1 : p->n_head, n_lse = c.call == API_HEAD ? 1 : p->n_head;
    c.batch = p->n_batch;
    c.n_q = p->n_q;
    c.n_kv = p->n_kv;
    c.weights = 0; /* not compared; without them the keys may be cut in chunks */
    attn_tensor *const inputs[] = {&d.t_q, &d.t_k, &d.t_v};
    for (int i = 0; i < 3; i++) {
        slice(inputs[i], 0, p->batch, p->n_batch, 0);
        slice(inputs[i], 2, i == 0 ? p->row : 0, i == 0 ? p->n_q : p->n_kv, 0);
    }
    if (!api_has_heads(&c)) {
        c.n_head = p->n_head;
        c.n_head_kv = (p->n_head + group - 1) / group;
        slice(&d.t_q, 1, p->head, p->n_head, 0);
        slice(&d.t_k, 1, p->head / group, c.n_head_kv, 0);
        slice(&d.t_v, 1, p->head / group, c.n_head_kv, 0);
        slice(&d.t_w, 1, p->head, p->n_head, 1);
    }
    if (c.mask != API_MASK_NONE) {
        slice(&d.t_mask, 0, p->batch, p->n_batch, 1);
        slice(&d.t_mask, 1, api_has_heads(&c) ? 0 : p->head, c.n_head, 1);
        slice(&d.t_mask, 2, p->row, p->n_q, 1);
        slice(&d.t_mask, 3, 0, p->n_kv, 1);
        d.scoring.mask = &d.t_mask;
    }
    d.scoring.q_lengths = NULL;
    d.scoring.kv_lengths = c.kv_lengths ? e->d->lengths[1] + p->batch : NULL;
    struct api_outputs o = api_case_run(e->context, &c, &d, v);
    for (size_t b = 0; b < p->n_batch && v->ok; b++)
        for (size_t h = 0; h < p->n_head; h++)
            for (size_t i = 0; i < p->n_q; i++)
                if ((h < n_head &&
                     !same_row(&all->out, p->batch + b, p->head + h, p->row + i, &o.out, b, h, i)) ||
                    (h < n_lse && c.lse &&
                     !same_row(&all->lse, p->batch + b, p->head + h, p->row + i, &o.lse, b, h, i)) ||
                    (c.scores &&
                     !same_row(&all->scores, p->batch + b, p->head + h, p->row + i, &o.scores, b, h, i)))
                    verdict_fail(v,
                                 "sequence %zu head %zu row %zu: other bits alone (%zu + %zu heads, %zu + "
                                 "%zu rows, %zu keys)",
                                 p->batch + b, p->head + h, p->row + i, p->head, p->n_head, p->row, p->n_q,
                                 p->n_kv);
    api_outputs_free(&o);
}

struct api_case exact_case(size_t i, enum api_call call) {
    /* n_head, n_head_kv, n_q, n_kv, p_k, p_v */
    static const size_t shapes[EXACT_CASES][6] = {
        {1, 1, 1, 1, 1, 1},     {4, 2, 7, 33, 8, 5},     {3, 1, 50, 50, 16, 17},  {8, 2, 3, 200, 24, 32},
        {2, 2, 70, 100, 33, 9}, {4, 1, 1, 2500, 20, 12}, {4, 2, 2, 4200, 8, 16},  {71, 1, 2, 60, 8, 8},
        {1, 1, 70, 2200, 5, 6}, {6, 3, 17, 129, 64, 64}, {12, 12, 5, 40, 32, 32}, {8, 1, 4, 6200, 4, 3},
    };
    const size_t *s = shapes[i % EXACT_CASES];
    struct api_case c = {.call = call,
                         .batch = s[3] > 1000 ? 1 : 1 + i % 3,
                         .n_head = s[0],
                         .n_head_kv = s[1],
                         .n_q = s[2],
                         .n_kv = s[3],
                         .p_q = s[4],
                         .p_k = s[4],
                         .p_v = s[5],
                         .d_q = 11 + i,
                         .d_k = 7 + i,
                         .d_v = 9 + i,
                         .pooling = i % 2 ? ATTN_POOLING_ADDITIVE : ATTN_POOLING_DOT,
                         .c = s[4],
                         .bias = 1,
                         .lse = 1,
                         .p_o = call == API_MULTIHEAD && i % 3 ? 5 + i : 0,
                         .head = s[0] - 1,
                         .causal = (attn_causal)(i / 2 % 3),
                         .mask = (enum api_mask)(i / 3 % 3),
                         .mask_bits = (unsigned)(i * 5 % 16),
                         .layout = (unsigned)(i * 7 % N_LAYOUTS),
                         .stream = 1000 * (uint64_t)call + i};
    c.kv_lengths = i % 4 == 1;
    c.a_q = api_is_additive(&c) && i % 3 != 1;
    c.a_k = api_is_additive(&c) && i % 3 != 2;
    return c;
}
