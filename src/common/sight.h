/*
 * What a row of a block may see of a key, by its range, documents and mask; how scores are shaped before, and what a sink
 * does at the end. pool_sight() asks this of each tile once; only where it says SIGHT_SOME rows are looked at one by one.
 */
#ifndef ATTN_SIGHT_H
#define ATTN_SIGHT_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "backend.h"
#include "order.h"
#include "size.h"

/* binary16, exactly. */
static inline float sight_half(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = h >> 10 & 31u, f = h & 0x3ffu;
    const uint32_t bits = sign | (e == 31 ? 0x7f800000u | f << 13 : (e + 112) << 23 | f << 13);
    float x;
    memcpy(&x, &bits, sizeof x);
    if (e == 0) x = (sign ? -1.0f : 1.0f) * (float)f * 0x1p-24f;
    return x;
}

static inline size_t sight_query(const struct attn_pool_task *t, size_t row) {
    return (t->first + row) / t->group;
}

/*
 * What mask and documents say of keys [j, j + n) of a tile to a row, its range aside: bias[i] is what is added to a score
 * (0 without an additive mask), -inf where the key is hidden or i >= n. `at` is where the row's mask begins.
 */
static inline void sight_bias(const struct attn_pool_task *t, size_t row, size_t j, size_t n, ptrdiff_t at,
                              float bias[ATTN_KEY_TILE]) {
    const ptrdiff_t first = at + (ptrdiff_t)j * t->mask_key, step = t->mask_key;
    if (t->mask_kind == ATTN_MASK_BOOL) {
        const uint8_t *m = (const uint8_t *)t->mask + first;
        for (size_t i = 0; i < n; i++) bias[i] = m[(ptrdiff_t)i * step] ? 0.0f : -INFINITY;
    } else if (t->mask_kind == ATTN_MASK_F32) {
        const float *m = (const float *)t->mask + first;
        for (size_t i = 0; i < n; i++) bias[i] = m[(ptrdiff_t)i * step];
    } else if (t->mask_kind == ATTN_MASK_F16) {
        const uint16_t *m = (const uint16_t *)t->mask + first;
        for (size_t i = 0; i < n; i++) bias[i] = sight_half(m[(ptrdiff_t)i * step]);
    } else {
        for (size_t i = 0; i < n; i++) bias[i] = 0.0f;
    }
    if (t->q_documents) {
        const int32_t own = t->q_documents[sight_query(t, row)];
        for (size_t i = 0; i < n; i++) bias[i] = t->kv_documents[j + i] == own ? bias[i] : -INFINITY;
    }
    for (size_t i = n; i < ATTN_KEY_TILE; i++) bias[i] = -INFINITY;
}

/* ---- Of a block ---------------------------------------------------------------------------------------- */

/* What some rows see at most: keys of [lo, hi) and those below `also`, of documents [least, most]. */
struct sight_hull {
    size_t lo, hi, also;
    int32_t least, most;
};

static inline struct sight_hull sight_nothing(void) {
    return (struct sight_hull){SIZE_MAX, 0, 0, INT32_MAX, INT32_MIN};
}

static inline void sight_add(struct sight_hull *h, const struct attn_pool_task *t, size_t row) {
    if (t->lo[row] < t->hi[row]) {
        h->lo = attn_min(h->lo, t->lo[row]);
        h->hi = attn_max(h->hi, t->hi[row]);
    }
    h->also = attn_max(h->also, t->also[row]);
    if (t->q_documents && (t->lo[row] < t->hi[row] || t->also[row])) {
        const int32_t d = t->q_documents[sight_query(t, row)];
        h->least = d < h->least ? d : h->least;
        h->most = d > h->most ? d : h->most;
    }
}

