/* The norm slot of every backend against double, at the bound of docs/numerics.md, section 9. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/guard.h"
#include "support/harness.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

static void check_row(const float *x, const float *y, const float *weight, size_t n, double epsilon,
                      int scalar) {
    const double u = 0x1p-24, chain = (double)((n + 15) / 16);
    double sum = 0.0;
    for (size_t j = 0; j < n; j++) sum += (double)x[j] * (double)x[j];
    const double root = sqrt(sum / (double)n + epsilon), relative = scalar ? 1.0 : chain / 2 + 7;
    for (size_t j = 0; j < n; j++) {
        const double want = (double)x[j] / root * (double)weight[j];
        const double bound = relative * 1.001 * u * fabs(want) + (1.0 + fabs((double)weight[j])) * 0x1p-149;
        ck_assert_msg(fabs((double)y[j] - want) <= bound, "%s: column %zu is %.9g, not %.9g (+- %.3g)",
                      harness_case_text(), j, (double)y[j], want, bound);
    }
}

static void check(const struct attn_backend *backend, size_t i) {
    static const size_t widths[] = {1, 3, 8, 15, 16, 17, 31, 64, 72, 128, 255, 256, 1024};
    struct rng r = rng_make(test_seed(), 8800 + i);
    const size_t n = widths[i % 13], heads = 1 + rng_below(&r, 4), rows = 1 + rng_below(&r, 5);
    const size_t gap = i % 3 ? rng_below(&r, 5) : 0, row = heads * (n + gap), all = rows * row - gap;
    const enum fill fill = i % 4 == 1 ? FILL_LARGE : i % 4 == 2 ? FILL_WIDE : FILL_NORMAL;
    struct guard x = guard_alloc(all * sizeof(float), (unsigned)(i % 2)),
                 weight = guard_alloc(n * sizeof(float), (unsigned)(i % 2));
    float *before = malloc(all * sizeof *before), *data = (float *)(void *)x.data,
          *w = (float *)(void *)weight.data;
    ck_assert_ptr_nonnull(before);
    harness_case("%s norm %zu: %zu x %zu rows of %zu", backend->name, i, rows, heads, n);
    for (size_t k = 0; k < rows * heads; k++) rng_floats(&r, fill, data + k * (n + gap), n);
    if (i % 5 == 4) memset(data, 0, n * sizeof *data); /* 0 stays 0 */
    rng_floats(&r, FILL_NORMAL, w, n);
    guard_seal(&weight);
    memcpy(before, data, all * sizeof *before);
    const struct attn_norm_task task = {.n_rows = rows,
                                        .n_head = heads,
                                        .columns = n,
                                        .x = data,
                                        .x_row = (ptrdiff_t)row,
                                        .x_head = (ptrdiff_t)(n + gap),
                                        .weight = w,
                                        .epsilon = i % 2 ? 1e-6f : 0.25f};
    backend->norm(&task);
    for (size_t k = 0; k < rows * heads; k++) {
        const size_t at = k * (n + gap);
        check_row(before + at, data + at, w, n, (double)task.epsilon, strcmp(backend->name, "scalar") == 0);
        if (k + 1 < rows * heads)
            ck_assert_msg(memcmp(data + at + n, before + at + n, gap * sizeof *data) == 0,
                          "%s: writes between rows", harness_case_text());
    }
    ck_assert(guard_intact(&x));
    guard_unseal(&weight);
    guard_free(&x);
    guard_free(&weight);
    free(before);
}

START_TEST(norms) {
    for (size_t i = 0; i < 260; i++)
        if (harness_takes(i, 7)) check(backends[_i], i);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: norm slot");
    TCase *cases = tcase_create("norm");
    tcase_add_loop_test(cases, norms, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
