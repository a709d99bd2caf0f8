/*
 * Projections by int8 dot products: weights of block formats as bytes, x as prepared (dots_prepare.h). For each unit
 * u of k, in ascending order, y = fma(dot_u, scale_u d_u, y), where dot_u is exact, then, for types that add to each
 * weight, y = fma(min_u, d_u sum_u, y); cut in K blocks as f32 is. The same for any number of rows.
 *
 * For many strips of rows a block of a panel is spread out once into the worker's scratch: bytes as they are multiplied,
 * scales in f32. Few strips take it from where it lies, and so do any of q8_0, whose bytes lie as they are multiplied.
 *
 * Strips ask for the next block meanwhile, into L2 and evenly: what is asked for faster than memory gives it is dropped. One or
 * two rows go through their panels in one linear read.
 *
 * The folder's dots.h says how bytes are multiplied (DOTS_SIGNED_8, DOTS_SIGNED_LESS, v_sum_*) and has the sizes: DOTS_MR rows
 * by DOTS_NV vectors; DOTS_FEW, rows that take all types from where they lie; DOTS_WIDE, rows that take LINEAR_NV vectors at
 * once: one linear read.
 */
#ifndef ATTN_DOTS_INT8_H
#define ATTN_DOTS_INT8_H

#include "dots_prepare.h"
#include "dots_spread.h"
#include "linear_walk.h"

/* Bytes that a single strip asks for ahead: into L1 where panels are one line wide, otherwise into L2. Zen 4, M = 1, GB/s of Q6_K
 * 16 KiB ahead into L2: 19 to 22; 4 KiB: 11, 24 KiB: 20; into L1 4 or 8 KiB: 13; every second line: 10; nothing: 11. */
enum { DOTS_AHEAD = (int)LINEAR_NR == (int)ATTN_LINE ? 4096 : 16384 };

/* ---- Micro-kernels ------------------------------------------------------------------------------------- */

/* Rows of x against a block of a panel; x is at the block's first unit. */
struct dots_strip {
    size_t k, width;
    const char *x;
    ptrdiff_t x_row;           /* bytes */
    const void *panel;         /* where it lies */
    const char *ahead;         /* what to ask for */
    struct dots_spread spread; /* or spread out */
    const float *bias;
    float *y;
    ptrdiff_t y_row;
    size_t n;
    int accumulate;
};

/* The numbers of a row's unit that ends at x. */
ATTN_INLINE const struct dots_unit *dots_unit_before(const char *x) {
    return (const struct dots_unit *)(const void *)x - 1;
}

/* One unit's sums to the results; x is at its end. */
ATTN_INLINE void dots_add(int adds, int bits, int mr, int nv, const char *x, ptrdiff_t x_row,
                          const vf32 *scale, const vf32 *min, vsum c[DOTS_MR][LINEAR_NV],
                          vf32 f[DOTS_MR][LINEAR_NV]) {
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        const struct dots_unit *u = dots_unit_before(x + i * x_row);
        const vf32 d = v_set1(u->d);
        ATTN_UNROLL for (int v = 0; v < nv; v++) f[i][v] =
            v_fma(v_sum_f32(bits, c[i][v]), v_mul(scale[v], d), f[i][v]);
        if (adds) {
            const vf32 sum = v_set1(u->of.sum);
            ATTN_UNROLL for (int v = 0; v < nv; v++) f[i][v] = v_fma(min[v], sum, f[i][v]);
        }
    }
}

ATTN_INLINE void dots_begin(int offset, int mr, int nv, const char *x, ptrdiff_t x_row,
                            vsum c[DOTS_MR][LINEAR_NV]) {
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        const vint from = offset ? v_int_at(&dots_unit_before(x + i * x_row)->of.offset) : v_int_zero();
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_sum(from);
    }
}

