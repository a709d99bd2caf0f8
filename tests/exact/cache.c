/*
 * The same bits from a cache as from tensors: contiguous and paged with blocks of any size, in rows and panels, a ring,
 * shared arrangements of heads and rows, 1, 2 and 5 threads. Whatever a row must not see is NaN or has no block.
 */
#include <string.h>

#include "exact/exact.h"
#include "support/cache_case.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

static void check_shape(attn_context *context, const struct api_case *c, const struct api_data *d, size_t i,
                        size_t stream, uint64_t want) {
    struct cache_shape shape = cache_shapes[i];
    struct cache_case x;
    struct verdict v = {.ok = 1};
    shape.stream = stream;
    if (!cache_case_make(c, d, &shape, &x)) return;
    struct api_outputs o = api_case_run(context, c, &x.data, &v);
    HARNESS_ASSERT(&v);
    ck_assert_msg(exact_hash(c, &o) == want,
                  "%s: other bits from cache %zu (%s, blocks of %zu rows%s) with %zu threads",
                  harness_case_text(), i, shape.layout == ATTN_KV_PANELS ? "panels" : "rows",
                  shape.block_rows, shape.ring ? ", a ring" : "", attn_context_workers(context));
    ck_assert(guard_intact(&x.k) && guard_intact(&x.v));
    api_outputs_free(&o);
    cache_case_free(&x);
}

static void check(const char *backend, const struct api_case *c, size_t stream) {
    static const size_t threads[] = {1, 2, 5};
    struct verdict v = {.ok = 1};
    struct api_data *d = api_case_make(c);
    attn_context *context = harness_context(backend, 1);
    api_case_announce(backend, c);
    struct api_outputs all = api_case_run(context, c, d, &v);
    HARNESS_ASSERT(&v);
    const uint64_t want = exact_hash(c, &all);
    attn_context_destroy(context);
    context = harness_context(backend, threads[stream % 3]);
    const int slow = strcmp(backend, "scalar") == 0;
    for (size_t i = slow ? stream % 5 : 0; i < (size_t)CACHE_SHAPES; i += slow ? 5 : 1)
        check_shape(context, c, d, i, stream, want);
    attn_context_destroy(context);
    api_outputs_free(&all);
    api_case_free(d);
}

START_TEST(plain) {
    for (size_t i = 0; i < EXACT_CASES; i++)
        for (size_t causal = 0; causal < 3; causal++) {
            struct api_case c = exact_case(i, API_SDPA);
            c.causal = (attn_causal)causal;
            if (harness_takes(i + causal, 11)) check(backends[_i]->name, &c, i + causal);
        }
}
END_TEST

START_TEST(features) {
    for (size_t i = 0; i < EXACT_FEATURES; i++) {
        struct api_case c = exact_features(i, API_SDPA);
        if (harness_takes(i, 7)) check(backends[_i]->name, &c, i);
    }
}
END_TEST

/* Windows, which a ring can serve; few rows and many, several heads at once, values of many columns. */
START_TEST(windows) {
    static const size_t rows[] = {1, 2, 4, 7, 9, 16, 33, 70}, keys[] = {40, 333, 2100, 5000};
    static const size_t heads[][2] = {{1, 1}, {4, 1}, {8, 8}, {6, 2}},
                        widths[][2] = {{8, 8}, {64, 64}, {33, 80}, {128, 7}};
    for (size_t i = 0; i < 24; i++) {
        const struct api_case c = {.call = API_SDPA,
                                   .batch = 1 + i % 2,
                                   .n_head = heads[i % 4][0],
                                   .n_head_kv = heads[i % 4][1],
                                   .n_q = rows[i % 8],
                                   .n_kv = keys[(i + i / 8) % 4],
                                   .p_q = widths[i / 2 % 4][0],
                                   .p_k = widths[i / 2 % 4][0],
                                   .p_v = widths[i / 2 % 4][1],
                                   .causal = i % 3 ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE,
                                   .window = i % 3 ? API_WINDOW_LEFT : API_WINDOW_NONE,
                                   .weights = i % 7 == 3,
                                   .scores = i % 5 == 3,
                                   .lse = 1,
                                   .n_workers = 1,
                                   .stream = 770000 + i};
        if (harness_takes(i, 11)) check(backends[_i]->name, &c, i);
    }
}
END_TEST

/* So many keys and heads that few rows take several heads at once, whose rows small blocks have one after the other. */
START_TEST(heads_together) {
    static const size_t rows[] = {1, 3, 6, 12}, groups[] = {1, 2};
    for (size_t i = 0; i < 6; i++) {
        const struct api_case c = {.call = API_SDPA,
                                   .batch = 2,
                                   .n_head = 32 * groups[i % 2],
                                   .n_head_kv = 32,
                                   .n_q = rows[i % 4],
                                   .n_kv = 8200 + 17 * i,
                                   .p_q = 32,
                                   .p_k = 32,
                                   .p_v = i % 3 ? 32 : 40,
                                   .causal = i % 2 ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE,
                                   .window = i % 3 == 1 ? API_WINDOW_LEFT : API_WINDOW_NONE,
                                   .lse = 1,
                                   .n_workers = 1,
                                   .stream = 780000 + i};
        if (strcmp(backends[_i]->name, "scalar") != 0 && harness_takes(i, 3))
            check(backends[_i]->name, &c, i);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("exact: caches");
    TCase *cases = tcase_create("caches");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, plain, 0, n);
    tcase_add_loop_test(cases, features, 0, n);
    tcase_add_loop_test(cases, windows, 0, n);
    tcase_add_loop_test(cases, heads_together, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
