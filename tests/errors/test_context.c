/* Contexts, backends, status names: what a caller can get wrong before any tensor is involved. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "suite.h"

static void run_in_turn(void *pool, size_t n_tasks, attn_task *task, void *arg) {
    (void)pool;
    for (size_t i = 0; i < n_tasks; i++) task(arg, i, 0);
}

/* attn_context_create() fails with that status and a text that holds `named`. */
static void must_not_open(attn_options options, attn_status want, const char *named) {
    char text[256] = "";
    attn_context *context = (attn_context *)(void *)text; /* must become NULL */
    if (options.size >= sizeof options) {
        options.error = text;
        options.error_bytes = sizeof text;
    }
    attn_status got = attn_context_create(&options, &context);
    ck_assert_msg(got == want, "status %s, not %s (\"%s\")", attn_status_name(got), attn_status_name(want),
                  text);
    ck_assert_ptr_null(context);
    ck_assert_msg(strstr(text, named), "\"%s\" does not hold \"%s\"", text, named);
}

/* "avx512, avx2, scalar": the runnable ones as a message lists them; each must be in the text. */
static void must_list_backends(const char *backend) {
    const char *names[8];
    int runnable[8];
    size_t n = attn_backend_list(names, runnable, 8);
    attn_options options = {.size = sizeof options, .n_threads = 1, .backend = backend};
    for (size_t i = 0; i < n; i++)
        if (runnable[i]) must_not_open(options, ATTN_ERROR_BACKEND, names[i]);
}

START_TEST(unknown_backend) {
    attn_options options = {.size = sizeof options, .n_threads = 1, .backend = "sse9"};
    must_not_open(options, ATTN_ERROR_BACKEND, "sse9");
    must_list_backends("sse9");
    must_list_backends("");
    must_list_backends("SCALAR"); /* names are exact */
    char *name = calloc(1, 100001);
    ck_assert_ptr_nonnull(name);
    memset(name, 'x', 100000);
    must_list_backends(name); /* the list fits whatever the name's length */
    free(name);
}
END_TEST

START_TEST(unrunnable_backend) {
    const char *names[8];
    int runnable[8];
    size_t n = attn_backend_list(names, runnable, 8);
    for (size_t i = 0; i < n; i++) {
        attn_options options = {.size = sizeof options, .n_threads = 1, .backend = names[i]};
        attn_context *context;
        if (!runnable[i]) {
            must_list_backends(names[i]);
            must_not_open(options, ATTN_ERROR_BACKEND, names[i]);
            continue;
        }
        ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
        ck_assert_str_eq(attn_context_backend(context), names[i]);
        attn_context_destroy(context);
    }
}
END_TEST

START_TEST(backend_from_environment) {
    attn_options options = {.size = sizeof options, .n_threads = 1};
    attn_context *context;
    setenv("ATTN_BACKEND", "nonsense", 1);
    must_not_open(options, ATTN_ERROR_BACKEND, "ATTN_BACKEND");
    must_not_open(options, ATTN_ERROR_BACKEND, "nonsense");
    must_list_backends(NULL);
    ck_assert_int_eq(attn_context_create(NULL, &context), ATTN_ERROR_BACKEND);
    ck_assert_ptr_null(context);
    options.backend = "scalar"; /* the option is stronger */
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    ck_assert_str_eq(attn_context_backend(context), "scalar");
    attn_context_destroy(context);
    options.backend = NULL;
    setenv("ATTN_BACKEND", "scalar", 1);
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    ck_assert_str_eq(attn_context_backend(context), "scalar");
    attn_context_destroy(context);
    unsetenv("ATTN_BACKEND");
    const char *names[8];
    int runnable[8];
    size_t n = attn_backend_list(names, runnable, 8), best = 0;
    ck_assert_uint_le(n, 8);
    while (!runnable[best]) best++;
    ck_assert_int_eq(attn_context_create(NULL, &context), ATTN_OK);
    ck_assert_str_eq(attn_context_backend(context), names[best]);
    attn_context_destroy(context);
}
END_TEST

