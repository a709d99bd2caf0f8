/* Whether the unfused rows compute what the fused ones do: a comparison with something else says nothing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "memory.h"
#include "rows.h"
#include "stage.h"

#define SDPA(HEADS, HEADS_KV, N_Q, N_KV, D, P, CAUSAL)                                              \
    {                                                                                               \
        .kind = ROW_SDPA, .batch = 1, .n_head = (HEADS), .n_head_kv = (HEADS_KV), .n_q = (N_Q),     \
        .n_kv = (N_KV), .d = (D), .p = (P), .causal = ATTN_CAUSAL_##CAUSAL, .warm = (N_Q) < (N_KV), \
    }
#define HEADS(KIND, HEADS, N, D, P)                                                                       \
    {                                                                                                     \
        .kind = ROW_##KIND, .batch = 1, .n_head = (HEADS), .n_head_kv = (HEADS), .n_q = (N), .n_kv = (N), \
        .d = (D), .p = (P)                                                                                \
    }

static const struct row rows[] = {
    SDPA(2, 2, 300, 300, 64, 64, NONE), /* several strips */
    SDPA(4, 2, 205, 205, 20, 100, TOP_LEFT),
    SDPA(4, 2, 200, 77, 40, 8, TOP_LEFT), /* rows that see all keys */
    SDPA(16, 2, 1, 2100, 128, 128, NONE), /* a group in one strip, two chunks of keys */
    SDPA(12, 3, 4, 33, 16, 24, NONE),
    HEADS(HEAD, 1, 130, 48, 20),
    HEADS(MULTIHEAD, 6, 70, 72, 12), /* heads that begin inside a panel */
};

/* Runs the row in memory of its own (the inputs are the same each time); its output. */
static const float *run(const struct row *row, attn_context *context, struct arena *source,
                        struct arena *work, size_t *n) {
    static struct stage stage;
    const char *error = stage_set(&stage, row, context, source, work);

    if (!error && stage_call(&stage) != ATTN_OK) {
        error = attn_context_error(context);
    }
    if (error) {
        fprintf(stderr, "check_unfused: %s\n", error);
        exit(EXIT_FAILURE);
    }
    *n = stage.out.size[1] * stage.out.size[2] * stage.out.size[3];
    return stage.out.data;
}

/* Sums in different orders differ by roundings; outputs are averages of values of variance 1, or (multi-head)
 * sums of many such: a mistake is of the size of the outputs themselves. */
static int check(const char *backend, attn_context *context, struct arena *source, struct arena work[2]) {
    int failed = 0;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct row unfused = rows[i];
        char name[ROW_NAME_BYTES];
        double difference = 0, size = 0;
        size_t n;

        unfused.unfused = true;
        row_name(&unfused, name);
        const float *a = run(&rows[i], context, source, &work[0], &n);
        const float *b = run(&unfused, context, source, &work[1], &n);
        for (size_t j = 0; j < n; j++) {
            difference = fmax(difference, isfinite(b[j]) ? fabs((double)a[j] - (double)b[j]) : INFINITY);
            size = fmax(size, fabs((double)a[j]));
        }
        const int ok = size > 0 && difference < 1e-4 * size;
        printf("%s %s/%s: differs by %.1e of %.3g\n", ok ? "ok  " : "FAIL", name, backend, difference, size);
        failed += !ok;
    }
    return failed;
}

int main(void) {
    enum { ROOM = 32 << 20, MOST = 8 };
    struct arena source, work[2];
    const char *names[MOST];
    int runnable[MOST], failed = 0;
    const size_t n = attn_backend_list(names, runnable, MOST);

    if (!arena_map(&source, ROOM) || !arena_map(&work[0], ROOM) || !arena_map(&work[1], ROOM)) {
        fprintf(stderr, "check_unfused: no memory\n");
        return EXIT_FAILURE;
    }
    arena_fill(&source);
    for (size_t i = 0; i + 1 < n; i++) { /* the last is the scalar one */
        const attn_options options = {.size = sizeof options, .backend = names[i], .n_threads = 1};
        attn_context *context;

        if (!runnable[i]) {
            continue;
        }
        if (attn_context_create(&options, &context) != ATTN_OK) {
            return EXIT_FAILURE;
        }
        failed += check(names[i], context, &source, work);
        attn_context_destroy(context);
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
