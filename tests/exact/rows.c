/*
 * A row's bits alone equal its bits among others: queries cut anywhere (prefill, pieces, one by one), batch
 * and single sequences, a group's heads together and alone, keys cut in parts and whole.
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

static void check_parts(const struct exact_run *e, const struct exact_part *parts, size_t n,
                        const struct api_outputs *all) {
    struct verdict v = {.ok = 1};
    for (size_t i = 0; i < n; i++) {
        exact_check_part(e, &parts[i], all, &v);
        HARNESS_ASSERT(&v);
    }
}

/* Queries [from, to), with the keys that are left to them. */
static struct exact_part rows_of(const struct api_case *c, size_t from, size_t to) {
    struct exact_part p = exact_whole(c);
    p.row = from;
    p.n_q = to - from;
    if (c->causal == ATTN_CAUSAL_BOTTOM_RIGHT) p.n_kv = c->n_kv - (c->n_q - to);
    return p;
}

/* Only the part's own causal order must be expressible: from the bottom right, or none. */
static struct api_case cuttable(size_t i, enum api_call call) {
    struct api_case c = exact_case(i, call);
    c.causal = i % 2 ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE;
    if (c.causal == ATTN_CAUSAL_BOTTOM_RIGHT) {
        c.kv_lengths = 0; /* the lengths would move with the end of the keys */
        c.n_kv = c.n_kv < c.n_q ? c.n_q : c.n_kv;
    }
    return c;
}

static struct api_outputs run_all(const struct exact_run *e) {
    struct verdict v = {.ok = 1};
    struct api_outputs all = api_case_run(e->context, &e->c, e->d, &v);
    HARNESS_ASSERT(&v);
    return all;
}

START_TEST(queries_in_pieces) {
    for (size_t i = 0; i < EXACT_CASES; i++)
        for (int call = API_SDPA; call <= API_MULTIHEAD; call++) {
            const struct api_case c = cuttable(i, (enum api_call)call);
            if (!harness_takes(i + (size_t)call, 5)) continue;
            struct exact_run e = start(backends[_i]->name, &c);
            struct api_outputs all = run_all(&e);
            struct rng r = rng_make(test_seed(), i);
            for (size_t from = 0; from < c.n_q;) { /* pieces of random heights */
                const size_t left = c.n_q - from, n = 1 + rng_below(&r, left < 40 ? left : 40);
                const struct exact_part p = rows_of(&c, from, from + n);
                check_parts(&e, &p, 1, &all);
                from += n;
            }
            for (size_t row = 0; row < c.n_q;
                 row += c.n_q < 20 ? 1 : 11) { /* and one by one, as decoding does */
                const struct exact_part p = rows_of(&c, row, row + 1);
                check_parts(&e, &p, 1, &all);
            }
            api_outputs_free(&all);
            finish(&e);
        }
}
END_TEST

/* A row's scores too. */
START_TEST(scores_one_by_one) {
    for (size_t i = 0; i < EXACT_CASES; i++) {
        struct api_case c = cuttable(i, API_SDPA);
        c.scores = 1;
        if (!harness_takes(i, 3)) continue;
        struct exact_run e = start(backends[_i]->name, &c);
        struct api_outputs all = run_all(&e);
        for (size_t row = 0; row < c.n_q; row += c.n_q < 20 ? 1 : 11) {
            const struct exact_part p = rows_of(&c, row, row + 1);
            check_parts(&e, &p, 1, &all);
        }
        api_outputs_free(&all);
        finish(&e);
    }
}
END_TEST

START_TEST(sequences_alone) {
    for (size_t i = 0; i < EXACT_CASES; i++)
        for (int call = API_SDPA; call <= API_MULTIHEAD; call++) {
            struct api_case c = exact_case(i, (enum api_call)call);
            c.batch = 3;
            c.mask_bits |= 1;
            if (!harness_takes(i + (size_t)call, 5)) continue;
            struct exact_run e = start(backends[_i]->name, &c);
            struct api_outputs all = run_all(&e);
            for (size_t b = 0; b < c.batch; b++) {
                struct exact_part p = exact_whole(&c);
                p.batch = b;
                p.n_batch = 1;
                check_parts(&e, &p, 1, &all);
            }
            api_outputs_free(&all);
            finish(&e);
        }
}
END_TEST

/* Each head alone, and half of a group where it can be halved. */
START_TEST(heads_alone) {
    for (size_t i = 0; i < EXACT_CASES; i++)
        for (int call = API_SDPA; call <= API_ADDITIVE; call++) {
            struct api_case c = exact_case(i, (enum api_call)call);
            c.a_q = c.a_k = 0; /* their matrices come head by head */
            if (!harness_takes(i + (size_t)call, 5)) continue;
            struct exact_run e = start(backends[_i]->name, &c);
            struct api_outputs all = run_all(&e);
            const size_t group = c.n_head / c.n_head_kv;
            for (size_t h = 0; h<c.n_head; h += c.n_head> 12 ? 10 : 1) {
                struct exact_part p = exact_whole(&c);
                p.head = h;
                p.n_head = 1;
                check_parts(&e, &p, 1, &all);
                p.n_head = group / 2;
                if (group > 2 && h % group == 0) check_parts(&e, &p, 1, &all);
            }
            api_outputs_free(&all);
            finish(&e);
        }
}
END_TEST

