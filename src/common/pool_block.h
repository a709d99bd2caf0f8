/*
 * Attention pooling: a block of rows, lanes of vectors, whatever its scores and P V are computed by: its scratch and state,
 * the order of merging (order.h), the end of its rows. Included after a tile.h.
 */
#ifndef ATTN_POOL_BLOCK_H
#define ATTN_POOL_BLOCK_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "pool_gather.h"
#include "sight.h"

/* A range of the block's vectors of rows: those that see something of a tile. */
struct pool_vectors {
    int first, n;
};

/* What waits for P V: keys [from, to), whose probabilities stand in p from row `row` on. */
struct pool_pending {
    size_t from, to, row;
    int hides; /* some row of the vectors does not see some of these keys */
    int sees;  /* the first vector that sees the last ones */
    struct pool_vectors rows;
    size_t stop[POOL_NV]; /* behind the last key of each: ascending */
};

/* Keys and values of a section, where they lie or gathered: key j is row j - from of each. Rows in bytes. */
struct pool_keys {
    size_t from;
    const char *k, *v;
    ptrdiff_t k_row, v_row;
};

/* The scratch of one block. Rows of `lanes` floats; see pool_scratch_body() for
 * the sizes. */
struct pool_block {
    const struct attn_pool_task *t;
    size_t lanes;                    /* 1 to POOL_NV vectors */
    struct sight_hull sees[POOL_NV]; /* what some row of the vector may see */
    float *q;  /* [d_k][lanes]: q * c, or A_q q for additive scores; of dot products of bf16: pairs of q */
    float *w;  /* additive only, [d_k][lanes]: w * c */
    float *eq; /* additive only, [d_k][lanes]: e^{2 q} */
    float *ek; /* additive only, [ATTN_KEY_TILE][d_k]: e^{2 k} of a tile */
    int large[POOL_NV]; /* additive only: a feature of the vector's rows is too large for e^{2 q} */
    float *lo;          /* [lanes]: first visible key, relative to the chunk, as a float
                   (exact: <= ATTN_CHUNK) */
    float *last;        /* [lanes]: last visible key, likewise */
    float *also;        /* [lanes]: keys below it are visible too, likewise */
    float *position;    /* [lanes]: the row's own, likewise; only where scores are shaped */
    float *slope;       /* [lanes]: only where scores are shaped */
    float *
        p; /* [POOL_KEYS][lanes]: scores, then probabilities; of dot products of bf16 pairs of these: [key / 2][lanes] */
    float *s;                   /* those: [ATTN_KEY_TILE][lanes], scores of a tile */
    float *bias;                /* [ATTN_KEY_TILE][lanes]: the mask of a tile */
    struct pool_gather *gather; /* NULL: keys and values are read where they lie */
    struct pool_keys keys;      /* of the section at hand */
};

/* The running maximum (log2 units), sum and output of each row. */
struct pool_state {
    float *m, *l; /* [lanes] */
    float *o;     /* [d_v][lanes] */
};

/* ---- Registers of a step --------------------------------------------------------------------------------- */

ATTN_INLINE void pool_zero(int keys, int nv, vf32 c[QK_KEYS][POOL_NV]) {
    ATTN_UNROLL for (int i = 0; i < keys; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_zero();
    }
}

/* One function a number of vectors. */
#define POOL_DISPATCH(nv, result, name, ...)      \
    switch (nv) {                                 \
    case 1: result name##_1(__VA_ARGS__); break;  \
    case 2: result name##_2(__VA_ARGS__); break;  \
    case 3: result name##_3(__VA_ARGS__); break;  \
    default: result name##_4(__VA_ARGS__); break; \
    }

/* ---- State ------------------------------------------------------------------------------------------------ */

