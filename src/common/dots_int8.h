/*
 * Projections by int8 dot products: weights of block formats as bytes, x as prepared (dots_prepare.h). For each unit
 * u of k, in ascending order, y = fma(dot_u, scale_u d_u, y), where dot_u is exact, then, for types that add to each
 * weight, y = fma(min_u, d_u sum_u, y); cut in K blocks as f32 is. The same for any number of rows.
 *
 * For many strips of rows a block of a panel is spread out once into the worker's scratch: bytes as they are multiplied,
 * scales in f32. Few strips take it from where it lies, and so do any of q8_0, where that costs an instruction a vector at most.
 *
 * The folder's dots.h says how bytes are multiplied (DOTS_SIGNED_8, DOTS_SIGNED_LESS, v_sum_*) and has the sizes: DOTS_MR rows
 * by DOTS_NV vectors; DOTS_FEW, rows that take all types from where they lie; DOTS_WIDE, rows that take LINEAR_NV vectors at
 * once: one linear read.
 */
#ifndef ATTN_DOTS_INT8_H
#define ATTN_DOTS_INT8_H

#include "dots_prepare.h"
#include "linear_walk.h"

enum { DOTS_AHEAD = 4096 }; /* bytes that a single strip asks for ahead, into L1 (see TYPES_AHEAD) */

/* A block of a panel, spread out. Units one after the other: [quad][width][4] bytes; [width] scales, and mins. */
struct dots_spread {
    uint8_t *bytes;
    float *scales, *mins;
};

static struct dots_spread dots_spread_at(void *scratch) {
    enum { UNITS = ATTN_K_BLOCK / 16 };
    char *at = scratch;
    float *scales = (float *)(void *)(at + (size_t)ATTN_K_BLOCK * LINEAR_NR);
    return (struct dots_spread){(uint8_t *)at, scales, scales + UNITS * LINEAR_NR};
}
_Static_assert(ATTN_K_BLOCK *LINEAR_NR + 2 * (ATTN_K_BLOCK / 16) * LINEAR_NR * 4 <=
                   LINEAR_NR * ATTN_K_BLOCK * 4,
               "it fits linear_scratch, the same block in f32");

/* A panel's width as a constant, where it can be. */
ATTN_INLINE size_t dots_width(size_t width) {
    return (int)LINEAR_NR == (int)ATTN_PANEL_UNIT ? (size_t)LINEAR_NR : width;
}

/* A quad as it is multiplied. */
ATTN_INLINE vbytes dots_quad(int type, const struct types_block *b, size_t column, int unit, int quad) {
    if (dots_signed(type)) return types_quad(type, b, column, unit, quad);
    const vbytes q = types_stored(type, b, column, unit, quad);
    return type == ATTN_Q8_0 ? v_bytes_minus(q, 128) : q; /* as good as plus, of bytes */
}
/* Bits of its bytes, where they are not signed. */
ATTN_INLINE int dots_bits(int type) { return type == ATTN_Q8_0 ? 8 : type == ATTN_Q6_K ? 6 : 4; }

ATTN_INLINE void dots_scale(int type, const struct types_block *b, size_t column, int unit, vf32 *d,
                            vf32 *m) {
    types_scale(type, b, column, unit, d, m);
    *d = v_mul(*d, v_set1(1.0f / TYPES_DOWN)); /* back from what floats of bytes need; a power of two */
}

ATTN_INLINE void dots_spread_unit(int type, const struct types_block *b, int unit, int quads,
                                  const struct dots_spread *to) {
    for (size_t column = 0; column < b->width; column += VF32_N) {
        vf32 d, m;
        dots_scale(type, b, column, unit, &d, &m);
        v_store(to->scales + column, d);
        if (dots_adds(type)) v_store(to->mins + column, m);
        ATTN_UNROLL for (int quad = 0; quad < quads; quad++) v_bytes_store(
            to->bytes + (size_t)quad * 4 * b->width + 4 * column, dots_quad(type, b, column, unit, quad));
    }
}

ATTN_INLINE void dots_spread_block(int type, const void *panel, size_t k, size_t width,
                                   struct dots_spread to) {
    const int unit = types_unit(type), units = types_block_values(type) / unit;
    struct types_block b = {panel, dots_width(width)};
    for (; k; k -= (size_t)types_block_values(type), b.at += (size_t)types_block_bytes(type) * b.width) {
        for (int u = 0; u < units; u++) {
            dots_spread_unit(type, &b, u, unit / 4, &to);
            to.bytes += (size_t)unit * b.width;
            to.scales += b.width;
            to.mins += b.width;
        }
    }
}

