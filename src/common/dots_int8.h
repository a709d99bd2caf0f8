/*
 * Projections by int8 dot products: weights of block formats as unsigned bytes, x as prepared (dots_prepare.h). For each unit
 * u of k, in ascending order, y = fma(dot_u, scale_u d_u, y), where dot_u is exact, then, for types that add to each
 * weight, y = fma(min_u, d_u sum_u, y); cut in K blocks as f32 is. The same for any number of rows.
 *
 * For many strips of rows a block of a panel is spread out once into the worker's scratch: bytes as they are multiplied,
 * scales in f32. Few strips take it from where it lies, and so do any of q8_0, where that costs an instruction a vector.
 */
#ifndef ATTN_DOTS_INT8_H
#define ATTN_DOTS_INT8_H

#include "dots_prepare.h"
#include "linear_walk.h"

enum {
    DOTS_MR = 6,   /* by DOTS_NV vectors: 12 sums, 12 results, 2 of weights, 2 scales, 1 of x: 29 registers */
    DOTS_NV = 2,   /* two outputs' bytes feed six rows: 8 loads for 12 dot products */
    DOTS_FEW = 18, /* rows that take all types from where they lie: three strips */
    DOTS_WIDE = 2, /* rows that take LINEAR_NV vectors at once: one linear read */
    DOTS_AHEAD = 4096 /* bytes that a single strip asks for ahead, into L1 (see TYPES_AHEAD) */
};

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
enum { DOTS_SCRATCH = ATTN_K_BLOCK * LINEAR_NR + 2 * (ATTN_K_BLOCK / 16) * LINEAR_NR * 4 };

/* A quad as unsigned bytes. */
ATTN_INLINE vbytes dots_quad(int type, const struct types_block *b, size_t column, int unit, int quad) {
    const vbytes q = types_stored(type, b, column, unit, quad);
    return type == ATTN_Q8_0 ? v_bytes_flip(q) : q;
}

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
    struct types_block b = {panel, width};
    for (; k; k -= (size_t)types_block_values(type), b.at += (size_t)types_block_bytes(type) * width) {
        for (int u = 0; u < units; u++) {
            dots_spread_unit(type, &b, u, unit / 4, &to);
            to.bytes += (size_t)unit * width;
            to.scales += width;
            to.mins += width;
        }
    }
}

/* ---- Micro-kernels ------------------------------------------------------------------------------------- */

/* Rows of x against a block of a panel; x and units are at the block's first k. */
struct dots_strip {
    size_t k, width;
    const char *x;             /* bytes */
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
ATTN_INLINE void dots_add(int adds, int mr, int nv, const struct dots_strip *s, size_t at, const vf32 *scale,
                          const vf32 *min, vint c[DOTS_MR][LINEAR_NV], vf32 f[DOTS_MR][LINEAR_NV]) {
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        const struct dots_unit *u = dots_unit_of(s, i, at);
        const vf32 d = v_set1(u->d);
        ATTN_UNROLL for (int v = 0; v < nv; v++) f[i][v] =
            v_fma(v_int_f32(c[i][v]), v_mul(scale[v], d), f[i][v]);
        if (adds) {
            const vf32 sum = v_set1(u->of.sum);
            ATTN_UNROLL for (int v = 0; v < nv; v++) f[i][v] = v_fma(min[v], sum, f[i][v]);
        }
    }
}

