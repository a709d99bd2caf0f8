#include "context.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "dispatch.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *attn_version(void) {
    return TEXT(ATTN_VERSION_MAJOR) "." TEXT(ATTN_VERSION_MINOR) "." TEXT(ATTN_VERSION_PATCH);
}

const char *attn_status_name(attn_status status) {
    static const char *const names[] = {
        [ATTN_OK] = "ok",
        [ATTN_ERROR_ARGUMENT] = "argument",
        [ATTN_ERROR_SHAPE] = "shape",
        [ATTN_ERROR_STRIDE] = "stride",
        [ATTN_ERROR_DTYPE] = "dtype",
        [ATTN_ERROR_OVERLAP] = "overlap",
        [ATTN_ERROR_OVERFLOW] = "overflow",
        [ATTN_ERROR_PACKED] = "packed",
        [ATTN_ERROR_BACKEND] = "backend",
        [ATTN_ERROR_SCRATCH] = "scratch",
        [ATTN_ERROR_MEMORY] = "memory",
        [ATTN_ERROR_CAPACITY] = "capacity",
    };
    const size_t i = (size_t)status;
    return i < sizeof names / sizeof *names ? names[i] : "unknown";
}

attn_status attn_fail(attn_context *c, attn_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(c->error, sizeof c->error, format, args);
    va_end(args);
    return status;
}

attn_status attn_enter(attn_context *c) {
    if (!c) return ATTN_ERROR_ARGUMENT;
    c->error[0] = 0;
    return ATTN_OK;
}

/* No version's struct is that large: such a size was never set, and what lies behind is not ours to read. */
enum { MOST_STRUCT = 4096 };

attn_status attn_struct_read(attn_context *c, const char *name, void *to, size_t known, const void *from) {
    size_t size;
    memset(to, 0, known);
    if (!from) return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s is null", name);
    memcpy(&size, from, sizeof size);
    if (size < sizeof size || size > MOST_STRUCT)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s: size is %zu; set it to sizeof the struct", name, size);
    for (size_t i = known; i < size; i++)
        if (((const unsigned char *)from)[i])
            return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s: sets a member that this version (%s) does not know",
                             name, attn_version());
    memcpy(to, from, size < known ? size : known);
    return ATTN_OK;
}

int attn_size_add(size_t *sum, size_t count, size_t each) {
    size_t bytes;
    if (__builtin_mul_overflow(count, each, &bytes)) return 0;
    if (__builtin_add_overflow(bytes, (size_t)(ATTN_ALIGN - 1), &bytes)) return 0;
    bytes -= bytes % ATTN_ALIGN;
    return !__builtin_add_overflow(*sum, bytes, sum) && *sum <= PTRDIFF_MAX;
}

static void take_callers_scratch(attn_context *c, void *memory, size_t bytes) {
    const size_t skip = (ATTN_ALIGN - (uintptr_t)memory % ATTN_ALIGN) % ATTN_ALIGN;
    c->scratch_owned = 0;
    c->scratch = (char *)memory + (skip < bytes ? skip : 0);
    c->scratch_bytes = skip < bytes ? bytes - skip : 0;
}

/* In large pages, where the system has them: rows in small ones, wherever those lie, can meet in a few sets of L2. */
static void *alloc_large(size_t bytes) {
    enum { PAGE = 2 << 20 };
    const size_t align = bytes < PAGE ? ATTN_ALIGN : PAGE, rounded = (bytes + align - 1) / align * align;
    void *memory = rounded >= bytes ? aligned_alloc(align, rounded) : NULL;
#if defined(MADV_HUGEPAGE)
    if (memory && align == PAGE) (void)madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    return memory;
}

/* Where projections convert weights, and rows of x. Pages that no call touches cost nothing. */
static attn_status open_linear_scratch(attn_context *c) {
    const size_t prepared = c->backend->prepared_row ? ATTN_PREPARED_BYTES : 0;
    size_t bytes = 0;
    const int fits = attn_size_add(&bytes, c->executor.n_workers, c->backend->linear_scratch) &&
                     attn_size_add(&bytes, prepared, 1);
    c->linear_scratch = fits && bytes ? alloc_large(bytes) : NULL;
    if (prepared && c->linear_scratch) c->prepared = c->linear_scratch + (bytes - prepared);
    if (fits && (!bytes || c->linear_scratch)) return ATTN_OK;
    attn_executor_close(&c->executor);
    return attn_fail(c, ATTN_ERROR_MEMORY, "the system gives no %zu bytes for each of %zu workers",
                     c->backend->linear_scratch, c->executor.n_workers);
}

