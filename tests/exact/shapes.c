/*
 * AVX2, AVX-512 and NEON give the same bits for any shape: hashes with fixed inputs as in golden.c, of every
 * width from 1 to 1024, latent attention, large groups, many rows. And prefill and decoding in one call: all
 * its sequences have the same bits alone. `exact_shapes --print` prints the hashes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "exact/exact.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

static uint64_t run(const char *backend, const struct api_case *c) {
    struct verdict v = {.ok = 1};
    struct api_data *d = api_case_make(c);
    attn_context *context = harness_context(backend, 1);
    api_case_announce(backend, c);
    struct api_outputs o = api_case_run(context, c, d, &v);
    HARNESS_ASSERT(&v);
    const uint64_t hash = exact_hash(c, &o);
    api_outputs_free(&o);
    attn_context_destroy(context);
    api_case_free(d);
    return hash;
}

/* n_head, n_head_kv, n_q, n_kv, p_k, p_v */
static struct api_case make(const size_t shape[6], uint64_t stream) {
    return (struct api_case){.call = API_SDPA,
                             .batch = 1,
                             .n_head = shape[0],
                             .n_head_kv = shape[1],
                             .n_q = shape[2],
                             .n_kv = shape[3],
                             .p_q = shape[4],
                             .p_k = shape[4],
                             .p_v = shape[5],
                             .causal = (attn_causal)(stream % 3),
                             .mask = stream % 4 ? API_MASK_NONE : API_MASK_F32,
                             .mask_bits = 15,
                             .lse = 1,
                             .layout = (unsigned)(stream % LAYOUT_FAR),
                             .stream = stream};
}

/* ---- Widths ---- */

enum { WIDTHS = 1024, RANGE = 128 };

static const uint64_t width_hashes[WIDTHS / RANGE] = {
    0x59b3e7a25af5a7f8, 0x8a14a176c57261bf, 0x2e61f6ccc69d5c5e, 0x5091b62761c1a626,
    0x78084602613a5894, 0x8c9bee0e40da7b12, 0x9a13135d9b39176b, 0xa842904df9e4482e,
};

/* Of a few rows and of a block and more, with widths (first, first + RANGE]. */
static uint64_t widths_hash(const char *backend, size_t first) {
    uint64_t hash = EXACT_HASH_START;
    for (size_t d = first + 1; d <= first + RANGE; d++) {
        const size_t other = d * 619 % WIDTHS + 1;
        const size_t few[6] = {2, 1, 1 + d % 3, 1 + d % 19, d, other};
        const size_t many[6] = {3, 1, 16 + d % 5, 1 + d % 7, other, d};
        const struct api_case c = make(few, d), e = make(many, WIDTHS + d);
        hash = (hash ^ run(backend, &c)) * 0x100000001b3u;
        hash = (hash ^ run(backend, &e)) * 0x100000001b3u;
    }
    return hash;
}

START_TEST(every_width) {
    for (size_t i = 0; i < WIDTHS / RANGE; i++) {
        const uint64_t got = widths_hash(backends[_i]->name, i * RANGE);
        ck_assert_msg(got == width_hashes[i], "%s: other bits at a width of %zu to %zu (%016" PRIx64 ")",
                      backends[_i]->name, i * RANGE + 1, (i + 1) * RANGE, got);
    }
}
END_TEST

/* ---- Shapes of their own ---- */

static const struct {
    size_t shape[6];
    uint64_t hash;
} shapes[] = {
    {{16, 1, 1, 70, 576, 512}, 0x134035a1b7ad8ccf},  {{2, 1, 16, 40, 576, 512}, 0x4db3e644d3e97a56},
    {{1, 1, 50, 60, 576, 512}, 0xb5ee1d2b3a0a0171},  {{4, 1, 1, 2060, 576, 512}, 0xc303717e6899b00d},
    {{4, 4, 1, 300, 192, 128}, 0xe52853cde6344a3b},  {{2, 2, 16, 50, 192, 128}, 0xaf883d294767f7f8},
    {{2, 2, 70, 70, 192, 128}, 0xef0187a875960b8c},  {{71, 1, 1, 41, 64, 64}, 0xb4f564e207e7df6e},
    {{71, 1, 2, 41, 64, 64}, 0xdc487fe6f0672501},    {{71, 1, 5, 41, 64, 64}, 0x3c7d83a34bfa336c},
    {{128, 1, 1, 41, 128, 128}, 0xd6b9a1ab2f6f4cca}, {{128, 1, 2, 41, 17, 40}, 0x5515eb27d1ee47b1},
    {{128, 1, 5, 41, 64, 64}, 0xe2905a46f83ce13e},   {{1, 1, 10000, 5, 8, 4}, 0x9dc2923c99b1c014},
};

