#include "scoring.h"

#include <math.h>

#include "size.h"

attn_status attn_scoring_read(attn_context *c, attn_scoring *to, const attn_scoring *from, int cached) {
    *to = (attn_scoring){0};
    if (!from) return ATTN_OK;
    ATTN_TRY(attn_struct_read(c, "scoring", to, sizeof *to, from));
    if (!isfinite(to->scale)) return attn_fail(c, ATTN_ERROR_ARGUMENT, "scoring.scale is not finite");
    if (!isfinite(to->soft_cap) || to->soft_cap < 0.0f)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "scoring.soft_cap is negative or not finite");
    if ((unsigned)to->causal > ATTN_CAUSAL_OFFSET)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "scoring.causal has no value %d", (int)to->causal);
    if (to->causal == ATTN_CAUSAL_OFFSET && !to->offsets)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "scoring.offsets is null, but causal needs it");
    if (!to->q_documents != !to->kv_documents)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "scoring.%s_documents is null, but the other one is given",
                         to->q_documents ? "kv" : "q");
    if (cached && to->kv_starts)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "scoring.kv_starts is given beside kv");
    if (!cached && !to->q_starts != !to->kv_starts)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "scoring.%s_starts is null, but the other one is given",
                         to->q_starts ? "kv" : "q");
    if (to->q_starts && to->q_lengths)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "scoring.q_lengths is given beside q_starts");
    return ATTN_OK;
}

/* ---- Checks ------------------------------------------------------------------------------------------- */

static attn_status check_lengths(attn_context *c, const char *name, const size_t *lengths, size_t n,
                                 size_t most) {
    for (size_t b = 0; lengths && b < n; b++) {
        if (lengths[b] > most)
            return attn_fail(c, ATTN_ERROR_SHAPE, "%s[%zu] is %zu, more than the %zu rows there are", name, b,
                             lengths[b], most);
    }
    return ATTN_OK;
}

static attn_status check_starts(attn_context *c, const char *name, const size_t *starts, size_t n,
                                size_t rows) {
    for (size_t b = 0; b < n; b++) {
        if (starts[b] > starts[b + 1])
            return attn_fail(c, ATTN_ERROR_SHAPE, "%s[%zu] is %zu, less than the %zu before it", name, b + 1,
                             starts[b + 1], starts[b]);
    }
    if (starts[n] > rows)
        return attn_fail(c, ATTN_ERROR_SHAPE, "%s[%zu] is %zu, more than the %zu rows there are", name, n,
                         starts[n], rows);
    return ATTN_OK;
}

/* Values of heads: finite, or -inf where that means something. */
static attn_status check_heads(attn_context *c, const char *name, const float *x, size_t n, int may_be_none) {
    for (size_t h = 0; x && h < n; h++) {
        if (!isfinite(x[h]) && !(may_be_none && x[h] == -INFINITY))
            return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s[%zu] is %s", name, h,
                             isnan(x[h]) ? "NaN" : "infinite");
    }
    return ATTN_OK;
}

/* kv_lengths, where they are not bounded by a tensor's rows alone: by sequences of their own. */
static attn_status check_own_lengths(attn_context *c, const attn_scoring *s,
                                     const struct attn_scoring_sizes *z) {
    if (z->kv && !z->kv->kv.lengths) return ATTN_OK; /* a query */
    for (size_t b = 0; s->kv_lengths && b < attn_sequences_named(s, z); b++) {
        const size_t most = s->kv_starts ? s->kv_starts[b + 1] - s->kv_starts[b]
                            : z->kv      ? attn_kv_length(z->kv, z->kv_sequences ? z->kv_sequences[b] : b)
                                         : z->n_kv;
        if (s->kv_lengths[b] > most)
            return attn_fail(c, ATTN_ERROR_SHAPE,
                             "scoring.kv_lengths[%zu] is %zu, more than the %zu rows of the sequence", b,
                             s->kv_lengths[b], most);
    }
    return ATTN_OK;
}

