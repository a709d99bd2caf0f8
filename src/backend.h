/*
 * The contract between the plan (the C files of src/: validation, visibility, tiles, scratch) and a backend (one
 * folder of src/ per instruction set: arithmetic). A backend is one const struct; its slots never
 * allocate, lock, fail or keep state, and every slot is filled. Strides here are in elements unless said.
 */
#ifndef ATTN_BACKEND_H
#define ATTN_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "attn/attn.h"

/* No backend packs more rows than this into one block, and none takes more blocks at once. */
#define ATTN_ROWS_MAX 64
#define ATTN_BLOCKS_MAX 4
/* No task has more key/value heads (scratch of a backend has a part for each). */
#define ATTN_HEADS_MAX 16
/* Panels are a multiple of this wide, so that any backend's vectors divide them. */
#define ATTN_PANEL_UNIT 16
/* Alignment of scratch and packed memory. */
#define ATTN_ALIGN 64
/* Rows of f32 values a multiple of so many bytes apart share a few sets of the first-level cache. */
#define ATTN_FAR 2048

/*
 * y[i][o] = bias[o] + sum_k x[i][k] w[o][k] for rows [0, m) and outputs [o0, o1), canonical order; w is what to_f32 makes
 * of weights of another type.
 * panels: panel p holds outputs [p*nr, (p+1)*nr) as weights.h says for its type and its width, nr, but the last panel's is the
 * number of its outputs rounded up to ATTN_PANEL_UNIT, zero-filled; panel p starts p*nr*row_bytes in.
 * scratch: the worker's own linear_scratch bytes, aligned to ATTN_ALIGN; contents undefined before and after.
 * bias: as wide as the panels together, zero-filled, or NULL.
 * o0 is a multiple of nr, o1 another one or n; y points at the element for output o0. Exactly m x (o1 - o0) floats of y are
 * written and exactly m x k of x are read. y overlaps nothing. x, y: any alignment. m, k >= 1, o1 > o0.
 */
struct attn_linear_task {
    const float *x;
    ptrdiff_t x_row;
    float *y;
    ptrdiff_t y_row;
    size_t m, k; /* k: a multiple of the type's block */
    attn_dtype dtype;
    size_t row_bytes; /* attn_weights_row() of the type and k */
    const void *panels;
    const float *bias;
    float *scratch;
    const char *prepared;   /* rows of x as the prepare slot made them; NULL where prepared_row gives 0, or rounds is true */
    ptrdiff_t prepared_row; /* bytes */
    size_t n;               /* outputs of the whole matrix */
    size_t o0, o1;          /* the ones to compute */
    size_t o_next; /* a hint: the thread's next task begins there (a multiple of nr); n or more: not known */
};
typedef void attn_linear_fn(const struct attn_linear_task *task);

/*
 * Backends that multiply weights of a type by dot products of narrow numbers take the rows of x rounded to them, once a call:
 * prepared_row gives the bytes of a row of k values, a multiple of ATTN_ALIGN, or 0 where x is taken as it is; prepare makes
 * one, at an address that is a multiple of ATTN_ALIGN.
 */
typedef size_t attn_prepared_row_fn(attn_dtype weights, size_t k);
/* Whether linear rounds the rows itself, strip by strip: for few outputs that costs less. x is then as it is. */
typedef int attn_rounds_fn(attn_dtype weights, size_t n, size_t k);
typedef void attn_prepare_fn(attn_dtype weights, const float *x, size_t k, void *to);

enum attn_score_kind { ATTN_SCORE_DOT, ATTN_SCORE_ADDITIVE };
enum attn_mask_kind { ATTN_MASK_NONE, ATTN_MASK_BOOL, ATTN_MASK_F32, ATTN_MASK_F16 };

