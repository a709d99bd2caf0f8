/* The linear slot: blocks and strips round the micro-kernel uk_linear. */
#ifndef ATTN_LINEAR_BODY_H
#define ATTN_LINEAR_BODY_H

#include "backend.h"
#include "linear_types.h"
#include "linear_walk.h"
#include "size.h"
#include "ukernel_contract.h"

struct linear_strip {
    size_t k;
    const float *x;
    ptrdiff_t x_row;
    const void *panel;
    const char *ahead;
    const float *bias;
    float *y;
    ptrdiff_t y_row;
    size_t n;
    int accumulate;
};

/* A panel's width is a multiple of ATTN_PANEL_UNIT, which leaves these numbers
 * of vectors. */
#define LINEAR_HAS(mr, nv) ((mr) <= LINEAR_MR && (nv) <= LINEAR_NV && (nv)*VF32_N % ATTN_PANEL_UNIT == 0)

/* One function a variant, so that a profile names it and no variant's registers depend on another's. */
#define LINEAR_VARIANT(mr, name, type, nv)                                                     \
    ATTN_NOINLINE void linear_##name##_##mr##x##nv(const struct linear_strip *s) {             \
        linear_strip_nv(type, LINEAR_HAS(mr, nv) ? mr : 1, LINEAR_HAS(mr, nv) ? nv : 1, 0, s); \
    }
/* Whole panels that ask for `lines` cache lines of the next panel at each step. */
#define LINEAR_AHEAD_VARIANT(mr, name, type, lines)                                        \
    ATTN_NOINLINE void linear_##name##_##mr##_ahead##lines(const struct linear_strip *s) { \
        linear_strip_nv(type, (mr) <= LINEAR_MR ? mr : 1, LINEAR_NV, lines, s);            \
    }
#define LINEAR_ROWS(X, ...) \
    X(1, __VA_ARGS__)       \
    X(2, __VA_ARGS__)       \
    X(3, __VA_ARGS__)       \
    X(4, __VA_ARGS__) X(5, __VA_ARGS__) X(6, __VA_ARGS__) X(7, __VA_ARGS__) X(8, __VA_ARGS__)
#define LINEAR_ALL(X, name, type) \
    LINEAR_ROWS(X, name, type, 1) \
    LINEAR_ROWS(X, name, type, 2) LINEAR_ROWS(X, name, type, 3) LINEAR_ROWS(X, name, type, 4)
#define LINEAR_BOTH(X, name, type) LINEAR_ROWS(X, name, type, 1) LINEAR_ROWS(X, name, type, 2)

ATTN_INLINE void linear_strip_nv(int type, int mr, int nv, int lines, const struct linear_strip *s) {
    uk_linear(type, mr, nv, lines, s->k, s->x, s->x_row, s->panel, s->ahead, s->bias, s->y, s->y_row, s->n,
              s->accumulate);
}

#define LINEAR_CASE(mr, name, type, nv)                         \
    case (nv)*16 + (mr):                                        \
        if (LINEAR_HAS(mr, nv)) linear_##name##_##mr##x##nv(s); \
        break;
#define LINEAR_AHEAD_CASE(mr, name, type, lines)                       \
    case (lines)*16 + (mr):                                            \
        if ((mr) <= LINEAR_MR) linear_##name##_##mr##_ahead##lines(s); \
        break;
#define LINEAR_TYPE(name, type)                                                                \
    LINEAR_ALL(LINEAR_VARIANT, name, type)                                                     \
    LINEAR_BOTH(LINEAR_AHEAD_VARIANT, name, type)                                              \
    static void linear_##name##_run(const struct linear_strip *s, int mr, int nv, int lines) { \
        if (lines) switch (lines * 16 + mr) {                                                  \
                LINEAR_BOTH(LINEAR_AHEAD_CASE, name, type)                                     \
            }                                                                                  \
        else                                                                                   \
            switch (nv * 16 + mr) { LINEAR_ALL(LINEAR_CASE, name, type) }                      \
    }
LINEAR_TYPE(f32, ATTN_F32)
LINEAR_TYPE(f16, ATTN_F16)
LINEAR_TYPE(bf16, ATTN_BF16)

/* Few rows on a whole panel of a block format. */
#define LINEAR_STREAM_VARIANT(mr, name, type)                                                 \
    ATTN_NOINLINE void linear_##name##_##mr##_stream(const struct linear_strip *s) {          \
        types_stream(type, mr, s->k, s->x, s->x_row, s->panel, s->bias, s->y, s->y_row, s->n, \
                     s->accumulate);                                                          \
    }
#define LINEAR_STREAM_CASE(mr, name, type) \
    case (type)*16 + (mr):                 \
        linear_##name##_##mr##_stream(s);  \
        break;
