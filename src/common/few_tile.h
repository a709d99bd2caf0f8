/*
 * Pooling of few rows, the kernels: scores of a tile of keys in two ways, P V, and the requests for what is read next.
 * few_body.h drives them.
 */
#ifndef ATTN_FEW_TILE_H
#define ATTN_FEW_TILE_H

#include "few_ask.h"
#include "few_value.h"
#include "pool_tile.h"

/* c[i][v] = fma(k[i][d], q[d][v], c[i][v]) for ascending d in [0, n), queries in the lanes. k[] has every third key: x86
 * addresses the two behind it by the stride, and so many keys need no register each. Of a panel it has the first key. */
ATTN_INLINE void few_rows_step(int keys, int nv, int panel, const float *const k[FEW_KEYS], ptrdiff_t k_row,
                               size_t n, const float *q, vf32 c[FEW_KEYS][FEW_NV]) {
    ATTN_UNROLL_4 for (size_t d = 0; d < n; d++, q += nv * VF32_N) {
        vf32 b[FEW_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] = v_load(q + v * VF32_N);
        ATTN_UNROLL for (int i = 0; i < keys; i++) {
            const vf32 a =
                v_set1(panel ? k[0][d * ATTN_KEY_TILE + (size_t)i] : k[i / 3][(ptrdiff_t)d + i % 3 * k_row]);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_fma(a, b[v], c[i][v]);
        }
    }
}

/* Scores of `keys` keys from k on to rows of s, queries in the lanes: q[d][nv vectors], s[key][nv vectors]. */
ATTN_INLINE void few_rows(int keys, int nv, int panel, const float *k, ptrdiff_t k_row, size_t d_k,
                          const float *q, struct few_ahead *ahead, float *s) {
    vf32 c[FEW_KEYS][FEW_NV];
    const float *row[FEW_KEYS];
    ATTN_UNROLL for (int i = 0; i < keys; i++) {
        if (i % 3 == 0) row[i / 3] = k + i * k_row;
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_zero();
    }
    size_t d = 0;
    for (; d + ATTN_LINE <= d_k; d += ATTN_LINE, q += ATTN_LINE * nv * VF32_N) {
        if (keys >= 4) {
            ATTN_UNROLL for (int i = 0; i < keys; i += 4) few_ask(ahead, keys - i < 4 ? keys - i : 4);
        }
        few_rows_step(keys, nv, panel, row, k_row, ATTN_LINE, q, c);
        ATTN_UNROLL for (int i = 0; i < keys; i += 3) row[i / 3] +=
            panel ? ATTN_LINE * ATTN_KEY_TILE : ATTN_LINE;
    }
    few_rows_step(keys, nv, panel, row, k_row, d_k - d, q, c);
    ATTN_UNROLL for (int i = 0; i < keys; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) v_store(s + (i * nv + v) * VF32_N, c[i][v]);
    }
}

/* Columns of VF32_N keys that are loaded at once: of values of two bytes two a vector. */
ATTN_INLINE int few_columns_once(attn_dtype type) {
    return type == ATTN_F32 ? VF32_COLUMNS : 2 * VF32_COLUMNS;
}

/* a[g] = fma(q[i][g], column i of the keys, a[g]) for ascending i in [0, n), n <= few_columns_once(): k holds VF32_N keys, a
 * row each. What is next is asked for in between: a burst of requests is dropped where the queue of misses is full, and the
 * fence keeps the compiler from making one. */
