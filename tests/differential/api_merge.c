/* attn_merge() on every backend: over shapes, against attention over all keys, and what an lse in f32 costs.
 * */
#include <math.h>
#include <stdlib.h>

#include "support/merge_case.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

static void expect(const char *backend, const struct merge_case *c) {
    struct verdict v = {.ok = 1};
    merge_case_check(backend, NULL, c, &v);
    HARNESS_ASSERT(&v);
}

static struct merge_case draw(size_t batch, size_t n_head, size_t n_q, size_t p_v, size_t n_parts,
                              uint64_t stream) {
    static const float widths[] = {0.0f, 1.0f, 8.0f, 60.0f, 1000.0f},
                       mids[] = {0.0f, -3.0f, 90.0f, 1e4f, -1e6f};
    struct rng r = rng_make(test_seed(), ~stream);
    struct merge_case c = {.batch = batch, .n_head = n_head, .n_q = n_q, .p_v = p_v, .n_parts = n_parts};
    c.stream = stream;
    c.in_place = n_parts ? (int)rng_below(&r, 4) : 0;
    c.lse = rng_chance(&r, 66);
    c.in_place &= c.lse ? 3 : 1;
    c.hidden = rng_chance(&r, 50) ? 0 : (unsigned)rng_below(&r, 101);
    c.spoiled = rng_chance(&r, 20);
    c.width = widths[rng_below(&r, SHAPES_COUNT(widths))];
    c.mid = mids[rng_below(&r, SHAPES_COUNT(mids))];
    c.shared = !c.in_place && rng_chance(&r, 20);
    c.fill = rng_chance(&r, 60) ? FILL_NORMAL : (enum fill)rng_below(&r, N_FILLS);
    c.layout = (unsigned)rng_below(&r, N_LAYOUTS);
    c.n_workers = 1 + rng_below(&r, 3);
    return c;
}

START_TEST(columns) {
    const char *name = backends[_i]->name;
    for (size_t p_v = 1; p_v <= 290; p_v += p_v < 40 ? 1 : 23)
        for (size_t n_parts = 0; n_parts <= 6; n_parts++) {
            const size_t i = p_v * 10 + n_parts;
            const struct merge_case c = draw(1 + i % 2, 1 + i % 3, 1 + i % 5, p_v, n_parts, i);
            if (harness_takes(i, 13)) expect(name, &c);
        }
}
END_TEST

/* Around the groups of 64 that a backend takes. */
START_TEST(many_parts) {
    static const size_t counts[] = {15, 16, 17, 63, 64, 65, 127, 128, 129, 200, 700};
    const char *name = backends[_i]->name;
    for (size_t i = 0; i < 6 * SHAPES_COUNT(counts); i++) {
        struct merge_case c = draw(1, 2, 3, 1 + i * 7 % 150, counts[i % SHAPES_COUNT(counts)], 10000 + i);
        c.spoiled = c.spoiled && i % 2;
        if (harness_takes(i, 11)) expect(name, &c);
    }
}
END_TEST

START_TEST(shapes) {
    static const size_t sizes[][5] = {{0, 2, 3, 4, 2},    {2, 2, 0, 4, 2},    {1, 32, 1, 128, 4},
                                      {8, 8, 1, 128, 2},  {3, 2, 200, 64, 3}, {1, 1, 1, 3000, 5},
                                      {1, 71, 1, 64, 16}, {2, 3, 700, 5, 2}};
    const char *name = backends[_i]->name;
    for (size_t i = 0; i < 5 * SHAPES_COUNT(sizes); i++) {
        const size_t *s = sizes[i % SHAPES_COUNT(sizes)];
        const struct merge_case c = draw(s[0], s[1], s[2], s[3], s[4], 20000 + i);
        if (harness_takes(i, 7)) expect(name, &c);
    }
}
END_TEST

/* ---- Split and whole ---------------------------------------------------------------------------------- */

enum { ROWS = 3, D_K = 16, D_V = 20, KEYS = 700, CUTS = 4 };

static float *draw_floats(struct rng *r, size_t n) {
    float *x = malloc(n * sizeof *x);
    if (!x) abort();
    rng_floats(r, FILL_NORMAL, x, n);
    return x;
}