/* The documents of the tile of keys at j0. */
static inline struct sight_hull sight_tile(const struct attn_pool_task *t, size_t j0) {
    struct sight_hull h = sight_nothing();
    for (size_t j = j0; j < attn_min(j0 + ATTN_KEY_TILE, t->n_kv); j++) {
        h.least = t->kv_documents[j] < h.least ? t->kv_documents[j] : h.least;
        h.most = t->kv_documents[j] > h.most ? t->kv_documents[j] : h.most;
    }
    return h;
}

/* Whether rows of that hull may see something of the tile at j0, whose documents are `tile` (where there are any). */
static inline int sight_meets(const struct attn_pool_task *t, const struct sight_hull *rows, size_t j0,
                              const struct sight_hull *tile) {
    if (!(rows->lo < j0 + ATTN_KEY_TILE && rows->hi > j0) && rows->also <= j0) return 0;
    return !t->kv_documents || (rows->least <= tile->most && rows->most >= tile->least);
}

/* The part of a chunk that a block sees, and where all its rows see all keys. */
struct pool_range {
    struct sight_hull rows;
    size_t lo, hi;           /* some row sees a key of [lo, hi) only */
    size_t full_lo, full_hi; /* every row's range holds [full_lo, full_hi) */
};

static inline struct pool_range pool_range_of(const struct attn_pool_task *t) {
    struct pool_range r = {sight_nothing(), 0, 0, 0, SIZE_MAX};
    for (size_t i = 0; i < t->n_rows; i++) {
        sight_add(&r.rows, t, i);
        r.full_lo = attn_max(r.full_lo, t->lo[i]);
        r.full_hi = attn_min(r.full_hi, t->lo[i] < t->hi[i] ? t->hi[i] : 0);
    }
    r.lo = r.rows.also ? 0 : r.rows.lo;
    r.hi = attn_max(r.rows.hi, r.rows.also);
    if (r.lo > r.hi) r.lo = r.hi = 0;
    return r;
}

enum sight { SIGHT_NONE, SIGHT_SOME, SIGHT_ALL };

/* Whether all of `bytes` bytes (a multiple of 8) are the pattern's. */
static inline int sight_all(const void *x, size_t bytes, uint64_t pattern) {
    uint64_t differ = 0;
    for (size_t i = 0; i < bytes; i += sizeof differ) {
        uint64_t word;
        memcpy(&word, (const char *)x + i, sizeof word);
        differ |= word ^ pattern;
    }
    return differ == 0;
}

/* What the mask alone says of the whole tile at j0 to all rows of the head group `shift` heads on: hosts give causal
 * masks as dense ones, whose tiles mostly hide nothing or everything. */
static inline enum sight sight_mask(const struct attn_pool_task *t, size_t shift, size_t j0) {
    static const struct {
        size_t bytes;
        uint64_t sees, hides;
    } kinds[] = {[ATTN_MASK_BOOL] = {1, 0x0101010101010101u, 0},
                 [ATTN_MASK_F32] = {4, 0, 0xff800000ff800000u},
                 [ATTN_MASK_F16] = {2, 0, 0xfc00fc00fc00fc00u}};
    const size_t bytes = kinds[t->mask_kind].bytes;
    int sees = 1, hides = 1;
    ptrdiff_t before = 0;
    if (t->mask_key != 1) return SIGHT_SOME;
    for (size_t r = 0; r < t->n_rows && (sees || hides); r++) {
        const ptrdiff_t at = (ptrdiff_t)sight_query(t, r) * t->mask_row +
                             (ptrdiff_t)(shift + (t->first + r) % t->group) * t->mask_head + (ptrdiff_t)j0;
        const char *m = (const char *)t->mask + at * (ptrdiff_t)bytes;
        if (r && at == before) continue;
        before = at;
        sees = sees && sight_all(m, ATTN_KEY_TILE * bytes, kinds[t->mask_kind].sees);
        hides = hides && sight_all(m, ATTN_KEY_TILE * bytes, kinds[t->mask_kind].hides);
    }
    return sees ? SIGHT_ALL : hides ? SIGHT_NONE : SIGHT_SOME;
}