/* The products of a quad. */
ATTN_INLINE void dots_products(int bits, int quad, int mr, int nv, const vbytes *w, const char *x,
                               ptrdiff_t x_row, vsum c[DOTS_MR][LINEAR_NV]) {
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] =
            v_sum_dot(bits, quad, c[i][v], w[v], x + i * x_row);
        DOTS_FENCE;
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
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v += ATTN_LINE / VF32_N)
            ATTN_PREFETCH_WRITE(s->y + i * s->y_row + column + v * VF32_N);
    }
}

/* What a strip asks for: nothing; a third of as many lines as it has itself; as many; those that it reads itself, DOTS_AHEAD
 * before. */
enum dots_asks { DOTS_NONE, DOTS_THIRD, DOTS_ALL, DOTS_OWN };

/* Lines of a unit, of the columns of one pass. */
ATTN_INLINE int dots_lines(int type, int asks) {
    const int passes = (int)LINEAR_NR / ((int)DOTS_NV * (int)VF32_N);
    const int line = 64 * passes * types_block_values(type) / types_unit(type);
    const int all = (types_block_bytes(type) * (int)LINEAR_NR + line - 1) / line;
    return asks == DOTS_ALL ? all : asks == DOTS_THIRD ? (all + 2) / 3 : 0;
}

/* A quad's share of them. */
ATTN_INLINE const char *dots_ask(int type, int asks, int quad, const char *ahead) {
    const int lines = dots_lines(type, asks), quads = types_unit(type) / 4;
    const int own = type == ATTN_Q8_0 || quad % 2 == 0 || (type == ATTN_Q6_K && quad == 1);
    const int some = asks == DOTS_OWN ? own * (int)LINEAR_NR / (int)ATTN_LINE
                                      : lines * (quad + 1) / quads - lines * quad / quads;
    ATTN_UNROLL for (int i = 0; i < some; i++) {
        if (asks == DOTS_OWN && (int)LINEAR_NR == (int)ATTN_LINE)
            ATTN_PREFETCH_L1(ahead + 64 * i);
        else
            ATTN_PREFETCH_L2(ahead + 64 * i);
    }
    return ahead + 64 * some;
}

/* Columns [column, column + nv vectors) of a block that is spread out. Asks for lines from `ahead` on; returns what is
 * behind them. */
ATTN_INLINE const char *dots_tile(int type, int mr, int nv, int asks, size_t width,
                                  const struct dots_strip *s, size_t column, const char *ahead) {
    const int quads = types_unit(type) / 4, adds = dots_adds(type), offset = !adds && !dots_signed(type);
    const uint8_t *w = s->spread.bytes + 4 * column;
    const float *scales = s->spread.scales + column, *mins = s->spread.mins + column;
    const size_t row = 4 * width;
    const ptrdiff_t x_row = s->x_row;
    const char *x = s->x;
    vf32 f[DOTS_MR][LINEAR_NV];
    dots_bias(mr, nv, s, column, f);
    ATTN_NO_UNROLL for (size_t left = s->k / 4 / (size_t)quads; left; left--) {
        vsum c[DOTS_MR][LINEAR_NV];
        vf32 scale[LINEAR_NV], min[LINEAR_NV];
        dots_begin(offset, mr, nv, x + dots_x_unit(type), x_row, c);
        ATTN_UNROLL for (int quad = 0; quad < quads; quad++) {
            vbytes b[LINEAR_NV];
            ahead = dots_ask(type, asks, quad, ahead);
            ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] =
                v_bytes(w + (size_t)quad * row + 4 * VF32_N * (size_t)v);
            dots_products(dots_bits(type), quad, mr, nv, b, x + quad * dots_x_quad(type), x_row, c);
        }
        ATTN_UNROLL for (int v = 0; v < nv; v++) {
            scale[v] = v_load(scales + v * VF32_N);
            min[v] = adds ? v_load(mins + v * VF32_N) : v_zero();
        }
        x += dots_x_unit(type);
        dots_add(adds, dots_bits(type), mr, nv, x, x_row, scale, min, c, f);
        w += (size_t)quads * row;
        scales += width;
        mins += width;
    }
    dots_store(mr, nv, s, column, f);
    return ahead;
}

