/* Cases of what attn_scoring says, and their sequences alone and in other arrangements. */
#include <stdlib.h>
#include <string.h>

#include "exact/exact.h"

struct api_case exact_features(size_t i, enum api_call call) {
    /* n_head, n_head_kv, n_q, n_kv, p_k, p_v, sequences of starts */
    static const size_t shapes[EXACT_FEATURES][7] = {
        {4, 2, 9, 60, 8, 5, 3},       {1, 1, 40, 2100, 4, 3, 0}, {8, 8, 7, 300, 16, 16, 5},
        {7, 1, 20, 90, 5, 6, 4},      {4, 1, 3, 6300, 8, 4, 2},  {2, 2, 130, 260, 12, 9, 6},
        {16, 4, 30, 500, 8, 8, 8},    {4, 2, 6, 40, 8, 8, 0},    {1, 1, 1, 50, 3, 3, 0},
        {12, 12, 5, 4200, 16, 16, 0}, {71, 1, 3, 64, 8, 8, 2},   {2, 1, 70, 2500, 6, 6, 3},
        {4, 4, 16, 128, 20, 12, 4},   {3, 3, 64, 64, 16, 16, 1},
    };
    const size_t *s = shapes[i % EXACT_FEATURES];
    struct api_case c = {.call = call,
                         .batch = s[6] || s[3] > 1000 ? 1 : 3,
                         .n_head = s[0],
                         .n_head_kv = s[1],
                         .n_q = s[2],
                         .n_kv = s[3],
                         .p_q = s[4],
                         .p_k = s[4],
                         .p_v = s[5],
                         .d_q = 5 + i,
                         .d_k = 3 + i,
                         .d_v = 4 + i,
                         .pooling = i % 2 ? ATTN_POOLING_ADDITIVE : ATTN_POOLING_DOT,
                         .c = s[4],
                         .bias = 1,
                         .lse = 1,
                         .lse_sinks = call == API_SDPA,
                         .p_o = call == API_MULTIHEAD && i % 3 ? 5 + i : 0,
                         .head = s[0] - 1,
                         .ragged = s[6],
                         .causal = (attn_causal)(i % 4),
                         .window = (enum api_window)(i * 2 % 5),
                         .prefixes = i % 3 == 2,
                         .kv_lengths = i % 4 == 1,
                         .documents = (enum api_documents)(i % 5 == 2   ? 1
                                                           : i % 5 == 4 ? 2
                                                                        : 0),
                         .alibi = i / 2 % 2,
                         .soft_cap = i % 3 == 0 ? 5 : 0,
                         .sinks = (enum api_sinks)((i + 1) / 2 % 3),
                         .mask = (enum api_mask)(i * 3 / 2 % 4),
                         .mask_bits = (unsigned)(i * 7 % 16),
                         .layout = i % 5 == 2 || i == 9 ? LAYOUT_BNHD : (unsigned)(i * 7 % N_LAYOUTS),
                         .stream = 200000 + 1000 * (uint64_t)call + i};
    c.offsets = c.causal == ATTN_CAUSAL_OFFSET || i % 3 == 1 ? API_OFFSETS_NEAR : API_OFFSETS_NONE;
    c.a_q = api_is_additive(&c) && i % 3 != 1;
    c.a_k = api_is_additive(&c) && i % 3 != 2;
    return c;
}

/* ---- Alone -------------------------------------------------------------------------------------------- */

static void slice(attn_tensor *t, int dim, size_t from, size_t n) {
    t->data = (char *)t->data + (ptrdiff_t)from * t->stride[dim];
    t->size[dim] = n;
}