START_TEST(options_size) {
    attn_options options = {.size = 0, .n_threads = 1};
    attn_context *context;
    must_not_open(options, ATTN_ERROR_ARGUMENT, "");
    options.size = 1;
    must_not_open(options, ATTN_ERROR_ARGUMENT, "");
    /* an earlier version that had only a backend: the rest is not read */
    memset(&options, 0xff, sizeof options);
    options.size = offsetof(attn_options, n_threads);
    options.backend = "scalar";
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    attn_context_destroy(context);
    /* a later version: what it adds must be zero */
    struct {
        attn_options known;
        char later[16];
    } grown;
    memset(&grown, 0, sizeof grown);
    grown.known.size = sizeof grown;
    grown.known.n_threads = 1;
    ck_assert_int_eq(attn_context_create(&grown.known, &context), ATTN_OK);
    attn_context_destroy(context);
    char text[200] = "";
    grown.known.error = text;
    grown.known.error_bytes = sizeof text;
    grown.later[15] = 1;
    ck_assert_int_eq(attn_context_create(&grown.known, &context), ATTN_ERROR_ARGUMENT);
    ck_assert_ptr_null(context);
    ck_assert_ptr_nonnull(strstr(text, "options"));
}
END_TEST

START_TEST(options_members) {
    static float memory[64];
    attn_executor no_run = {.run = NULL, .n_workers = 1}, no_workers = {.run = run_in_turn, .n_workers = 0};
    attn_options options = {.size = sizeof options, .executor = &no_run};
    must_not_open(options, ATTN_ERROR_ARGUMENT, "options.executor");
    options.executor = &no_workers;
    must_not_open(options, ATTN_ERROR_ARGUMENT, "options.executor");
    options = (attn_options){.size = sizeof options, .n_threads = 1, .scratch_bytes = 64};
    must_not_open(options, ATTN_ERROR_ARGUMENT, "options.scratch");
    ck_assert_int_eq(attn_context_create(NULL, NULL), ATTN_ERROR_ARGUMENT);
    char text[64] = "";
    options = (attn_options){.size = sizeof options, .error = text, .error_bytes = sizeof text};
    ck_assert_int_eq(attn_context_create(&options, NULL), ATTN_ERROR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(text, "context"));
    options = (attn_options){.size = sizeof options, .n_threads = 1, .scratch = memory, .scratch_bytes = 3};
    attn_context *context; /* less than the alignment takes */
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    attn_context_destroy(context);
}
END_TEST

START_TEST(error_text_is_bounded) {
    for (size_t room = 0; room < 40; room++) {
        char text[64];
        attn_context *context;
        memset(text, '#', sizeof text);
        attn_options options = {
            .size = sizeof options, .backend = "sse9", .error = text, .error_bytes = room};
        ck_assert_int_eq(attn_context_create(&options, &context), ATTN_ERROR_BACKEND);
        if (room > 0) ck_assert_uint_eq(strlen(text), room - 1);
        for (size_t i = room; i < sizeof text; i++) ck_assert_int_eq(text[i], '#');
    }
}
END_TEST

/* More threads than any machine has: an error, not a crash and not a wrapped size. */
START_TEST(absurd_threads) {
    attn_options options = {.size = sizeof options, .n_threads = SIZE_MAX};
    attn_context *context;
    const size_t counts[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 64 + 2};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        options.n_threads = counts[i];
        attn_status status = attn_context_create(&options, &context);
        ck_assert_msg(status == ATTN_ERROR_ARGUMENT || status == ATTN_ERROR_MEMORY, "%zu threads: %s",
                      counts[i], attn_status_name(status));
        ck_assert_ptr_null(context);
    }
}
END_TEST

START_TEST(reserve) {
    static float memory[256];
    attn_context *context = default_context();
    ck_assert_int_eq(attn_context_reserve(NULL, 1), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_context_reserve(context, 0), ATTN_OK);
    ck_assert_int_eq(attn_context_reserve(context, 100000), ATTN_OK);
    ck_assert_int_eq(attn_context_reserve(context, 1), ATTN_OK);
    const size_t absurd[] = {SIZE_MAX, SIZE_MAX - 64, PTRDIFF_MAX};
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
        ck_assert_int_eq(attn_context_reserve(context, absurd[i]), ATTN_ERROR_MEMORY);
        ck_assert_ptr_nonnull(strstr(attn_context_error(context), "scratch"));
    }
    ck_assert_int_eq(attn_context_reserve(context, 1), ATTN_OK);
    ck_assert_str_eq(attn_context_error(context), "");
    attn_context_destroy(context);

    attn_options options = {
        .size = sizeof options, .n_threads = 1, .scratch = memory, .scratch_bytes = sizeof memory};
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    ck_assert_int_eq(attn_context_reserve(context, sizeof memory - 64), ATTN_OK);
    ck_assert_int_eq(attn_context_reserve(context, sizeof memory + 1), ATTN_ERROR_SCRATCH);
    ck_assert_ptr_nonnull(strstr(attn_context_error(context), "scratch"));
    attn_context_destroy(context);
}
END_TEST

