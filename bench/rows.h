/* What is measured: the rows of the benchmark, their names and their useful work. */
#ifndef BENCH_ROWS_H
#define BENCH_ROWS_H

#include <attn/attn.h>
#include <stdbool.h>
#include <stddef.h>

#include "limits.h"

/* Where keys and values are: tensors; a cache of shuffled blocks of 16 rows; one of keys in panels. */
enum row_cache { CACHE_NONE, CACHE_PAGED, CACHE_PANELS };
enum { ROW_BLOCK = 16 };

enum row_kind { ROW_LINEAR, ROW_SDPA, ROW_ADDITIVE, ROW_HEAD, ROW_MULTIHEAD, ROW_APPEND };

struct row {
    enum row_kind kind;
    const char *label; /* of a shape shared with the tests; NULL: the name is made of the sizes */
    size_t batch, n_head, n_head_kv;
    size_t n_q, n_kv; /* rows; linear: n_q of x; append: n_kv come to one sequence */
    size_t d, p;      /* linear, head: inputs, outputs (of a head); sdpa: p_k, p_v; additive: c, p_v */
    attn_causal causal;
    bool key_major; /* q, k, v and out lie [batch, row, head, column], as most hosts keep them */
    bool warm;      /* keys and values stay in whatever cache holds them, where they would be out of cache */
    bool
        tree; /* a boolean mask for each row and key, which hides from the draft tokens at the end all but their own branch */
    enum row_cache cache;
    attn_dtype type; /* of weights, or of keys and values */
    size_t window;   /* keys before its own that a row sees; 0: all */
    bool unfused;    /* the same work by scores, softmax and P V one after the other (one thread) */
};

enum { ROW_NAME_BYTES = 96 };

size_t row_count(void);
const struct row *row_get(size_t i);

/* For example "linear/512x4096x4096", "prefill/d128/h8-8/n2048/causal", "decode/d128/h32-8/q1/n32768/warm",
 * "linear/q8_0/16x4096x4096", "unfused/prefill/d128/h8-8/n2048/causal". */
void row_name(const struct row *row, char name[ROW_NAME_BYTES]);

/* Useful floating-point operations: visible scores only, all query heads of a group. */
double row_flops(const struct row *row);

/* Hyperbolic tangents of additive scores. */
double row_tanhs(const struct row *row);

/* What limits the row where reading does not: the instruction that the backend uses for the row's type. */
enum limit row_limit(const struct row *row, const char *backend);

/* Bytes of the operand that has to be read once: the weights, or the keys and values; append: f32 rows that are read, and what
 * is written. */
double row_bytes(const struct row *row);

/*
 * Whether reading memory is the limit: fewer operations a byte than any core needs to be busy. Such a row
 * gets its weights or its keys and values out of cache, as between two tokens of a model.
 */
bool row_read_bound(const struct row *row);

#endif