ATTN_INLINE void dots_begin(int adds, int mr, int nv, const struct dots_strip *s, size_t at,
                            vint c[DOTS_MR][LINEAR_NV]) {
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        const vint from = adds ? v_int_zero() : v_int_at(&dots_unit_of(s, i, at)->of.offset);
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = from;
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

/* Columns [column, column + nv vectors) of a block that is spread out; a unit has `quads` quads. */
ATTN_INLINE void dots_tile(int adds, int quads, int mr, int nv, const struct dots_strip *s, size_t column) {
    const uint8_t *w = s->spread.bytes + 4 * column;
    const float *scales = s->spread.scales + column, *mins = s->spread.mins + column;
    const size_t row = 4 * s->width;
    const char *x = s->x;
    vf32 f[DOTS_MR][LINEAR_NV];
    dots_bias(mr, nv, s, column, f);
    ATTN_NO_UNROLL for (size_t at = 0; at < s->k / 4 / (size_t)quads; at++) {
        vint c[DOTS_MR][LINEAR_NV];
        vf32 scale[LINEAR_NV], min[LINEAR_NV];
        dots_begin(adds, mr, nv, s, at, c);
        ATTN_UNROLL for (int quad = 0; quad < quads; quad++, w += row, x += 4) {
            vbytes b[LINEAR_NV];
            ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] = v_bytes(w + 4 * VF32_N * v);
            ATTN_UNROLL for (int i = 0; i < mr; i++) {
                const vint a = v_int_at(x + i * s->x_row);
                ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_int_dot(c[i][v], b[v], a);
            }
        }
        ATTN_UNROLL for (int v = 0; v < nv; v++) {
            scale[v] = v_load(scales + v * VF32_N);
            min[v] = adds ? v_load(mins + v * VF32_N) : v_zero();
        }
        dots_add(adds, mr, nv, s, at, scale, min, c, f);
        scales += s->width;
        mins += s->width;
    }
    dots_store(mr, nv, s, column, f);
}

/* The same from where the block lies. The first columns ask for whole lines, of all columns. */
ATTN_INLINE void dots_direct(int type, int mr, int nv, const struct dots_strip *s, size_t column) {
    enum { LINES = LINEAR_NR / ATTN_LINE };
    const int unit = types_unit(type), adds = dots_adds(type);
    const size_t units = (size_t)(types_block_values(type) / unit);
    const size_t step = column ? 0 : 64;
    struct types_block b = {s->panel, s->width};
    const char *x = s->x, *ahead = column ? s->panel : s->ahead;
    vf32 f[DOTS_MR][LINEAR_NV];
    dots_bias(mr, nv, s, column, f);
    for (size_t at = 0; at < s->k / (size_t)unit; b.at += (size_t)types_block_bytes(type) * s->width) {
        ATTN_NO_UNROLL for (size_t u = 0; u < units; u++, at++) {
            vint c[DOTS_MR][LINEAR_NV];
            vf32 scale[LINEAR_NV], min[LINEAR_NV];
            dots_begin(adds, mr, nv, s, at, c);
            ATTN_UNROLL for (int quad = 0; quad < unit / 4; quad++, x += 4) {
                vbytes w[LINEAR_NV];
                const int lines =
                    type == ATTN_Q8_0 || quad % 2 == 0 || (type == ATTN_Q6_K && quad == 1) ? LINES : 0;
                ATTN_UNROLL for (int i = 0; i < lines; i++, ahead += step) ATTN_PREFETCH_L1(ahead);
                ATTN_UNROLL for (int v = 0; v < nv; v++) w[v] =
                    dots_quad(type, &b, column + (size_t)v * VF32_N, (int)u, quad);
                ATTN_UNROLL for (int i = 0; i < mr; i++) {
                    const vint a = v_int_at(x + i * s->x_row);
                    ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_int_dot(c[i][v], w[v], a);
                }
            }
            ATTN_UNROLL for (int v = 0; v < nv; v++)
                dots_scale(type, &b, column + (size_t)v * VF32_N, (int)u, &scale[v], &min[v]);
            dots_add(adds, mr, nv, s, at, scale, min, c, f);
        }
    }
    dots_store(mr, nv, s, column, f);
}

/* ---- Variants ------------------------------------------------------------------------------------------ */

/* adds, quads a unit: q8_0 and q4_0; q4_1 and Q4_K; Q6_K */
#define DOTS_KINDS(X, mr) X(plain, 0, 8, mr) X(adding, 1, 8, mr) X(short, 0, 4, mr)
#define DOTS_VARIANT(name, adds, quads, mr)                                       \
    ATTN_NOINLINE void dots_##name##_##mr(const struct dots_strip *s) {           \
        size_t column = 0;                                                        \
        for (; column + DOTS_NV * VF32_N <= s->width; column += DOTS_NV * VF32_N) \
            dots_tile(adds, quads, mr, DOTS_NV, s, column);                       \
        if (column < s->width) dots_tile(adds, quads, mr, 1, s, column);          \
    }
