/*
 * The same bits from a cache of any pair of types as from f32 tensors with what its rows dequantise to: every arrangement of
 * cache_case.h, few rows and many, groups of heads, windows, everything that attn_scoring says; 1, 2 and 5 threads. Whatever
 * a row must not see is NaN or has no block.
 */
#include <string.h>

#include "exact/exact.h"
#include "support/cache_case.h"
#include "support/shapes.h"

enum { N_TYPES = 5, N_PAIRS = N_TYPES * N_TYPES };

static const attn_dtype types[N_TYPES] = {ATTN_F32, ATTN_F16, ATTN_BF16, ATTN_Q8_0, ATTN_Q4_0};
static const struct attn_backend *backends[4];

static void check_shape(attn_context *context, const struct api_case *c, const struct api_data *d,
                        const struct cache_rounded *rounded, size_t i, uint64_t want) {
    struct cache_shape shape = cache_shapes[i];
    struct cache_case x;
    struct verdict v = {.ok = 1};
    size_t block;
    shape.stream = c->stream;
    shape.rounded = rounded;
    attn_dtype_size(rounded->k_type, &block);
    if (shape.layout == ATTN_KV_PANELS && block > 1) return;
    if (!cache_case_make(c, d, &shape, &x)) return;
    struct api_outputs o = api_case_run(context, c, &x.data, &v);
    ck_assert_msg(v.ok && exact_hash(c, &o) == want,
                  "%s: other bits from cache %zu (%s, blocks of %zu rows%s, %s and %s) with %zu threads %s",
                  harness_case_text(), i, shape.layout == ATTN_KV_PANELS ? "panels" : "rows",
                  shape.block_rows, shape.ring ? ", a ring" : "", attn_dtype_name(rounded->k_type),
                  attn_dtype_name(rounded->v_type), attn_context_workers(context), v.text);
    ck_assert(guard_intact(&x.k) && guard_intact(&x.v));
    api_outputs_free(&o);
    cache_case_free(&x);
}

/* One pair of types with some arrangements: every one of them with several pairs. */
static void check_pair(const char *backend, const struct api_case *c, size_t pair, size_t every) {
    static const size_t threads[] = {1, 2, 5};
    struct verdict v = {.ok = 1};
    struct api_data *d = api_case_make(c);
    struct cache_rounded rounded;
    if (!cache_case_round(c, d, types[pair % N_TYPES], types[pair / N_TYPES], &rounded)) {
        api_case_free(d);
        return;
    }
    attn_context *context = harness_context(backend, 1);
    api_case_announce(backend, c);
    struct api_outputs all = api_case_run(context, c, d, &v);
    HARNESS_ASSERT(&v);
    const uint64_t want = exact_hash(c, &all);
    attn_context_destroy(context);
    context = harness_context(backend, threads[c->stream % 3]);
    for (size_t i = (pair + (size_t)c->stream) % every; i < (size_t)CACHE_SHAPES; i += every)
        check_shape(context, c, d, &rounded, i, want);
    attn_context_destroy(context);
    api_outputs_free(&all);
    cache_rounded_free(&rounded);
    api_case_free(d);
}

static size_t every_of(const char *backend) {
    return strcmp(backend, "scalar") == 0 ? 13 : harness_full() ? 5 : 7;
}

/* Pairs of f32, f16 and bf16 with any number of columns; others where they are whole blocks. */
START_TEST(features) {
    const char *backend = backends[_i]->name;
    for (size_t i = 0; i < EXACT_FEATURES; i++)
        for (size_t j = 0; j < N_PAIRS; j += 5) {
            const size_t pair = (i + j) % N_PAIRS;
            struct api_case c = exact_features(i, API_SDPA);
            size_t k_block, v_block;
            attn_dtype_size(types[pair % N_TYPES], &k_block);
            attn_dtype_size(types[pair / N_TYPES], &v_block);
            if (k_block > 1) c.p_q = c.p_k = (c.p_k + k_block - 1) / k_block * k_block;
            if (v_block > 1) c.p_v = (c.p_v + v_block - 1) / v_block * v_block;
            if (harness_takes(i + j / 5, 11)) check_pair(backend, &c, pair, every_of(backend));
        }
}
END_TEST

/* One row to many, each pair of types with each number of them; long enough for several chunks. */
START_TEST(rows) {
    static const size_t n_q[] = {1, 2, 4, 7, 9, 16, 33, 70}, n_kv[] = {40, 333, 2100, 4200};
    static const size_t heads[][2] = {{1, 1}, {4, 1}, {8, 8}, {6, 2}},
                        widths[][2] = {{32, 32}, {64, 64}, {96, 32}, {128, 160}, {33, 80}, {128, 7}};
    const char *backend = backends[_i]->name;
    for (size_t i = 0; i < 4 * N_PAIRS; i++) {
        const size_t pair = i % N_PAIRS, width = (i + i / 6) % 6;
        const struct api_case c = {.call = API_SDPA,
                                   .batch = 1 + i % 2,
                                   .n_head = heads[i / 3 % 4][0],
                                   .n_head_kv = heads[i / 3 % 4][1],
                                   .n_q = n_q[(i + i / N_PAIRS) % 8],
                                   .n_kv = n_kv[(i + i / 8) % 4],
                                   .p_q = widths[width][0],
                                   .p_k = widths[width][0],
                                   .p_v = widths[width][1],
                                   .causal = i % 3 ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE,
                                   .window = i % 3 ? API_WINDOW_LEFT : API_WINDOW_NONE,
                                   .weights = i % 7 == 3,
                                   .scores = i % 5 == 3,
                                   .lse = 1,
                                   .n_workers = 1,
                                   .stream = 790000 + i};
        if (harness_takes(i, 11)) check_pair(backend, &c, pair, every_of(backend));
    }
}
END_TEST

/* So many keys and heads that few rows take several heads at once. */
START_TEST(heads_together) {
    static const size_t n_q[] = {1, 3, 6, 12};
    for (size_t i = 0; i < 5; i++) {
        const struct api_case c = {.call = API_SDPA,
                                   .batch = 2,
                                   .n_head = 32 * (1 + i % 2),
                                   .n_head_kv = 32,
                                   .n_q = n_q[i % 4],
                                   .n_kv = 8200 + 17 * i,
                                   .p_q = 32,
                                   .p_k = 32,
                                   .p_v = 32,
                                   .causal = ATTN_CAUSAL_BOTTOM_RIGHT,
                                   .lse = 1,
                                   .n_workers = 1,
                                   .stream = 795000 + i};
        if (strcmp(backends[_i]->name, "scalar") != 0 && harness_takes(i, 5))
            check_pair(backends[_i]->name, &c, i * (N_TYPES + 1), 4); /* k and v of one type */
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("exact: caches of types");
    TCase *cases = tcase_create("types");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, features, 0, n);
    tcase_add_loop_test(cases, rows, 0, n);
    tcase_add_loop_test(cases, heads_together, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