/* More than any machine has, few enough that no size inside the pool wraps. */
enum { MOST_THREADS = 1 << 16 };

static attn_status open_context(attn_context *c, const attn_options *options) {
    attn_options o = {0};
    if (options) ATTN_TRY(attn_struct_read(c, "options", &o, sizeof o, options));
    if (o.executor && (!o.executor->run || o.executor->n_workers == 0))
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "options.executor: run is null or n_workers is 0");
    if (o.n_threads > MOST_THREADS)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "options.n_threads is %zu, more than %d", o.n_threads,
                         MOST_THREADS);
    if (!o.scratch && o.scratch_bytes)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "options.scratch is null, but scratch_bytes is %zu",
                         o.scratch_bytes);
    c->backend = attn_backend_find(o.backend, c->error, sizeof c->error);
    if (!c->backend) return ATTN_ERROR_BACKEND;
    if (o.strict != 0 && o.strict != 1)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "options.strict is %d, neither 0 nor 1", o.strict);
    if (o.strict && c->backend->exact) c->backend = c->backend->exact;
    c->scratch_owned = 1;
    if (o.scratch) take_callers_scratch(c, o.scratch, o.scratch_bytes);
    if (!attn_executor_open(&c->executor, o.executor, o.n_threads))
        return attn_fail(c, ATTN_ERROR_MEMORY, "options.n_threads: the system gives no %zu threads",
                         o.n_threads);
    return open_linear_scratch(c);
}

/* Where the caller wants the text of an error of attn_context_create(), before its options are checked. */
static void report(const attn_options *options, const char *text) {
    if (options && options->size >= offsetof(attn_options, error_bytes) + sizeof options->error_bytes &&
        options->error && options->error_bytes)
        snprintf(options->error, options->error_bytes, "%s", text);
}

attn_status attn_context_create(const attn_options *options, attn_context **context) {
    if (!context) {
        report(options, "context is null");
        return ATTN_ERROR_ARGUMENT;
    }
    *context = NULL;
    attn_context *c = calloc(1, sizeof *c);
    if (!c) {
        report(options, "no memory for a context");
        return ATTN_ERROR_MEMORY;
    }
    const attn_status status = open_context(c, options);
    report(options, c->error);
    if (status == ATTN_OK)
        *context = c;
    else
        free(c);
    return status;
}

void attn_context_destroy(attn_context *c) {
    if (!c) return;
    attn_executor_close(&c->executor);
    if (c->scratch_owned) free(c->scratch);
    free(c->linear_scratch);
    free(c);
}

attn_status attn_scratch_take(attn_context *c, size_t bytes, void **scratch) {
    if (bytes > c->scratch_bytes) {
        if (!c->scratch_owned)
            return attn_fail(c, ATTN_ERROR_SCRATCH,
                             "scratch: %zu bytes are needed, %zu were given (64-byte aligned part)", bytes,
                             c->scratch_bytes);
        const size_t rounded = (bytes + ATTN_ALIGN - 1) / ATTN_ALIGN * ATTN_ALIGN;
        char *grown = rounded >= bytes ? aligned_alloc(ATTN_ALIGN, rounded) : NULL;
        if (!grown) return attn_fail(c, ATTN_ERROR_MEMORY, "scratch: the system gives no %zu bytes", bytes);
        free(c->scratch);
        c->scratch = grown;
        c->scratch_bytes = rounded;
    }
    *scratch = c->scratch;
    return ATTN_OK;
}

attn_status attn_context_reserve(attn_context *c, size_t bytes) {
    void *scratch;
    ATTN_TRY(attn_enter(c));
    return attn_scratch_take(c, bytes, &scratch);
}

const char *attn_context_error(const attn_context *c) { return c ? c->error : "context is null"; }
const char *attn_context_backend(const attn_context *c) { return c ? c->backend->name : ""; }
size_t attn_context_workers(const attn_context *c) { return c ? c->executor.n_workers : 0; }
