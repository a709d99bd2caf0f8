/* What attn_scoring says, read and checked; sequences, and the keys that their rows see. */
#ifndef ATTN_SCORING_H
#define ATTN_SCORING_H

#include "context.h"
#include "kv.h"
#include "tensor.h"

/* Where scoring is null all is default. cached: keys come from a cache, so that q_starts stand alone. */
attn_status attn_scoring_read(attn_context *c, attn_scoring *to, const attn_scoring *from, int cached);

/* What the arrays of a scoring are as long as. */
struct attn_scoring_sizes {
    size_t batch, n_head, n_q,
        n_kv; /* of the tensors; n_kv of a cache: of the longest of the call's sequences */
    const struct attn_kv_view *kv; /* or NULL */
    const size_t *kv_sequences;    /* as in attn_sdpa_args */
    int filled;                    /* takes each sequence of the cache for as long as it can become */
};

/* Checks everything but the mask against those sizes. */
attn_status attn_scoring_check(attn_context *c, const attn_scoring *s,
                               const struct attn_scoring_sizes *sizes);

/* The spans of all arrays but the mask, for the overlap rule. */
enum { ATTN_SCORING_SPANS = 11 };
void attn_scoring_spans(const attn_scoring *s, const struct attn_scoring_sizes *sizes,
                        struct attn_span spans[ATTN_SCORING_SPANS]);

/* Rows of q and of k and v that belong together. */
struct attn_sequence {
    size_t batch;         /* of the tensors */
    size_t q_row, kv_row; /* its first rows in them */
    size_t rows;          /* of q, padding included: what is written */
    size_t n_q, n_kv;
    ptrdiff_t offset; /* row i stands at position i + offset */
    size_t prefix;    /* keys that every row sees */
    size_t mask;      /* its element of the mask's batch dimension, where that is not 1 */
    size_t cached;    /* its number in the cache */
    size_t first;     /* the first key that is there (a ring's) */
};

/* The sequences that a call names. */
size_t attn_sequences_named(const attn_scoring *s, const struct attn_scoring_sizes *sizes);

/* With starts there is one more: the rows behind the last sequence, which see nothing. */
size_t attn_sequences(const attn_scoring *s, const struct attn_scoring_sizes *sizes);
struct attn_sequence attn_sequence_at(const attn_scoring *s, const struct attn_scoring_sizes *sizes,
                                      size_t b);

/* The longest sequence's rows and keys. */
void attn_sequences_most(const attn_scoring *s, const struct attn_scoring_sizes *sizes, size_t *n_q,
                         size_t *n_kv);

/* Row i sees the keys of [lo, hi) and those below also <= lo, and no others (documents and mask aside). */
struct attn_sight {
    size_t lo, hi, also;
};
struct attn_sight attn_sight_of(const attn_scoring *s, const struct attn_sequence *q, size_t i);

#endif
