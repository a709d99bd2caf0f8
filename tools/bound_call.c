/* Whole calls of bound.h: projections, masks and grouping around attn_bound_pool_row(). */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "bound.h"

/* Contiguous [batch, head, row, col] values with the bounds of their errors (NULL: exact). */
struct plane {
    size_t batch, head, row, col;
    double *x, *err;
};

/* All memory of a call, freed at once. */
struct arena {
    void *block[32];
    size_t n;
};

static double *arena_take(struct arena *a, size_t n) {
    double *p = a->n < sizeof a->block / sizeof *a->block ? calloc(n ? n : 1, sizeof *p) : NULL;
    if (p) a->block[a->n++] = p;
    return p;
}

static void arena_free(struct arena *a) {
    while (a->n > 0) free(a->block[--a->n]);
}

static const char *element(const attn_tensor *t, size_t b, size_t h, size_t r, size_t c) {
    return (const char *)t->data + (ptrdiff_t)b * t->stride[0] + (ptrdiff_t)h * t->stride[1] +
           (ptrdiff_t)r * t->stride[2] + (ptrdiff_t)c * t->stride[3];
}

/* Where row r starts in x and err. */
static size_t row_at(const struct plane *p, size_t b, size_t h, size_t r) {
    return ((b * p->head + h) * p->row + r) * p->col;
}

static int load(struct arena *a, const attn_tensor *t, struct plane *p) {
    *p = (struct plane){t->size[0], t->size[1], t->size[2], t->size[3], NULL, NULL};
    p->x = arena_take(a, p->batch * p->head * p->row * p->col);
    if (!p->x) return -1;
    for (size_t b = 0; b < p->batch; b++)
        for (size_t h = 0; h < p->head; h++)
            for (size_t r = 0; r < p->row; r++)
                for (size_t c = 0; c < p->col; c++)
                    p->x[row_at(p, b, h, r) + c] = *(const float *)(const void *)element(t, b, h, r, c);
    return 0;
}

/* Rows [from, from + n) of w times every row of from_plane's head `from_head`, to head `head` of to. */
static void project_head(enum attn_bound_arith arith, const struct plane *x, size_t x_head,
                         const struct attn_bound_matrix *w, size_t from, struct plane *to, size_t head) {
    const float *bias = w->bias ? w->bias + from : NULL;
    for (size_t b = 0; b < x->batch; b++)
        for (size_t r = 0; r < x->row; r++) {
            size_t in = row_at(x, b, x_head, r), out = row_at(to, b, head, r);
            attn_bound_linear_row(arith, x->x + in, x->err ? x->err + in : NULL, w->data + from * w->k, w->k,
                                  bias, to->col, x->col, to->x + out, to->err + out);
        }
}

static int new_plane(struct arena *a, struct plane *p, size_t batch, size_t head, size_t row, size_t col) {
    *p = (struct plane){batch, head, row, col, NULL, NULL};
    p->x = arena_take(a, batch * head * row * col);
    p->err = arena_take(a, batch * head * row * col);
    return p->x && p->err ? 0 : -1;
}

/* Heads [head0, head0 + heads) of a stacked matrix of all_heads heads: [batch, 1] gives [batch, heads]. */
static int project_stack(struct arena *a, enum attn_bound_arith arith, const attn_tensor *x,
                         const struct attn_bound_matrix *w, size_t all_heads, size_t head0, size_t heads,
                         struct plane *to) {
    struct plane in;
    size_t p = w->n / all_heads;
    if (load(a, x, &in) || new_plane(a, to, in.batch, heads, in.row, p)) return -1;
    for (size_t h = 0; h < heads; h++) project_head(arith, &in, 0, w, (head0 + h) * p, to, h);
    return 0;
}

/* Every head by a matrix of its own, in place. */
static int project_each(struct arena *a, enum attn_bound_arith arith, const struct attn_bound_matrix *w,
                        struct plane *p) {
    struct plane to;
    if (!w) return 0;
    if (new_plane(a, &to, p->batch, p->head, p->row, w->n)) return -1;
    for (size_t h = 0; h < p->head; h++) project_head(arith, p, h, w + h, 0, &to, h);
    *p = to;
    return 0;
}

/* ---- Pooling of planes ---------------------------------------------------------------------------- */

struct pool {
    enum attn_bound_arith arith;
    struct plane q, k, v;
    const attn_tensor *w; /* additive scores, or NULL */
    const attn_scoring *scoring;
    size_t head0; /* the number that head 0 of q has in masks and w */
};

