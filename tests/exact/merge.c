/*
 * attn_merge gives the same bits on any executor, for a row alone, in place, with parts that a row does not
 * see left out, and on every SIMD backend.
 */
#include <math.h>
#include <string.h>

#include "exact/exact.h"
#include "support/merge_case.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

static struct merge_case merge_exact_case(size_t i) {
    static const size_t sizes[][5] = {{1, 1, 1, 1, 1},   {2, 3, 5, 17, 3},   {1, 4, 1, 128, 4},
                                      {3, 2, 70, 64, 2}, {1, 2, 3, 133, 65}, {2, 1, 2, 40, 200},
                                      {1, 1, 300, 96, 8}};
    const size_t *s = sizes[i % SHAPES_COUNT(sizes)];
    return (struct merge_case){.batch = s[0],
                               .n_head = s[1],
                               .n_q = s[2],
                               .p_v = s[3],
                               .n_parts = s[4],
                               .lse = 1,
                               .hidden = i % 3 ? 25 : 0,
                               .mid = i % 2 ? 100.0f : 0.0f,
                               .width = i % 4 == 3 ? 50.0f : 2.0f,
                               .layout = (unsigned)(i % N_LAYOUTS),
                               .stream = i};
}
enum { CASES = 14 };

static uint64_t hash_of(attn_context *context, const struct merge_case *c, struct merge_data *d) {
    struct verdict v = {.ok = 1};
    uint64_t hash = EXACT_HASH_START;
    struct merge_outputs o = merge_case_run(context, c, d, &v);
    HARNESS_ASSERT(&v);
    for (size_t b = 0; b < c->batch; b++)
        for (size_t h = 0; h < c->n_head; h++)
            for (size_t i = 0; i < c->n_q; i++) {
                hash = exact_hash_floats(hash, grid_f32(&o.out, b, h, i), c->p_v);
                hash = exact_hash_floats(hash, grid_f32(&o.lse, b, h, i), 1);
            }
    merge_outputs_free(&o);
    return hash;
}

START_TEST(threads_and_places) {
    const char *name = backends[_i]->name;
    for (size_t i = 0; i < CASES; i++) {
        struct merge_case c = merge_exact_case(i);
        struct merge_data d = merge_case_make(&c);
        attn_context *one = harness_context(name, 1), *three = harness_context(name, 3);
        harness_case("%s, case %zu", name, i);
        const uint64_t want = hash_of(one, &c, &d);
        ck_assert_msg(hash_of(three, &c, &d) == want, "%s: other bits with 3 threads", harness_case_text());
        for (c.in_place = 1; c.in_place < 4; c.in_place++)
            ck_assert_msg(hash_of(one, &c, &d) == want, "%s: other bits in place (%d)", harness_case_text(),
                          c.in_place);
        attn_context_destroy(one);
        attn_context_destroy(three);
        merge_case_free(&c, &d);
    }
}
END_TEST

/* Row (b, h, i) merged alone, from the parts that it sees only. */
static void check_row_alone(attn_context *context, const struct merge_case *c, struct merge_data *d,
                            const struct merge_outputs *all, const size_t at[3]) {
    attn_tensor outs[256], lses[256];
    float out[256], lse;
    size_t n = 0;
    for (size_t i = 0; i < c->n_parts; i++) {
        float *const l = grid_f32(&d->lses[i], at[0], at[1], at[2]);
        if (*l == -INFINITY) continue;
        outs[n] =
            attn_tensor_contiguous(grid_f32(&d->outs[i], at[0], at[1], at[2]), ATTN_F32, 1, 1, 1, c->p_v);
        lses[n++] = attn_tensor_contiguous(l, ATTN_F32, 1, 1, 1, 1);
    }
    attn_tensor t_out = attn_tensor_contiguous(out, ATTN_F32, 1, 1, 1, c->p_v),
                t_lse = attn_tensor_contiguous(&lse, ATTN_F32, 1, 1, 1, 1);
    const attn_merge_args args = {sizeof args, n, outs, lses, &t_out, &t_lse};
    ck_assert_int_eq(attn_merge(context, &args), ATTN_OK);
    if (memcmp(out, grid_f32(&all->out, at[0], at[1], at[2]), c->p_v * sizeof *out) != 0 ||
        memcmp(&lse, grid_f32(&all->lse, at[0], at[1], at[2]), sizeof lse) != 0)
        ck_abort_msg("%s: row %zu %zu %zu alone has other bits", harness_case_text(), at[0], at[1], at[2]);
    if (n == 1 && (memcmp(out, outs[0].data, c->p_v * sizeof *out) != 0 || lse != *(float *)lses[0].data))
        ck_abort_msg("%s: a single part is not copied", harness_case_text());
}

