/* A context: backend, executor, scratch, and the text of the last error. */
#ifndef ATTN_CONTEXT_H
#define ATTN_CONTEXT_H

#include "attn/attn.h"
#include "backend.h"
#include "executor.h"
#include "rope_frequencies.h"

/* Rows of x that backends prepare for projections: so many at once, for instance 512 of 4,096 values in bf16 twice over. Pages
 * that no call touches cost nothing. */
#define ATTN_PREPARED_BYTES ((size_t)8 << 20)

struct attn_context {
    const struct attn_backend *backend;
    struct attn_pool_threads executor;
    char *scratch; /* aligned to ATTN_ALIGN */
    size_t scratch_bytes;
    int scratch_owned;
    char *
        linear_scratch; /* the backend's linear_scratch bytes for each worker, aligned to ATTN_ALIGN; or NULL: 0 bytes */
    char *prepared; /* ATTN_PREPARED_BYTES, aligned to ATTN_ALIGN, where the backend prepares rows; or NULL */
    char error[256];
    struct attn_rope_cache rope; /* the frequencies of the last calls that rotated */
};

/* Stores the text of an error and gives the status back. */
attn_status attn_fail(attn_context *c, attn_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Starts a public call: clears the error. ARGUMENT for a null context. */
attn_status attn_enter(attn_context *c);

/* At least `bytes` of scratch, allocated where the context owns it and has less. */
attn_status attn_scratch_take(attn_context *c, size_t bytes, void **scratch);

/*
 * Copies a growable struct of the caller's into `to` (size `known`, zeroed first). `from` starts with its
 * size_t size. Errors: null, size 0, or a newer version's member that is set.
 */
attn_status attn_struct_read(attn_context *c, const char *name, void *to, size_t known, const void *from);

/* *sum += count * bytes each, rounded up to ATTN_ALIGN. Returns 0 on overflow. */
int attn_size_add(size_t *sum, size_t count, size_t each);

#define ATTN_TRY(call)                                \
    do {                                              \
        const attn_status try_status = (call);        \
        if (try_status != ATTN_OK) return try_status; \
    } while (0)

#endif