static size_t broadcast(size_t size, size_t i) { return size == 1 ? 0 : i; }

/* The sequence that a row of q belongs to, as attn.h defines it. */
struct sequence {
    size_t number, row;     /* which, and which of its rows this is */
    size_t q_row0, kv_row0; /* its rows in the tensors, from here on */
    size_t n_q, n_kv;       /* what is valid of them */
    double position;        /* of the row */
};

static struct sequence sequence_of(const struct pool *p, size_t b, size_t i) {
    const attn_scoring *s = p->scoring;
    struct sequence q = {b, i, 0, 0, p->q.row, p->k.row, 0};
    if (s && s->q_starts) {
        for (q.number = 0; q.number < s->n_sequences && i >= s->q_starts[q.number + 1];) q.number++;
        if (q.number == s->n_sequences) return (struct sequence){0};
        q.q_row0 = s->q_starts[q.number];
        q.kv_row0 = s->kv_starts[q.number];
        q.row = i - q.q_row0;
        q.n_q = s->q_starts[q.number + 1] - q.q_row0;
        q.n_kv = s->kv_starts[q.number + 1] - q.kv_row0;
    }
    if (s && s->q_lengths) q.n_q = s->q_lengths[q.number];
    if (s && s->kv_lengths) q.n_kv = s->kv_lengths[q.number];
    q.position = (double)q.row;
    if (s && s->offsets && (s->causal == ATTN_CAUSAL_OFFSET || s->causal == ATTN_CAUSAL_NONE))
        q.position += (double)s->offsets[q.number];
    else if (s && s->causal != ATTN_CAUSAL_TOP_LEFT)
        q.position += (double)q.n_kv - (double)q.n_q;
    return q;
}

static int in_sight(const attn_scoring *s, const struct plane *planes, size_t b, const struct sequence *q,
                    size_t j) {
    double key = (double)j;
    if (!s || q->row >= q->n_q) return q->row < q->n_q;
    if (s->q_documents) {
        size_t row = q->q_row0 + q->row, column = q->kv_row0 + j;
        if (s->q_documents[b * planes[0].row + row] != s->kv_documents[b * planes[1].row + column]) return 0;
    }
    if (s->prefixes && j < s->prefixes[q->number]) return 1;
    if (s->causal != ATTN_CAUSAL_NONE && key > q->position) return 0;
    if (!s->window) return 1;
    return (s->window[0] == SIZE_MAX || key >= q->position - (double)s->window[0]) &&
           (s->window[1] == SIZE_MAX || key <= q->position + (double)s->window[1]);
}

static double half_value(uint16_t h) {
    double sign = h >> 15 ? -1 : 1, fraction = h & 1023;
    int e = h >> 10 & 31;
    if (e == 31) return fraction != 0 ? NAN : sign * INFINITY;
    return sign * (e ? ldexp(1024 + fraction, e - 25) : ldexp(fraction, -24));
}

static double mask_element(const attn_tensor *t, size_t b, size_t h, size_t i, size_t j) {
    const char *at = element(t, broadcast(t->size[0], b), broadcast(t->size[1], h), broadcast(t->size[2], i),
                             broadcast(t->size[3], j));
    if (t->dtype == ATTN_BOOL) return *at ? 0 : -INFINITY;
    if (t->dtype == ATTN_F16) return half_value(*(const uint16_t *)(const void *)at);
    return *(const float *)(const void *)at;
}

/* attn.h's rules for one query row: -inf for a hidden key, otherwise what the mask adds to its score. */
static void row_mask(const struct pool *p, size_t b, size_t h, const struct sequence *q, double *mask) {
    const attn_scoring *s = p->scoring;
    const struct plane planes[2] = {p->q, p->k};
    for (size_t j = 0; j < q->n_kv; j++) {
        mask[j] = in_sight(s, planes, b, q, j) ? 0 : -INFINITY;
        if (mask[j] == 0 && s && s->mask) mask[j] = mask_element(s->mask, q->number, p->head0 + h, q->row, j);
    }
}

/* Columns of the weights: the keys of the longest sequence. */
static size_t most_keys(const struct pool *p) {
    const attn_scoring *s = p->scoring;
    size_t most = 0;
    if (!s || !s->q_starts) return p->k.row;
    for (size_t n = 0; n < s->n_sequences; n++) {
        size_t keys = s->kv_starts[n + 1] - s->kv_starts[n];
        most = keys > most ? keys : most;
    }
    return most;
}

static double *offset(double *p, size_t at) { return p ? p + at : NULL; }

