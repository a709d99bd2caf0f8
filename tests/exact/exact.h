/* Comparing outputs to the bit, and cutting calls in pieces. */
#ifndef TEST_EXACT_H
#define TEST_EXACT_H

#include "support/api_case.h"

/* FNV-1a over the bits of all outputs of a case, in logical order. */
uint64_t exact_hash(const struct api_case *c, const struct api_outputs *o);
uint64_t exact_hash_floats(uint64_t hash, const float *x, size_t n);
#define EXACT_HASH_START 0xcbf29ce484222325u

/* A case on a backend, and on a context; the matrices are packed. */
struct exact_run {
    struct api_case c;
    struct api_data *d;
    attn_context *context;
};

/* A part of a case: sequences, heads, query rows, and the keys that are left. With causal order from the
 * bottom right, rows [row, row + n_q) of all n_q see the same as before over n_kv - (n_q - row - n) keys. */
struct exact_part {
    size_t batch, n_batch, head, n_head, row, n_q, n_kv;
};

struct exact_part exact_whole(const struct api_case *c);

/* Runs the part alone and compares its rows with those of `all`, to the bit. */
void exact_check_part(const struct exact_run *e, const struct exact_part *p, const struct api_outputs *all,
                      struct verdict *v);

/* The shapes that the exact suite uses. */
#define EXACT_CASES 12
struct api_case exact_case(size_t i, enum api_call call);

/* The same for what attn_scoring says: ragged batches and plain ones, every feature in several of them. */
#define EXACT_FEATURES 14
struct api_case exact_features(size_t i, enum api_call call);

/* Rows [row, row + n) of a sequence alone, as a plain call on its keys; compares them with those of `all`, to the bit.
 * Rows beyond the sequence's length are not to be asked for. */
void exact_check_alone(const struct exact_run *e, size_t sequence, size_t row, size_t n,
                       const struct api_outputs *all, struct verdict *v);

/* The sequences of a ragged case in another arrangement: one behind the other in reverse order, or side by side in a
 * batch of the longest one's size, padded with NaN. The matrices are d's. */
enum exact_order { EXACT_REVERSED, EXACT_PADDED };
struct api_data *exact_arrange(const struct api_case *c, const struct api_data *d, enum exact_order order,
                               struct api_case *to);
void exact_arranged_free(struct api_data *d);

#endif
