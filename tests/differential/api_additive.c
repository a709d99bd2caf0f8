/* attn_additive() on every backend, over shapes, with each choice of matrices. */
#include "differential/api_draw.h"

static const struct attn_backend *backends[4];

/* which: bit 0: A_q is given, bit 1: A_k is. */
static struct api_case draw(size_t n_head, size_t n_head_kv, size_t n_q, size_t n_kv, size_t p_q, size_t p_k,
                            size_t p_v, size_t c, unsigned which, uint64_t stream) {
    struct api_case a = {.call = API_ADDITIVE,
                         .batch = 1 + stream % 2,
                         .n_head = n_head,
                         .n_head_kv = n_head_kv,
                         .n_q = n_q,
                         .n_kv = n_kv,
                         .p_q = which & 1 ? p_q : c,
                         .p_k = which & 2 ? p_k : c,
                         .p_v = p_v,
                         .c = c,
                         .a_q = (which & 1) != 0,
                         .a_k = (which & 2) != 0,
                         .bias = stream % 3 == 0};
    api_draw(&a, stream);
    return a;
}

START_TEST(lengths) {
    const struct attn_backend *b = backends[_i];
    for (size_t n_q = 1; n_q <= b->pool_rows + 17; n_q++)
        for (size_t n_kv = 1; n_kv <= 33; n_kv += 3 + n_q % 5) {
            const size_t i = n_q * 100 + n_kv;
            const struct api_case c = draw(2, 1 + i % 2, n_q, n_kv, 3, 4, 5, 1 + i % 6, i % 4, i);
            if (harness_takes(i, 97)) api_expect(b->name, &c);
        }
}
END_TEST

START_TEST(widths) {
    const struct attn_backend *b = backends[_i];
    for (size_t c = 1; c <= 33; c++)
        for (unsigned which = 0; which < 4; which++) {
            const size_t i = 10000 + c * 10 + which;
            const struct api_case a =
                draw(4, 2, 1 + c % 7, 9 + c, 1 + i % 17, 1 + i % 19, 1 + i % 23, c, which, i);
            if (harness_takes(i, 13)) api_expect(b->name, &a);
        }
}
END_TEST

START_TEST(extremes) {
    static const size_t shapes[][8] = {
        {2, 1, 0, 5, 3, 4, 5, 6},           {2, 1, 3, 0, 3, 4, 5, 6},    {71, 1, 2, 20, 3, 4, 5, 6},
        {1, 1, 1, 2049, 3, 4, 5, 6},        {6, 2, 1, 4099, 3, 4, 5, 6}, {2, 2, 40, 2100, 3, 4, 5, 6},
        {1, 1, 5, 40, 300, 200, 100, 1025},
    };
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < 4 * SHAPES_COUNT(shapes); i++) {
        const size_t *s = shapes[i % SHAPES_COUNT(shapes)];
        struct api_case c = draw(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7],
                                 (unsigned)(i / SHAPES_COUNT(shapes)), 20000 + i);
        c.weights = c.weights && s[2] * s[3] < 10000;
        if (harness_takes(i, 5)) api_expect(b->name, &c);
    }
}
END_TEST

START_TEST(awkward) {
    const struct attn_backend *b = backends[_i];
    struct rng r = rng_make(test_seed(), 30000);
    for (size_t i = 0; i < 120; i++) {
        const size_t *s = shapes_awkward;
        const size_t group = s[rng_below(&r, 5)], n_head_kv = 1 + rng_below(&r, 3),
                     n_q = s[rng_below(&r, 10)];
        const size_t n_kv = s[rng_below(&r, 14)], p_q = s[rng_below(&r, 14)], p_k = s[rng_below(&r, 14)];
        const struct api_case c = draw(group * n_head_kv, n_head_kv, n_q, n_kv, p_q, p_k,
                                       s[rng_below(&r, 12)], s[rng_below(&r, 12)], i % 4, 30001 + i);
        if (harness_takes(i, 30)) api_expect(b->name, &c);
    }
}
END_TEST

START_TEST(models) {
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < SHAPES_COUNT(shapes_additive); i++) {
        const struct shape_pool *s = &shapes_additive[i];
        const size_t rows = 2000000 / (s->n_kv * s->p_k * s->batch) + 1, n_q = s->n_q < rows ? s->n_q : rows;
        struct api_case c = draw(1, 1, n_q, s->n_kv, s->p_k, s->p_k, s->p_v, s->p_k, 3 * (i != 2), 40000 + i);
        c.batch = s->batch;
        c.causal = ATTN_CAUSAL_NONE;
        c.mask = API_MASK_NONE;
        if (harness_full()) api_expect(b->name, &c);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: attn_additive");
    TCase *cases = tcase_create("shapes");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, lengths, 0, n);
    tcase_add_loop_test(cases, widths, 0, n);
    tcase_add_loop_test(cases, extremes, 0, n);
    tcase_add_loop_test(cases, awkward, 0, n);
    tcase_add_loop_test(cases, models, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
