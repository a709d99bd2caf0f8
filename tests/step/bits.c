/*
 * The bits of attn_multihead_step(): a token's output is the same token by token, at once, in pieces, beside other
 * sequences, from any cache and with any number of threads; the same as from the public calls that it stands for; and
 * the same on every SIMD backend.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exact/exact.h"
#include "step/step_case.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

static const struct step_cache_shape shapes[] = {
    {.layout = ATTN_KV_ROWS, .host = 1},
    {.layout = ATTN_KV_ROWS, .block_rows = 1},
    {.layout = ATTN_KV_ROWS, .block_rows = 17},
    {.layout = ATTN_KV_PANELS},
    {.layout = ATTN_KV_PANELS, .block_rows = 16},
    {.layout = ATTN_KV_ROWS, .block_rows = 5, .ring = 1},
    {.layout = ATTN_KV_PANELS, .block_rows = 16, .ring = 1},
};

static void expect_equal(const struct step_case *c, const struct step_outputs *a,
                         const struct step_outputs *b, const char *how) {
    const size_t width = step_case_width(c);
    for (size_t i = 0; i < step_case_tokens(c); i++) {
        ck_assert_msg(memcmp(a->out + i * width, b->out + i * width, width * sizeof(float)) == 0,
                      "%s: token %zu has other bits %s", harness_case_text(), i, how);
        ck_assert_msg(memcmp(a->lse + i * c->n_head, b->lse + i * c->n_head, c->n_head * sizeof(float)) == 0,
                      "%s: token %zu has another log-sum-exp %s", harness_case_text(), i, how);
    }
}

static struct step_outputs reference(attn_context *context, const struct step_case *c,
                                     const struct step_data *d) {
    struct verdict v = {.ok = 1};
    struct step_outputs o = step_outputs_make(c);
    step_case_run(context, c, d, &shapes[0], STEP_PREFILL, &o, &v);
    HARNESS_ASSERT(&v);
    return o;
}

static void check_schedules(const char *backend, const struct step_case *c, size_t i) {
    static const size_t threads[] = {2, 5};
    attn_context *one = harness_context(backend, 1), *many = harness_context(backend, threads[i % 2]);
    const size_t every = strcmp(backend, "scalar") == 0 ? 8 : harness_full() ? 3 : 6;
    struct step_data *d = step_data_make(c);
    step_case_announce(backend, c, "");
    struct step_outputs want = reference(one, c, d), got = step_outputs_make(c);
    for (size_t k = 0; k < SHAPES_COUNT(shapes) * N_STEP_SCHEDULES; k++) {
        const struct step_cache_shape *shape = &shapes[k / N_STEP_SCHEDULES];
        const enum step_schedule schedule = (enum step_schedule)(k % N_STEP_SCHEDULES);
        struct verdict v = {.ok = 1};
        char how[100];
        if (shape->ring && c->scoring != STEP_WINDOW && c->scoring != STEP_SHAPED) continue;
        if ((k + i) % every) continue; /* every pair in several cases */
        /* Many small calls with more threads than cores take long: some of them, and not token by token. */
        attn_context *context = schedule != STEP_TOKENS && (k + i) % 4 == 0 ? many : one;
        step_case_run(context, c, d, shape, schedule, &got, &v);
        snprintf(how, sizeof how, "from cache %zu by schedule %d with %zu threads", k / N_STEP_SCHEDULES,
                 (int)schedule, attn_context_workers(context));
        ck_assert_msg(v.ok, "%s: %s: %s", harness_case_text(), how, v.text);
        expect_equal(c, &want, &got, how);
    }
    step_outputs_free(&want);
    step_outputs_free(&got);
    step_data_free(d);
    attn_context_destroy(many);
    attn_context_destroy(one);
}

START_TEST(schedules) {
    for (size_t i = 0; i < 18; i++) {
        const struct step_case c = step_case_draw(i, 0);
        if (harness_takes(i, 10)) check_schedules(backends[_i]->name, &c, i);
    }
}
END_TEST

START_TEST(long_sequences) {
    for (size_t i = 0; i < 6; i++) {
        const struct step_case c = step_case_draw(100 + i, 1);
        if (harness_takes(i, 6)) check_schedules(backends[_i]->name, &c, i);
    }
}
END_TEST

/* ---- The calls that it stands for ---------------------------------------------------------------------- */

START_TEST(composition) {
    attn_context *context = harness_context(backends[_i]->name, 1);
    for (size_t i = 0; i < 60; i++) {
        const struct step_case c = step_case_draw(i, i % 16 == 9);
        if (!harness_takes(i, 10)) continue;
        struct step_data *d = step_data_make(&c);
        struct step_cache cache;
        struct step_layer layer;
        step_case_announce(backends[_i]->name, &c, ", composed");
        struct step_outputs want = step_outputs_make(&c), got = reference(context, &c, d);
        step_cache_make(context, &c, &shapes[i % 5], &cache);
        step_layer_pack(context, &c, d, &layer);
        for (size_t s = 0, first = 0; s < c.n_sequences; first += c.lengths[s++])
            if (c.lengths[s]) step_compose(context, &c, d, &layer, &cache, s, first, 0, &want);
        expect_equal(&c, &want, &got, "than from the calls that it stands for");
        step_layer_free(&layer);
        step_cache_free(&cache);
        step_outputs_free(&want);
        step_outputs_free(&got);
        step_data_free(d);
    }
    attn_context_destroy(context);
}
END_TEST

/* ---- Backends ------------------------------------------------------------------------------------------ */

/* Changing one is a new major version of the bits. */
static const uint64_t golden_hashes[] = {
    0xc38713ec82b92839, 0xf618980b77b15d0a, 0xb3f87dbd0e0e98d2, 0xc498a2f50a0fbd11,
    0xa3fc8656704964e2, 0xa6e37650b3d57f72, 0x37a9ecaec4f9e823, 0x836047c4fe01284e,
    0x9556fef37cd44005, 0x40ce8fce2f6cda1e, 0x9e0dea91f1d35c64, 0xcb0429f01330afa8,
    0x41460ce57e50d69e, 0xffe3f64afacb962e, 0x43b19c987d91749d, 0x995cbacbbe382677,
};

START_TEST(golden) {
    attn_context *context = harness_context(backends[_i]->name, 1);
    char text[1024] = "";
    int wrong = 0;
    for (size_t i = 0; i < SHAPES_COUNT(golden_hashes); i++) {
        const struct step_case c = step_case_draw(i, i == 7);
        struct step_data *d = step_data_make(&c);
        step_case_announce(backends[_i]->name, &c, ", golden");
        struct step_outputs o = reference(context, &c, d);
        uint64_t hash =
            exact_hash_floats(EXACT_HASH_START, o.out, step_case_tokens(&c) * step_case_width(&c));
        hash = exact_hash_floats(hash, o.lse, step_case_tokens(&c) * c.n_head);
        wrong += hash != golden_hashes[i];
        snprintf(text + strlen(text), sizeof text - strlen(text), " 0x%016" PRIx64 ",", hash);
        step_outputs_free(&o);
        step_data_free(d);
    }
    ck_assert_msg(wrong == 0, "%s: %d results have other bits; they are%s", backends[_i]->name, wrong, text);
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    test_seed_fix(20261125);
    Suite *suite = suite_create("step: bits");
    TCase *cases = tcase_create("bits");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, schedules, 0, n);
    tcase_add_loop_test(cases, long_sequences, 0, n);
    tcase_add_loop_test(cases, composition, 0, n);
    tcase_add_loop_test(cases, golden, 0, n - 1); /* without scalar, which sums in double */
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
