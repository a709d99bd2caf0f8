/* What the rows of api_case.h see, read off attn.h one rule after the other, and the data of those rules. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "support/api_case.h"

/* ---- The rules ---- */

size_t api_case_sequences(const struct api_case *c) { return c->ragged ? c->ragged : c->batch; }

static size_t own(const struct api_data *d, int keys, size_t s) {
    return d->starts[keys][s + 1] - d->starts[keys][s];
}

size_t api_case_longest(const struct api_case *c, const struct api_data *d, int keys) {
    size_t most = 0;
    if (!c->ragged) return keys ? c->n_kv : c->n_q;
    for (size_t s = 0; s < c->ragged; s++) most = own(d, keys, s) > most ? own(d, keys, s) : most;
    return most;
}

static int64_t clamped(ptrdiff_t offset) {
    const int64_t far = INT64_C(1) << 62;
    return offset > far ? far : offset < -far ? -far : offset;
}

struct api_place api_case_place(const struct api_case *c, const struct api_data *d, size_t b, size_t i) {
    struct api_place p = {.inside = 1, .sequence = b, .row = i, .n_q = c->n_q, .n_kv = c->n_kv};
    if (c->ragged) {
        if (i >= d->starts[0][c->ragged]) return (struct api_place){0};
        for (p.sequence = 0; i >= d->starts[0][p.sequence + 1];) p.sequence++;
        p.row = i - d->starts[0][p.sequence];
        p.n_q = own(d, 0, p.sequence);
        p.n_kv = own(d, 1, p.sequence);
        p.first_key = d->starts[1][p.sequence];
    }
    if (c->q_lengths) p.n_q = d->lengths[0][p.sequence];
    if (c->kv_lengths) p.n_kv = d->lengths[1][p.sequence];
    const int64_t last_on_last = (int64_t)p.n_kv - (int64_t)p.n_q;
    int64_t offset = 0;
    switch (c->causal) {
    case ATTN_CAUSAL_TOP_LEFT: break;
    case ATTN_CAUSAL_BOTTOM_RIGHT: offset = last_on_last; break;
    case ATTN_CAUSAL_OFFSET: offset = clamped(d->offsets[p.sequence]); break;
    case ATTN_CAUSAL_NONE: offset = c->offsets ? clamped(d->offsets[p.sequence]) : last_on_last; break;
    }
    p.position = (int64_t)p.row + offset;
    return p;
}

static int32_t document(const struct api_case *c, const struct api_data *d, int keys, size_t b, size_t row) {
    return ((const int32_t *)(const void *)d->documents[keys].data)[b * (keys ? c->n_kv : c->n_q) + row];
}

int api_case_in_sight(const struct api_case *c, const struct api_data *d, const struct api_place *p,
                      size_t j) {
    const int64_t key = (int64_t)j;
    if (!p->inside || p->row >= p->n_q || j >= p->n_kv) return 0;
    if (c->documents) {
        const size_t b = c->ragged ? 0 : p->sequence;
        const size_t row = c->ragged ? d->starts[0][p->sequence] + p->row : p->row;
        if (document(c, d, 0, b, row) != document(c, d, 1, b, p->first_key + j)) return 0;
    }
    if (c->prefixes && j < d->prefixes[p->sequence]) return 1;
    if (c->causal != ATTN_CAUSAL_NONE && key > p->position) return 0;
    if (c->window) {
        const size_t left = d->window[0], right = d->window[1];
        if (left < INT64_MAX / 4 && key < p->position - (int64_t)left) return 0;
        if (right < INT64_MAX / 4 && key > p->position + (int64_t)right) return 0;
    }
    return 1;
}

/* ---- Their data ---- */

/* Ascending cuts of n rows; the last one may leave rows outside all sequences. */
static void make_starts(struct rng *r, size_t *starts, size_t n_sequences, size_t n) {
    const size_t end = rng_chance(r, 50) ? n : n - rng_below(r, n / 4 + 1);
    starts[0] = 0;
    starts[n_sequences] = end;
    for (size_t s = 1; s < n_sequences; s++) {
        const size_t cut = rng_chance(r, 15) ? 0 : rng_below(r, end + 1);
        size_t at = s; /* insertion sort */
        for (; at > 1 && starts[at - 1] > cut; at--) starts[at] = starts[at - 1];
        starts[at] = cut;
    }
}

static ptrdiff_t draw_offset(const struct api_case *c, struct rng *r, size_t n_q, size_t n_kv) {
    static const ptrdiff_t far[] = {PTRDIFF_MIN, PTRDIFF_MAX, -((ptrdiff_t)1 << 40), (ptrdiff_t)1 << 40};
    if (c->offsets != API_OFFSETS_FAR || rng_chance(r, 33)) {
        const ptrdiff_t last_on_last = (ptrdiff_t)n_kv - (ptrdiff_t)n_q;
        return rng_chance(r, 50) ? last_on_last - (ptrdiff_t)rng_below(r, 9)
                                 : (ptrdiff_t)rng_below(r, n_kv + 1);
    }
    if (rng_chance(r, 33)) return -(ptrdiff_t)(1 + rng_below(r, n_q + 3));
    if (rng_chance(r, 50)) return (ptrdiff_t)(n_kv + rng_below(r, 50));
    return far[c->alibi ? 2 + rng_below(r, 2)
                        : rng_below(r, 4)]; /* ALiBi cannot be told apart that far away */
}

