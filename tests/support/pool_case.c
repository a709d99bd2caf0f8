#include "support/pool_case.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "order.h"
#include "support/half.h"

void pool_case_announce(const struct attn_backend *b, const struct pool_case *c) {
    harness_case(
        "%s pool score %d rows %zu group %zu+%zu n_kv %zu d_k %zu d_v %zu sight %d documents %d "
        "alibi %d sinks %d "
        "cap %g mask %d bits %u lse %d %d weights %d %d parts %d rising %d spoiled %d fill %d layout "
        "%u stream %llu",
        b->name, c->score, c->n_rows, c->group, c->first, c->n_kv, c->d_k, c->d_v, c->sight, c->documents,
        c->alibi, c->sinks, (double)c->soft_cap, c->mask, c->mask_bits, c->lse, c->lse_sinks, c->weights,
        c->scores, c->parts, c->rising, c->spoiled, c->fill, c->layout, (unsigned long long)c->stream);
}

size_t pool_case_query(const struct pool_case *c, size_t r) { return (c->first + r) / c->group; }

size_t pool_case_head(const struct pool_case *c, size_t r) { return (c->first + r) % c->group; }

static size_t n_queries(const struct pool_case *c) { return pool_case_query(c, c->n_rows - 1) + 1; }

static void make_ranges(const struct pool_case *c, struct pool_data *d, struct rng *r) {
    const size_t prefix = c->n_kv ? 1 + rng_below(r, c->n_kv) : 0, n_q = n_queries(c);
    d->from = SIZE_MAX;
    d->to = 0;
    for (size_t i = 0; i < c->n_rows; i++) {
        const size_t query = pool_case_query(c, i), seen = query + 1 + c->n_kv;
        size_t lo = 0, hi = c->n_kv;
        if (c->sight == SIGHT_CAUSAL) hi = seen > n_q ? seen - n_q : 0;
        if (c->sight == SIGHT_PREFIX) hi = prefix;
        if (c->sight == SIGHT_RANGES || c->sight == SIGHT_SOME || c->sight == SIGHT_WINDOWS) {
            lo = rng_below(r, c->n_kv + 1);
            hi = lo + rng_below(r, (rng_chance(r, 50) && c->n_kv - lo > 24 ? 24 : c->n_kv - lo) + 1);
        }
        if (c->sight == SIGHT_NONE || (c->sight == SIGHT_SOME && rng_chance(r, 50))) {
            lo = rng_chance(r, 50) ? c->n_kv : 0; /* lo > hi is also nothing */
            hi = 0;
        }
        d->lo[i] = lo;
        d->hi[i] = hi;
        if (c->sight == SIGHT_WINDOWS && rng_chance(r, 75))
            d->also[i] = prefix < lo ? prefix : rng_below(r, lo + 1);
        if (d->also[i]) {
            d->from = 0;
            d->to = d->also[i] > d->to ? d->also[i] : d->to;
        }
        if (lo < hi) {
            d->from = lo < d->from ? lo : d->from;
            d->to = hi > d->to ? hi : d->to;
        }
    }
    if (d->from > d->to) d->from = d->to = 0;
}

static const int32_t *ints(const struct guard *g) { return (const int32_t *)(const void *)g->data; }

/* By everything but the mask. */
static int in_range(const struct pool_case *c, const struct pool_data *d, size_t r, size_t j) {
    if (!(d->lo[r] <= j && j < d->hi[r]) && j >= d->also[r]) return 0;
    return !c->documents || ints(&d->q_documents)[pool_case_query(c, r)] == ints(&d->kv_documents)[j];
}

/* Address of what (row r, key j) find in the mask. */
static unsigned char *mask_at(const struct pool_case *c, const struct pool_data *d, size_t r, size_t j) {
    const size_t query = c->mask_bits & MASK_ROWS ? pool_case_query(c, r) : 0;
    const size_t head = c->mask_bits & MASK_HEADS ? pool_case_head(c, r) : 0;
    const size_t key = c->mask_bits & MASK_KEYS ? j : 0;
    return grid_u8(&d->mask, 0, head, query) + key * d->mask.element;
}