/* The same from where the block lies. */
ATTN_INLINE const char *dots_direct(int type, int mr, int nv, int asks, size_t width,
                                    const struct dots_strip *s, size_t column, const char *ahead) {
    const int unit = types_unit(type), adds = dots_adds(type), offset = !adds && !dots_signed(type);
    const int units = types_block_values(type) / unit;
    const ptrdiff_t x_row = s->x_row;
    struct types_block b = {s->panel, width};
    const char *x = s->x;
    vf32 f[DOTS_MR][LINEAR_NV];
    dots_bias(mr, nv, s, column, f);
    ATTN_NO_UNROLL for (size_t left = s->k / (size_t)(unit * units); left; left--) {
        ATTN_NO_UNROLL for (int u = 0; u < units; u++) {
            vsum c[DOTS_MR][LINEAR_NV];
            vf32 scale[LINEAR_NV], min[LINEAR_NV];
            dots_begin(offset, mr, nv, x + dots_x_unit(type), x_row, c);
            ATTN_UNROLL for (int quad = 0; quad < unit / 4; quad++) {
                vbytes w[LINEAR_NV];
                ahead = dots_ask(type, asks, quad, ahead);
                ATTN_UNROLL for (int v = 0; v < nv; v++) w[v] =
                    dots_quad(type, &b, column + (size_t)v * VF32_N, u, quad);
                dots_products(dots_bits(type), quad, mr, nv, w, x + quad * dots_x_quad(type), x_row, c);
            }
            ATTN_UNROLL for (int v = 0; v < nv; v++)
                dots_scale(type, &b, column + (size_t)v * VF32_N, u, &scale[v], &min[v]);
            x += dots_x_unit(type);
            dots_add(adds, dots_bits(type), mr, nv, x, x_row, scale, min, c, f);
        }
        b.at += (size_t)types_block_bytes(type) * width;
    }
    dots_store(mr, nv, s, column, f);
    return ahead;
}

/* ---- Variants ------------------------------------------------------------------------------------------ */

/* Whole panels, by rows of a strip and what it asks for. */
#define DOTS_VARIANT(KERNEL, how, name, type, mr, asks)                                  \
    ATTN_NOINLINE void dots_##name##_##how##_##mr##_##asks(const struct dots_strip *s) { \
        const char *ahead = s->ahead;                                                    \
        for (size_t column = 0; column < LINEAR_NR; column += DOTS_NV * VF32_N)          \
            ahead = KERNEL(type, mr, DOTS_NV, asks, LINEAR_NR, s, column, ahead);        \
    }
#define DOTS_CASE(how, name, type, mr, asks) \
    case ((type)*4 + (asks)) * 8 + (mr): dots_##name##_##how##_##mr##_##asks(s); break;

/* Types that are spread out, and one of each kind of them: Q4_K's are q4_1's kernels. */
#define DOTS_SPREAD_KINDS(X, mr)       \
    X(q4_0, ATTN_Q4_0, mr, DOTS_NONE)  \
    X(q4_0, ATTN_Q4_0, mr, DOTS_THIRD) \
    X(q4_1, ATTN_Q4_1, mr, DOTS_NONE)  \
    X(q4_1, ATTN_Q4_1, mr, DOTS_THIRD) \
    X(q6_k, ATTN_Q6_K, mr, DOTS_NONE)  \
    X(q6_k, ATTN_Q6_K, mr, DOTS_THIRD)
#define DOTS_SPREAD_VARIANT(name, type, mr, asks) DOTS_VARIANT(dots_tile, spread, name, type, mr, asks)
#define DOTS_SPREAD_CASE(name, type, mr, asks) DOTS_CASE(spread, name, type, mr, asks)
DOTS_ROWS(DOTS_SPREAD_KINDS, DOTS_SPREAD_VARIANT)
static void dots_spread_strip(const struct dots_strip *s, attn_dtype type, int mr, int asks) {
    if (type == ATTN_Q4_K) type = ATTN_Q4_1;
    switch (((int)type * 4 + asks) * 8 + mr) { DOTS_ROWS(DOTS_SPREAD_KINDS, DOTS_SPREAD_CASE) }
}

