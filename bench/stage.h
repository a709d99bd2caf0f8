/* A row made ready to run: inputs, packed weights and outputs in memory, and the call. */
#ifndef BENCH_STAGE_H
#define BENCH_STAGE_H

#include <attn/attn.h>

#include "memory.h"
#include "rows.h"
#include "unfused.h"

/* Inputs out of cache rotate over copies of this many bytes in all. */
#define STAGE_COLD_BYTES ((size_t)256 << 20)
enum { STAGE_MAX_COPIES = 256 };

/* One set of what a row reads. */
struct stage_copy {
    attn_tensor k, v;
    const attn_packed *w[4]; /* linear: the first; head: W_q, W_k, W_v, W_o */
    struct unfused_head *heads;
    attn_kv kv; /* of the row's cache, with what it points to: one sequence */
    size_t length;
    int32_t *blocks;
};

struct stage {
    const struct row *row;
    attn_context *context;
    size_t n_copies, next;
    struct stage_copy copy[STAGE_MAX_COPIES];
    attn_tensor x, q, w_a, out; /* linear, head: x */
    attn_scoring scoring;
    size_t window[2];
    attn_tensor mask;
    struct unfused unfused;
    double pack_seconds;                    /* that packing the keys and values of the last copy took */
    attn_tensor projected[3], concatenated; /* unfused heads: q, k, v and the heads' outputs */
};

/*
 * Prepares a row: inputs are pieces of source (read only), packed weights and outputs of work. Both are
 * rewound first, so only the latest stage is valid. Returns NULL, or why the row cannot be run.
 */
const char *stage_set(struct stage *stage, const struct row *row, attn_context *context, struct arena *source,
                      struct arena *work);

/* Runs the row once, with the next copy of its inputs. */
attn_status stage_call(struct stage *stage);

/* Bytes that the call needs besides inputs and outputs (and, unfused, packed keys and values). */
size_t stage_scratch(const struct stage *stage);

#endif