/* ---- Micro-kernels ------------------------------------------------------------------------------------- */

/* Rows of x against a block of a panel; x and units are at the block's first k. */
struct dots_strip {
    size_t k, width;
    const char *x;             /* values */
    const struct dots_unit *u; /* units */
    ptrdiff_t x_row;           /* bytes from row to row of both */
    const void *panel;         /* where it lies */
    const char *ahead;         /* what the first columns ask for, as much as they read */
    struct dots_spread spread; /* or spread out */
    const float *bias;
    float *y;
    ptrdiff_t y_row;
    size_t n;
    int accumulate;
};

ATTN_INLINE const struct dots_unit *dots_unit_of(const struct dots_strip *s, int row, size_t at) {
    return (const struct dots_unit *)(const void *)((const char *)(s->u + at) + row * s->x_row);
}

/* One unit's sums to the results. */
ATTN_INLINE void dots_add(int adds, int bits, int mr, int nv, const struct dots_strip *s, size_t at,
                          const vf32 *scale, const vf32 *min, vsum c[DOTS_MR][LINEAR_NV],
                          vf32 f[DOTS_MR][LINEAR_NV]) {
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        const struct dots_unit *u = dots_unit_of(s, i, at);
        const vf32 d = v_set1(u->d);
        ATTN_UNROLL for (int v = 0; v < nv; v++) f[i][v] =
            v_fma(v_sum_f32(bits, c[i][v]), v_mul(scale[v], d), f[i][v]);
        if (adds) {
            const vf32 sum = v_set1(u->of.sum);
            ATTN_UNROLL for (int v = 0; v < nv; v++) f[i][v] = v_fma(min[v], sum, f[i][v]);
        }
    }
}

ATTN_INLINE void dots_begin(int offset, int mr, int nv, const struct dots_strip *s, size_t at,
                            vsum c[DOTS_MR][LINEAR_NV]) {
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        const vint from = offset ? v_int_at(&dots_unit_of(s, i, at)->of.offset) : v_int_zero();
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_sum(from);
    }
}

ATTN_INLINE void dots_store(int mr, int nv, const struct dots_strip *s, size_t column,
                            vf32 f[DOTS_MR][LINEAR_NV]) {
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) {
            const size_t from = column + (size_t)v * VF32_N;
            float *to = s->y + i * s->y_row + from;
            if (s->n >= from + VF32_N)
                v_store(to, s->accumulate ? v_add(f[i][v], v_load(to)) : f[i][v]);
            else if (s->n > from)
                v_store_tail(to, s->accumulate ? v_add(f[i][v], v_load_tail(to, s->n - from)) : f[i][v],
                             s->n - from);
        }
    }
}

ATTN_INLINE void dots_bias(int mr, int nv, const struct dots_strip *s, size_t column,
                           vf32 f[DOTS_MR][LINEAR_NV]) {
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        const vf32 b = s->bias ? v_load(s->bias + column + (size_t)v * VF32_N) : v_zero();
        ATTN_UNROLL for (int i = 0; i < mr; i++) f[i][v] = b;
    }
}

/* Columns [column, column + nv vectors) of a block that is spread out. */
ATTN_INLINE void dots_tile(int type, int quads, int mr, int nv, const struct dots_strip *s, size_t column) {
    const int adds = dots_adds(type), offset = !adds && !dots_signed(type);
    const uint8_t *w = s->spread.bytes + 4 * column;
    const float *scales = s->spread.scales + column, *mins = s->spread.mins + column;
    const size_t width = dots_width(s->width), row = 4 * width;
    const ptrdiff_t x_row = s->x_row;
    const char *x = s->x;
    vf32 f[DOTS_MR][LINEAR_NV];
    dots_bias(mr, nv, s, column, f);
    ATTN_NO_UNROLL for (size_t at = 0; at < s->k / 4 / (size_t)quads; at++) {
        vsum c[DOTS_MR][LINEAR_NV];
        vf32 scale[LINEAR_NV], min[LINEAR_NV];
        dots_begin(offset, mr, nv, s, at, c);
        ATTN_UNROLL for (int quad = 0; quad < quads; quad++, w += row, x += dots_x_quad(type)) {
            vbytes b[LINEAR_NV];
            ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] = v_bytes(w + 4 * VF32_N * v);
            ATTN_UNROLL for (int i = 0; i < mr; i++) {
                ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] =
                    v_sum_dot(dots_bits(type), quad, c[i][v], b[v], x + i * x_row);
                DOTS_FENCE;
            }
        }
        ATTN_UNROLL for (int v = 0; v < nv; v++) {
            scale[v] = v_load(scales + v * VF32_N);
            min[v] = adds ? v_load(mins + v * VF32_N) : v_zero();
        }
        dots_add(adds, dots_bits(type), mr, nv, s, at, scale, min, c, f);
        scales += width;
        mins += width;
    }
    dots_store(mr, nv, s, column, f);
}

