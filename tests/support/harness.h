/* What all test programs share: backends under test, verdicts with a text, announcing a case before it
 * runs (a crash names it), child processes, the scale of the tables, main(). */
#ifndef TEST_HARNESS_H
#define TEST_HARNESS_H

#include <check.h>
#include <stddef.h>

#include "attn/attn.h"
#include "backend.h"
#include "support/rng.h"

/* The backends that this CPU can run, without instruction tiers, which share their kernels; scalar is the last. */
size_t harness_backends(const struct attn_backend *list[4]);
/* The tiers alone. */
size_t harness_tiers(const struct attn_backend *list[4]);

/* Environment variable ATTN_TEST_SCALE: 1 (all cases; the default) or 0 (thinned, for emulators). */
int harness_full(void);

/* At scale 0 whether case number i belongs to the thinned table: one in `every`. */
int harness_takes(size_t i, size_t every);

/* First failure of a check; ok stays 1 as long as there was none. */
struct verdict {
    int ok;
    char text[400];
};

void verdict_fail(struct verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Describes the case that runs now; printed where the process crashes, prefixed to failures. */
void harness_case(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *harness_case_text(void);

/* Fails the Check test with the case and the verdict's text. */
#define HARNESS_ASSERT(verdict)                                                                             \
    ck_assert_msg((verdict)->ok, "seed %llu, %s: %s", (unsigned long long)test_seed(), harness_case_text(), \
                  (verdict)->text)

/* How fn(arg) ended in a child process. */
enum child_end { CHILD_ZERO, CHILD_NONZERO, CHILD_CRASHED, CHILD_UNKNOWN };
enum child_end harness_child(int (*fn)(void *arg), void *arg);

/* A context on one backend; fails the test where it cannot be made. */
attn_context *harness_context(const char *backend, size_t n_threads);

/* Runs the suite: crash reports on, seed printed, CK_FORK respected. */
int harness_main(Suite *suite);

#endif