START_TEST(rows_alone) {
    for (size_t i = 0; i < CASES; i++) {
        const struct merge_case c = merge_exact_case(i);
        struct merge_data d = merge_case_make(&c);
        struct verdict v = {.ok = 1};
        attn_context *context = harness_context(backends[_i]->name, 1);
        harness_case("%s, case %zu", backends[_i]->name, i);
        struct merge_outputs all = merge_case_run(context, &c, &d, &v);
        HARNESS_ASSERT(&v);
        for (size_t b = 0; b < c.batch; b++)
            for (size_t h = 0; h < c.n_head; h++)
                for (size_t q = 0; q < c.n_q; q += c.n_q < 10 ? 1 : 13)
                    check_row_alone(context, &c, &d, &all, (size_t[3]){b, h, q});
        attn_context_destroy(context);
        merge_outputs_free(&all);
        merge_case_free(&c, &d);
    }
}
END_TEST

/* Zeros keep their signs through a single part; the bits of all cases together, on all instruction sets. */
START_TEST(signed_zero) {
    attn_context *context = harness_context(backends[_i]->name, 1);
    for (size_t n = 1; n < 40; n++) {
        float x[40], y[40], lse = -7.5f;
        for (size_t i = 0; i < n; i++) x[i] = i % 2 ? -0.0f : 0.0f;
        attn_tensor t_x = attn_tensor_contiguous(x, ATTN_F32, 1, 1, 1, n),
                    t_lse = attn_tensor_contiguous(&lse, ATTN_F32, 1, 1, 1, 1),
                    t_y = attn_tensor_contiguous(y, ATTN_F32, 1, 1, 1, n);
        const attn_merge_args args = {
            .size = sizeof args, .n_parts = 1, .outs = &t_x, .lses = &t_lse, .out = &t_y};
        ck_assert_int_eq(attn_merge(context, &args), ATTN_OK);
        ck_assert_mem_eq(x, y, n * sizeof *x);
    }
    attn_context_destroy(context);
}
END_TEST

/* Changing it is a new major version of the bits. */
#define MERGE_GOLDEN UINT64_C(0xd4b0989b8c3f5e)

START_TEST(backends_agree) {
    uint64_t hash = 0;
    if (strcmp(backends[_i]->name, "scalar") == 0) return;
    test_seed_fix(20260801);
    for (size_t i = 0; i < CASES; i++) {
        const struct merge_case c = merge_exact_case(i);
        struct merge_data d = merge_case_make(&c);
        attn_context *context = harness_context(backends[_i]->name, 1);
        hash = hash * 31 + hash_of(context, &c, &d);
        attn_context_destroy(context);
        merge_case_free(&c, &d);
    }
    ck_assert_msg(hash == MERGE_GOLDEN, "%s: %#llx", backends[_i]->name, (unsigned long long)hash);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("exact: attn_merge");
    TCase *cases = tcase_create("bits");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, threads_and_places, 0, n);
    tcase_add_loop_test(cases, rows_alone, 0, n);
    tcase_add_loop_test(cases, signed_zero, 0, n);
    tcase_add_loop_test(cases, backends_agree, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