ATTN_INLINE void few_columns_step(int rows, attn_dtype type, const char *k, ptrdiff_t k_row, size_t n,
                                  const float *q, vf32 a[FEW_ROWS], struct few_ahead *ahead) {
    const int columns = few_columns_once(type);
    vf32 x[VF32_COLUMNS];
    vcolumns y[VF32_COLUMNS];
    if (type == ATTN_F32)
        v_load_columns(k, k_row, x);
    else if (type == ATTN_F16)
        v_load_columns_f16(k, k_row, y);
    else
        v_load_columns_bf16(k, k_row, y);
    ATTN_UNROLL for (int i = 0; i < 2 * VF32_COLUMNS; i++) {
        if (i >= columns || (size_t)i >= n) break;
        if (ahead && i % 4 == 0) {
            few_ask_of(ahead, VF32_N * VF32_COLUMNS * 4, i / 4, columns / 4);
            ATTN_FENCE();
        }
        const vf32 e = type == ATTN_F32   ? x[i % VF32_COLUMNS]
                       : type == ATTN_F16 ? v_column_f16(y[i / 2], i % 2)
                                          : v_column_bf16(y[i / 2], i % 2);
        ATTN_UNROLL for (int g = 0; g < rows; g++) a[g] = v_fma(v_set1(q[i * rows + g]), e, a[g]);
    }
}

/*
 * Scores of `rows` rows against VF32_N keys from k on, keys in the lanes: q[d][rows], s[row][s_row]. Some columns of them are
 * transposed in registers at a time, then each is one multiply-add for each row.
 */
ATTN_INLINE void few_columns(int rows, attn_dtype type, const char *k, ptrdiff_t k_row, size_t d_k,
                             const float *q, struct few_ahead *ahead, float *s, size_t s_row) {
    enum { PART = VF32_COLUMNS * 4 }; /* bytes that are loaded of a row */
    const size_t columns = (size_t)few_columns_once(type), size = PART / columns;
    vf32 a[FEW_ROWS];
    size_t d = 0;
    ATTN_UNROLL for (int g = 0; g < rows; g++) a[g] = v_zero();
    for (; d + columns <= d_k; d += columns, k += PART)
        few_columns_step(rows, type, k, k_row, columns, q + d * (size_t)rows, a, ahead);
    if (d < d_k) {
        char part[VF32_N][PART] = {{0}};
        for (int i = 0; i < VF32_N; i++) memcpy(part[i], k + i * k_row, (d_k - d) * size);
        few_columns_step(rows, type, part[0], PART, d_k - d, q + d * (size_t)rows, a, NULL);
    }
    ATTN_UNROLL for (int g = 0; g < rows; g++) v_store(s + (size_t)g * s_row, a[g]);
}

/* The same of a panel, whose keys are in the lanes already: `vectors` vectors of them. */
ATTN_INLINE void few_panel(int rows, int vectors, attn_dtype type, int asks, const char *k, size_t d_k,
                           const float *q, struct few_ahead *ahead, float *s, size_t s_row) {
    enum { BYTES = ATTN_KEY_TILE * 2 };
    vf32 a[FEW_ROWS][FEW_TILE_N];
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int v = 0; v < vectors; v++) a[g][v] = v_zero();
    }
    ATTN_UNROLL_4 for (size_t d = 0; d < d_k; d++, k += type == ATTN_F32 ? 2 * BYTES : BYTES, q += rows) {
        if (asks && (type == ATTN_F32 || d % 2 == 0)) few_ask(ahead, 1);
        ATTN_UNROLL for (int g = 0; g < rows; g++) {
            const vf32 x = v_set1(q[g]);
            ATTN_UNROLL for (int v = 0; v < vectors; v++) a[g][v] =
                v_fma(x, typed_load(type, k, (size_t)v * VF32_N), a[g][v]);
        }
    }
    ATTN_UNROLL for (int g = 0; g < rows; g++) {
        ATTN_UNROLL for (int v = 0; v < vectors; v++) v_store(s + (size_t)g * s_row + v * VF32_N, a[g][v]);
    }
}

/* ---- Variants -------------------------------------------------------------------------------------- */

struct few_scores {
    attn_dtype type; /* f32 where rows are the lanes or the keys are no whole vector */
    const char *k;
    const float *q;
    ptrdiff_t k_row; /* bytes */
    size_t d_k, n;
    float *s;
    size_t s_row; /* keys in the lanes only */
    int panel; /* k is a panel's first key: n counts from there on; keys in the lanes: all that they can be */
    struct few_ahead ahead;
};

