/*
 * The library against torch in float64: every case of the files that make.py wrote, on every backend of this
 * machine and with one and two threads, within the bounds of tools/bound.h. The files: the argument or
 * ATTN_TORCH_VECTORS, one file or a folder of *.bin.
 */
#include <check.h>
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "file.h"

enum { BACKENDS_MAX = 8, THREADS_MAX = 2 };

static const char *vectors = "vectors";
static const char *backends[BACKENDS_MAX];

/* Of all results of a backend. */
struct tally {
    size_t n_cases, n_numbers;
    double share;   /* the largest distance as a share of its bound, */
    char worst[80]; /* and whose it is */
};

static void compare(attn_context *context, const struct vector_case *c, const struct case_output *o,
                    struct tally *t) {
    for (size_t i = 0; i < o->n; i++) {
        const double got = (double)o->got[i], want = o->want[i], torch = 1e-13 * (1 + fabs(want));
        const double err = o->err[i] + (isinf(want) ? 0 : torch), away = fabs(got - want);
        ck_assert_msg(attn_bound_holds(o->oracle[i], want, isinf(want) ? 0 : torch),
                      "%s %s, %s[%zu]: the oracle of bound.c says %.17g, torch %.17g", c->kind, c->name,
                      o->name, i, o->oracle[i], want);
        ck_assert_msg(attn_bound_holds(got, want, err),
                      "%s, %zu threads: %s %s, %s[%zu]: got %.9g, torch %.17g: %.3g away, allowed %.3g",
                      attn_context_backend(context), attn_context_workers(context), c->kind, c->name, o->name,
                      i, got, want, away, err);
        if (away > 0 && away / err > t->share) {
            t->share = away / err;
            snprintf(t->worst, sizeof t->worst, "%s %s, %s", c->kind, c->name, o->name);
        }
    }
    t->n_numbers += o->n;
}

static void run_case(attn_context *context, const struct vector_case *c, struct tally *t) {
    if (strcmp(c->kind, "sdpa") == 0) {
        struct sdpa_run run = sdpa_execute(context, c);
        for (size_t i = 0; i < run.n_outputs; i++) compare(context, c, &run.output[i], t);
        sdpa_free(&run);
    } else {
        struct case_run run = case_execute(context, c);
        for (size_t i = 0; i < run.n_outputs; i++) compare(context, c, &run.output[i], t);
        case_free(&run);
    }
    t->n_cases++;
}

static attn_context *context_of(const char *backend, size_t n_threads) {
    char text[200] = "";
    attn_context *context = NULL;
    const attn_options options = {.size = sizeof options,
                                  .backend = backend,
                                  .n_threads = n_threads,
                                  .error = text,
                                  .error_bytes = sizeof text};
    ck_assert_msg(attn_context_create(&options, &context) == ATTN_OK, "%s: %s", backend, text);
    return context;
}

static void run_file(const char *path, const char *backend, struct tally *t) {
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "cannot open %s: make.py writes it", path);
    attn_context *contexts[THREADS_MAX];
    for (size_t i = 0; i < THREADS_MAX; i++) contexts[i] = context_of(backend, i + 1);
    struct vector_case c;
    while (torch_next(file, &c)) {
        for (size_t i = 0; i < THREADS_MAX; i++) run_case(contexts[i], &c, t);
        vectors_free(&c);
    }
    for (size_t i = 0; i < THREADS_MAX; i++) attn_context_destroy(contexts[i]);
    fclose(file);
}

static int is_vectors(const struct dirent *entry) {
    const char *end = strrchr(entry->d_name, '.');
    return end && strcmp(end, ".bin") == 0;
}

START_TEST(torch_on_a_backend) {
    struct tally t = {.n_cases = 0};
    struct dirent **entries = NULL;
    const char *backend = backends[_i];
    const int n = scandir(vectors, &entries, is_vectors, alphasort);
    if (n < 0) run_file(vectors, backend, &t);
    for (int i = 0; i < n; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", vectors, entries[i]->d_name);
        run_file(path, backend, &t);
        free(entries[i]);
    }
    free(entries);
    ck_assert_msg(t.n_cases > 0, "no cases in %s: make.py writes them", vectors);
    printf("%-8s against torch: %zu runs, %zu numbers; at most %.2f of the bound (%s)\n", backend, t.n_cases,
           t.n_numbers, t.share, t.worst);
    fflush(stdout);
}
END_TEST

int main(int argc, char **argv) {
    const char *names[BACKENDS_MAX];
    int runnable[BACKENDS_MAX], n = 0;
    const size_t built = attn_backend_list(names, runnable, BACKENDS_MAX);
    for (size_t i = 0; i < built; i++)
        if (runnable[i]) backends[n++] = names[i];
    if (getenv("ATTN_TORCH_VECTORS")) vectors = getenv("ATTN_TORCH_VECTORS");
    if (argc > 1) vectors = argv[1];
    Suite *suite = suite_create("torch");
    TCase *cases = tcase_create("vectors");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, torch_on_a_backend, 0, n);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