/*
 * Attention pooling of a block of query rows over a range of keys, in the canonical order of order.h; or of several blocks
 * one behind the other, whose keys and values are converted or gathered once for all (of pool_rows each but the last one).
 *
 * Rows are query-major, the heads of a group inside: with i = first + r, row r of the block is query
 * i / group and head i % group, and the address of its query, output, log-sum-exp, mask, weights and scores is
 * base + (i / group) * _row + (i % group) * _head.
 * Row r sees key j iff lo[r] <= j < hi[r] or j < also[r] (also[r] <= lo[r], or 0), its document is the key's (if there are
 * documents) and the mask (if any) allows it; lo >= hi: an empty range.
 * No key outside the rows' ranges, no row >= n_rows, and nothing beyond the sizes given here
 * is read. A hidden key's score and value do not enter any sum.
 * Scores are shaped in this order: scale, soft cap, ALiBi, mask (order.h). A sink joins the sum at the end.
 *
 * Queries and outputs are f32, f16 or bf16; keys and values f32, f16, bf16, q8_0 or q4_0, each a type of its own. They are
 * computed with as the f32 values that they stand for; only outputs are rounded, once, to nearest even.
 *
 * Keys and values of row j lie at k + j * k_row and v + j * v_row, in bytes; with pages (a cache's) in row j % page_rows of
 * page j / page_rows, which lies pages[j / page_rows % n_pages] times k_page or v_page on (src/keys.h). panels (f32, f16,
 * bf16): keys lie 16 by 16, column c of the panel's key i in element c * 16 + i, k_row from panel to panel, page_rows a
 * multiple of 16; heads is 1, and all 16 keys of a panel may be read where one is seen. Dot products only; additive scores
 * take f32 in rows.
 *
 * Two forms. Whole (part == NULL): all keys, then out, and lse, weights and scores if given.
 * Part (part != NULL): the keys of chunk `chunk` only (which may hold none that the block sees), and the
 * partial result to part, for the merge slot: at most (d_v + 2) * (n_rows rounded up to ATTN_PANEL_UNIT)
 * floats, in the backend's own arrangement; the next block's is part_block on. Only backends with splits != 0 are asked for
 * parts.
 *
 * The block stands for `heads` key/value heads in a row, 1 unless the backend's pool_heads_rows allows more: the next
 * one's k, v and part are k_head, v_head and part_head on, its queries, outputs, log-sum-exps and mask `group` heads. They
 * are meant to be read together, because their rows of k and v lie side by side.
 *
 * out, lse, weights, scores overlap nothing else. scratch: pool_scratch() bytes, aligned to ATTN_ALIGN, contents
 * undefined before and after.
 */
struct attn_pool_task {
    enum attn_score_kind score;
    attn_dtype q_type, k_type, v_type, out_type;
    size_t n_rows, group, first; /* 1 <= n_rows <= the backend's pool_rows * pool_blocks; first < group */
    const void *q;
    ptrdiff_t q_row, q_head;
    const char *k; /* the key/value head's row 0 */
    ptrdiff_t k_row;
    const char *v;
    ptrdiff_t v_row;
    size_t heads; /* >= 1; then n_rows <= pool_rows */
    ptrdiff_t k_head, v_head;
    const int32_t *pages; /* or NULL */
    size_t page_rows, n_pages;
    ptrdiff_t k_page, v_page;
    int panels;
    size_t d_k, d_v; /* d_k: length of a row of q and k (additive: c) */
    size_t n_kv;
    const float *w; /* additive: w of head 0 of the group, c floats; next head's at + w_head */
    ptrdiff_t w_head;
    float scale;
    float cap, cap_inverse; /* soft cap of scores in base 2: cap * tanh(score * cap_inverse); 0: none */
    const float *slopes; /* ALiBi, a positive slope a head of the group (the next group's behind); or NULL */
    ptrdiff_t position;  /* of query 0 of the block; its next ones follow */
    const float *sinks;  /* a head of the group each; or NULL */
    const int32_t *q_documents, *kv_documents; /* from query 0 of the block and from key 0 on; or NULL */
    enum attn_mask_kind mask_kind;
    const void *mask; /* uint8_t, float or binary16; strides in elements of it, 0 where broadcast */
    ptrdiff_t mask_row, mask_head, mask_key;
    void *out;
    ptrdiff_t out_row, out_head;
    float *lse; /* or NULL */
    ptrdiff_t lse_row, lse_head;
    float *lse_sinks; /* or NULL */
    ptrdiff_t lse_sinks_row, lse_sinks_head;
    float *weights; /* n_weights floats a row, contiguous; or NULL */
    ptrdiff_t weights_row, weights_head;
    float *scores; /* natural, -inf where hidden; n_weights floats a row, contiguous; or NULL */
    ptrdiff_t scores_row, scores_head;
    size_t n_weights; /* columns of weights and scores; those behind n_kv are hidden */
    float *part;      /* or NULL */
    size_t part_head, part_block;
    size_t chunk, first_chunk; /* first_chunk: of the parts that are merged */
    void *scratch;
    const size_t *lo, *hi, *also; /* n_rows each */
};
typedef void attn_pool_fn(const struct attn_pool_task *task);

