#include <float.h>
#include <math.h>

#include "keys.h"
#include "scalar/scalar.h"

/* The scratch: the sums of a row's outputs, and what becomes of a row of another type. */
struct buffers {
    double *sum;
    float *q, *k, *v, *out;
};

static struct buffers buffers_of(const struct attn_pool_task *t) {
    struct buffers b = {.sum = t->scratch};
    b.q = (float *)(void *)(b.sum + t->d_v);
    b.k = b.q + t->d_k;
    b.v = b.k + t->d_k;
    b.out = b.v + t->d_v;
    return b;
}

/* n values of the type as floats: where they are, or converted in the buffer. */
static const float *floats(attn_dtype type, const void *from, size_t n, float *buffer) {
    if (type == ATTN_F32) return from;
    attn_to_f32_scalar(type, from, n, buffer);
    return buffer;
}

static const float *key(const struct attn_pool_task *t, size_t j) {
    const char *k = t->k + attn_k_offset(t, j);
    float *to = buffers_of(t).k;
    if (!t->panels) return floats(t->k_type, k, t->d_k, to);
    const size_t step = ATTN_KEY_TILE * attn_dtype_bytes(t->k_type);
    for (size_t d = 0; d < t->d_k; d++) attn_to_f32_scalar(t->k_type, k + d * step, 1, to + d);
    return to;
}

struct row {
    const struct attn_pool_task *t;
    const float *q, *w;
    ptrdiff_t mask;
    size_t lo, hi, also;
    double position, slope;
    int32_t document;
};

static struct row row_of(const struct attn_pool_task *t, size_t r) {
    const ptrdiff_t query = (ptrdiff_t)((t->first + r) / t->group),
                    head = (ptrdiff_t)((t->first + r) % t->group);
    struct row row = {.t = t, .lo = t->lo[r], .hi = t->hi[r], .also = t->also[r]};
    row.position = (double)(t->position + query);
    row.slope = t->slopes ? (double)t->slopes[head] : 0.0;
    row.document = t->q_documents ? t->q_documents[query] : 0;
    const ptrdiff_t at = query * t->q_row + head * t->q_head;
    row.q = floats(t->q_type, (const char *)t->q + at * (ptrdiff_t)attn_dtype_bytes(t->q_type), t->d_k,
                   buffers_of(t).q);
    row.w = t->w ? t->w + head * t->w_head : NULL;
    row.mask = query * t->mask_row + head * t->mask_head;
    return row;
}

/* binary16: 1 sign bit, 5 of the exponent, 10 of the fraction. */
static double half(uint16_t h) {
    const int e = h >> 10 & 31, f = h & 1023;
    const double size = e == 31 ? (f ? NAN : INFINITY) : e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
    return h >> 15 ? -size : size;
}

static int sees(const struct row *r, size_t j) {
    const struct attn_pool_task *t = r->t;
    if (!(r->lo <= j && j < r->hi) && j >= r->also) return 0;
    return !t->kv_documents || t->kv_documents[j] == r->document;
}

/* The mask's value at key j: 0 and -inf for a boolean one. */
static double mask_at(const struct row *r, size_t j) {
    const struct attn_pool_task *t = r->t;
    const ptrdiff_t at = r->mask + (ptrdiff_t)j * t->mask_key;
    if (t->mask_kind == ATTN_MASK_F32) return (double)((const float *)t->mask)[at];
    if (t->mask_kind == ATTN_MASK_F16) return half(((const uint16_t *)t->mask)[at]);
    if (t->mask_kind == ATTN_MASK_BOOL) return ((const uint8_t *)t->mask)[at] ? 0.0 : -INFINITY;
    return 0.0;
}

/* -FLT_MAX in base 2, where order.h stops scores, as a natural-log score. */
static const double lowest = -(double)FLT_MAX * 0.69314718055994530942; /* check: ln 2 */