#define LINEAR_STREAM_ROWS(X, name, type) X(1, name, type) X(2, name, type) X(3, name, type) X(4, name, type)
#define LINEAR_STREAM_VARIANTS(name, type) LINEAR_STREAM_ROWS(LINEAR_STREAM_VARIANT, name, type)
#define LINEAR_STREAM_CASES(name, type) LINEAR_STREAM_ROWS(LINEAR_STREAM_CASE, name, type)
TYPES_BLOCKS(LINEAR_STREAM_VARIANTS)

static void linear_stream_run(const struct linear_strip *s, attn_dtype type, int mr) {
    switch ((int)type * 16 + mr) { TYPES_BLOCKS(LINEAR_STREAM_CASES) }
}

static void linear_strip_run(const struct linear_strip *s, attn_dtype type, int mr, int nv, int lines) {
    switch (type) {
    case ATTN_F16: linear_f16_run(s, mr, nv, lines); break;
    case ATTN_BF16: linear_bf16_run(s, mr, nv, lines); break;
    default: linear_f32_run(s, mr, nv, lines); break; /* blocks have been converted */
    }
}

enum {
    LINEAR_RUN = 8192, /* bytes */
    LINEAR_LINE = 64,  /* bytes */
    LINEAR_FEW = 16    /* rows that leave L2 to the panels even when their whole length is taken at once */
};

/* Steps in which uk_linear goes through k values. */
static size_t linear_steps(const struct attn_linear_task *t, size_t k) {
    return attn_max(1, t->dtype == ATTN_F16 || t->dtype == ATTN_BF16 ? k / 2 : k);
}

/*
 * Each block is read from L2 by all strips of rows; the rows of x stay in L1 and L2 across the panels. Rows are spread
 * evenly over the strips, so that no strip is much lower than the others.
 *
 * While the strips of one block run, they fetch into L2 what this thread reads next: a block that comes from memory
 * would otherwise be waited for by its first strip. Few rows take the panels as one linear read. A single strip of
 * them leaves wide panels to the processor's own prefetchers; narrow ones it asks for LINEAR_RUN ahead (4 rows, AVX2:
 * 57 -> 92 % of the read bandwidth).
 *
 * f16 and bf16 become f32 in registers in each strip, beside the products. Block formats do for few rows; for more a
 * block is converted into the worker's scratch once (each value is 3 to 5 instructions and a store), which the strips read.
 */
static void linear_body(const struct attn_linear_task *t) {
    const size_t strips = (t->m + LINEAR_MR - 1) / LINEAR_MR;
    const struct linear_walk walk = {(t->o1 - t->o0 + LINEAR_NR - 1) / LINEAR_NR,
                                     (t->k + ATTN_K_BLOCK - 1) / ATTN_K_BLOCK, t->m <= LINEAR_FEW};
    const int blocks = attn_dtype_in_blocks(t->dtype);
    for (size_t n = 0; n < walk.panels * walk.k_blocks; n++) {
        const struct linear_block b = linear_block_at(t, &walk, n), next = linear_block_at(t, &walk, n + 1);
        struct linear_strip s = {.k = b.k,
                                 .x = t->x + b.k0,
                                 .x_row = t->x_row,
                                 .y = t->y + (b.o - t->o0),
                                 .y_row = t->y_row,
                                 .n = attn_min(t->o1 - b.o, LINEAR_NR),
                                 .panel = linear_panel(t, &b),
                                 .bias = t->bias && b.k0 == 0 ? t->bias + b.o : NULL,
                                 .accumulate = b.k0 > 0};
        if (blocks && t->m <= TYPES_ROWS && b.width == LINEAR_NR) {
            linear_stream_run(&s, t->dtype, (int)t->m);
            continue;
        }
        if (blocks) {
            types_to_f32(t->dtype, s.panel, b.k, b.width, t->scratch);
            s.panel = t->scratch;
        }
        /* lines to ask for */
        size_t ahead = b.width == LINEAR_NR ? linear_bytes(t, next.k) * next.width / LINEAR_LINE : 0;
        s.ahead = ahead ? linear_panel(t, &next) : (const char *)s.panel;
        if (strips == 1 && !blocks) {
            ahead = (int)LINEAR_NR == (int)ATTN_LINE && b.width == LINEAR_NR ? linear_steps(t, s.k) : 0;
            s.ahead = (const char *)s.panel + LINEAR_RUN;
        }
        for (size_t i = 0, strip = 0; strip < strips; strip++) {
            const size_t mr = (t->m - i + (strips - strip) - 1) / (strips - strip);
            const size_t each = linear_steps(t, s.k), steps = (strips - strip) * each;
            const size_t lines = attn_min((ahead + steps - 1) / steps, 2);
            linear_strip_run(&s, t->dtype, (int)mr, (int)(b.width / VF32_N), (int)lines);
            s.ahead += attn_min(ahead, each * lines) * LINEAR_LINE;
            ahead -= attn_min(ahead, each * lines);
            s.x += (ptrdiff_t)mr * t->x_row;
            s.y += (ptrdiff_t)mr * t->y_row;
            i += mr;
        }
    }
}

#endif