/* Sequence s becomes the only one: its offset is one given, whatever it came from. */
static void isolate(const struct api_case *c, const struct api_data *d, size_t s, size_t row, size_t n,
                    struct api_case *one, struct api_data *to) {
    const size_t b = c->ragged ? 0 : s, q0 = c->ragged ? d->starts[0][s] : 0,
                 kv0 = c->ragged ? d->starts[1][s] : 0;
    const size_t n_kv = c->ragged ? d->starts[1][s + 1] - kv0 : c->n_kv;
    *one = *c;
    *to = *d;
    one->batch = 1;
    one->ragged = 0;
    one->q_lengths = 0;
    one->n_q = n;
    one->n_kv = n_kv;
    one->weights = one->scores = 0; /* not compared; without them the keys may be cut in chunks */
    one->causal = c->causal == ATTN_CAUSAL_NONE ? ATTN_CAUSAL_NONE : ATTN_CAUSAL_OFFSET;
    one->offsets = API_OFFSETS_NEAR;
    to->offsets[0] = (ptrdiff_t)api_case_place(c, d, b, q0 + row).position;
    slice(&to->t_q, 0, b, 1);
    slice(&to->t_q, 2, q0 + row, n);
    attn_tensor *const keys[] = {&to->t_k, &to->t_v};
    for (int i = 0; i < 2; i++) {
        slice(keys[i], 0, b, 1);
        slice(keys[i], 2, kv0, n_kv);
    }
    attn_scoring *g = &to->scoring;
    g->causal = one->causal;
    g->offsets = to->offsets;
    g->q_lengths = NULL;
    g->kv_lengths = c->kv_lengths ? d->lengths[1] + s : NULL;
    g->prefixes = c->prefixes ? d->prefixes + s : NULL;
    g->q_documents = c->documents ? g->q_documents + b * c->n_q + q0 + row : NULL;
    g->kv_documents = c->documents ? g->kv_documents + b * c->n_kv + kv0 : NULL;
    g->q_starts = g->kv_starts = NULL;
    g->n_sequences = 0;
    if (c->mask != API_MASK_NONE) {
        if (to->t_mask.size[0] > 1) slice(&to->t_mask, 0, s, 1);
        if (to->t_mask.size[2] > 1) slice(&to->t_mask, 2, row, n);
        if (to->t_mask.size[3] > 1) slice(&to->t_mask, 3, 0, n_kv);
        g->mask = &to->t_mask;
    }
}

/* n rows of each head of a (batch b, from row on) against those of all of p (from its row p_row on). */
static void compare(const char *what, const struct grid *a, size_t b, size_t row, const struct grid *p,
                    size_t p_b, size_t p_row, size_t n, struct verdict *v) {
    for (size_t h = 0; h < p->size[1]; h++)
        for (size_t i = 0; i < n; i++)
            if (memcmp(grid_f32(a, b, h, row + i), grid_f32(p, p_b, h, p_row + i),
                       p->size[3] * sizeof(float)) != 0)
                verdict_fail(v,
                             "%s: element %zu head %zu row %zu: %a, but %a elsewhere (element %zu row %zu)",
                             what, b, h, row + i, *grid_f32(a, b, h, row + i),
                             *grid_f32(p, p_b, h, p_row + i), p_b, p_row + i);
}

void exact_check_alone(const struct exact_run *e, size_t s, size_t row, size_t n,
                       const struct api_outputs *all, struct verdict *v) {
    struct api_case c;
    struct api_data *d = malloc(sizeof *d);
    const size_t b = e->c.ragged ? 0 : s, at = (e->c.ragged ? e->d->starts[0][s] : 0) + row;
    if (!d) abort();
    isolate(&e->c, e->d, s, row, n, &c, d);
    struct api_outputs o = api_case_run(e->context, &c, d, v);
    if (v->ok) {
        compare("out", &all->out, b, at, &o.out, 0, 0, n, v);
        compare("lse", &all->lse, b, at, &o.lse, 0, 0, n, v);
        if (c.lse_sinks) compare("lse_sinks", &all->lse_sinks, b, at, &o.lse_sinks, 0, 0, n, v);
    }
    api_outputs_free(&o);
    free(d);
}

/* ---- Arranged otherwise ------------------------------------------------------------------------------- */

struct move {
    size_t from, to, n, batch; /* rows, and the element of the new tensors' batch */
};

static void move_rows(const struct grid *from, struct grid *to, const struct move *m) {
    for (size_t h = 0; h < from->size[1]; h++)
        for (size_t i = 0; i < m->n; i++)
            memcpy(grid_f32(to, m->batch, h, m->to + i), grid_f32(from, 0, h, m->from + i),
                   from->size[3] * sizeof(float));
}

static struct grid new_grid(struct rng *r, const struct grid *like, size_t batch, size_t rows,
                            unsigned layout) {
    return grid_make(r, 4, (size_t[4]){batch, like->size[1], rows, like->size[3]}, layout);
}

static void move_documents(const struct api_data *from, struct api_data *to, int keys, const struct move *m,
                           size_t rows) {
    if (!from->documents[keys].data) return;
    memcpy(to->documents[keys].data + (m->batch * rows + m->to) * sizeof(int32_t),
           from->documents[keys].data + m->from * sizeof(int32_t), m->n * sizeof(int32_t));
}

