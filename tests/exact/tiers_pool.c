/*
 * Attention pooling by dot products of keys and values that both are bf16 (docs/numerics.md, section 11): bits do not depend
 * on other rows, threads or on where keys and values lie; what a row does not see changes none; a strict context, other
 * types, and where weights or scores are asked for, have the exact bits. tiers_pool_bounds.c has the bounds.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exact/exact.h"
#include "support/cache_case.h"

static const char *const tier = "avx512bf16";

static int runs(void) {
    const struct attn_backend *list[4];
    const size_t n = harness_tiers(list);
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i]->name, tier) == 0) return 1;
    return 0;
}

/* ---- Bits ------------------------------------------------------------------------------------------------ */

/* A case whose keys and values are bf16 tensors. */
struct typed_case {
    struct api_case c;
    struct api_data *d;
    struct cache_rounded rounded;
    struct api_data typed; /* d's with these tensors */
};

static attn_tensor typed_of(unsigned char *x, const attn_tensor *t) {
    return attn_tensor_contiguous(x, ATTN_BF16, t->size[0], t->size[1], t->size[2], t->size[3]);
}

/* Rounds d anew: it may have changed. */
static void retype(struct typed_case *x) {
    ck_assert(cache_case_round(&x->c, x->d, ATTN_BF16, ATTN_BF16, &x->rounded));
    x->typed = *x->d;
    x->typed.t_k = typed_of(x->rounded.k, &x->d->t_k);
    x->typed.t_v = typed_of(x->rounded.v, &x->d->t_v);
}

static struct typed_case typed_make(const struct api_case *c) {
    struct typed_case x = {.c = *c};
    x.c.weights = x.c.scores = 0;
    x.c.one_kv = 0;
    x.d = api_case_make(&x.c);
    retype(&x);
    api_case_announce(tier, &x.c);
    return x;
}

static void typed_free(struct typed_case *x) {
    cache_rounded_free(&x->rounded);
    api_case_free(x->d);
}

static struct api_outputs run(attn_context *context, const struct api_case *c, const struct api_data *d) {
    struct verdict v = {.ok = 1};
    struct api_outputs o = api_case_run(context, c, d, &v);
    HARNESS_ASSERT(&v);
    return o;
}

static uint64_t hash(attn_context *context, const struct api_case *c, const struct api_data *d) {
    struct api_outputs o = run(context, c, d);
    const uint64_t x = exact_hash(c, &o);
    api_outputs_free(&o);
    return x;
}

/* Features, then shapes. */
enum { N_SHAPES = 24, N_CASES = EXACT_FEATURES + N_SHAPES };
static struct api_case case_of(size_t i) {
    static const size_t n_q[] = {1, 2, 4, 7, 9, 16, 33, 70}, n_kv[] = {40, 333, 2100, 4201};
    static const size_t heads[][2] = {{1, 1}, {4, 1}, {8, 8}, {6, 2}},
                        widths[][2] = {{32, 32}, {64, 64}, {95, 32}, {128, 160}, {33, 81}, {128, 7}};
    if (i < EXACT_FEATURES) return exact_features(i, API_SDPA);
    i -= EXACT_FEATURES;
    return (struct api_case){.call = API_SDPA,
                             .batch = 1 + i % 2,
                             .n_head = heads[i / 3 % 4][0],
                             .n_head_kv = heads[i / 3 % 4][1],
                             .n_q = n_q[(i + i / 25) % 8],
                             .n_kv = n_kv[(i + i / 8) % 4],
                             .p_q = widths[(i + i / 6) % 6][0],
                             .p_k = widths[(i + i / 6) % 6][0],
                             .p_v = widths[(i + i / 6) % 6][1],
                             .causal = i % 3 ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE,
                             .window = i % 3 == 1 ? API_WINDOW_LEFT : API_WINDOW_NONE,
                             .spoiled = i % 7 == 5,
                             .lse = 1,
                             .n_workers = 1,
                             .stream = 890000 + i};
}

