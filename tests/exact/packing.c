/*
 * A row has the same bits in whatever batch it comes: its sequence alone, among others in a ragged batch, in another
 * order, side by side with padding; the row alone; on 1, 2 and 5 threads.
 */
#include <string.h>

#include "exact/exact.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

static struct exact_run start(const char *backend, const struct api_case *c) {
    struct exact_run e = {*c, api_case_make(c), harness_context(backend, 1)};
    api_case_announce(backend, c);
    api_case_pack(e.context, c, e.d);
    return e;
}

static void finish(struct exact_run *e) {
    attn_context_destroy(e->context);
    api_case_free(e->d);
}

static struct api_outputs run(const struct exact_run *e, const struct api_case *c, const struct api_data *d) {
    struct verdict v = {.ok = 1};
    struct api_outputs o = api_case_run(e->context, c, d, &v);
    HARNESS_ASSERT(&v);
    return o;
}

/* Calls test(e, all) for every case of every call. */
static void each(const char *backend, size_t salt,
                 void test(const struct exact_run *, const struct api_outputs *)) {
    for (size_t i = 0; i < EXACT_FEATURES; i++)
        for (int call = API_SDPA; call <= API_MULTIHEAD; call++) {
            const struct api_case c = exact_features(i, (enum api_call)call);
            if (!harness_takes(i + (size_t)call + salt, 5)) continue;
            struct exact_run e = start(backend, &c);
            struct api_outputs all = run(&e, &c, e.d);
            test(&e, &all);
            api_outputs_free(&all);
            finish(&e);
        }
}

static size_t rows_of(const struct exact_run *e, size_t s) {
    return e->c.ragged ? e->d->starts[0][s + 1] - e->d->starts[0][s] : e->c.n_q;
}

static void check_sequences(const struct exact_run *e, const struct api_outputs *all) {
    struct verdict v = {.ok = 1};
    for (size_t s = 0; s < api_case_sequences(&e->c); s++) {
        exact_check_alone(e, s, 0, rows_of(e, s), all, &v);
        HARNESS_ASSERT(&v);
    }
}

START_TEST(sequences_alone) { each(backends[_i]->name, 0, check_sequences); }
END_TEST

static void check_rows(const struct exact_run *e, const struct api_outputs *all) {
    struct verdict v = {.ok = 1};
    for (size_t s = 0; s < api_case_sequences(&e->c); s++) {
        const size_t n = rows_of(e, s);
        for (size_t i = 0; i < n; i += n < 20 ? 1 : 9) {
            exact_check_alone(e, s, i, 1, all, &v);
            if (i + 3 <= n) exact_check_alone(e, s, i, 3, all, &v);
            HARNESS_ASSERT(&v);
        }
    }
}

START_TEST(rows_alone) { each(backends[_i]->name, 1, check_rows); }
END_TEST

static void same(const char *what, const struct grid *a, size_t b, size_t row, const struct grid *p,
                 size_t p_b, size_t p_row, size_t n) {
    for (size_t h = 0; h < a->size[1]; h++)
        for (size_t i = 0; i < n; i++)
            if (memcmp(grid_f32(a, b, h, row + i), grid_f32(p, p_b, h, p_row + i),
                       a->size[3] * sizeof(float)) != 0)
                ck_abort_msg("%s: %s of head %zu row %zu has other bits at %zu, %zu", harness_case_text(),
                             what, h, row + i, p_b, p_row + i);
}

static void check_arranged(const struct exact_run *e, const struct api_outputs *all, enum exact_order order) {
    struct api_case c;
    if (!e->c.ragged) return;
    struct api_data *d = exact_arrange(&e->c, e->d, order, &c);
    struct api_outputs o = run(e, &c, d);
    for (size_t s = 0; s < e->c.ragged; s++) {
        const size_t from = e->d->starts[0][s], b = order == EXACT_PADDED ? s : 0;
        const size_t to = order == EXACT_PADDED ? 0 : d->starts[0][e->c.ragged - 1 - s];
        same("out", &all->out, 0, from, &o.out, b, to, rows_of(e, s));
        same("lse", &all->lse, 0, from, &o.lse, b, to, rows_of(e, s));
        if (c.lse_sinks) same("lse_sinks", &all->lse_sinks, 0, from, &o.lse_sinks, b, to, rows_of(e, s));
    }
    api_outputs_free(&o);
    exact_arranged_free(d);
}

static void check_reversed(const struct exact_run *e, const struct api_outputs *all) {
    check_arranged(e, all, EXACT_REVERSED);
}

static void check_padded(const struct exact_run *e, const struct api_outputs *all) {
    check_arranged(e, all, EXACT_PADDED);
}

START_TEST(sequences_in_reverse) { each(backends[_i]->name, 2, check_reversed); }
END_TEST

START_TEST(sequences_padded) { each(backends[_i]->name, 3, check_padded); }
END_TEST

static void check_threads(const struct exact_run *e, const struct api_outputs *all) {
    struct verdict v = {.ok = 1};
    const uint64_t want = exact_hash(&e->c, all);
    for (size_t n = 2; n <= 5; n += 3) {
        attn_context *context = harness_context(attn_context_backend(e->context), n);
        struct api_outputs o = api_case_run(context, &e->c, e->d, &v);
        HARNESS_ASSERT(&v);
        ck_assert_msg(exact_hash(&e->c, &o) == want, "%s: other bits on %zu threads", harness_case_text(), n);
        api_outputs_free(&o);
        attn_context_destroy(context);
    }
}

START_TEST(threads) { each(backends[_i]->name, 4, check_threads); }
END_TEST

/* Where the weights or scores are asked for the keys are not cut in chunks, nor are heads taken together. */
static void check_looking(const struct exact_run *e, const struct api_outputs *all, int weights, int scores) {
    struct api_case c = e->c;
    c.weights = weights;
    c.scores = scores;
    if (c.n_q * c.n_kv * c.n_head > 2000000) return;
    struct api_outputs o = run(e, &c, e->d);
    c.weights = c.scores = 0;
    ck_assert_msg(exact_hash(&c, &o) == exact_hash(&c, all), "%s: other bits with weights %d scores %d",
                  harness_case_text(), weights, scores);
    api_outputs_free(&o);
}

static void check_weights(const struct exact_run *e, const struct api_outputs *all) {
    check_looking(e, all, 1, 0);
    if (e->c.call == API_SDPA) check_looking(e, all, 0, 1);
}

START_TEST(with_weights) { each(backends[_i]->name, 5, check_weights); }
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("exact: packing");
    TCase *cases = tcase_create("packing");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, sequences_alone, 0, n);
    tcase_add_loop_test(cases, rows_alone, 0, n);
    tcase_add_loop_test(cases, sequences_in_reverse, 0, n);
    tcase_add_loop_test(cases, sequences_padded, 0, n);
    tcase_add_loop_test(cases, threads, 0, n);
    tcase_add_loop_test(cases, with_weights, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