/* attn_sdpa over keys [from, to), with what it must give and how far it may lie from that. */
struct part {
    float out[ROWS * D_V], lse[ROWS];
    double want[ROWS * D_V], want_err[ROWS * D_V], want_lse[ROWS], want_lse_err[ROWS];
};

static void pool_part(attn_context *context, const float *q, const float *k, const float *v, size_t from,
                      size_t to, float scale, struct part *p) {
    const size_t n = to - from;
    attn_tensor t_q = attn_tensor_contiguous((void *)(uintptr_t)q, ATTN_F32, 1, 1, ROWS, D_K);
    attn_tensor t_k = attn_tensor_contiguous((void *)(uintptr_t)(k + from * D_K), ATTN_F32, 1, 1, n, D_K);
    attn_tensor t_v = attn_tensor_contiguous((void *)(uintptr_t)(v + from * D_V), ATTN_F32, 1, 1, n, D_V);
    attn_tensor t_out = attn_tensor_contiguous(p->out, ATTN_F32, 1, 1, ROWS, D_V);
    attn_tensor t_lse = attn_tensor_contiguous(p->lse, ATTN_F32, 1, 1, ROWS, 1);
    const attn_scoring scoring = {.size = sizeof scoring, .scale = scale};
    const attn_sdpa_args args = {.size = sizeof args,
                                 .q = &t_q,
                                 .k = &t_k,
                                 .v = &t_v,
                                 .out = &t_out,
                                 .scoring = &scoring,
                                 .lse = &t_lse};
    const struct attn_bound_result to_bound = {
        .out = p->want, .out_err = p->want_err, .lse = p->want_lse, .lse_err = p->want_lse_err};
    ck_assert_int_eq(attn_sdpa(context, &args), ATTN_OK);
    ck_assert_int_eq(attn_bound_sdpa(attn_bound_arith_of(attn_context_backend(context)), &args, &to_bound),
                     0);
}

/* One row: the parts' exact results merged exactly are the whole's; the merged ones lie within the bounds. */
static void compare_row(enum attn_bound_arith arith, const struct part *parts, const struct part *whole,
                        size_t row, const float *out, float lse) {
    double outs[CUTS * D_V], outs_err[CUTS * D_V], lses[CUTS], lses_err[CUTS], want[D_V], err[D_V], w_lse,
        e_lse;
    for (size_t i = 0; i < CUTS; i++) {
        lses[i] = parts[i].want_lse[row];
        lses_err[i] = parts[i].want_lse_err[row];
        for (size_t c = 0; c < D_V; c++) {
            outs[i * D_V + c] = parts[i].want[row * D_V + c];
            outs_err[i * D_V + c] = parts[i].want_err[row * D_V + c];
        }
    }
    const struct merge_row r = {arith, CUTS, D_V, lses, lses_err, outs, outs_err};
    merge_bound_row(&r, want, err, &w_lse, &e_lse);
    for (size_t c = 0; c < D_V; c++) {
        const double exact = whole->want[row * D_V + c];
        ck_assert_msg(fabs(want[c] - exact) <= 1e-11, "oracles: %a, whole %a", want[c], exact);
        ck_assert_msg(attn_bound_holds(out[c], exact, err[c] + 1e-11),
                      "%s row %zu column %zu: %a, whole %a, bound %g", harness_case_text(), row, c, out[c],
                      exact, err[c]);
    }
    ck_assert_msg(fabs(w_lse - whole->want_lse[row]) <= 1e-11 * fmax(1, fabs(w_lse)), "oracles: lse");
    ck_assert_msg(attn_bound_holds(lse, w_lse, e_lse), "%s row %zu: lse %a, whole %a, bound %g",
                  harness_case_text(), row, lse, w_lse, e_lse);
}