static uint64_t shape_hash(const char *backend, size_t i) {
    const struct api_case c = make(shapes[i].shape, 5000 + i);
    return run(backend, &c);
}

START_TEST(shapes_of_their_own) {
    for (size_t i = 0; i < SHAPES_COUNT(shapes); i++) {
        const uint64_t got = shape_hash(backends[_i]->name, i);
        ck_assert_msg(got == shapes[i].hash, "%s: other bits (%016" PRIx64 ")", harness_case_text(), got);
    }
}
END_TEST

/* ---- Prefill, decoding and nothing, in one call ---- */

enum { MIXED = 8 };

static const size_t mixed[MIXED][2] = {{1, 513},  {300, 300}, {1, 17}, {0, 9},
                                       {60, 200}, {3, 0},     {1, 1},  {4, 64}};

/* Its sequences and single rows of them have the same bits alone. */
START_TEST(mixed_batch) {
    const size_t shape[6] = {8, 2, 370, 1104, 24, 17};
    struct verdict v = {.ok = 1};
    struct exact_run e = {.c = make(shape, 6002)};
    e.c.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    e.c.mask = API_MASK_NONE;
    e.c.ragged = MIXED;
    e.d = api_case_make(&e.c);
    struct rng r = rng_make(test_seed(), 6003);
    for (size_t s = 0; s < MIXED; s++)
        for (int keys = 0; keys < 2; keys++) e.d->starts[keys][s + 1] = e.d->starts[keys][s] + mixed[s][keys];
    struct grid *const inputs[] = {&e.d->q, &e.d->k, &e.d->v};
    for (size_t i = 0; i < 3; i++) grid_fill(inputs[i], &r, FILL_NORMAL);
    e.context = harness_context(backends[_i]->name, 2);
    api_case_announce(backends[_i]->name, &e.c);
    struct api_outputs all = api_case_run(e.context, &e.c, e.d, &v);
    HARNESS_ASSERT(&v);
    for (size_t s = 0; s < MIXED; s++) {
        exact_check_alone(&e, s, 0, mixed[s][0], &all, &v);
        for (size_t i = 0; i < mixed[s][0]; i += 37) exact_check_alone(&e, s, i, 1, &all, &v);
    }
    HARNESS_ASSERT(&v);
    api_outputs_free(&all);
    attn_context_destroy(e.context);
    api_case_free(e.d);
}
END_TEST

START_TEST(print_hashes) {
    const char *const backend = backends[0]->name;
    for (size_t i = 0; i < WIDTHS / RANGE; i++)
        printf("0x%016" PRIx64 ",\n", widths_hash(backend, i * RANGE));
    for (size_t i = 0; i < SHAPES_COUNT(shapes); i++) {
        const size_t *s = shapes[i].shape;
        printf("{{%zu, %zu, %zu, %zu, %zu, %zu}, 0x%016" PRIx64 "},\n", s[0], s[1], s[2], s[3], s[4], s[5],
               shape_hash(backend, i));
    }
    fflush(stdout);
}
END_TEST

int main(int argc, char **argv) {
    const int n = (int)harness_backends(backends), n_simd = n - 1; /* scalar sums in double */
    test_seed_fix(20260801);
    Suite *suite = suite_create("exact: shapes");
    TCase *cases = tcase_create("shapes");
    tcase_set_timeout(cases, 600);
    if (argc == 2 && strcmp(argv[1], "--print") == 0) {
        tcase_add_test(cases, print_hashes);
    } else {
        tcase_add_loop_test(cases, every_width, 0, n_simd);
        tcase_add_loop_test(cases, shapes_of_their_own, 0, n_simd);
        tcase_add_loop_test(cases, mixed_batch, 0, n);
    }
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