/* What all rows of a pool share. */
static struct attn_bound_row row_of(const struct pool *p, const double *mask, const double *w) {
    float scale = p->scoring ? p->scoring->scale : 0;
    struct attn_bound_row row = {.arith = p->arith,
                                 .d_k = p->k.col,
                                 .d_v = p->v.col,
                                 .mask = mask,
                                 .w = p->w ? w : NULL,
                                 .scale = scale,
                                 .soft_cap = p->scoring ? p->scoring->soft_cap : 0};
    if (scale == 0) { /* 1 / sqrtf: two roundings, at most 2 u and a little */
        row.scale = p->w ? 1 : 1 / sqrt((double)p->q.col);
        row.scale_err = p->w ? 0 : 0x1.00001p-23;
    }
    return row;
}

/* Row i of head h of element b of the batch; w has room for one row of p->w. */
static int pool_row(const struct pool *p, struct attn_bound_row *row, double *mask, double *w, size_t b,
                    size_t h, size_t i, const struct attn_bound_result *to) {
    const struct plane *q = &p->q, *k = &p->k, *v = &p->v;
    const attn_scoring *s = p->scoring;
    const struct sequence seq = sequence_of(p, b, i);
    size_t hkv = h / (q->head / k->head), r = (b * q->head + h) * q->row + i, columns = most_keys(p);
    size_t at = row_at(q, b, h, i), k0 = row_at(k, b, hkv, seq.kv_row0), v0 = row_at(v, b, hkv, seq.kv_row0);
    double sink = s && s->sinks ? s->sinks[p->head0 + h] : 0;
    for (size_t c = 0; p->w && c < q->col; c++)
        w[c] = *(const float *)(const void *)element(p->w, 0, broadcast(p->w->size[1], p->head0 + h), 0, c);
    row->n_kv = seq.n_kv;
    row->q = q->x + at;
    row->q_err = offset(q->err, at);
    row->k = k->x + k0;
    row->k_err = offset(k->err, k0);
    row->v = v->x + v0;
    row->v_err = offset(v->err, v0);
    row->slope = s && s->alibi_slopes ? s->alibi_slopes[p->head0 + h] : 0;
    row->position = seq.position;
    row->sink = s && s->sinks ? &sink : NULL;
    row_mask(p, b, h, &seq, mask);
    struct attn_bound_result one = {offset(to->out, r * v->col),
                                    offset(to->out_err, r * v->col),
                                    offset(to->lse, r),
                                    offset(to->lse_err, r),
                                    offset(to->weights, r * columns),
                                    offset(to->weights_err, r * columns),
                                    offset(to->lse_sinks, r),
                                    offset(to->lse_sinks_err, r),
                                    offset(to->scores, r * columns),
                                    offset(to->scores_err, r * columns)};
    for (size_t j = seq.n_kv; j < columns; j++) {
        if (one.weights) one.weights[j] = 0;
        if (one.weights_err) one.weights_err[j] = 0;
        if (one.scores) one.scores[j] = -INFINITY;
        if (one.scores_err) one.scores_err[j] = 0;
    }
    return attn_bound_pool_row(row, &one);
}

static int pool_planes(struct arena *a, const struct pool *p, const struct attn_bound_result *to) {
    const struct plane *q = &p->q;
    double *mask = arena_take(a, p->k.row), *w = arena_take(a, q->col);
    if (!mask || !w) return -1;
    struct attn_bound_row row = row_of(p, mask, w);
    for (size_t b = 0; b < q->batch; b++)
        for (size_t h = 0; h < q->head; h++)
            for (size_t i = 0; i < q->row; i++)
                if (pool_row(p, &row, mask, w, b, h, i, to)) return -1;
    return 0;
}

/* ---- The calls ------------------------------------------------------------------------------------ */

int attn_bound_linear(enum attn_bound_arith arith, const attn_tensor *x, const struct attn_bound_matrix *w,
                      double *y, double *y_err) {
    struct arena a = {.n = 0};
    struct plane in;
    int rc = load(&a, x, &in);
    if (rc == 0) {
        struct plane to = {in.batch, in.head, in.row, w->n, y, y_err};
        for (size_t h = 0; h < in.head; h++) project_head(arith, &in, h, w, 0, &to, h);
    }
    arena_free(&a);
    return rc;
}

int attn_bound_sdpa(enum attn_bound_arith arith, const attn_sdpa_args *args,
                    const struct attn_bound_result *result) {
    struct arena a = {.n = 0};
    struct pool p = {.arith = arith, .scoring = args->scoring};
    int rc = load(&a, args->q, &p.q) || load(&a, args->k, &p.k) || load(&a, args->v, &p.v) ||
             pool_planes(&a, &p, result);
    arena_free(&a);
    return rc ? -1 : 0;
}