START_TEST(split_and_whole) {
    static const float scales[] = {0.0f, 1.0f, 30.0f, 1000.0f};
    const struct attn_backend *b = backends[_i];
    attn_context *context = harness_context(b->name, 1);
    for (size_t i = 0; i < 16; i++) {
        struct rng r = rng_make(test_seed(), 30000 + i);
        struct part *parts = calloc(CUTS + 1, sizeof *parts), *whole = parts + CUTS;
        float *q = draw_floats(&r, ROWS * D_K), *k = draw_floats(&r, KEYS * D_K),
              *v = draw_floats(&r, KEYS * D_V);
        float out[ROWS * D_V], lse[ROWS];
        attn_tensor outs[CUTS], lses[CUTS], t_out = attn_tensor_contiguous(out, ATTN_F32, 1, 1, ROWS, D_V),
                                            t_lse = attn_tensor_contiguous(lse, ATTN_F32, 1, 1, ROWS, 1);
        if (!parts) abort();
        harness_case("%s, scale %g, stream %zu", b->name, scales[i % 4], i);
        for (size_t p = 0, from = 0; p < CUTS; p++) {
            const size_t to = p + 1 < CUTS ? from + 1 + rng_below(&r, KEYS / CUTS) : KEYS;
            pool_part(context, q, k, v, from, to, scales[i % 4], &parts[p]);
            outs[p] = attn_tensor_contiguous(parts[p].out, ATTN_F32, 1, 1, ROWS, D_V);
            lses[p] = attn_tensor_contiguous(parts[p].lse, ATTN_F32, 1, 1, ROWS, 1);
            from = to;
        }
        pool_part(context, q, k, v, 0, KEYS, scales[i % 4], whole);
        const attn_merge_args args = {sizeof args, CUTS, outs, lses, &t_out, &t_lse};
        ck_assert_int_eq(attn_merge(context, &args), ATTN_OK);
        for (size_t row = 0; row < ROWS; row++)
            compare_row(attn_bound_arith_of(b->name), parts, whole, row, out + row * D_V, lse[row]);
        free(parts);
        free(q);
        free(k);
        free(v);
    }
    attn_context_destroy(context);
}
END_TEST

/*
 * Two parts whose true log-sum-exps are not f32 numbers, values 1 and 0: the output is the first one's
 * weight. It is off by what the bound allows for errors of |lse| 2^-24, and by an eighth of that at least:
 * the price is real.
 */
START_TEST(lse_rounding) {
    static const double sizes[] = {1.0, 40.0, 1100.0, 9000.0, 70000.0};
    const struct attn_backend *b = backends[_i];
    attn_context *context = harness_context(b->name, 1);
    for (size_t s = 0; s < SHAPES_COUNT(sizes); s++) {
        struct rng r = rng_make(test_seed(), 40000 + s);
        double largest = 0;
        for (size_t i = 0; i < 300; i++) {
            const double values[2] = {1, 0},
                         lse[2] = {sizes[s] + 0.3 * rng_normal(&r) + 1e-9 * rng_normal(&r),
                                   sizes[s] + 0.3 * rng_normal(&r) + 1e-9 * rng_normal(&r)};
            const double lse_err[2] = {fabs(lse[0]) * 0x1p-24, fabs(lse[1]) * 0x1p-24};
            float o[2] = {1, 0}, rounded[2] = {(float)lse[0], (float)lse[1]}, out;
            attn_tensor outs[2], lses[2], t_out = attn_tensor_contiguous(&out, ATTN_F32, 1, 1, 1, 1);
            for (int p = 0; p < 2; p++) {
                outs[p] = attn_tensor_contiguous(&o[p], ATTN_F32, 1, 1, 1, 1);
                lses[p] = attn_tensor_contiguous(&rounded[p], ATTN_F32, 1, 1, 1, 1);
            }
            const attn_merge_args args = {
                .size = sizeof args, .n_parts = 2, .outs = outs, .lses = lses, .out = &t_out};
            const struct merge_row row = {attn_bound_arith_of(b->name), 2, 1, lse, lse_err, values, NULL};
            double want, err, w_lse, e_lse;
            merge_bound_row(&row, &want, &err, &w_lse, &e_lse);
            ck_assert_int_eq(attn_merge(context, &args), ATTN_OK);
            ck_assert_msg(attn_bound_holds(out, want, err), "%s, lse about %g: weight %a, exact %a, bound %g",
                          b->name, sizes[s], out, want, err);
            largest = fmax(largest, fabs(out - want) / err);
        }
        if (sizes[s] > 1000)
            ck_assert_msg(largest > 0.125, "lse about %g: only %g of the bound", sizes[s], largest);
    }
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: attn_merge");
    TCase *cases = tcase_create("shapes");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, columns, 0, n);
    tcase_add_loop_test(cases, many_parts, 0, n);
    tcase_add_loop_test(cases, shapes, 0, n);
    tcase_add_loop_test(cases, split_and_whole, 0, n);
    tcase_add_loop_test(cases, lse_rounding, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
