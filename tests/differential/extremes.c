/* Soft caps and sinks at the ends of what a float can say: the textbook's answers are ordinary numbers there. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "differential/edge.h"

static const struct attn_backend *backends[4];

/* Soft caps next to nothing make all keys equal; next to infinity they change nothing that can be seen. */
START_TEST(extreme_caps) {
    static const float small[] = {0x1p-149f, FLT_MIN, 1e-30f}, large[] = {1e10f, 1e30f, 3e38f, FLT_MAX};
    for (size_t i = 0; i < 3; i++) {
        struct edge e = edge_open(backends[_i], 1, 5, 50);
        e.d->scoring.soft_cap = small[i];
        for (size_t h = 0; h < HEADS; h++) memset(grid_f32(&e.d->q, 0, h, 4), 0, P * sizeof(float));
        edge_run(&e);
        for (size_t row = 0; row < 5; row++) expect_mean(&e, row, 0, 50);
        edge_close(&e);
    }
    struct edge none = edge_open(backends[_i], 1, 5, 50);
    edge_run(&none);
    for (size_t i = 0; i < 4; i++) {
        struct edge e = edge_open(backends[_i], 1, 5, 50);
        e.d->scoring.soft_cap = large[i];
        edge_run(&e);
        for (size_t h = 0; h < HEADS; h++)
            for (size_t row = 0; row < 5; row++)
                for (size_t c = 0; c < P_V; c++) {
                    const double a = (double)grid_f32(&e.o.out, 0, h, row)[c],
                                 b = (double)grid_f32(&none.o.out, 0, h, row)[c];
                    ck_assert_msg(fabs(a - b) < 1e-4, "soft_cap %g: %g, without %g", (double)large[i], a, b);
                }
        edge_close(&e);
    }
    edge_close(&none);
}
END_TEST

/* With a cap no product is too large: a score of +-inf becomes the cap, in the row as in the textbook. */
START_TEST(cap_of_infinite_scores) {
    struct edge e = edge_open(backends[_i], 1, 3, 20);
    e.d->scoring.soft_cap = 4;
    for (size_t h = 0; h < HEADS; h++)
        for (size_t i = 0; i < 3; i++)
            for (size_t c = 0; c < P; c++) grid_f32(&e.d->q, 0, h, i)[c] = 1e20f;
    for (size_t h = 0; h < HEADS_KV; h++)
        for (size_t j = 0; j < 20; j++)
            for (size_t c = 0; c < P; c++) grid_f32(&e.d->k, 0, h, j)[c] = j % 2 ? 1e20f : -1e20f;
    edge_run(&e);
    for (size_t h = 0; h < HEADS; h++)
        for (size_t i = 0; i < 3; i++)
            for (size_t j = 0; j < 20; j++) {
                const double want = (j % 2 ? exp(4) : exp(-4)) / 10 / (exp(4) + exp(-4));
                ck_assert(fabs((double)grid_f32(&e.o.weights, 0, h, i)[j] - want) < 1e-5 * want + 1e-9);
            }
    edge_close(&e);
}
END_TEST

/* Sinks so large that nothing is left, and so small that they are not there. */
START_TEST(extreme_sinks) {
    static const float sinks[HEADS] = {FLT_MAX, 1e30f, -1e30f, -FLT_MAX};
    struct edge e = edge_open(backends[_i], 1, 3, 20), none = edge_open(backends[_i], 1, 3, 20);
    e.d->scoring.sinks = sinks;
    edge_run(&e);
    edge_run(&none);
    for (size_t i = 0; i < 3; i++) {
        for (size_t h = 0; h < 2; h++) {
            for (size_t c = 0; c < P_V; c++)
                ck_assert_msg(grid_f32(&e.o.out, 0, h, i)[c] == 0, "sink %g: out %g", (double)sinks[h],
                              (double)grid_f32(&e.o.out, 0, h, i)[c]);
            const double got = (double)*grid_f32(&e.o.lse_sinks, 0, h, i);
            ck_assert_msg(h == 0 ? got > 2e38 : fabs(got / (double)sinks[h] - 1) < 1e-6,
                          "sink %g: lse_sinks %g", (double)sinks[h], got);
        }
        for (size_t h = 2; h < HEADS; h++) {
            ck_assert_msg(*grid_f32(&e.o.lse_sinks, 0, h, i) == *grid_f32(&none.o.lse, 0, h, i),
                          "sink %g: %a, without %a", (double)sinks[h],
                          (double)*grid_f32(&e.o.lse_sinks, 0, h, i),
                          (double)*grid_f32(&none.o.lse, 0, h, i));
            for (size_t c = 0; c < P_V; c++)
                ck_assert(fabsf(grid_f32(&e.o.out, 0, h, i)[c] - grid_f32(&none.o.out, 0, h, i)[c]) < 1e-6f);
        }
        for (size_t h = 0; h < HEADS; h++) /* the other log-sum-exp knows nothing of them */
            ck_assert(*grid_f32(&e.o.lse, 0, h, i) == *grid_f32(&none.o.lse, 0, h, i));
    }
    edge_close(&e);
    edge_close(&none);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: extreme caps and sinks");
    TCase *cases = tcase_create("extremes");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, extreme_caps, 0, n);
    tcase_add_loop_test(cases, cap_of_infinite_scores, 0, n);
    tcase_add_loop_test(cases, extreme_sinks, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