static void check_caches(const struct typed_case *x, attn_context *context, size_t first, size_t every,
                         uint64_t want) {
    for (size_t i = first; i < (size_t)CACHE_SHAPES; i += every) {
        struct cache_shape shape = cache_shapes[i];
        struct cache_case cache;
        shape.stream = x->c.stream;
        shape.rounded = &x->rounded;
        if (!cache_case_make(&x->c, x->d, &shape, &cache)) continue;
        ck_assert_msg(hash(context, &x->c, &cache.data) == want,
                      "%s: other bits from cache %zu (%s, blocks of %zu rows%s)", harness_case_text(), i,
                      shape.layout == ATTN_KV_PANELS ? "panels" : "rows", shape.block_rows,
                      shape.ring ? ", a ring" : "");
        cache_case_free(&cache);
    }
}

START_TEST(anywhere) {
    for (size_t i = 0; i < N_CASES; i++) {
        const struct api_case c = case_of(i);
        if (!harness_takes(i, 5)) continue;
        struct typed_case x = typed_make(&c);
        attn_context *of[3] = {harness_context(tier, 1), harness_context(tier, 2), harness_context(tier, 5)};
        const uint64_t want = hash(of[0], &x.c, &x.typed);
        ck_assert_msg(hash(of[1], &x.c, &x.typed) == want && hash(of[2], &x.c, &x.typed) == want,
                      "%s: other bits with more threads", harness_case_text());
        check_caches(&x, of[i % 3], i % 3, i < EXACT_FEATURES ? 1 : 3, want);
        for (int n = 0; n < 3; n++) attn_context_destroy(of[n]);
        typed_free(&x);
    }
}
END_TEST

/* Rows of each sequence alone, one and a few. */
START_TEST(rows_alone) {
    for (size_t i = 0; i < N_CASES; i++) {
        const struct api_case c = case_of(i);
        struct verdict v = {.ok = 1};
        if (!harness_takes(i, 5)) continue;
        struct typed_case x = typed_make(&c);
        struct exact_run e = {x.c, &x.typed, harness_context(tier, 1)};
        struct api_outputs all = run(e.context, &x.c, &x.typed);
        struct rng r = rng_make(test_seed(), x.c.stream);
        for (size_t s = 0; s < api_case_sequences(&x.c); s++) {
            const size_t n = x.c.ragged      ? x.typed.starts[0][s + 1] - x.typed.starts[0][s]
                             : x.c.q_lengths ? x.typed.lengths[0][s]
                                             : x.c.n_q;
            for (size_t at = 0; at < n; at += 1 + rng_below(&r, 1 + n / 3)) {
                const size_t left = n - at, most = left < 12 ? left : 12;
                exact_check_alone(&e, s, at, at % 2 ? 1 : 1 + rng_below(&r, most), &all, &v);
                HARNESS_ASSERT(&v);
            }
        }
        api_outputs_free(&all);
        attn_context_destroy(e.context);
        typed_free(&x);
    }
}
END_TEST

/* Query heads of a group alone. */
START_TEST(heads_alone) {
    for (size_t i = EXACT_FEATURES; i < N_CASES; i++) {
        struct api_case c = case_of(i);
        struct verdict v = {.ok = 1};
        if (c.n_head < 4 || c.n_head_kv == 8 || !harness_takes(i, 5)) continue;
        struct typed_case x = typed_make(&c);
        struct exact_run e = {x.c, &x.typed, harness_context(tier, 1)};
        struct api_outputs all = run(e.context, &x.c, &x.typed);
        for (size_t h = 0; h < x.c.n_head; h++) {
            struct exact_part p = exact_whole(&x.c);
            p.head = h;
            p.n_head = 1;
            exact_check_part(&e, &p, &all, &v);
            HARNESS_ASSERT(&v);
        }
        api_outputs_free(&all);
        attn_context_destroy(e.context);
        typed_free(&x);
    }
}
END_TEST

/* ---- What is hidden -------------------------------------------------------------------------------------- */

static int sees(const struct api_case *c, const struct api_data *d, size_t b, size_t i, size_t j) {
    for (size_t h = 0; h < c->n_head; h++)
        if (api_case_sees(c, d, b, h, i, j)) return 1;
    return 0;
}

