/*
 * AVX2, AVX-512 and NEON give the same bits: hashes of results with fixed inputs, generated on one backend
 * (exact_golden --write FILE) and checked on every SIMD backend that this CPU runs. Changing them is a new
 * major version of the bits.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exact/exact.h"
#include "support/shapes.h"

#define N_LINEAR 6
#define N_PLAIN (4 * EXACT_CASES)
#define N_FEATURES (4 * EXACT_FEATURES)
#define N_GOLDEN (N_LINEAR + N_PLAIN + N_FEATURES + EXACT_FEATURES) /* the last: attn_sdpa's scores */

static const struct attn_backend *backends[4];

static uint64_t linear_hash(const char *backend, size_t i, char *name, size_t bytes) {
    static const size_t shapes[N_LINEAR][3] = {{1, 1, 1},     {3, 17, 33},   {13, 130, 70},
                                               {5, 64, 1024}, {2, 65, 1025}, {7, 31, 3000}};
    const size_t m = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
    struct rng r = rng_make(test_seed(), 500 + i);
    struct grid x = grid_make(&r, 4, (size_t[4]){1, 1, m, k}, 0),
                w = grid_make(&r, 4, (size_t[4]){1, 1, n, k}, 0);
    struct grid y = grid_make(&r, 4, (size_t[4]){1, 1, m, n}, 0);
    float *bias = malloc(n * sizeof *bias);
    const attn_tensor t_x = grid_tensor(&x), t_w = grid_tensor(&w), t_y = grid_tensor(&y);
    const attn_packed *packed = NULL;
    size_t size = 0;
    uint64_t hash = EXACT_HASH_START;
    attn_context *context = harness_context(backend, 1);
    snprintf(name, bytes, "linear_%zu_%zu_%zu", m, n, k);
    ck_assert_ptr_nonnull(bias);
    grid_fill(&x, &r, i == 2 ? FILL_WIDE : FILL_NORMAL);
    grid_fill(&w, &r, FILL_NORMAL);
    rng_floats(&r, FILL_NORMAL, bias, n);
    ck_assert_int_eq(attn_pack_linear_bytes(context, &t_w, &size), ATTN_OK);
    struct guard memory = guard_alloc(size, 1);
    ck_assert_int_eq(attn_pack_linear(context, &t_w, i % 2 ? bias : NULL, memory.data, size, &packed),
                     ATTN_OK);
    ck_assert_int_eq(attn_linear(context, &t_x, packed, &t_y), ATTN_OK);
    for (size_t row = 0; row < m; row++) hash = exact_hash_floats(hash, grid_f32(&y, 0, 0, row), n);
    attn_context_destroy(context);
    free(bias);
    grid_free(&x);
    grid_free(&w);
    grid_free(&y);
    guard_free(&memory);
    return hash;
}

/* Name and hash of golden result i on a backend. */
static uint64_t golden_hash(const char *backend, size_t i, char *name, size_t bytes) {
    static const char *const calls[] = {"sdpa", "additive", "head", "multihead"};
    if (i < N_LINEAR) return linear_hash(backend, i, name, bytes);
    const int features = i >= N_LINEAR + N_PLAIN, scores = i >= N_LINEAR + N_PLAIN + N_FEATURES;
    const size_t at = i - N_LINEAR - (features ? N_PLAIN : 0) - (scores ? N_FEATURES : 0);
    const size_t call = scores ? API_SDPA : at % 4, shape = scores ? at : at / 4;
    struct api_case c =
        features ? exact_features(shape, (enum api_call)call) : exact_case(shape, (enum api_call)call);
    struct verdict v = {.ok = 1};
    c.n_q = c.n_kv > 1000 && c.n_q > 35 ? 35 : c.n_q; /* for emulators */
    c.weights = !scores && c.n_q * c.n_kv < 5000;
    c.scores = scores;
    c.fill = features ? FILL_NORMAL : shape == 3 ? FILL_WIDE : shape == 9 ? FILL_INTEGER : FILL_NORMAL;
    snprintf(name, bytes, "%s_%s%zu_%zu_of_%zu", calls[call],
             scores     ? "scores_"
             : features ? "features_"
                        : "",
             shape, c.n_q, c.n_kv);
    struct api_data *d = api_case_make(&c);
    attn_context *context = harness_context(backend, 1);
    api_case_pack(context, &c, d);
    struct api_outputs o = api_case_run(context, &c, d, &v);
    ck_assert_msg(v.ok, "%s: %s", name, v.text);
    const uint64_t hash = exact_hash(&c, &o);
    api_outputs_free(&o);
    attn_context_destroy(context);
    api_case_free(d);
    return hash;
}

START_TEST(golden) {
    const char *path = getenv("ATTN_GOLDEN");
    FILE *file = fopen(path ? path : GOLDEN_FILE, "r");
    ck_assert_msg(file != NULL, "cannot open %s", path ? path : GOLDEN_FILE);
    size_t n_wrong = 0;
    char first[64] = "";
    for (size_t i = 0; i < N_GOLDEN; i++) {
        char name[64], want_name[64];
        uint64_t want = 0;
        harness_case("%s golden result %zu", backends[_i]->name, i);
        ck_assert_msg(fscanf(file, " %63s %" SCNx64, want_name, &want) == 2, "%s: too short", GOLDEN_FILE);
        const uint64_t got = golden_hash(backends[_i]->name, i, name, sizeof name);
        ck_assert_str_eq(name, want_name);
        if (got != want && n_wrong++ == 0) snprintf(first, sizeof first, "%s", name);
    }
    fclose(file);
    ck_assert_msg(n_wrong == 0, "%s: %zu of %d results have other bits, the first is %s", backends[_i]->name,
                  n_wrong, N_GOLDEN, first);
}
END_TEST

static const char *write_path;

START_TEST(write_golden) {
    FILE *file = fopen(write_path, "w");
    ck_assert_msg(file != NULL, "cannot open %s", write_path);
    for (size_t i = 0; i < N_GOLDEN; i++) {
        char name[64];
        const uint64_t hash = golden_hash(backends[0]->name, i, name, sizeof name);
        fprintf(file, "%s %016" PRIx64 "\n", name, hash);
    }
    ck_assert_int_eq(fclose(file), 0);
}
END_TEST

int main(int argc, char **argv) {
    const int n = (int)harness_backends(backends) - 1; /* without scalar, which sums in double */
    test_seed_fix(20260801);
    write_path = argc == 3 && strcmp(argv[1], "--write") == 0 && n > 0 ? argv[2] : NULL;
    Suite *suite = suite_create("exact: golden hashes");
    TCase *cases = tcase_create("golden");
    tcase_set_timeout(cases, 600);
    if (write_path)
        tcase_add_test(cases, write_golden);
    else
        tcase_add_loop_test(cases, golden, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
