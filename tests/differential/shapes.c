/*
 * attn_sdpa() of any shape: every width from 1 to 1024, d_k != d_v, groups of 1 to 128 heads, more rows than
 * anything else, and prefill, decoding and empty sequences in one call. (api_sdpa.c has the numbers of rows
 * and keys.)
 */
#include <math.h>
#include <stdlib.h>

#include "differential/api_draw.h"

#define WIDTHS 1024

static const struct attn_backend *backends[4];

static struct api_case draw(const size_t shape[7], uint64_t stream) {
    struct api_case c = {.call = API_SDPA,
                         .batch = shape[0],
                         .n_head = shape[1],
                         .n_head_kv = shape[2],
                         .n_q = shape[3],
                         .n_kv = shape[4],
                         .p_q = shape[5],
                         .p_k = shape[5],
                         .p_v = shape[6]};
    api_draw(&c, stream);
    return c;
}

/* Another width for every width. */
static size_t other_width(size_t d) { return d * 619 % WIDTHS + 1; }

/* A width of keys each, with that of values all over the range too; a few rows. */
START_TEST(every_width_few_rows) {
    for (size_t d = 1; d <= WIDTHS; d++) {
        const size_t heads = 1 + d % 2, group = 1 + d % 3;
        const size_t shape[7] = {1, heads * group, heads, 1 + d % 3, 1 + d % 17, d, other_width(d)};
        struct api_case c = draw(shape, 100000 + d);
        c.layout &= ~(unsigned)LAYOUT_FAR; /* memory takes longer than all else */
        if (harness_takes(d, 7)) api_expect(backends[_i]->name, &c);
    }
}
END_TEST

/* The same with rows for a block and more. */
START_TEST(every_width_many_rows) {
    for (size_t d = 1; d <= WIDTHS; d++) {
        const size_t shape[7] = {1, d % 5 ? 1 : 3, 1, 18 + d % 23, 1 + d % 4, other_width(d), d};
        struct api_case c = draw(shape, 110000 + d);
        c.layout &= ~(unsigned)LAYOUT_FAR;
        if (harness_takes(d, 13)) api_expect(backends[_i]->name, &c);
    }
}
END_TEST

/* Multi-head latent attention: compressed (576 of which 512 are the value) and expanded (192 and 128). */
START_TEST(latent) {
    static const size_t shapes[][7] = {
        {1, 16, 1, 1, 70, 576, 512}, {1, 128, 1, 1, 9, 576, 512}, {2, 4, 1, 4, 33, 576, 512},
        {1, 2, 1, 16, 40, 576, 512}, {1, 1, 1, 50, 60, 576, 512}, {1, 4, 1, 1, 2060, 576, 512},
        {2, 4, 4, 1, 300, 192, 128}, {1, 2, 2, 16, 50, 192, 128}, {1, 2, 2, 70, 70, 192, 128},
    };
    for (size_t i = 0; i < 3 * SHAPES_COUNT(shapes); i++) {
        struct api_case c = draw(shapes[i % SHAPES_COUNT(shapes)], 120000 + i);
        c.weights = c.weights && c.n_kv < 1000;
        if (harness_takes(i, 4)) api_expect(backends[_i]->name, &c);
    }
}
END_TEST

/* One key/value head for every head of Falcon 7B, and for as many as DeepSeek has. */
START_TEST(large_groups) {
    static const size_t groups[] = {71, 127, 128}, rows[] = {1, 2, 5}, widths[][2] = {{64, 64}, {17, 40}};
    for (size_t i = 0; i < 3 * 3 * 2 * 2; i++) {
        const size_t *p = widths[i / 9 % 2];
        const size_t shape[7] = {1, groups[i % 3], 1, rows[i / 3 % 3], i < 18 ? 41 : 7, p[0], p[1]};
        const struct api_case c = draw(shape, 130000 + i);
        if (harness_takes(i, 5)) api_expect(backends[_i]->name, &c);
    }
}
END_TEST

/* Groups of every size. */
START_TEST(every_group) {
    for (size_t group = 1; group <= API_HEADS_MAX; group++) {
        const size_t heads = group <= API_HEADS_MAX / 2 ? 2 : 1;
        const size_t shape[7] = {1, heads * group, heads, 1 + group % 4, 3 + group % 23, 6, 5};
        const struct api_case c = draw(shape, 140000 + group);
        if (harness_takes(group, 11)) api_expect(backends[_i]->name, &c);
    }
}
END_TEST