attn_status attn_scoring_check(attn_context *c, const attn_scoring *s, const struct attn_scoring_sizes *z) {
    const size_t n = attn_sequences_named(s, z);
    size_t elements;
    if (s->q_starts) {
        if (z->batch != 1)
            return attn_fail(c, ATTN_ERROR_SHAPE,
                             "q: its batch size is %zu, but with scoring.q_starts it is 1", z->batch);
        if (n > SIZE_MAX / sizeof(size_t) - 2)
            return attn_fail(c, ATTN_ERROR_OVERFLOW, "scoring.n_sequences: %zu do not fit the address space",
                             n);
        if (s->q_starts[0] != 0)
            return attn_fail(c, ATTN_ERROR_SHAPE, "scoring.q_starts[0] is %zu, but it must be 0",
                             s->q_starts[0]);
        ATTN_TRY(check_starts(c, "scoring.q_starts", s->q_starts, n, z->n_q));
        if (s->kv_starts) ATTN_TRY(check_starts(c, "scoring.kv_starts", s->kv_starts, n, z->n_kv));
    }
    if (s->q_documents &&
        (__builtin_mul_overflow(attn_max(z->batch, n), attn_max(z->n_q, z->n_kv), &elements) ||
         elements > SIZE_MAX / sizeof(int32_t)))
        return attn_fail(c, ATTN_ERROR_OVERFLOW,
                         "scoring.q_documents: its size does not fit the address space");
    ATTN_TRY(check_lengths(c, "scoring.q_lengths", s->q_lengths, n, z->n_q));
    if (s->kv_starts || z->kv) ATTN_TRY(check_own_lengths(c, s, z));
    if (!z->kv) ATTN_TRY(check_lengths(c, "scoring.kv_lengths", s->kv_lengths, n, z->n_kv));
    ATTN_TRY(check_heads(c, "scoring.alibi_slopes", s->alibi_slopes, z->n_head, 0));
    return check_heads(c, "scoring.sinks", s->sinks, z->n_head, 1);
}

void attn_scoring_spans(const attn_scoring *s, const struct attn_scoring_sizes *z,
                        struct attn_span spans[ATTN_SCORING_SPANS]) {
    const size_t n = attn_sequences_named(s, z), kv_documents = z->kv ? n : z->batch;
    spans[0] = attn_span_of("scoring.q_lengths", s->q_lengths, n * sizeof(size_t));
    spans[1] = attn_span_of("scoring.kv_lengths", s->kv_lengths, n * sizeof(size_t));
    spans[2] = attn_span_of("scoring.offsets", s->offsets, n * sizeof(ptrdiff_t));
    spans[3] = attn_span_of("scoring.window", s->window, 2 * sizeof(size_t));
    spans[4] = attn_span_of("scoring.prefixes", s->prefixes, n * sizeof(size_t));
    spans[5] = attn_span_of("scoring.q_documents", s->q_documents, z->batch * z->n_q * sizeof(int32_t));
    spans[6] =
        attn_span_of("scoring.kv_documents", s->kv_documents, kv_documents * z->n_kv * sizeof(int32_t));
    spans[7] = attn_span_of("scoring.alibi_slopes", s->alibi_slopes, z->n_head * sizeof(float));
    spans[8] = attn_span_of("scoring.sinks", s->sinks, z->n_head * sizeof(float));
    spans[9] = attn_span_of("scoring.q_starts", s->q_starts, (n + 1) * sizeof(size_t));
    spans[10] = attn_span_of("scoring.kv_starts", s->kv_starts, (n + 1) * sizeof(size_t));
}

/* ---- Sequences ---------------------------------------------------------------------------------------- */

size_t attn_sequences_named(const attn_scoring *s, const struct attn_scoring_sizes *z) {
    return s->q_starts ? s->n_sequences : z->batch;
}

size_t attn_sequences(const attn_scoring *s, const struct attn_scoring_sizes *z) {
    return s->q_starts ? s->n_sequences + 1 : z->batch;
}

