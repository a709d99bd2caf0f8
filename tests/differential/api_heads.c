/* attn_head() and attn_multihead() on every backend, over shapes: eq. 11.5.1 end to end. */
#include "differential/api_draw.h"

static const struct attn_backend *backends[4];

/* Everything but the numbers of heads and rows from the stream's random numbers, sizes up to `most`. */
static struct api_case draw(enum api_call call, size_t n_head, size_t n_head_kv, size_t n_q, size_t n_kv,
                            size_t most, uint64_t stream) {
    struct rng r = rng_make(test_seed(), stream * 3 + 1);
    struct api_case c = {.call = call,
                         .batch = 1 + rng_below(&r, 2),
                         .n_head = n_head,
                         .n_head_kv = n_head_kv,
                         .n_q = n_q,
                         .n_kv = n_kv,
                         .head = rng_below(&r, n_head),
                         .bias = rng_chance(&r, 50)};
    size_t *const sizes[] = {&c.d_q, &c.d_k, &c.d_v, &c.p_q, &c.p_k, &c.p_v, &c.c};
    for (size_t i = 0; i < SHAPES_COUNT(sizes); i++) *sizes[i] = 1 + rng_below(&r, most);
    c.p_o = call == API_MULTIHEAD && rng_chance(&r, 66) ? 1 + rng_below(&r, most) : 0;
    c.pooling = rng_chance(&r, 50) ? ATTN_POOLING_DOT : ATTN_POOLING_ADDITIVE;
    c.a_q = c.pooling == ATTN_POOLING_ADDITIVE && rng_chance(&r, 50);
    c.a_k = c.pooling == ATTN_POOLING_ADDITIVE && rng_chance(&r, 50);
    if (c.pooling == ATTN_POOLING_DOT || (!c.a_q && !c.a_k))
        c.p_q = c.p_k;
    else if (!c.a_q)
        c.p_q = c.c;
    else if (!c.a_k)
        c.p_k = c.c;
    c.self = n_q == n_kv && rng_chance(&r, 50);
    if (c.self) c.d_k = c.d_v = c.d_q;
    api_draw(&c, stream);
    return c;
}

START_TEST(lengths) {
    const struct attn_backend *b = backends[_i];
    for (size_t n_q = 1; n_q <= b->pool_rows + 5; n_q += 1 + n_q / 20)
        for (size_t n_kv = 1; n_kv <= 40; n_kv += 4 + n_q % 5) {
            const size_t i = n_q * 100 + n_kv;
            const struct api_case c =
                draw(i % 2 ? API_HEAD : API_MULTIHEAD, 4, 2, n_q, i % 7 ? n_kv : n_q, 20, i);
            if (harness_takes(i, 47)) api_expect(b->name, &c);
        }
}
END_TEST

/* Widths of one head next to the packed panels, where a head's outputs begin inside a panel. */
START_TEST(widths) {
    const struct attn_backend *b = backends[_i];
    for (size_t p = 1; p <= 70; p++)
        for (size_t head = 0; head < 5; head += 2) {
            struct api_case c =
                draw(head == 2 ? API_MULTIHEAD : API_HEAD, 6, 3, 5, 9, 30, 20000 + p * 10 + head);
            c.pooling = ATTN_POOLING_DOT;
            c.a_q = c.a_k = 0;
            c.p_q = c.p_k = p;
            c.p_v = 71 - p;
            c.head = head;
            if (harness_takes(p + head, 17)) api_expect(b->name, &c);
        }
}
END_TEST

START_TEST(grouped) {
    static const size_t counts[] = {1, 2, 3, 4, 7, 8, 71};
    const struct attn_backend *b = backends[_i];
    for (size_t g = 0; g < SHAPES_COUNT(counts); g++)
        for (size_t i = 0; i < 6; i++) {
            const size_t n_head_kv = counts[g] > 64 ? 1 : 1 + i % 3;
            const struct api_case c = draw(i % 2 ? API_HEAD : API_MULTIHEAD, counts[g] * n_head_kv, n_head_kv,
                                           1 + i * 5, 12 + i * 3, 12, 40000 + g * 10 + i);
            if (harness_takes(g + i, 7)) api_expect(b->name, &c);
        }
}
END_TEST