/*
 * Scratch bytes of the pool slot for any task of at most so many blocks of one head, or, where heads > 1, of at most
 * pool_heads_rows rows of so many. gathers: K or V may be of another type than f32, in pages or in panels, or v_row a
 * multiple of ATTN_FAR.
 */
struct attn_pool_size {
    enum attn_score_kind score;
    size_t d_k, d_v, heads, blocks;
    int gathers;
};
typedef size_t attn_pool_scratch_fn(const struct attn_pool_size *size);

/*
 * Merges the parts of n_chunks >= 1 chunks of one block, in ascending order, and finishes the rows: reads
 * chunk c's at task->part + c * stride (and overwrites it), writes task's out and lse. Uses of task only
 * score, k_type, v_type, n_rows (of one block), group, first, d_v, out*, lse*, sinks and part. Ascending from the first chunk the block sees; a part of a chunk
 * that the block does not see changes nothing.
 */
typedef void attn_merge_fn(const struct attn_pool_task *task, size_t n_chunks, size_t stride);

/*
 * Rotary position embedding in two steps, so that all heads share the sines of a row.
 *
 * The table: for each row r of [0, n_rows) and pair i of [0, n), cos and sin of 2 pi t, t = position *
 * (turns_hi[i] + turns_lo[i]), times magnitude, in the backend's own arrangement: 4 * n_padded floats a row, of
 * which all are written or none is read. position = positions ? positions[r] + first : first + r, at most 2^53
 * either way. turns_hi, turns_lo: n_padded doubles, n rounded up to ATTN_PANEL_UNIT, 0 from n on.
 * table: aligned to ATTN_ALIGN.
 */
struct attn_rope_table_task {
    const double *turns_hi, *turns_lo;
    size_t n_padded;
    double magnitude;
    int interleaved;
    const int64_t *positions; /* or NULL */
    int64_t first;
    size_t n_rows;
    float *table;
};
typedef void attn_rope_table_fn(const struct attn_rope_table_task *task);

/*
 * The rotation, by the table's cos and sin: y0 = fma(x1, -sin, x0 * cos), y1 = fma(x0, sin, x1 * cos), of columns
 * (2i, 2i + 1) if interleaved, otherwise (i, i + n). Columns [2n, columns) are copied. x and y are the same memory
 * with the same strides, or overlap nowhere. Exactly n_rows x n_head x columns floats are read and written.
 */
struct attn_rope_task {
    const float *table;
    size_t n, n_padded, columns; /* 1 <= n, 2n <= columns */
    int interleaved;
    size_t n_rows, n_head;
    const float *x;
    ptrdiff_t x_row, x_head;
    float *y;
    ptrdiff_t y_row, y_head;
};
typedef void attn_rope_fn(const struct attn_rope_task *task);

/*
 * Each of n_rows x n_head rows of `columns` floats, in place: x_j = x_j / sqrt(mean of squares + epsilon) * weight_j,
 * as order.h says under "norm". Exactly those floats are read and written.
 */
struct attn_norm_task {
    size_t n_rows, n_head, columns; /* 1 <= columns */
    float *x;
    ptrdiff_t x_row, x_head;
    const float *weight;
    float epsilon;
};
typedef void attn_norm_fn(const struct attn_norm_task *task);