/* The same from where the block lies. The first columns ask for whole lines, of all columns. */
ATTN_INLINE void dots_direct(int type, int mr, int nv, const struct dots_strip *s, size_t column) {
    enum { LINES = LINEAR_NR / ATTN_LINE };
    const int unit = types_unit(type), adds = dots_adds(type), offset = !adds && !dots_signed(type);
    const size_t units = (size_t)(types_block_values(type) / unit);
    const size_t step = column ? 0 : 64;
    const ptrdiff_t x_row = s->x_row;
    struct types_block b = {s->panel, dots_width(s->width)};
    const char *x = s->x, *ahead = column ? s->panel : s->ahead;
    vf32 f[DOTS_MR][LINEAR_NV];
    dots_bias(mr, nv, s, column, f);
    for (size_t at = 0; at < s->k / (size_t)unit; b.at += (size_t)types_block_bytes(type) * b.width) {
        ATTN_NO_UNROLL for (size_t u = 0; u < units; u++, at++) {
            vsum c[DOTS_MR][LINEAR_NV];
            vf32 scale[LINEAR_NV], min[LINEAR_NV];
            dots_begin(offset, mr, nv, s, at, c);
            ATTN_UNROLL for (int quad = 0; quad < unit / 4; quad++, x += dots_x_quad(type)) {
                vbytes w[LINEAR_NV];
                const int lines =
                    type == ATTN_Q8_0 || quad % 2 == 0 || (type == ATTN_Q6_K && quad == 1) ? LINES : 0;
                ATTN_UNROLL for (int i = 0; i < lines; i++, ahead += step) ATTN_PREFETCH_L1(ahead);
                ATTN_UNROLL for (int v = 0; v < nv; v++) w[v] =
                    dots_quad(type, &b, column + (size_t)v * VF32_N, (int)u, quad);
                ATTN_UNROLL for (int i = 0; i < mr; i++) {
                    ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] =
                        v_sum_dot(dots_bits(type), quad, c[i][v], w[v], x + i * x_row);
                    DOTS_FENCE;
                }
            }
            ATTN_UNROLL for (int v = 0; v < nv; v++)
                dots_scale(type, &b, column + (size_t)v * VF32_N, (int)u, &scale[v], &min[v]);
            dots_add(adds, dots_bits(type), mr, nv, s, at, scale, min, c, f);
        }
    }
    dots_store(mr, nv, s, column, f);
}

/* ---- Variants ------------------------------------------------------------------------------------------ */

/* Types that are spread out, and one of each kind of them: Q4_K's are q4_1's kernels. */
#define DOTS_KINDS(X, mr) X(q4_0, ATTN_Q4_0, mr) X(q4_1, ATTN_Q4_1, mr) X(q6_k, ATTN_Q6_K, mr)
#define DOTS_VARIANT(name, type, mr)                                              \
    ATTN_NOINLINE void dots_##name##_##mr(const struct dots_strip *s) {           \
        enum { QUADS = (type) == ATTN_Q6_K ? 4 : 8 };                             \
        size_t column = 0;                                                        \
        for (; column + DOTS_NV * VF32_N <= s->width; column += DOTS_NV * VF32_N) \
            dots_tile(type, QUADS, mr, DOTS_NV, s, column);                       \
        if (column < s->width) dots_tile(type, QUADS, mr, 1, s, column);          \
    }
#define DOTS_CASE(name, type, mr) \
    case (type)*8 + (mr): dots_##name##_##mr(s); break;
DOTS_ROWS(DOTS_KINDS, DOTS_VARIANT)
static void dots_strip_run(const struct dots_strip *s, attn_dtype type, int mr) {
    switch ((int)(type == ATTN_Q4_K ? ATTN_Q4_1 : type) * 8 + mr) { DOTS_ROWS(DOTS_KINDS, DOTS_CASE) }
}

#define DOTS_DIRECT(name, type, mr)                                               \
    ATTN_NOINLINE void dots_##name##_direct_##mr(const struct dots_strip *s) {    \
        size_t column = 0;                                                        \
        if ((mr) <= DOTS_WIDE && s->width == LINEAR_NR) {                         \
            dots_direct(type, (mr) <= DOTS_WIDE ? mr : 1, LINEAR_NV, s, 0);       \
            return;                                                               \
        }                                                                         \
        for (; column + DOTS_NV * VF32_N <= s->width; column += DOTS_NV * VF32_N) \
            dots_direct(type, mr, DOTS_NV, s, column);                            \
        if (column < s->width) dots_direct(type, mr, 1, s, column);               \
    }
