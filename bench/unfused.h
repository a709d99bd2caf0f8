/*
 * What fused attention is measured against: scores, softmax and P V one after the other, made of the
 * library's own kernels. As strong as it can be on one thread: keys and values are packed as weights
 * beforehand (not timed), scores stay in cache, a strip of rows at a time, hardly more than what a causal row
 * sees is multiplied, and the division by the sum is left to the output.
 */
#ifndef BENCH_UNFUSED_H
#define BENCH_UNFUSED_H

#include <attn/attn.h>

#include "memory.h"

/* Rows of a strip. Of 48, 96 and 192 all are equal for full rows; causal ones, which multiply half a square
 * of this size too much at the diagonal, lose up to 5 points with 96 and 2 to 14 with 192. */
enum { UNFUSED_ROWS = 48 };

/* The keys of a head, [n_kv x d], and its transposed values, [p x n_kv], as packed weights. */
struct unfused_head {
    const attn_packed *k, *v;
};

/* q, out: [1, n_head, n_q, column]; where query heads share keys and see all of them, head follows head
 * contiguously. */
struct unfused {
    attn_context *context; /* of one thread, with a SIMD backend */
    attn_tensor q, out;
    size_t n_head_kv, n_kv;
    float scale;
    int causal; /* row i sees keys j <= i */
    float *scores;
    size_t scores_row; /* distance in floats */
};

/* Room for the scores; NULL, or why the row cannot be run: u's other members are set. */
const char *unfused_prepare(struct unfused *u, struct arena *work);

/* Packs a head of k and v, [1, n_head_kv, n_kv, column]. */
const char *unfused_pack(struct unfused *u, const attn_tensor *k, const attn_tensor *v, size_t head,
                         struct arena *work, struct unfused_head *packed);

/* Bytes of the scores. */
size_t unfused_scratch(const struct unfused *u);

void unfused_run(const struct unfused *u, const struct unfused_head *heads);

#endif