#define DOTS_DIRECT_KINDS(X, mr)       \
    X(q8_0, ATTN_Q8_0, mr, DOTS_NONE)  \
    X(q8_0, ATTN_Q8_0, mr, DOTS_THIRD) \
    X(q8_0, ATTN_Q8_0, mr, DOTS_ALL)   \
    X(q4_0, ATTN_Q4_0, mr, DOTS_THIRD) \
    X(q4_0, ATTN_Q4_0, mr, DOTS_ALL)   \
    X(q4_1, ATTN_Q4_1, mr, DOTS_THIRD) \
    X(q4_1, ATTN_Q4_1, mr, DOTS_ALL)   \
    X(q4_k, ATTN_Q4_K, mr, DOTS_THIRD) \
    X(q4_k, ATTN_Q4_K, mr, DOTS_ALL)   \
    X(q6_k, ATTN_Q6_K, mr, DOTS_THIRD) \
    X(q6_k, ATTN_Q6_K, mr, DOTS_ALL)
#define DOTS_DIRECT_VARIANT(name, type, mr, asks) DOTS_VARIANT(dots_direct, direct, name, type, mr, asks)
#define DOTS_DIRECT_CASE(name, type, mr, asks) DOTS_CASE(direct, name, type, mr, asks)
DOTS_ROWS(DOTS_DIRECT_KINDS, DOTS_DIRECT_VARIANT)
static void dots_direct_strip(const struct dots_strip *s, attn_dtype type, int mr, int asks) {
    if (type != ATTN_Q8_0 && asks == DOTS_NONE)
        asks = DOTS_THIRD; /* once more: few strips have nothing to ask for */
    switch (((int)type * 4 + asks) * 8 + mr) { DOTS_ROWS(DOTS_DIRECT_KINDS, DOTS_DIRECT_CASE) }
}

/* One strip that takes the whole width at once. Wide panels are left to the processor's prefetchers (M = 1, GB/s: q8_0 23.8 -> 26,
 * q4_0 25 -> 31, Q4_K 25 -> 30), but for Q6_K, which they do not follow. */
ATTN_INLINE int dots_wide_asks(int type) {
    return type == ATTN_Q6_K || (int)LINEAR_NR == (int)ATTN_LINE ? DOTS_OWN : DOTS_NONE;
}
#define DOTS_WIDE_VARIANT(name, type)                                                     \
    ATTN_NOINLINE void dots_##name##_wide_1(const struct dots_strip *s) {                 \
        dots_direct(type, 1, LINEAR_NV, dots_wide_asks(type), LINEAR_NR, s, 0, s->ahead); \
    }                                                                                     \
    ATTN_NOINLINE void dots_##name##_wide_2(const struct dots_strip *s) {                 \
        dots_direct(type, 2, LINEAR_NV, dots_wide_asks(type), LINEAR_NR, s, 0, s->ahead); \
    }
#define DOTS_WIDE_CASE(name, type) \
    case type: mr == 1 ? dots_##name##_wide_1(s) : dots_##name##_wide_2(s); break;
TYPES_BLOCKS(DOTS_WIDE_VARIANT)
static void dots_wide_strip(const struct dots_strip *s, attn_dtype type, int mr) {
    switch (type) {
        TYPES_BLOCKS(DOTS_WIDE_CASE)
    default: break;
    }
}

/* Narrower panels, which only the last one is. */
#define DOTS_NARROW(name, type, mr)                                             \
    ATTN_NOINLINE void dots_##name##_narrow_##mr(const struct dots_strip *s) {  \
        for (size_t column = 0; column < s->width; column += VF32_N)            \
            dots_direct(type, mr, 1, DOTS_NONE, s->width, s, column, s->ahead); \
    }