int pool_case_sees(const struct pool_case *c, const struct pool_data *d, size_t r, size_t j) {
    if (!in_range(c, d, r, j)) return 0;
    if (c->mask == ATTN_MASK_BOOL) return *mask_at(c, d, r, j) != 0;
    return pool_case_bias(c, d, r, j) != -INFINITY;
}

float pool_case_bias(const struct pool_case *c, const struct pool_data *d, size_t r, size_t j) {
    float bias = 0;
    uint16_t half = 0;
    if (c->mask == ATTN_MASK_F32) memcpy(&bias, mask_at(c, d, r, j), sizeof bias);
    if (c->mask == ATTN_MASK_F16) memcpy(&half, mask_at(c, d, r, j), sizeof half);
    return c->mask == ATTN_MASK_F16 ? half_value(half) : bias;
}

/* Masks hide a quarter of the keys. What no row's range holds is NaN, or any byte. */
static void make_mask(const struct pool_case *c, struct pool_data *d, struct rng *r) {
    const size_t size[4] = {1, c->mask_bits & MASK_HEADS ? c->group : 1,
                            c->mask_bits & MASK_ROWS ? n_queries(c) : 1,
                            c->mask_bits & MASK_KEYS ? c->n_kv : 1};
    d->mask = grid_make(r, c->mask == ATTN_MASK_BOOL ? 1 : c->mask == ATTN_MASK_F16 ? 2 : 4, size, c->layout);
    if (c->mask == ATTN_MASK_F16) half_fill(&d->mask, HALF_NAN);
    for (size_t i = 0; i < c->n_rows; i++) {
        for (size_t j = 0; j < c->n_kv; j++) {
            unsigned char *at = mask_at(c, d, i, j);
            if (c->mask == ATTN_MASK_BOOL) {
                static const unsigned char truth[4] = {1, 2, 0x80, 0xff};
                *at = rng_chance(r, 25) ? 0 : truth[rng_below(r, 4)];
            } else if (c->mask == ATTN_MASK_F16 && in_range(c, d, i, j)) {
                const uint16_t half = half_draw(r);
                memcpy(at, &half, sizeof half);
            } else if (in_range(c, d, i, j)) {
                float bias = 2 * rng_normal(r);
                if (rng_chance(r, 25))
                    bias = -INFINITY;
                else if (rng_chance(r, 3))
                    bias = -FLT_MAX;
                memcpy(at, &bias, sizeof bias);
            }
        }
    }
}

/* Scores of the first row's query rise to about 60 with the position. */
static void make_rising(const struct pool_case *c, struct pool_data *d) {
    const float *q = grid_f32(&d->q, 0, pool_case_head(c, 0), 0);
    float norm = 0;
    for (size_t i = 0; i < c->d_k; i++) norm += q[i] * q[i];
    if (norm == 0 || d->scale == 0 || c->score == ATTN_SCORE_ADDITIVE) return;
    for (size_t j = d->from; j < d->to; j++)
        for (size_t i = 0; i < c->d_k; i++)
            grid_f32(&d->k, 0, 0, j - d->from)[i] +=
                q[i] / norm * (60.0f / d->scale) * (float)(j + 1) / (float)c->n_kv;
}

/* A key that no row sees is NaN throughout. */
static void poison_hidden(const struct pool_case *c, struct pool_data *d) {
    for (size_t j = d->from; j < d->to; j++) {
        int seen = 0;
        for (size_t i = 0; i < c->n_rows && !seen; i++) seen = pool_case_sees(c, d, i, j);
        for (size_t i = 0; i < c->d_k && !seen; i++) grid_f32(&d->k, 0, 0, j - d->from)[i] = NAN;
        for (size_t i = 0; i < c->d_v && !seen; i++) grid_f32(&d->v, 0, 0, j - d->from)[i] = NAN;
    }
}

