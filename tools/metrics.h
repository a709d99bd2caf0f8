/* What a head's attention weights say about it. */
#ifndef ATTN_TOOL_METRICS_H
#define ATTN_TOOL_METRICS_H

#include <stddef.h>

#include "engine.h"

/* Means are over the query rows that have such a key; NaN when none has. Entropy is in bits. */
struct metrics {
    double entropy;  /* mean over rows */
    double evenness; /* mean of entropy / log2(visible keys), rows that see at least two; 1: uniform */
    double distance; /* mean of sum_j w |i - j|; rows of keys that are not the queries' have none: NaN */
    double first, previous, own, next; /* mean weight on key 0, i - 1, i, i + 1 */
    double largest;                    /* the largest weight, at [row, key] */
    size_t largest_row, largest_key;
    double most; /* the largest mean weight that a key receives */
    size_t most_key;
    size_t bad_weights; /* attention weights that are not finite */
    int saturated;      /* nearly all rows look at one key only */
    int uniform;        /* nearly all rows look everywhere alike */
};

/* From weights [n_q, n_kv]. */
void metrics_compute(struct metrics *metrics, const float *weights, const struct job *job);

/* Number of values that are not finite. */
size_t count_bad(const float *data, size_t n);

/* A sentence about what is odd or typical of head i, "" when nothing is; in memory of its own. */
char *metrics_notes(const struct metrics *metrics, const struct model *model, size_t head,
                    size_t bad_outputs);

#endif