/*
 * Merges partial results into rows [row, row + n_rows) of head `head` of batch element `batch`, as order.h
 * says under "parts". The tensors are the caller's, checked: sizes that fit each other, f32. Where a part's
 * lse is -inf its out is not read. out may be outs[0], and lse lses[0], with the same strides; otherwise
 * outputs overlap nothing. An element of outs[0] is read before out's is written, and all lses of a row
 * before its lse.
 */
struct attn_combine_task {
    size_t n_parts;
    const attn_tensor *outs, *lses; /* n_parts each */
    const attn_tensor *out;
    const attn_tensor *lse; /* or NULL */
    size_t batch, head, row, n_rows;
};
typedef void attn_combine_fn(const struct attn_combine_task *task);

/*
 * Rows of n values between f32 and the other types (dtype.h); n is a multiple of the block. to_f32: every type but bool,
 * exactly, or (q4_1, Q4_K, Q6_K) with one rounding. from_f32 (f32, f16, bf16, q8_0, q4_0): f16 and bf16 to nearest even, a NaN
 * quiet with its highest bits; blocks as ggml's reference, but one with a NaN or an infinity becomes NaN (d = 0x7e00, q = 0).
 * The same bytes in every backend, but that a NaN that a block stands for may be any. They overlap nothing; alignment as dtype.h says.
 */
typedef void attn_to_f32_fn(attn_dtype type, const void *from, size_t n, float *to);
typedef void attn_from_f32_fn(attn_dtype type, const float *from, size_t n, void *to);

/* That row of one of the tensors, `row` counted from the task's first. */
static inline float *attn_combine_row(const struct attn_combine_task *task, const attn_tensor *t,
                                      size_t row) {
    const ptrdiff_t at = (ptrdiff_t)task->batch * t->stride[0] + (ptrdiff_t)task->head * t->stride[1] +
                         (ptrdiff_t)(task->row + row) * t->stride[2];
    return (float *)(void *)((char *)t->data + at);
}

struct attn_backend {
    const char *name;
    uint32_t requires;  /* bits of cpu.h */
    uint32_t layout;    /* of packed weights: their panel width nr */
    size_t linear_rows; /* height of the register tile: the plan cuts rows at multiples of it */
    size_t pool_rows;   /* rows of a full block */
    size_t
        pool_blocks; /* that pool takes at once, where it has to gather keys or values; at most ATTN_BLOCKS_MAX */
    /* rows up to which pool takes several heads at once: dot products, no weights, no scores; 0: none */
    size_t pool_heads_rows;
    int splits;            /* pool takes parts */
    size_t linear_scratch; /* bytes, a multiple of ATTN_ALIGN */
    /* An instruction tier: the backend of the same instruction set that rounds neither queries nor activations; or NULL */
    const struct attn_backend *exact;
    attn_prepared_row_fn *prepared_row; /* or NULL: 0 for all types */
    attn_prepare_fn *prepare;
    attn_rounds_fn *rounds; /* or NULL: never */
    attn_linear_fn *linear;
    attn_pool_fn *pool;
    attn_merge_fn *merge;
    attn_pool_scratch_fn *pool_scratch;
    attn_rope_table_fn *rope_table;
    attn_rope_fn *rope;
    attn_norm_fn *norm;
    attn_combine_fn *combine;
    attn_to_f32_fn *to_f32;
    attn_from_f32_fn *from_f32;
};

extern const struct attn_backend attn_backend_scalar;
extern const struct attn_backend attn_backend_avx2;
extern const struct attn_backend attn_backend_avx2dot;
extern const struct attn_backend attn_backend_avx512;
extern const struct attn_backend attn_backend_avx512vnni;
extern const struct attn_backend attn_backend_avx512bf16;
extern const struct attn_backend attn_backend_neon;
extern const struct attn_backend attn_backend_neondot;
extern const struct attn_backend attn_backend_neonbf16;

#endif