ATTN_INLINE float *pool_take(float **at, size_t floats) {
    float *p = *at;
    *at += (floats + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
    return p;
}

static struct pool_state pool_state_at(float **at, size_t lanes, size_t d_v) {
    struct pool_state st;
    st.m = pool_take(at, lanes);
    st.l = pool_take(at, lanes);
    st.o = pool_take(at, d_v * lanes);
    return st;
}

static size_t pool_lanes(const struct attn_pool_task *t) {
    return (t->n_rows + VF32_N - 1) / VF32_N * VF32_N;
}

/* Rows whose x exceeds their maximum by more than ATTN_RESCALE take it: l and o are scaled to it. */
static void pool_rescale(const struct pool_block *b, struct pool_state *st, size_t lane, vf32 x) {
    const vf32 m = v_load(st->m + lane), lowest = v_set1(-FLT_MAX);
    const vmask moves = v_lt(v_add(m, v_set1(ATTN_RESCALE)), x);
    /* before the first visible key l and o are 0 and stay it: a factor of 1 avoids 0 * inf */
    vf32 f = v_select(moves, v_exp2(v_sub(m, x)), v_set1(1.0f));
    f = v_select(v_lt(m, lowest), v_set1(1.0f), f);
    v_store(st->m + lane, v_select(moves, x, m));
    if (!v_any(v_lt(f, v_set1(1.0f)))) return;
    v_store(st->l + lane, v_mul(v_load(st->l + lane), f));
    for (size_t c = 0; c < b->t->d_v; c++) {
        float *o = st->o + c * b->lanes + lane;
        v_store(o, v_mul(v_load(o), f));
    }
}

static void pool_vector_sight(const struct attn_pool_task *t, struct pool_block *b, size_t v) {
    b->sees[v] = sight_nothing();
    for (size_t i = v * VF32_N; i < (v + 1) * VF32_N; i++) sight_add(&b->sees[v], t, pool_row(t, i));
}

/* Each lane's visible range in floats relative to the chunk at `base`. */
static void pool_lane_ranges(const struct pool_block *b, size_t base) {
    for (size_t lane = 0; lane < b->lanes; lane++) {
        const size_t row = pool_row(b->t, lane), lo = b->t->lo[row], hi = b->t->hi[row];
        const size_t from = lo > base ? attn_min(lo - base, ATTN_CHUNK) : 0;
        const size_t end = hi > base ? attn_min(hi - base, ATTN_CHUNK) : 0;
        b->lo[lane] = (float)from;
        b->last[lane] = (float)end - 1.0f;
        b->also[lane] = b->t->also[row] > base ? (float)attn_min(b->t->also[row] - base, ATTN_CHUNK) : 0.0f;
        if (sight_shapes(b->t)) b->position[lane] = sight_position(b->t, row, base);
    }
}

/* The vectors with a row that may see something of the tile at j0: all of them where nothing is hidden. */
static struct pool_vectors pool_seeing(const struct pool_block *b, enum sight sight, size_t j0) {
    int first = 0, end = (int)(b->lanes / VF32_N);
    if (sight == SIGHT_NONE) end = 0;
    if (sight == SIGHT_SOME) {
        const struct sight_hull tile = b->t->kv_documents ? sight_tile(b->t, j0) : sight_nothing();
        while (first < end && !sight_meets(b->t, &b->sees[first], j0, &tile)) first++;
        while (first < end && !sight_meets(b->t, &b->sees[end - 1], j0, &tile)) end--;
    }
    return (struct pool_vectors){first, end - first};
}

/* The part of a chunk that a block sees. */
struct pool_span {
    size_t base, lo, hi;
};
static struct pool_span pool_span_of(const struct pool_range *r, size_t chunk) {
    const size_t base = chunk * ATTN_CHUNK;
    return (struct pool_span){base, attn_max(base, r->lo), attn_min(base + ATTN_CHUNK, r->hi)};
}

/* The state of a chunk before its keys. */
static void pool_chunk_begin(struct pool_block *b, const struct pool_span *s, int clears,
                             struct pool_state *st) {
    for (size_t lane = 0; lane < b->lanes; lane += VF32_N) {
        v_store(st->m + lane, v_set1(-INFINITY));
        v_store(st->l + lane, v_zero());
    }
    if (clears || s->lo < s->hi) memset(st->o, 0, b->t->d_v * b->lanes * sizeof *st->o);
    if (s->lo < s->hi) pool_lane_ranges(b, s->base);
}

/* a = merge of a and b, a's keys before b's. */
static void pool_merge(size_t lanes, size_t d_v, struct pool_state *a, const struct pool_state *b) {
    const vf32 half = v_set1(0.5f);
    for (size_t lane = 0; lane < lanes; lane += VF32_N) {
        const vf32 ma = v_load(a->m + lane), mb = v_load(b->m + lane), m = v_max(ma, mb);
        /* l is 0 where nothing was seen, at least 1 where something was, or NaN (and m may then be -inf) */
        const vmask no_a = v_lt(v_load(a->l + lane), half), no_b = v_lt(v_load(b->l + lane), half);
        if (!v_any(v_lt(v_zero(), v_select(no_b, v_zero(), v_set1(1.0f))))) continue; /* of no row */
        const vf32 fa = v_exp2(v_sub(ma, m)), fb = v_exp2(v_sub(mb, m));
        v_store(a->m + lane, m);
        for (size_t c = 0; c <= d_v; c++) { /* the last one is l */
            float *pa = (c < d_v ? a->o + c * lanes : a->l) + lane;
            const float *pb = (c < d_v ? b->o + c * lanes : b->l) + lane;
            const vf32 xa = v_load(pa), xb = v_load(pb);
            const vf32 x = v_fma(xb, fb, v_mul(xa, fa));
            v_store(pa, v_select(no_b, xa, v_select(no_a, xb, x)));
        }
    }
}

/* ---- The end ---------------------------------------------------------------------------------------------- */

/* o times `factor`, as the kernels' order has it. */
ATTN_INLINE vf32 pool_end(vf32 o, vf32 factor);

/* out = o / l and the log-sum-exps; leaves what o was multiplied by in l. */
static void pool_finish(const struct attn_pool_task *t, size_t lanes, struct pool_state *st) {
    for (size_t lane = 0; lane < lanes; lane += VF32_N) {
        const size_t rows = lane < t->n_rows ? attn_min(t->n_rows - lane, VF32_N) : 0;
        float sink[VF32_N] = {0}, lse[VF32_N], lse_sinks[VF32_N];
        for (size_t i = 0; t->sinks && i < rows; i++) sink[i] = t->sinks[(t->first + lane + i) % t->group];
        const struct sight_end end =
            sight_end_of(t, v_load(st->m + lane), v_load(st->l + lane), v_load(sink));
        const vf32 inv = end.factor;
        v_store(lse, end.lse);
        v_store(lse_sinks, end.lse_sinks);
        v_store(st->l + lane, inv);
        void *to[VF32_N];
        for (size_t i = 0; i < rows; i++)
            to[i] = pool_to(t, pool_offset(t, lane + i, t->out_row, t->out_head));
        for (size_t i = 0; t->lse && i < rows; i++)
            t->lse[pool_offset(t, lane + i, t->lse_row, t->lse_head)] = lse[i];
        for (size_t i = 0; t->lse_sinks && i < rows; i++)
            t->lse_sinks[pool_offset(t, lane + i, t->lse_sinks_row, t->lse_sinks_head)] = lse_sinks[i];
        size_t c = 0;
        for (; c + VF32_N <= t->d_v && rows == VF32_N; c += VF32_N) {
            vf32 r[VF32_N];
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) r[i] =
                pool_end(v_load(st->o + (c + i) * lanes + lane), inv);
            v_transpose(r);
            ATTN_UNROLL for (size_t i = 0; i < VF32_N; i++) typed_store(t->out_type, to[i], c, r[i]);
        }
        for (; c < t->d_v; c += VF32_N) {
            const size_t left = attn_min(t->d_v - c, VF32_N);
            vf32 r[VF32_N];
            for (size_t i = 0; i < VF32_N; i++)
                r[i] = i < left ? pool_end(v_load(st->o + (c + i) * lanes + lane), inv) : v_zero();
            v_transpose(r);
            for (size_t i = 0; i < rows; i++) typed_store_tail(t->out_type, to[i], c, r[i], left);
        }
    }
}

#endif