START_TEST(many_rows) {
    static const size_t shapes[][7] = {{1, 1, 1, 100000, 5, 8, 4}, {1, 2, 1, 100003, 3, 5, 7}};
    for (size_t i = 0; i < SHAPES_COUNT(shapes); i++) {
        struct api_case c = draw(shapes[i], 150000 + i);
        c.weights = 0;
        c.layout &= ~(unsigned)LAYOUT_FAR;
        if (harness_takes(i, 2)) api_expect(backends[_i]->name, &c);
    }
}
END_TEST

/* ---- Prefill, decoding and nothing, in one call ---- */

enum { MIXED = 9 };

/* Rows and keys of each sequence: a long prefill among steps, drafts, a second chunk, one without keys, one
 * without rows, and one with more rows than keys. */
static const size_t mixed[MIXED][2] = {{1, 513},  {300, 300}, {1, 17}, {0, 9}, {4, 64},
                                       {60, 200}, {3, 0},     {1, 1},  {20, 5}};

static void expect_within(const char *what, const struct grid *g, const double *want, const double *err) {
    for (size_t h = 0; h < g->size[1]; h++)
        for (size_t i = 0; i < g->size[2]; i++)
            for (size_t j = 0; j < g->size[3]; j++, want++, err++) {
                const double got = (double)grid_f32(g, 0, h, i)[j];
                ck_assert_msg(attn_bound_holds(got, *want, *err),
                              "%s: %s[%zu][%zu][%zu]: %a, oracle %a, bound %g", harness_case_text(), what, h,
                              i, j, got, *want, *err);
            }
}

/* Runs the case with the sequences above, against the oracle. */
static void check_mixed(const char *backend, const struct api_case *c) {
    struct verdict v = {.ok = 1};
    struct api_data *d = api_case_make(c);
    struct rng r = rng_make(test_seed(), c->stream);
    for (size_t s = 0; s < MIXED; s++)
        for (int keys = 0; keys < 2; keys++) d->starts[keys][s + 1] = d->starts[keys][s] + mixed[s][keys];
    struct grid *const inputs[] = {&d->q, &d->k, &d->v};
    for (size_t i = 0; i < 3; i++) grid_fill(inputs[i], &r, FILL_NORMAL);
    attn_context *context = harness_context(backend, c->n_workers);
    api_case_announce(backend, c);
    struct api_outputs o = api_case_run(context, c, d, &v);
    HARNESS_ASSERT(&v);
    struct api_answers a = api_case_answers(c, d);
    double *out_err = calloc(a.n_out + a.n_lse + 1, sizeof *out_err), *lse_err = out_err + a.n_out;
    ck_assert_ptr_nonnull(out_err);
    struct attn_bound_result to = {.out_err = out_err, .lse_err = lse_err};
    api_case_bounds(backend, c, d, &to);
    expect_within("out", &o.out, a.out, out_err);
    expect_within("lse", &o.lse, a.lse, lse_err);
    free(out_err);
    free(a.out);
    api_outputs_free(&o);
    attn_context_destroy(context);
    api_case_free(d);
}

START_TEST(mixed_batch) {
    static const attn_causal orders[] = {ATTN_CAUSAL_BOTTOM_RIGHT, ATTN_CAUSAL_NONE, ATTN_CAUSAL_TOP_LEFT};
    size_t n[2] = {0, 0};
    for (size_t s = 0; s < MIXED; s++) {
        n[0] += mixed[s][0];
        n[1] += mixed[s][1];
    }
    for (size_t i = 0; i < 3; i++) {
        const size_t heads = 1 + i % 2, group = i < 2 ? 4 : 8;
        const size_t shape[7] = {1, heads * group, heads, n[0] + i % 3, n[1] + i % 2, 16, 10 + i};
        struct api_case c = draw(shape, 160000 + i);
        c.causal = orders[i % 3];
        c.window = i == 2 ? API_WINDOW_LEFT : API_WINDOW_NONE;
        c.ragged = MIXED;
        c.q_lengths = c.kv_lengths = c.weights = c.one_kv = c.spoiled = 0;
        c.mask = API_MASK_NONE;
        c.lse = 1;
        if (harness_takes(i, 4)) check_mixed(backends[_i]->name, &c);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: shapes");
    TCase *cases = tcase_create("shapes");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, every_width_few_rows, 0, n);
    tcase_add_loop_test(cases, every_width_many_rows, 0, n);
    tcase_add_loop_test(cases, latent, 0, n);
    tcase_add_loop_test(cases, large_groups, 0, n);
    tcase_add_loop_test(cases, every_group, 0, n);
    tcase_add_loop_test(cases, many_rows, 0, n);
    tcase_add_loop_test(cases, mixed_batch, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