int attn_bound_additive(enum attn_bound_arith arith, const attn_additive_args *args,
                        const struct attn_bound_matrix *a_q, const struct attn_bound_matrix *a_k,
                        const struct attn_bound_result *result) {
    struct arena a = {.n = 0};
    struct pool p = {.arith = arith, .scoring = args->scoring, .w = args->w};
    int rc = load(&a, args->q, &p.q) || load(&a, args->k, &p.k) || load(&a, args->v, &p.v) ||
             project_each(&a, arith, a_q, &p.q) || project_each(&a, arith, a_k, &p.k) ||
             pool_planes(&a, &p, result);
    arena_free(&a);
    return rc ? -1 : 0;
}

/* Heads [head0, head0 + heads), which use key/value heads from head0's on. */
static int pool_heads(struct arena *a, enum attn_bound_arith arith, const struct attn_bound_weights *w,
                      const attn_head_args *args, size_t head0, size_t heads,
                      const struct attn_bound_result *to) {
    size_t group = w->n_head / w->n_head_kv, kv0 = head0 / group, kv_heads = heads == 1 ? 1 : w->n_head_kv;
    struct pool p = {.arith = arith, .scoring = args->scoring, .head0 = head0};
    if (project_stack(a, arith, args->q, &w->w_q, w->n_head, head0, heads, &p.q) ||
        project_stack(a, arith, args->k, &w->w_k, w->n_head_kv, kv0, kv_heads, &p.k) ||
        project_stack(a, arith, args->v, &w->w_v, w->n_head_kv, kv0, kv_heads, &p.v))
        return -1;
    if (w->pooling == ATTN_POOLING_ADDITIVE) {
        p.w = w->w_a;
        if (project_each(a, arith, w->a_q ? w->a_q + head0 : NULL, &p.q) ||
            project_each(a, arith, w->a_k ? w->a_k + kv0 : NULL, &p.k))
            return -1;
    }
    return pool_planes(a, &p, to);
}

int attn_bound_head(enum attn_bound_arith arith, const struct attn_bound_weights *weights,
                    const attn_head_args *args, const struct attn_bound_result *result) {
    struct arena a = {.n = 0};
    int rc = pool_heads(&a, arith, weights, args, args->head, 1, result);
    arena_free(&a);
    return rc;
}

/* [batch, n_head, n_q, p_v] as rows of [batch, 1, n_q, n_head*p_v]. */
static void concatenate(const struct plane *h, struct plane *to) {
    for (size_t b = 0; b < h->batch; b++)
        for (size_t i = 0; i < h->row; i++)
            for (size_t c = 0; c < to->col; c++) {
                size_t from = row_at(h, b, c / h->col, i) + c % h->col, at = row_at(to, b, 0, i) + c;
                to->x[at] = h->x[from];
                to->err[at] = h->err[from];
            }
}

static int multihead(struct arena *a, enum attn_bound_arith arith, const struct attn_bound_weights *w,
                     const attn_head_args *args, const struct attn_bound_result *result) {
    size_t batch = args->q->size[0], n_q = args->q->size[2], p_v = w->w_v.n / w->n_head_kv;
    size_t p_o = w->w_o.data ? w->w_o.n : w->n_head * p_v;
    struct plane heads, rows, out;
    struct attn_bound_result each = *result;
    if (new_plane(a, &heads, batch, w->n_head, n_q, p_v) ||
        new_plane(a, &rows, batch, 1, n_q, w->n_head * p_v) || new_plane(a, &out, batch, 1, n_q, p_o))
        return -1;
    each.out = heads.x;
    each.out_err = heads.err;
    if (pool_heads(a, arith, w, args, 0, w->n_head, &each)) return -1;
    concatenate(&heads, &rows);
    if (w->w_o.data)
        project_head(arith, &rows, 0, &w->w_o, 0, &out, 0);
    else
        out = rows;
    for (size_t i = 0; i < batch * n_q * p_o; i++) {
        if (result->out) result->out[i] = out.x[i];
        if (result->out_err) result->out_err[i] = out.err[i];
    }
    return 0;
}

int attn_bound_multihead(enum attn_bound_arith arith, const struct attn_bound_weights *weights,
                         const attn_head_args *args, const struct attn_bound_result *result) {
    struct arena a = {.n = 0};
    int rc = multihead(&a, arith, weights, args, result);
    arena_free(&a);
    return rc;
}