/* Keys are cut in chunks of a task each, whose parts are merged; where weights are asked for they are not. */
START_TEST(split_and_whole) {
    for (size_t i = 0; i < 8; i++) {
        static const size_t lengths[] = {2047, 2048, 2049, 4096, 4097, 6145, 8192, 3000};
        struct api_case c = exact_case(1, i % 3 == 2 ? API_ADDITIVE : API_SDPA);
        c.n_head = 2;
        c.n_head_kv = 1 + i % 2;
        c.batch = 1;
        c.n_q = 60;
        c.n_kv = lengths[i];
        c.kv_lengths = 0;
        c.causal = i % 2 ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE;
        c.mask = i < 4 ? API_MASK_NONE : API_MASK_F32;
        c.mask_bits = 8;
        c.stream = 70000 + i;
        c.weights = 1;
        c.a_q = c.a_k = 0;
        if (!harness_takes(i, 7)) continue;
        struct exact_run e = start(backends[_i]->name, &c);
        struct api_outputs all = run_all(&e);
        for (size_t row = 0; row < c.n_q; row += 13) {
            const struct exact_part alone = rows_of(&c, row, row + 1), few = rows_of(&c, row, row + 2);
            check_parts(&e, &alone, 1, &all);
            check_parts(&e, &few, 1, &all);
        }
        api_outputs_free(&all);
        finish(&e);
    }
}
END_TEST

/* attn_head i is head i of attn_multihead without W_o; log-sum-exp and weights too. */
START_TEST(head_of_multihead) {
    for (size_t i = 0; i < EXACT_CASES; i++) {
        struct api_case c = exact_case(i, API_MULTIHEAD);
        struct verdict v = {.ok = 1};
        c.p_o = 0;
        c.weights = c.n_q * c.n_kv < 5000;
        if (!harness_takes(i, 5)) continue;
        struct exact_run e = start(backends[_i]->name, &c);
        struct api_outputs all = run_all(&e);
        for (c.head = 0; c.head<c.n_head; c.head += c.n_head> 12 ? 14 : 1) {
            c.call = API_HEAD;
            struct api_outputs one = api_case_run(e.context, &c, e.d, &v);
            HARNESS_ASSERT(&v);
            for (size_t b = 0; b < c.batch; b++)
                for (size_t row = 0; row < c.n_q; row++) {
                    const float *h = grid_f32(&all.out, b, 0, row) + c.head * c.p_v;
                    if (memcmp(h, grid_f32(&one.out, b, 0, row), c.p_v * sizeof *h) != 0 ||
                        memcmp(grid_f32(&all.lse, b, c.head, row), grid_f32(&one.lse, b, 0, row),
                               sizeof *h) != 0 ||
                        (c.weights && memcmp(grid_f32(&all.weights, b, c.head, row),
                                             grid_f32(&one.weights, b, 0, row), c.n_kv * sizeof *h) != 0))
                        ck_abort_msg("%s: head %zu row %zu differs from attn_head's", harness_case_text(),
                                     c.head, row);
                }
            api_outputs_free(&one);
        }
        api_outputs_free(&all);
        finish(&e);
    }
}
END_TEST

/* Rows of attn_linear one by one, and in any layout. */
START_TEST(linear_rows) {
    static const size_t shapes[][3] = {{7, 33, 5}, {40, 130, 70}, {13, 64, 2100}, {400, 20, 30}};
    attn_context *context = harness_context(backends[_i]->name, 1);
    for (size_t s = 0; s < SHAPES_COUNT(shapes); s++) {
        struct rng r = rng_make(test_seed(), 90000 + s);
        const size_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
        struct grid x = grid_make(&r, 4, (size_t[4]){1, 1, m, k}, 0),
                    w = grid_make(&r, 4, (size_t[4]){1, 1, n, k}, 0);
        struct grid y = grid_make(&r, 4, (size_t[4]){1, 1, m, n}, LAYOUT_NEGATIVE),
                    one = grid_make(&r, 4, (size_t[4]){1, 1, 1, n}, 0);
        grid_fill(&x, &r, FILL_NORMAL);
        grid_fill(&w, &r, FILL_NORMAL);
        attn_tensor t_x = grid_tensor(&x), t_w = grid_tensor(&w), t_y = grid_tensor(&y),
                    t_one = grid_tensor(&one);
        const attn_packed *packed = NULL;
        size_t bytes = 0;
        ck_assert_int_eq(attn_pack_linear_bytes(context, &t_w, &bytes), ATTN_OK);
        struct guard memory = guard_alloc(bytes, 1);
        ck_assert_int_eq(attn_pack_linear(context, &t_w, NULL, memory.data, bytes, &packed), ATTN_OK);
        ck_assert_int_eq(attn_linear(context, &t_x, packed, &t_y), ATTN_OK);
        t_x.size[2] = 1;
        for (size_t i = 0; i < m; i++) {
            t_x.data = grid_f32(&x, 0, 0, i);
            ck_assert_int_eq(attn_linear(context, &t_x, packed, &t_one), ATTN_OK);
            ck_assert_msg(memcmp(grid_f32(&y, 0, 0, i), grid_f32(&one, 0, 0, 0), n * sizeof(float)) == 0,
                          "%s linear %zu %zu %zu: row %zu has other bits alone", backends[_i]->name, m, n, k,
                          i);
        }
        grid_free(&x);
        grid_free(&w);
        grid_free(&y);
        grid_free(&one);
        guard_free(&memory);
    }
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("exact: rows");
    TCase *cases = tcase_create("cuts");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, queries_in_pieces, 0, n);
    tcase_add_loop_test(cases, scores_one_by_one, 0, n);
    tcase_add_loop_test(cases, sequences_alone, 0, n);
    tcase_add_loop_test(cases, heads_alone, 0, n);
    tcase_add_loop_test(cases, split_and_whole, 0, n);
    tcase_add_loop_test(cases, head_of_multihead, 0, n);
    tcase_add_loop_test(cases, linear_rows, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