static size_t draw_width(struct rng *r, size_t n_kv) {
    const size_t most = rng_chance(r, 50) && n_kv > 30 ? 30 : n_kv;
    return rng_below(r, most + 2);
}

static void make_window(const struct api_case *c, struct api_data *d, struct rng *r) {
    d->window[0] = d->window[1] = 0;
    if (c->window == API_WINDOW_BOTH || c->window == API_WINDOW_LEFT) d->window[0] = draw_width(r, c->n_kv);
    if (c->window == API_WINDOW_BOTH || c->window == API_WINDOW_RIGHT) d->window[1] = draw_width(r, c->n_kv);
    if (c->window == API_WINDOW_LEFT) d->window[1] = SIZE_MAX;
    if (c->window == API_WINDOW_RIGHT) d->window[0] = SIZE_MAX;
}

/* Sorted ones are a few runs, each sequence of a batch from anew; shuffled ones any of up to four numbers. */
static void make_documents(const struct api_case *c, struct api_data *d, struct rng *r, int keys) {
    static const int32_t shuffled[4] = {INT32_MIN, -1, 0, INT32_MAX};
    const size_t n = keys ? c->n_kv : c->n_q, runs = 1 + rng_below(r, 5), kinds = 1 + rng_below(r, 4);
    d->documents[keys] = guard_alloc(c->batch * n * sizeof(int32_t), 0);
    int32_t *to = (int32_t *)(void *)d->documents[keys].data;
    for (size_t i = 0; i < c->batch * n; i++)
        to[i] = c->documents == API_DOCUMENTS_SHUFFLED ? shuffled[rng_below(r, kinds)]
                                                       : (int32_t)(i % n * runs / n) - 2;
}

static void make_heads(const struct api_case *c, struct api_data *d, struct rng *r) {
    for (size_t h = 0; h < c->n_head; h++) {
        static const float odd[] = {-INFINITY, 60, -200, 0};
        d->slopes[h] = ldexpf(1 + 0.25f * (float)(h % 4), -1 - (int)(h % 9));
        if (rng_chance(r, 10)) d->slopes[h] *= (float)rng_below(r, 2) - 1; /* 0 or negative */
        d->sinks[h] = c->sinks == API_SINKS_ODD ? odd[rng_below(r, 4)] : 2 * rng_normal(r);
    }
}

void api_features_make(const struct api_case *c, struct api_data *d) {
    struct rng r = rng_make(test_seed(), c->stream ^ 0xfea7); /* of its own: nothing else moves */
    const size_t n = api_case_sequences(c);
    for (int keys = 0; c->ragged && keys < 2; keys++)
        make_starts(&r, d->starts[keys], n, keys ? c->n_kv : c->n_q);
    for (size_t s = 0; s < n; s++) {
        const size_t n_q = c->ragged ? own(d, 0, s) : c->n_q, n_kv = c->ragged ? own(d, 1, s) : c->n_kv;
        if (c->ragged) d->lengths[1][s] = rng_below(&r, n_kv + 1);
        d->offsets[s] = draw_offset(c, &r, n_q, n_kv);
        d->prefixes[s] = rng_chance(&r, 20) ? n_kv + rng_below(&r, 9) : rng_below(&r, n_kv / 2 + 1);
    }
    make_window(c, d, &r);
    for (int keys = 0; c->documents && keys < 2; keys++) make_documents(c, d, &r, keys);
    make_heads(c, d, &r);
    attn_scoring *s = &d->scoring;
    s->offsets = c->offsets ? d->offsets : NULL;
    s->window = c->window ? d->window : NULL;
    s->prefixes = c->prefixes ? d->prefixes : NULL;
    s->q_documents = c->documents ? (const int32_t *)(const void *)d->documents[0].data : NULL;
    s->kv_documents = c->documents ? (const int32_t *)(const void *)d->documents[1].data : NULL;
    s->alibi_slopes = c->alibi ? d->slopes : NULL;
    s->soft_cap = c->soft_cap;
    s->sinks = c->sinks ? d->sinks : NULL;
    if (c->ragged) {
        s->n_sequences = c->ragged;
        s->q_starts = d->starts[0];
        s->kv_starts = d->starts[1];
    }
}

static void poison_row(struct grid *g, size_t b, size_t row) {
    for (size_t h = 0; h < g->size[1]; h++)
        for (size_t j = 0; j < g->size[3]; j++) grid_f32(g, b, h, row)[j] = NAN;
}

/* Rows of q that see no key, and keys that no row sees, are NaN, whatever the mask says. */
void api_features_poison(const struct api_case *c, struct api_data *d) {
    unsigned char *seen = calloc(c->n_kv + 1, 1);
    if (!seen) abort();
    if (c->self || d->k.size[0] != c->batch) {
        free(seen);
        return;
    }
    for (size_t b = 0; b < c->batch; b++) {
        for (size_t j = 0; j < c->n_kv; j++) seen[j] = 0;
        for (size_t i = 0; i < c->n_q; i++) {
            const struct api_place p = api_case_place(c, d, b, i);
            int any = 0;
            for (size_t j = 0; j < p.n_kv; j++)
                if (api_case_in_sight(c, d, &p, j)) any = seen[p.first_key + j] = 1;
            if (!any) poison_row(&d->q, b, i);
        }
        for (size_t j = 0; j < c->n_kv; j++)
            if (!seen[j]) {
                poison_row(&d->k, b, j);
                poison_row(&d->v, b, j);
            }
    }
    free(seen);
}