START_TEST(extremes) {
    static const size_t shapes[][4] = {{2, 1, 0, 4},    {2, 2, 4, 0}, {4, 1, 1, 2049},
                                       {2, 2, 3, 4100}, {1, 1, 1, 1}, {2, 1, 130, 130}};
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < 8 * SHAPES_COUNT(shapes); i++) {
        const size_t *s = shapes[i % SHAPES_COUNT(shapes)];
        struct api_case c = draw(i / SHAPES_COUNT(shapes) % 2 ? API_HEAD : API_MULTIHEAD, s[0], s[1], s[2],
                                 s[3], 8, 50000 + i);
        c.weights = c.weights && s[2] * s[3] < 10000;
        if (harness_takes(i, 7)) api_expect(b->name, &c);
    }
}
END_TEST

START_TEST(awkward) {
    const struct attn_backend *b = backends[_i];
    struct rng r = rng_make(test_seed(), 80000);
    for (size_t i = 0; i < 150; i++) {
        const size_t *s = shapes_awkward, group = s[rng_below(&r, 5)], n_head_kv = 1 + rng_below(&r, 3);
        const size_t n_q = s[rng_below(&r, 14)], n_kv = s[rng_below(&r, 16)];
        struct api_case c = draw(i % 2 ? API_HEAD : API_MULTIHEAD, group * n_head_kv, n_head_kv, n_q, n_kv,
                                 i % 3 ? 70 : 140, 80001 + i);
        if (i % 20 == 0 && !c.self) c.d_q = 1030; /* more than a K block */
        if (harness_takes(i, 40)) api_expect(b->name, &c);
    }
}
END_TEST

/* A batch of no sequence. */
START_TEST(no_batch) {
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < 10; i++) {
        struct api_case c = draw(i % 2 ? API_HEAD : API_MULTIHEAD, 4, 2, 5, 6, 20, 60000 + i);
        c.batch = 0;
        api_expect(b->name, &c);
    }
}
END_TEST

/* The attention of real models: MiniLM, BERT base, one grouped layer in small. */
START_TEST(models) {
    static const size_t shapes[][5] = {{12, 12, 16, 384, 32}, {12, 12, 24, 768, 64}, {8, 2, 33, 512, 64}};
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < 2 * SHAPES_COUNT(shapes); i++) {
        const size_t *s = shapes[i % SHAPES_COUNT(shapes)];
        struct api_case c = {.call = i < SHAPES_COUNT(shapes) ? API_MULTIHEAD : API_HEAD,
                             .batch = 1,
                             .n_head = s[0],
                             .n_head_kv = s[1],
                             .n_q = s[2],
                             .n_kv = s[2],
                             .d_q = s[3],
                             .d_k = s[3],
                             .d_v = s[3],
                             .p_q = s[4],
                             .p_k = s[4],
                             .p_v = s[4],
                             .bias = 1,
                             .self = 1,
                             .head = s[0] - 1,
                             .causal = s[0] == s[1] ? ATTN_CAUSAL_NONE : ATTN_CAUSAL_BOTTOM_RIGHT,
                             .lse = 1,
                             .weights = 1,
                             .n_workers = 2,
                             .stream = 70000 + i};
        c.p_o = c.call == API_MULTIHEAD ? s[3] : 0;
        if (harness_full()) api_expect(b->name, &c);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: attn_head, attn_multihead");
    TCase *cases = tcase_create("shapes");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, lengths, 0, n);
    tcase_add_loop_test(cases, widths, 0, n);
    tcase_add_loop_test(cases, grouped, 0, n);
    tcase_add_loop_test(cases, extremes, 0, n);
    tcase_add_loop_test(cases, awkward, 0, n);
    tcase_add_loop_test(cases, no_batch, 0, n);
    tcase_add_loop_test(cases, models, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