#define DOTS_NARROW_CASE(name, type, mr) \
    case (type)*8 + (mr):                \
        dots_##name##_narrow_##mr(s);    \
        break;
#define DOTS_TYPES(X, mr)  \
    X(q8_0, ATTN_Q8_0, mr) \
    X(q4_0, ATTN_Q4_0, mr) X(q4_1, ATTN_Q4_1, mr) X(q4_k, ATTN_Q4_K, mr) X(q6_k, ATTN_Q6_K, mr)
DOTS_ROWS(DOTS_TYPES, DOTS_NARROW)
static void dots_narrow_strip(const struct dots_strip *s, attn_dtype type, int mr) {
    if ((int)LINEAR_NR > (int)ATTN_PANEL_UNIT) switch ((int)type * 8 + mr) {
            DOTS_ROWS(DOTS_TYPES, DOTS_NARROW_CASE)
        }
}

/* ---- The slot ------------------------------------------------------------------------------------------ */

/* A block: all strips of rows. The first three ask for the next one; of two the second asks for what is behind it. */
static void dots_block(const struct attn_linear_task *t, struct dots_strip *s) {
    const size_t strips = (t->m + DOTS_MR - 1) / DOTS_MR;
    const int full = s->width == LINEAR_NR, spread = full && t->dtype != ATTN_Q8_0 && t->m > DOTS_FEW;
    const size_t lines = linear_bytes(t, s->k) * s->width / 64;
    if (spread) dots_spread_run(t->dtype, s->panel, s->k, s->width, s->spread);
    for (size_t i = 0, strip = 0; strip < strips; strip++) {
        const size_t mr = (t->m - i + (strips - strip) - 1) / (strips - strip);
        const int asks = strips < 3 && strip == 0 ? DOTS_ALL : strip < 3 ? DOTS_THIRD : DOTS_NONE;
        if (!full)
            dots_narrow_strip(s, t->dtype, (int)mr);
        else if (spread)
            dots_spread_strip(s, t->dtype, (int)mr, asks);
        else if (t->m <= DOTS_WIDE)
            dots_wide_strip(s, t->dtype, (int)mr);
        else
            dots_direct_strip(s, t->dtype, (int)mr, asks);
        s->ahead += (asks == DOTS_ALL ? lines : asks == DOTS_THIRD ? attn_ceil_div(lines, 3) : 0) * 64;
        s->x += (ptrdiff_t)mr * s->x_row;
        s->y += (ptrdiff_t)mr * t->y_row;
        i += mr;
    }
}

/* Weights of block formats against prepared rows. */
static void dots_int8_body(const struct attn_linear_task *t) {
    const struct linear_walk walk = {(t->o1 - t->o0 + LINEAR_NR - 1) / LINEAR_NR,
                                     (t->k + ATTN_K_BLOCK - 1) / ATTN_K_BLOCK, t->m <= DOTS_FEW};
    for (size_t n = 0; n < walk.panels * walk.k_blocks; n++) {
        const struct linear_block b = linear_block_at(t, &walk, n), next = linear_block_at(t, &walk, n + 1);
        struct dots_strip s = {.k = b.k,
                               .width = b.width,
                               .x = t->prepared +
                                    b.k0 / (size_t)types_unit((int)t->dtype) * dots_x_unit((int)t->dtype),
                               .x_row = t->prepared_row,
                               .panel = linear_panel(t, &b),
                               .spread = dots_spread_at(t->scratch),
                               .bias = t->bias && b.k0 == 0 ? t->bias + b.o : NULL,
                               .y = t->y + (b.o - t->o0),
                               .y_row = t->y_row,
                               .n = attn_min(t->o1 - b.o, LINEAR_NR),
                               .accumulate = b.k0 > 0};
        s.ahead = t->m <= DOTS_WIDE ? (const char *)s.panel + DOTS_AHEAD
                  : next.k          ? linear_panel(t, &next)
                                    : s.panel;
        dots_block(t, &s);
    }
}

#endif