static void describe(const struct api_case *c, const struct api_data *d, const struct api_case *to,
                     struct api_data *n) {
    attn_scoring *g = &n->scoring;
    *g = d->scoring;
    g->causal = to->causal;
    g->offsets = n->offsets;
    g->q_lengths = to->q_lengths ? n->lengths[0] : NULL;
    g->kv_lengths = to->kv_lengths ? n->lengths[1] : NULL;
    g->prefixes = c->prefixes ? n->prefixes : NULL;
    g->q_documents = c->documents ? (const int32_t *)(const void *)n->documents[0].data : NULL;
    g->kv_documents = c->documents ? (const int32_t *)(const void *)n->documents[1].data : NULL;
    g->q_starts = to->ragged ? n->starts[0] : NULL;
    g->kv_starts = to->ragged ? n->starts[1] : NULL;
    g->n_sequences = to->ragged;
    n->t_mask = d->t_mask;
    if (to->ragged && n->t_mask.size[0] > 1) { /* the last sequence is the first */
        n->t_mask.data = (char *)n->t_mask.data + (ptrdiff_t)(to->ragged - 1) * n->t_mask.stride[0];
        n->t_mask.stride[0] *= -1;
    }
    if (c->mask != API_MASK_NONE) g->mask = &n->t_mask;
}

static void move_sequence(const struct api_case *c, const struct api_data *d, const struct api_case *to,
                          struct api_data *n, size_t s) {
    const size_t new_s = to->ragged ? c->ragged - 1 - s : s;
    for (int keys = 0; keys < 2; keys++) {
        const size_t own = d->starts[keys][s + 1] - d->starts[keys][s];
        const struct move m = {d->starts[keys][s], to->ragged ? n->starts[keys][new_s] : 0, own,
                               to->ragged ? 0 : s};
        n->lengths[keys][new_s] = keys && c->kv_lengths ? d->lengths[1][s] : own;
        move_documents(d, n, keys, &m, keys ? to->n_kv : to->n_q);
        if (!keys) move_rows(&d->q, &n->q, &m);
        if (keys) move_rows(&d->k, &n->k, &m);
        if (keys) move_rows(&d->v, &n->v, &m);
    }
    n->prefixes[new_s] = d->prefixes[s];
    n->offsets[new_s] = 0;
    if (d->starts[0][s] < d->starts[0][s + 1])
        n->offsets[new_s] = (ptrdiff_t)api_case_place(c, d, 0, d->starts[0][s]).position;
}

struct api_data *exact_arrange(const struct api_case *c, const struct api_data *d, enum exact_order order,
                               struct api_case *to) {
    struct api_data *n = malloc(sizeof *n);
    struct rng r = rng_make(test_seed(), c->stream ^ 0xa77a);
    if (!n || !c->ragged) abort();
    *n = *d;
    *to = *c;
    to->causal = c->causal == ATTN_CAUSAL_NONE ? ATTN_CAUSAL_NONE : ATTN_CAUSAL_OFFSET;
    to->offsets = API_OFFSETS_NEAR;
    if (order == EXACT_PADDED) {
        to->batch = c->ragged;
        to->ragged = 0;
        to->n_q = api_case_longest(c, d, 0);
        to->n_kv = api_case_longest(c, d, 1);
        to->q_lengths = to->kv_lengths = 1;
    }
    for (int keys = 0; keys < 2; keys++) {
        n->starts[keys][0] = 0;
        for (size_t s = 0; s < c->ragged; s++) {
            const size_t old = c->ragged - 1 - s;
            n->starts[keys][s + 1] = n->starts[keys][s] + d->starts[keys][old + 1] - d->starts[keys][old];
        }
        if (c->documents)
            n->documents[keys] = guard_alloc(to->batch * (keys ? to->n_kv : to->n_q) * sizeof(int32_t), 0);
    }
    n->q = new_grid(&r, &d->q, to->batch, to->n_q, c->layout ^ LAYOUT_PAD_ROW);
    n->k = new_grid(&r, &d->k, to->batch, to->n_kv, c->layout);
    n->v = new_grid(&r, &d->v, to->batch, to->n_kv, c->layout ^ LAYOUT_NEGATIVE);
    for (size_t s = 0; s < c->ragged; s++) move_sequence(c, d, to, n, s);
    n->t_q = grid_tensor(&n->q);
    n->t_k = grid_tensor(&n->k);
    n->t_v = grid_tensor(&n->v);
    describe(c, d, to, n);
    return n;
}

void exact_arranged_free(struct api_data *d) {
    grid_free(&d->q);
    grid_free(&d->k);
    grid_free(&d->v);
    if (d->scoring.q_documents) guard_free(&d->documents[0]);
    if (d->scoring.kv_documents) guard_free(&d->documents[1]);
    free(d);
}