static void make_shaping(const struct pool_case *c, struct pool_data *d, struct rng *r) {
    static const float odd[] = {-INFINITY, 60, -200, 0};
    if (c->documents) {
        d->q_documents = guard_alloc(n_queries(c) * sizeof(int32_t), 0);
        d->kv_documents = guard_alloc(c->n_kv * sizeof(int32_t), 0);
        int32_t *q = (int32_t *)(void *)d->q_documents.data, *kv = (int32_t *)(void *)d->kv_documents.data;
        const size_t kinds = 1 + rng_below(r, 3), run = 1 + rng_below(r, 40);
        for (size_t i = 0; i < n_queries(c); i++) q[i] = (int32_t)rng_below(r, kinds) - 1;
        for (size_t j = 0; j < c->n_kv; j++)
            kv[j] = (int32_t)(run > 20 ? j / run % kinds : rng_below(r, kinds)) - 1;
    }
    d->position = (ptrdiff_t)rng_below(r, c->n_kv + 20) - 10;
    d->slopes = guard_alloc(c->group * sizeof(float), 0);
    d->sinks = guard_alloc(c->group * sizeof(float), 0);
    for (size_t h = 0; h < c->group; h++) {
        ((float *)(void *)d->slopes.data)[h] = ldexpf(1 + 0.25f * (float)(h % 4), -1 - (int)(h % 9));
        ((float *)(void *)d->sinks.data)[h] = c->sinks == 2 ? odd[rng_below(r, 4)] : 2 * rng_normal(r);
    }
}

struct pool_data pool_case_make(const struct pool_case *c, struct rng *r) {
    struct pool_data d = {0};
    make_ranges(c, &d, r);
    make_shaping(c, &d, r);
    const float scales[4] = {1.0f / sqrtf((float)c->d_k), 0.5f, -0.25f, 1.0f};
    d.scale = scales[c->rising || !rng_chance(r, 25) ? 0 : rng_below(r, 4)];
    const int additive = c->score == ATTN_SCORE_ADDITIVE;
    const size_t n_k = d.to - d.from;
    d.q = grid_make(r, sizeof(float), (size_t[4]){1, c->group, n_queries(c), c->d_k}, c->layout);
    d.k = grid_make(r, sizeof(float), (size_t[4]){1, 1, n_k, c->d_k}, c->layout);
    d.v = grid_make(r, sizeof(float), (size_t[4]){1, 1, n_k, c->d_v}, c->layout);
    d.w = grid_make(r, sizeof(float), (size_t[4]){1, additive && !c->shared_w ? c->group : 1, 1, c->d_k},
                    c->layout);
    for (size_t i = 0; i < c->n_rows; i++) /* what lies behind the last row stays NaN */
        rng_floats(r, c->fill, grid_f32(&d.q, 0, pool_case_head(c, i), pool_case_query(c, i)), c->d_k);
    grid_fill(&d.k, r, c->fill);
    grid_fill(&d.v, r, c->fill);
    grid_fill(&d.w, r, FILL_NORMAL);
    if (c->rising) make_rising(c, &d);
    if (c->mask != ATTN_MASK_NONE) make_mask(c, &d, r);
    poison_hidden(c, &d);
    if (c->spoiled) {
        struct grid *const inputs[] = {&d.q, &d.k, &d.v, &d.mask};
        const size_t which = rng_below(r, c->mask == ATTN_MASK_F32 ? 4 : 3);
        grid_spoil(inputs[which], r, which == 3);
    }
    return d;
}

void pool_case_free(struct pool_data *d) {
    grid_free(&d->q);
    grid_free(&d->k);
    grid_free(&d->v);
    grid_free(&d->w);
    grid_free(&d->mask);
    guard_free(&d->q_documents);
    guard_free(&d->kv_documents);
    guard_free(&d->slopes);
    guard_free(&d->sinks);
}

void pool_case_check(const struct attn_backend *b, const struct pool_case *c, struct verdict *v) {
    struct rng r = rng_make(test_seed(), c->stream);
    struct pool_data d = pool_case_make(c, &r);
    pool_case_check_data(b, c, &d, &r, v);
    pool_case_free(&d);
}
