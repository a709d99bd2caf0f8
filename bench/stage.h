/* A row made ready to run: inputs, packed weights and outputs in memory, and the call. */
#ifndef BENCH_STAGE_H
#define BENCH_STAGE_H

#include <attn/attn.h>

#include "memory.h"
#include "rows.h"

/* Inputs out of cache rotate over copies of this many bytes in all (two at least). */
#define STAGE_COLD_BYTES ((size_t)256 << 20)
enum { STAGE_MAX_COPIES = 64 };

/* One set of what a row reads. */
struct stage_copy {
    attn_tensor k, v;
    const attn_packed *w[4]; /* linear: the first; head: W_q, W_k, W_v, W_o */
};

struct stage {
    const struct row *row;
    attn_context *context;
    size_t n_copies, next;
    struct stage_copy copy[STAGE_MAX_COPIES];
    attn_tensor x, q, w_a, out; /* linear, head: x */
    attn_scoring scoring;
};

/*
 * Prepares a row: inputs are pieces of source (read only), packed weights and outputs of work. Both are
 * rewound first, so only the latest stage is valid. Returns NULL, or why the row cannot be run.
 */
const char *stage_set(struct stage *stage, const struct row *row, attn_context *context, struct arena *source,
                      struct arena *work);

/* Runs the row once, with the next copy of its inputs. */
attn_status stage_call(struct stage *stage);

#endif