/* Its keys in the cache. */
static void read_cached(const struct attn_scoring_sizes *z, size_t b, struct attn_sequence *q) {
    if (z->filled) {
        q->n_kv = attn_kv_filled(z->kv);
        return;
    }
    q->cached = z->kv_sequences ? z->kv_sequences[b] : b;
    q->n_kv = attn_kv_length(z->kv, q->cached);
    q->first = attn_kv_first(z->kv, q->cached);
}

struct attn_sequence attn_sequence_at(const attn_scoring *s, const struct attn_scoring_sizes *z, size_t b) {
    struct attn_sequence q = {.batch = b, .rows = z->n_q, .n_q = z->n_q, .n_kv = z->n_kv, .mask = b};
    if (s->q_starts) {
        q.batch = 0;
        q.q_row = s->q_starts[b];
        q.rows = (b < s->n_sequences ? s->q_starts[b + 1] : z->n_q) - q.q_row;
        q.n_q = b < s->n_sequences ? q.rows : 0;
        q.n_kv = 0;
        if (b == s->n_sequences) return q;
        if (s->kv_starts) q.kv_row = s->kv_starts[b];
        if (s->kv_starts) q.n_kv = s->kv_starts[b + 1] - q.kv_row;
    }
    if (z->kv) read_cached(z, b, &q);
    if (s->q_lengths) q.n_q = s->q_lengths[b];
    if (s->kv_lengths && !z->filled) q.n_kv = s->kv_lengths[b];
    q.first = attn_min(q.first, q.n_kv);
    if (s->prefixes) q.prefix = attn_min(s->prefixes[b], q.n_kv);
    if (s->causal == ATTN_CAUSAL_OFFSET || (s->causal == ATTN_CAUSAL_NONE && s->offsets))
        q.offset = s->offsets[b];
    else if (s->causal != ATTN_CAUSAL_TOP_LEFT)
        q.offset = (ptrdiff_t)q.n_kv - (ptrdiff_t)q.n_q;
    return q;
}

void attn_sequences_most(const attn_scoring *s, const struct attn_scoring_sizes *z, size_t *n_q,
                         size_t *n_kv) {
    *n_q = s->q_starts ? 0 : z->n_q;
    *n_kv = s->kv_starts ? 0 : z->n_kv;
    for (size_t b = 0; s->q_starts && b < s->n_sequences; b++) {
        *n_q = attn_max(*n_q, s->q_starts[b + 1] - s->q_starts[b]);
        if (s->kv_starts) *n_kv = attn_max(*n_kv, s->kv_starts[b + 1] - s->kv_starts[b]);
    }
}

/* offset + a + b within [0, most]. */
static size_t clamp_sum(ptrdiff_t offset, size_t a, size_t b, size_t most) {
    const size_t below = offset < 0 ? 0 - (size_t)offset : 0;
    size_t up;
    if (__builtin_add_overflow(a, b, &up) || (offset > 0 && __builtin_add_overflow(up, (size_t)offset, &up)))
        return most;
    return up <= below ? 0 : attn_min(up - below, most);
}

struct attn_sight attn_sight_of(const attn_scoring *s, const struct attn_sequence *q, size_t i) {
    struct attn_sight see = {0, i < q->n_q ? q->n_kv : 0, 0};
    if (see.hi == 0) return see;
    if (s->causal != ATTN_CAUSAL_NONE) see.hi = clamp_sum(q->offset, i, 1, q->n_kv);
    if (s->window) {
        const size_t left = s->window[0], right = s->window[1];
        const size_t at =
            clamp_sum(q->offset, i, 0, SIZE_MAX); /* where before key 0, it is the right side that ends */
        if (right != SIZE_MAX) see.hi = attn_min(see.hi, clamp_sum(q->offset, i, right + 1, q->n_kv));
        if (left != SIZE_MAX && at > left) see.lo = attn_min(at - left, q->n_kv);
    }
    if (see.lo >= see.hi) see.lo = see.hi = 0; /* one way to say nothing */
    if (q->prefix >= see.lo)
        see = (struct attn_sight){0, attn_max(see.hi, q->prefix), 0};
    else
        see.also = q->prefix;
    return see;
}
