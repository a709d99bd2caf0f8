#include "support/harness.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attn/attn.h"
#include "dispatch.h"

static size_t list_backends(const struct attn_backend *list[4], int tiers) {
    const char *names[8];
    int runnable[8];
    char text[256];
    size_t n = 0;
    const size_t built = attn_backend_list(names, runnable, 8);
    for (size_t i = 0; i < built && i < 8 && n < 4; i++) {
        const struct attn_backend *b = runnable[i] ? attn_backend_find(names[i], text, sizeof text) : NULL;
        if (b && !b->exact == !tiers) list[n++] = b;
    }
    return n;
}

size_t harness_backends(const struct attn_backend *list[4]) { return list_backends(list, 0); }
size_t harness_tiers(const struct attn_backend *list[4]) { return list_backends(list, 1); }

int harness_full(void) {
    const char *text = getenv("ATTN_TEST_SCALE");
    return !text || strcmp(text, "0") != 0;
}

int harness_takes(size_t i, size_t every) { return harness_full() || i % every == 0; }

static char case_text[400];

void harness_case(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(case_text, sizeof case_text, format, args);
    va_end(args);
}

const char *harness_case_text(void) { return case_text; }

void verdict_fail(struct verdict *v, const char *format, ...) {
    if (!v->ok) return;
    v->ok = 0;
    va_list args;
    va_start(args, format);
    vsnprintf(v->text, sizeof v->text, format, args);
    va_end(args);
}

/* Async-signal-safe: the text was written before. */
static void on_crash(int number) {
    static const char head[] = "\ncrash in case: ";
    ssize_t written = write(STDERR_FILENO, head, sizeof head - 1);
    written = write(STDERR_FILENO, case_text, strlen(case_text));
    written = write(STDERR_FILENO, "\n", 1);
    (void)written;
    signal(number, SIG_DFL);
    raise(number);
}

static void set_crash_handlers(void (*handler)(int)) {
    signal(SIGSEGV, handler);
    signal(SIGBUS, handler);
    signal(SIGILL, handler);
    signal(SIGFPE, handler);
}

enum child_end harness_child(int (*fn)(void *arg), void *arg) {
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        const struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        set_crash_handlers(SIG_DFL);
        alarm(300); /* a hang must not outlive the test */
        _exit(fn(arg) ? 1 : 0);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return CHILD_UNKNOWN;
    if (WIFEXITED(status)) return WEXITSTATUS(status) == 0 ? CHILD_ZERO : CHILD_NONZERO;
    return WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS) ? CHILD_CRASHED
                                                                                              : CHILD_UNKNOWN;
}

attn_context *harness_context(const char *backend, size_t n_threads) {
    char error[200] = "";
    attn_context *context = NULL;
    const attn_options options = {.size = sizeof options,
                                  .backend = backend,
                                  .n_threads = n_threads,
                                  .error = error,
                                  .error_bytes = sizeof error};
    const attn_status status = attn_context_create(&options, &context);
    ck_assert_msg(status == ATTN_OK, "context on %s: %s", backend, error);
    return context;
}

int harness_main(Suite *suite) {
    set_crash_handlers(on_crash);
    printf("ATTN_TEST_SEED=%llu ATTN_TEST_SCALE=%d\n", (unsigned long long)test_seed(), harness_full());
    fflush(stdout);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