/* One function a number of rows and a type. */
#define FEW_COLUMNS(rows, r)                                          \
    FEW_COLUMNS_OF(few_columns, few_columns, ATTN_F32, rows, r)       \
    FEW_COLUMNS_OF(few_columns_f16, few_columns, ATTN_F16, rows, r)   \
    FEW_COLUMNS_OF(few_columns_bf16, few_columns, ATTN_BF16, rows, r) \
    FEW_PANEL_OF(few_panel, ATTN_F32, rows, r)                        \
    FEW_PANEL_OF(few_panel_f16, ATTN_F16, rows, r)                    \
    FEW_PANEL_OF(few_panel_bf16, ATTN_BF16, rows, r)
#define FEW_COLUMNS_OF(name, kernel, type, rows, r)                            \
    ATTN_NOINLINE void name##_##rows(const struct few_scores *w) {             \
        struct few_ahead ahead = w->ahead;                                     \
        kernel(r, type, w->k, w->k_row, w->d_k, w->q, &ahead, w->s, w->s_row); \
    }
#define FEW_PANEL_OF(name, type, rows, r)                                                               \
    ATTN_NOINLINE void name##_##rows(const struct few_scores *w) {                                      \
        struct few_ahead ahead = w->ahead;                                                              \
        const int vectors = (r)*FEW_TILE_N <= FEW_PANEL ? FEW_TILE_N : (FEW_TILE_N + 1) / 2;            \
        for (int v = 0; v < FEW_TILE_N; v += vectors)                                                   \
            few_panel(r, vectors, type, v == 0, w->k + (size_t)v * VF32_N * (type == ATTN_F32 ? 4 : 2), \
                      w->d_k, w->q, &ahead, w->s + v * VF32_N, w->s_row);                               \
    }
FEW_COLUMNS(1, 1)
FEW_COLUMNS(2, 2)
FEW_COLUMNS(3, 3)
FEW_COLUMNS(4, 4)
#define FEW_ROWS_OR(rows) ((rows) <= FEW_ROWS ? rows : 1)
FEW_COLUMNS(5, FEW_ROWS_OR(5))
FEW_COLUMNS(6, FEW_ROWS_OR(6))
FEW_COLUMNS(7, FEW_ROWS_OR(7))
FEW_COLUMNS(8, FEW_ROWS_OR(8))

#define FEW_DISPATCH(name, rows, w) \
    switch (rows) {                 \
    case 1: name##_1(w); break;     \
    case 2: name##_2(w); break;     \
    case 3: name##_3(w); break;     \
    case 4: name##_4(w); break;     \
    case 5: name##_5(w); break;     \
    case 6: name##_6(w); break;     \
    case 7: name##_7(w); break;     \
    default: name##_8(w); break;    \
    }

/* w->n keys: in steps as tall as the registers allow. */
ATTN_INLINE void few_rows_nv(const struct few_scores *w, int nv, int most, int panel) {
    struct few_ahead ahead = w->ahead;
    const float *k = typed_f32(w->k);
    const ptrdiff_t k_row = w->k_row / (ptrdiff_t)sizeof *k;
    size_t i = 0;
#define FEW_ROWS_STEP(keys)                                                                           \
    few_rows(keys, nv, panel, k + (panel ? (ptrdiff_t)i : (ptrdiff_t)i * k_row), k_row, w->d_k, w->q, \
             &ahead, w->s + i * (size_t)nv * VF32_N),                                                 \
        i += keys
    while (i + (size_t)most <= w->n) FEW_ROWS_STEP(most);
    while (i + 4 <= w->n) FEW_ROWS_STEP(4);
    while (i < w->n) FEW_ROWS_STEP(1);
#undef FEW_ROWS_STEP
}
#define FEW_ROWS_VARIANT(nv, most)                                                                \
    ATTN_NOINLINE void few_rows_##nv(const struct few_scores *w) { few_rows_nv(w, nv, most, 0); } \
    ATTN_NOINLINE void few_rows_panel_##nv(const struct few_scores *w) { few_rows_nv(w, nv, most, 1); }
FEW_ROWS_VARIANT(1, FEW_KEYS)
FEW_ROWS_VARIANT(2, FEW_KEYS_2)

#endif