/* NaN and infinities in keys and values that row i of element b does not see. */
static void spoil(const struct api_case *c, struct api_data *d, size_t b, size_t i, struct rng *r) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    const struct api_place p = api_case_place(c, d, b, i);
    for (size_t e = 0; e < c->batch; e++)
        for (size_t row = 0; row < c->n_kv; row++) {
            const int own = e == b && row >= p.first_key && row - p.first_key < p.n_kv;
            if (own && sees(c, d, b, i, row - p.first_key)) continue;
            for (size_t h = 0; h < c->n_head_kv; h++) {
                for (size_t n = 0; n < c->p_k; n++) grid_f32(&d->k, e, h, row)[n] = bad[rng_below(r, 3)];
                for (size_t n = 0; n < c->p_v; n++) grid_f32(&d->v, e, h, row)[n] = bad[rng_below(r, 3)];
            }
        }
}

static void same_rows(const char *what, const struct grid *a, const struct grid *p, size_t b, size_t row) {
    for (size_t h = 0; h < a->size[1]; h++)
        ck_assert_msg(memcmp(grid_f32(a, b, h, row), grid_f32(p, b, h, row), a->size[3] * sizeof(float)) == 0,
                      "%s: %s of %zu head %zu row %zu depends on what it does not see: %a, %a",
                      harness_case_text(), what, b, h, row, (double)*grid_f32(a, b, h, row),
                      (double)*grid_f32(p, b, h, row));
}

START_TEST(hidden) {
    for (size_t i = 0; i < N_CASES; i++) {
        struct api_case c = case_of(i);
        c.spoiled = 0;
        struct rng r = rng_make(test_seed(), c.stream ^ 0x4a4);
        if (!harness_takes(i, 5)) continue;
        for (size_t n = 0; n < 3; n++) {
            struct typed_case x = typed_make(&c);
            attn_context *context = harness_context(tier, 1 + n % 2);
            struct api_outputs all = run(context, &x.c, &x.typed);
            const size_t b = rng_below(&r, x.c.batch), row = rng_below(&r, x.c.n_q);
            cache_rounded_free(&x.rounded);
            spoil(&x.c, x.d, b, row, &r);
            retype(&x);
            struct api_outputs o = run(context, &x.c, &x.typed);
            same_rows("out", &all.out, &o.out, b, row);
            same_rows("lse", &all.lse, &o.lse, b, row);
            api_outputs_free(&o);
            api_outputs_free(&all);
            attn_context_destroy(context);
            typed_free(&x);
        }
    }
}
END_TEST

/* ---- Exact elsewhere ------------------------------------------------------------------------------------- */

START_TEST(exact_otherwise) {
    attn_options options = {.size = sizeof options, .backend = tier, .n_threads = 2, .strict = 1};
    attn_context *strict = NULL, *own = harness_context(tier, 2), *base = harness_context("avx512", 2);
    ck_assert_int_eq(attn_context_create(&options, &strict), ATTN_OK);
    for (size_t i = 0; i < N_CASES; i++) {
        const struct api_case c = case_of(i);
        if (!harness_takes(i, 5)) continue;
        struct typed_case x = typed_make(&c);
        const uint64_t want = hash(base, &x.c, &x.typed);
        ck_assert_msg(hash(strict, &x.c, &x.typed) == want, "%s: strict", harness_case_text());
        if (x.c.n_kv > 100 && !x.c.spoiled)
            ck_assert_msg(hash(own, &x.c, &x.typed) != want, "%s: nothing was rounded", harness_case_text());
        struct api_data mixed = x.typed; /* values are f32 */
        mixed.t_v = x.d->t_v;
        ck_assert_msg(hash(own, &x.c, &mixed) == want, "%s: values of f32", harness_case_text());
        x.c.weights = x.c.n_q * x.c.n_kv * x.c.n_head < 100000;
        if (x.c.weights)
            ck_assert_msg(hash(own, &x.c, &x.typed) == hash(base, &x.c, &x.typed), "%s: with weights",
                          harness_case_text());
        typed_free(&x);
    }
    attn_context_destroy(strict);
    attn_context_destroy(own);
    attn_context_destroy(base);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("exact: pooling of tiers");
    TCase *t = tcase_create("pooling");
    const int n = runs();
    tcase_set_timeout(t, 300);
    tcase_add_loop_test(t, anywhere, 0, n);
    tcase_add_loop_test(t, rows_alone, 0, n);
    tcase_add_loop_test(t, heads_alone, 0, n);
    tcase_add_loop_test(t, hidden, 0, n);
    tcase_add_loop_test(t, exact_otherwise, 0, n);
    suite_add_tcase(suite, t);
    return harness_main(suite);
}