START_TEST(null_context) {
    attn_context_destroy(NULL);
    ck_assert_ptr_nonnull(attn_context_error(NULL));
    ck_assert_ptr_nonnull(attn_context_backend(NULL));
    ck_assert_uint_eq(attn_context_workers(NULL), 0);
}
END_TEST

START_TEST(workers) {
    attn_executor executor = {.run = run_in_turn, .n_workers = 3};
    attn_options options = {.size = sizeof options, .executor = &executor};
    attn_context *context;
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    ck_assert_uint_eq(attn_context_workers(context), 3);
    attn_context_destroy(context);
    options = (attn_options){.size = sizeof options, .n_threads = 2};
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    ck_assert_uint_eq(attn_context_workers(context), 2);
    attn_context_destroy(context);
    options.n_threads = 0;
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    ck_assert_uint_ge(attn_context_workers(context), 1);
    attn_context_destroy(context);
}
END_TEST

START_TEST(status_names) {
    for (int i = ATTN_OK; i <= ATTN_ERROR_CAPACITY; i++) {
        ck_assert_str_ne(attn_status_name((attn_status)i), "unknown");
        for (int j = ATTN_OK; j < i; j++)
            ck_assert_str_ne(attn_status_name((attn_status)i), attn_status_name((attn_status)j));
    }
    ck_assert_str_eq(attn_status_name(ATTN_OK), "ok");
    ck_assert_str_eq(attn_status_name(ATTN_ERROR_SHAPE), "shape");
    ck_assert_str_eq(attn_status_name((attn_status)(ATTN_ERROR_CAPACITY + 1)), "unknown");
    ck_assert_str_eq(attn_status_name((attn_status)-1), "unknown");
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", ATTN_VERSION_MAJOR, ATTN_VERSION_MINOR, ATTN_VERSION_PATCH);
    ck_assert_str_eq(attn_version(), version);
}
END_TEST

START_TEST(lists) {
    const char *names[8] = {NULL};
    int runnable[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    size_t n = attn_backend_list(NULL, NULL, 0);
    ck_assert(n >= 1 && n <= 8);
    ck_assert_uint_eq(attn_backend_list(NULL, NULL, 8), n);
    ck_assert_uint_eq(attn_backend_list(names, NULL, 1), n);
    ck_assert_ptr_nonnull(names[0]);
    ck_assert_ptr_null(names[1]);
    ck_assert_uint_eq(attn_backend_list(names, runnable, 8), n);
    ck_assert_str_eq(names[n - 1], "scalar");
    ck_assert_int_eq(runnable[n - 1], 1);
    for (size_t i = 0; i < 8; i++)
        ck_assert(i < n ? runnable[i] == 0 || runnable[i] == 1 : runnable[i] == -1);

    char text[300], few[4] = "###";
    size_t length = attn_cpu_features(text, sizeof text);
    ck_assert_uint_eq(length, strlen(text));
    ck_assert_uint_eq(attn_cpu_features(NULL, 0), length);
    ck_assert_uint_eq(attn_cpu_features(few, 2), length);
    ck_assert(few[length > 0 ? 1 : 0] == 0 && few[2] == '#');
}
END_TEST

void add_context_tests(Suite *suite) {
    TCase *t = tcase_create("contexts");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, unknown_backend);
    tcase_add_test(t, unrunnable_backend);
    tcase_add_test(t, backend_from_environment);
    tcase_add_test(t, options_size);
    tcase_add_test(t, options_members);
    tcase_add_test(t, error_text_is_bounded);
    tcase_add_test(t, absurd_threads);
    tcase_add_test(t, reserve);
    tcase_add_test(t, null_context);
    tcase_add_test(t, workers);
    tcase_add_test(t, status_names);
    tcase_add_test(t, lists);
    suite_add_tcase(suite, t);
}