#define DOTS_ALL(X, mr)    \
    X(q8_0, ATTN_Q8_0, mr) \
    X(q4_0, ATTN_Q4_0, mr) X(q4_1, ATTN_Q4_1, mr) X(q4_k, ATTN_Q4_K, mr) X(q6_k, ATTN_Q6_K, mr)
#define DOTS_DIRECT_CASE(name, type, mr) \
    case (type)*8 + (mr): dots_##name##_direct_##mr(s); break;
DOTS_ROWS(DOTS_ALL, DOTS_DIRECT)
static void dots_direct_run(const struct dots_strip *s, attn_dtype type, int mr) {
    switch ((int)type * 8 + mr) { DOTS_ROWS(DOTS_ALL, DOTS_DIRECT_CASE) }
}

#define DOTS_SPREAD(name, type)                                                        \
    ATTN_NOINLINE void dots_##name##_spread(const void *panel, size_t k, size_t width, \
                                            struct dots_spread to) {                   \
        dots_spread_block(type, panel, k, width, to);                                  \
    }
#define DOTS_SPREAD_CASE(name, type)               \
    case type:                                     \
        dots_##name##_spread(panel, k, width, to); \
        break;
#define DOTS_SPREADS(X) X(q4_0, ATTN_Q4_0) X(q4_1, ATTN_Q4_1) X(q4_k, ATTN_Q4_K) X(q6_k, ATTN_Q6_K)
DOTS_SPREADS(DOTS_SPREAD)
static void dots_spread_run(attn_dtype type, const void *panel, size_t k, size_t width,
                            struct dots_spread to) {
    switch (type) {
        DOTS_SPREADS(DOTS_SPREAD_CASE)
    default: break;
    }
}

/* ---- The slot ------------------------------------------------------------------------------------------ */

/* Weights of block formats against prepared rows. */
static void dots_int8_body(const struct attn_linear_task *t) {
    const size_t strips = (t->m + DOTS_MR - 1) / DOTS_MR;
    const struct linear_walk walk = {(t->o1 - t->o0 + LINEAR_NR - 1) / LINEAR_NR,
                                     (t->k + ATTN_K_BLOCK - 1) / ATTN_K_BLOCK, t->m <= DOTS_MR};
    const char *x = t->prepared + dots_x_at((int)t->dtype, t->k), *units = t->prepared + dots_bytes(t->k);
    const int direct = t->dtype == ATTN_Q8_0 || t->m <= DOTS_FEW;
    for (size_t n = 0; n < walk.panels * walk.k_blocks; n++) {
        const struct linear_block b = linear_block_at(t, &walk, n), next = linear_block_at(t, &walk, n + 1);
        struct dots_strip s = {.k = b.k,
                               .width = b.width,
                               .x = x + b.k0 / 4 * dots_x_quad((int)t->dtype),
                               .u = (const struct dots_unit *)(const void *)units +
                                    b.k0 / (size_t)types_unit((int)t->dtype),
                               .x_row = t->prepared_row,
                               .panel = linear_panel(t, &b),
                               .spread = dots_spread_at(t->scratch),
                               .bias = t->bias && b.k0 == 0 ? t->bias + b.o : NULL,
                               .y = t->y + (b.o - t->o0),
                               .y_row = t->y_row,
                               .n = attn_min(t->o1 - b.o, LINEAR_NR),
                               .accumulate = b.k0 > 0};
        if (!direct) dots_spread_run(t->dtype, s.panel, b.k, b.width, s.spread);
        s.ahead = strips == 1 ? (const char *)s.panel + DOTS_AHEAD
                  : next.k    ? linear_panel(t, &next)
                              : s.panel;
        for (size_t i = 0, strip = 0; strip < strips; strip++) {
            const size_t mr = (t->m - i + (strips - strip) - 1) / (strips - strip);
            if (direct)
                dots_direct_run(&s, t->dtype, (int)mr);
            else
                dots_strip_run(&s, t->dtype, (int)mr);
            s.x += (ptrdiff_t)mr * s.x_row;
            s.u = (const struct dots_unit *)(const void *)((const char *)s.u + (ptrdiff_t)mr * s.x_row);
            s.y += (ptrdiff_t)mr * t->y_row;
            s.ahead = s.panel;
            i += mr;
        }
    }
}

#endif
