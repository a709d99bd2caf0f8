/* The frequencies of rotary position embedding, in turns a position, to some 90 bits. */
#ifndef ATTN_ROPE_FREQUENCIES_H
#define ATTN_ROPE_FREQUENCIES_H

#include <stddef.h>

#include "attn/attn.h"

/* What the frequencies depend on, but the divisors: checked, defaults filled in, what the scaling does not use 0
 * (two of them are compared by their bytes). */
struct attn_rope_key {
    size_t dims, original_context;
    double base, factor, from,
        to; /* from, to: of the mixture, in turns (YaRN: fast, slow; Llama 3: low, high) */
    attn_rope_scaling scaling;
    int exact_range;
};

enum { ATTN_ROPE_CACHED = 512 }; /* pairs: dims up to 1024 */

/* Computing the frequencies takes longer than rotating the rows of one token, and every layer wants the same ones. */
struct attn_rope_cache {
    struct attn_rope_key key; /* dims 0: empty */
    int divided;
    float divisors[ATTN_ROPE_CACHED];
    double turns[2 * ATTN_ROPE_CACHED];
};

/* turns[0..n_padded) and turns[n_padded..2 n_padded): high and low parts of pair i's frequency over 2 pi, 0 from
 * dims / 2 on. divisors: dims / 2 numbers above 0, or NULL. */
void attn_rope_frequencies(const struct attn_rope_key *key, const float *divisors, size_t n_padded,
                           double *turns);

#endif