/* The natural-log score of key j, at least `lowest` where the key is visible, -inf where it is hidden. */
static double score(const struct row *r, size_t j) {
    const struct attn_pool_task *t = r->t;
    if (!sees(r, j)) return -INFINITY;
    const double mask = mask_at(r, j);
    if (mask == -INFINITY) return -INFINITY;
    const float *k = key(t, j);
    double s = 0.0;
    for (size_t d = 0; d < t->d_k; d++) {
        if (t->score == ATTN_SCORE_DOT)
            s += (double)r->q[d] * (double)k[d];
        else
            s += (double)r->w[d] * tanh((double)r->q[d] + (double)k[d]);
    }
    s *= (double)t->scale;
    if (t->cap > 0.0f) {
        const double cap =
            (double)t->cap * 0.69314718055994530942; /* check: ln 2; the task has it in base 2 */
        s = cap * tanh(s / cap);
    }
    s += mask - r->slope * fabs(r->position - (double)j);
    return s < lowest ? lowest : s;
}

size_t attn_pool_scratch_scalar(const struct attn_pool_size *size) {
    return size->d_v * sizeof(double) + 2 * (size->d_k + size->d_v) * sizeof(float);
}

/* Pass 1: the largest score. Pass 2: weights, their sum and the weighted values. NaN wins the maximum, so that
 * it reaches every output of the row. */
static void pool_row(const struct attn_pool_task *t, size_t r) {
    const struct row row = row_of(t, r);
    const ptrdiff_t query = (ptrdiff_t)((t->first + r) / t->group),
                    head = (ptrdiff_t)((t->first + r) % t->group);
    const struct buffers b = buffers_of(t);
    char *out =
        (char *)t->out + (query * t->out_row + head * t->out_head) * (ptrdiff_t)attn_dtype_bytes(t->out_type);
    const size_t from = row.also ? 0 : row.lo, to = row.hi > row.also ? row.hi : row.also;
    double *sum = b.sum, max = -INFINITY, total = 0.0;
    for (size_t j = from; j < to; j++) {
        const double s = score(&row, j);
        if (s > max || isnan(s)) max = s;
        if (isnan(s)) break;
    }
    const int any = max != -INFINITY;
    for (size_t c = 0; c < t->d_v; c++) sum[c] = 0.0;
    for (size_t j = from; any && j < to; j++) {
        const double s = score(&row, j), w = exp(s - max);
        if (s == -INFINITY) continue; /* hidden: its value is not touched */
        const float *v = floats(t->v_type, t->v + attn_v_offset(t, j), t->d_v, b.v);
        total += w;
        for (size_t c = 0; c < t->d_v; c++) sum[c] += w * (double)v[c];
    }
    const double sink = t->sinks ? (double)t->sinks[head] : -INFINITY, top = sink > max ? sink : max;
    const double lse = any ? max + log(total) : -INFINITY;
    const double all =
        total * exp(max - top) + (t->sinks ? exp(sink - top) : 0.0); /* e^-top times the denominator */
    const double lse_sinks = any && t->sinks ? top + log(all) : t->sinks ? sink : lse;
    const double share = any ? exp(max - top) / all : 0.0;
    for (size_t c = 0; c < t->d_v; c++) b.out[c] = any ? (float)(sum[c] * share) : 0.0f;
    attn_from_f32_scalar(t->out_type, b.out, t->d_v, out);
    if (t->lse) t->lse[query * t->lse_row + head * t->lse_head] = (float)lse;
    if (t->lse_sinks) t->lse_sinks[query * t->lse_sinks_row + head * t->lse_sinks_head] = (float)lse_sinks;
    const ptrdiff_t weights = query * t->weights_row + head * t->weights_head,
                    scores = query * t->scores_row + head * t->scores_head;
    for (size_t j = 0; (t->weights || t->scores) && j < t->n_weights; j++) {
        const double s = any && j < to ? score(&row, j) : -INFINITY;
        if (t->weights)
            t->weights[weights + (ptrdiff_t)j] = s == -INFINITY ? 0.0f : (float)(exp(s - max) * share);
        if (t->scores) t->scores[scores + (ptrdiff_t)j] = (float)s;
    }
}

void attn_pool_scalar(const struct attn_pool_task *t) {
    for (size_t r = 0; r < t->n_rows; r++) pool_row(t, r);
}

/* The plan asks this backend for no parts, so there is never anything to merge. */
void attn_merge_scalar(const struct attn_pool_task *t, size_t n_chunks, size_t stride) {
    (void)t;
    (void)n_chunks;
    (void)stride;
}