#define DOTS_VARIANTS(mr) DOTS_KINDS(DOTS_VARIANT, mr)
DOTS_VARIANTS(1)
DOTS_VARIANTS(2)
DOTS_VARIANTS(3)
DOTS_VARIANTS(4)
DOTS_VARIANTS(5)
DOTS_VARIANTS(6)

#define DOTS_CASE(name, adds, quads, mr) \
    case (quads)*16 + (adds)*8 + (mr):   \
        dots_##name##_##mr(s);           \
        break;
#define DOTS_CASES(mr) DOTS_KINDS(DOTS_CASE, mr)
static void dots_strip_run(const struct dots_strip *s, int type, int mr) {
    switch (types_unit(type) / 4 * 16 + dots_adds(type) * 8 + mr) {
        DOTS_CASES(1) DOTS_CASES(2) DOTS_CASES(3) DOTS_CASES(4) DOTS_CASES(5) DOTS_CASES(6)
    }
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
#define DOTS_TYPE(name, type)                                                          \
    ATTN_NOINLINE void dots_##name##_spread(const void *panel, size_t k, size_t width, \
                                            struct dots_spread to) {                   \
        dots_spread_block(type, panel, k, width, to);                                  \
    }                                                                                  \
    DOTS_DIRECT(name, type, 1)                                                         \
    DOTS_DIRECT(name, type, 2)                                                         \
    DOTS_DIRECT(name, type, 3)                                                         \
    DOTS_DIRECT(name, type, 4) DOTS_DIRECT(name, type, 5) DOTS_DIRECT(name, type, 6)
TYPES_BLOCKS(DOTS_TYPE)

#define DOTS_SPREAD_CASE(name, type) \
    case type: dots_##name##_spread(panel, k, width, to); break;
static void dots_spread_run(attn_dtype type, const void *panel, size_t k, size_t width,
                            struct dots_spread to) {
    switch (type) {
        TYPES_BLOCKS(DOTS_SPREAD_CASE)
    default: break;
    }
}

#define DOTS_DIRECT_CASE(name, type, mr) \
    case (type)*8 + (mr):                \
        dots_##name##_direct_##mr(s);    \
        break;
#define DOTS_DIRECT_CASES(name, type) \
    DOTS_DIRECT_CASE(name, type, 1)   \
    DOTS_DIRECT_CASE(name, type, 2)   \
    DOTS_DIRECT_CASE(name, type, 3)   \
    DOTS_DIRECT_CASE(name, type, 4) DOTS_DIRECT_CASE(name, type, 5) DOTS_DIRECT_CASE(name, type, 6)
static void dots_direct_run(const struct dots_strip *s, attn_dtype type, int mr) {
    switch ((int)type * 8 + mr) { TYPES_BLOCKS(DOTS_DIRECT_CASES) }
}

/* ---- The slot ------------------------------------------------------------------------------------------ */

/* Weights of block formats against prepared rows. */
static void dots_int8_body(const struct attn_linear_task *t) {
    const size_t strips = (t->m + DOTS_MR - 1) / DOTS_MR;
    const struct linear_walk walk = {(t->o1 - t->o0 + LINEAR_NR - 1) / LINEAR_NR,
                                     (t->k + ATTN_K_BLOCK - 1) / ATTN_K_BLOCK, t->m <= DOTS_MR};
    const char *units = t->prepared + dots_bytes(t->k);
    const int direct = t->dtype == ATTN_Q8_0 || t->m <= DOTS_FEW;
    for (size_t n = 0; n < walk.panels * walk.k_blocks; n++) {
        const struct linear_block b = linear_block_at(t, &walk, n), next = linear_block_at(t, &walk, n + 1);
        struct dots_strip s = {.k = b.k,
                               .width = b.width,
                               .x = t->prepared + b.k0,
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
                dots_strip_run(&s, (int)t->dtype, (int)mr);
            s.x += (ptrdiff_t)mr * s.x_row;
            s.u = (const struct dots_unit *)(const void *)((const char *)s.u + (ptrdiff_t)mr * s.x_row);
            s.y += (ptrdiff_t)mr * t->y_row;
            s.ahead = s.panel;
            i += mr;
        }
    }
}

#endif