/* What the rows of the head group `shift` heads on see of the tile at j0; SIGHT_SOME where it takes a closer look. */
static inline enum sight pool_sight(const struct attn_pool_task *t, const struct pool_range *r, size_t shift,
                                    size_t j0) {
    const int inside = j0 >= r->full_lo && j0 + ATTN_KEY_TILE <= r->full_hi;
    int one = 1; /* document */
    if (t->kv_documents || !inside) {
        const struct sight_hull tile = t->kv_documents ? sight_tile(t, j0) : sight_nothing();
        if (!sight_meets(t, &r->rows, j0, &tile)) return SIGHT_NONE;
        one = !t->kv_documents ||
              (r->rows.least == r->rows.most && tile.least == tile.most && tile.least == r->rows.least);
    }
    if (!inside) return SIGHT_SOME;
    if (t->mask_kind == ATTN_MASK_NONE) return one ? SIGHT_ALL : SIGHT_SOME;
    const enum sight mask = sight_mask(t, shift, j0);
    return mask == SIGHT_ALL && !one ? SIGHT_SOME : mask;
}

/* ---- Shaping ------------------------------------------------------------------------------------------- */

static inline int sight_shapes(const struct attn_pool_task *t) { return t->cap > 0.0f || t->slopes != NULL; }

/* ALiBi's factor of the distance, in base 2, for a row of the head group `shift` heads on. */
static inline float sight_slope(const struct attn_pool_task *t, size_t shift, size_t row) {
    return t->slopes ? -(t->slopes[shift + (t->first + row) % t->group] * ATTN_LOG2E) : 0.0f;
}

/* Where the row stands, relative to key `base`: exact below 2^24. */
static inline float sight_position(const struct attn_pool_task *t, size_t row, size_t base) {
    return (float)(t->position + (ptrdiff_t)sight_query(t, row) - (ptrdiff_t)base);
}

/* Shaped scores x of keys or rows in the lanes: `distance` between each lane's row and key, of either sign. */
ATTN_INLINE vf32 sight_shape(const struct attn_pool_task *t, vf32 x, vf32 distance, vf32 slope) {
    if (t->cap > 0.0f) x = v_mul(v_set1(t->cap), v_tanh(v_mul(x, v_set1(t->cap_inverse))));
    return t->slopes ? v_fma(slope, v_abs(distance), x) : x;
}

/* ---- The end of a row ---------------------------------------------------------------------------------- */

/* What the output is multiplied by, and the log-sum-exps without and with the sink. */
struct sight_end {
    vf32 factor, lse, lse_sinks;
};

/* From the maximum, the sum, and the sinks of the lanes' rows (where the task has any). l is 0 where nothing was seen, at
 * least 1 where something was, or NaN (and m may then be -inf). */
ATTN_INLINE struct sight_end sight_end_of(const struct attn_pool_task *t, vf32 m, vf32 l, vf32 sink) {
    const vf32 one = v_set1(1.0f), ln2 = v_set1(ATTN_LN2);
    const vmask nothing = v_lt(l, v_set1(0.5f));
    struct sight_end e;
    e.lse = v_mul(v_add(m, v_log2(l)), ln2);
    if (!t->sinks) {
        e.factor = v_select(nothing, v_zero(), v_div(one, l));
        e.lse_sinks = e.lse;
        return e;
    }
    /* at most FLT_MAX in base 2: inf - inf is NaN */
    const vf32 s = v_sub(v_zero(), v_max(v_mul(sink, v_set1(-ATTN_LOG2E)), v_set1(-FLT_MAX)));
    const vf32 most = v_max(m, s), f = v_exp2(v_sub(m, most));
    const vf32 sum = v_fma(l, f, v_exp2(v_sub(s, most)));
    e.factor = v_select(nothing, v_zero(), v_mul(f, v_div(one, sum)));
    e.lse_sinks = v_select(nothing, sink, v_mul(v_add(most, v_log2(sum)), ln2));
    return e;
}

#endif
