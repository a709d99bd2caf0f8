/* attn_sdpa() on every backend, over shapes. */
#include "differential/api_draw.h"
#include "order.h"

static const struct attn_backend *backends[4];

static struct api_case draw(size_t batch, size_t n_head, size_t n_head_kv, size_t n_q, size_t n_kv,
                            size_t p_k, size_t p_v, uint64_t stream) {
    struct api_case c = {.call = API_SDPA,
                         .batch = batch,
                         .n_head = n_head,
                         .n_head_kv = n_head_kv,
                         .n_q = n_q,
                         .n_kv = n_kv,
                         .p_q = p_k,
                         .p_k = p_k,
                         .p_v = p_v};
    api_draw(&c, stream);
    return c;
}

/* All small numbers of queries up to two blocks and a row, against numbers of keys. */
START_TEST(lengths) {
    const struct attn_backend *b = backends[_i];
    for (size_t n_q = 1; n_q <= 2 * b->pool_rows + 1; n_q++)
        for (size_t n_kv = 1; n_kv <= 33; n_kv += 1 + (n_q + n_kv) % 3) {
            const size_t i = n_q * 100 + n_kv;
            const struct api_case c = draw(1 + i % 2, 2, 1 + i % 2, n_q, n_kv, 1 + i % 11, 1 + i % 13, i);
            if (harness_takes(i, 83)) api_expect(b->name, &c);
        }
}
END_TEST

/* Groups: all heads of one key/value head in one call. */
START_TEST(grouped) {
    static const size_t counts[] = {1, 2, 3, 4, 7, 8, 71};
    const struct attn_backend *b = backends[_i];
    for (size_t g = 0; g < SHAPES_COUNT(counts); g++)
        for (size_t n_q = 1; n_q <= 70; n_q += n_q < 6 ? 1 : 16)
            for (size_t n_head_kv = 1; n_head_kv <= 2 && n_head_kv * counts[g] <= API_HEADS_MAX;
                 n_head_kv++) {
                const size_t i = 20000 + g * 1000 + n_q * 10 + n_head_kv;
                const struct api_case c = draw(1, counts[g] * n_head_kv, n_head_kv, n_q, 20 + n_q, 8, 5, i);
                if (harness_takes(g + n_q, 9)) api_expect(b->name, &c);
            }
}
END_TEST

/* Every mask, broadcast in each of the 16 ways, by every causal alignment and kind of lengths. */
START_TEST(masks) {
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < 3 * 16 * 3 * 4; i++) {
        struct api_case c = draw(2, 4, 2, 5 + i % 3 * 8, 21, 6, 7, 30000 + i);
        c.mask = (enum api_mask)(i % 3);
        c.mask_bits = i / 3 % 16;
        c.causal = (attn_causal)(i / 48 % 3);
        c.q_lengths = i / 144 % 2 != 0;
        c.kv_lengths = i / 288 != 0;
        c.fill = FILL_NORMAL;
        c.lse = 1;
        if (harness_takes(i, 29)) api_expect(b->name, &c);
    }
}
END_TEST

/* Sizes of 0, and few queries over many keys (split in chunks). */
START_TEST(extremes) {
    static const size_t shapes[][8] = {
        {0, 2, 1, 3, 5, 4, 4, 0},      {2, 2, 2, 0, 5, 4, 4, 0},     {2, 2, 1, 3, 0, 4, 4, 0},
        {2, 2, 1, 0, 0, 4, 4, 0},      {1, 1, 1, 1, 2047, 8, 8, 0},  {1, 4, 1, 1, 2048, 8, 8, 0},
        {1, 4, 2, 2, 2049, 8, 8, 0},   {2, 2, 2, 3, 4095, 5, 3, 0},  {1, 3, 1, 1, 4096, 16, 16, 0},
        {1, 8, 2, 1, 4097, 16, 17, 0}, {1, 2, 1, 60, 4100, 8, 8, 0}, {1, 2, 1, 60, 2050, 8, 8, 0},
        {1, 71, 1, 1, 2060, 8, 8, 0},  {1, 1, 1, 300, 300, 4, 4, 0},
    };
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < 4 * SHAPES_COUNT(shapes); i++) {
        const size_t *s = shapes[i % SHAPES_COUNT(shapes)];
        struct api_case c = draw(s[0], s[1], s[2], s[3], s[4], s[5], s[6], 40000 + i);
        c.weights = c.weights && s[3] * s[4] < 10000;
        c.scores = c.scores && s[3] * s[4] < 10000;
        if (harness_takes(i, 5)) api_expect(b->name, &c);
    }
}
END_TEST

/* Rows outside heads and enough tasks, so that few rows take several heads at once: whole and in chunks, one to more rows
 * than fill two vectors, heads that make a page and heads that do not. */
START_TEST(heads_together) {
    static const size_t shapes[][5] = {{16, 2, 20, 8, 8},   {9, 4, 37, 16, 5},   {3, 16, 61, 33, 17},
                                       {8, 2, 2051, 12, 9}, {4, 3, 4097, 7, 16}, {2, 17, 16, 4, 4}};
    static const size_t rows[][2] = {{1, 1}, {1, 4}, {3, 1}, {1, 7}, {3, 3}, {8, 2}, {11, 3}};
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < SHAPES_COUNT(shapes) * SHAPES_COUNT(rows); i++) {
        const size_t *s = shapes[i % SHAPES_COUNT(shapes)], *r = rows[i / SHAPES_COUNT(shapes)];
        struct api_case c;
        if (s[1] * r[1] > API_HEADS_MAX || s[2] * r[0] > 12000) continue;
        c = draw(s[0], s[1] * r[1], s[1], r[0], s[2], s[3], s[4], 45000 + i);
        c.layout = LAYOUT_BNHD | (c.layout & LAYOUT_NEGATIVE);
        c.weights = c.scores = 0;
        if (harness_takes(i, 5)) api_expect(b->name, &c);
    }
}
END_TEST

START_TEST(awkward) {
    const struct attn_backend *b = backends[_i];
    struct rng r = rng_make(test_seed(), 50000);
    for (size_t i = 0; i < 250; i++) {
        const size_t *s = shapes_awkward, n = SHAPES_COUNT(shapes_awkward);
        const size_t group = s[rng_below(&r, 5)], n_head_kv = 1 + rng_below(&r, 3),
                     n_q = s[rng_below(&r, n - 6)];
        const size_t n_kv = s[rng_below(&r, n - 3)], p_k = s[rng_below(&r, n - 5)],
                     p_v = s[rng_below(&r, n - 5)];
        const struct api_case c =
            draw(1 + rng_below(&r, 3), group * n_head_kv, n_head_kv, n_q, n_kv, p_k, p_v, 50001 + i);
        if (harness_takes(i, 40)) api_expect(b->name, &c);
    }
}
END_TEST

/* Shapes of models; heads and queries fewer where the oracle would take long. */
START_TEST(models) {
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < SHAPES_COUNT(shapes_sdpa); i++) {
        const struct shape_pool *s = &shapes_sdpa[i];
        const size_t group = s->n_head / s->n_head_kv, cost = s->n_kv * (s->p_k + s->p_v) * group;
        const size_t rows = 12000000 / cost + 1, n_q = s->n_q < rows ? s->n_q : rows;
        const size_t n_head_kv = n_q < rows && rows / n_q < s->n_head_kv ? rows / n_q
                                 : n_q < rows                            ? s->n_head_kv
                                                                         : 1;
        struct api_case c =
            draw(s->batch, group * n_head_kv, n_head_kv, n_q, s->n_kv, s->p_k, s->p_v, 60000 + i);
        c.causal = s->causal ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE;
        c.q_lengths = c.kv_lengths = c.weights = c.scores = 0;
        c.mask = API_MASK_NONE;
        if (harness_takes(i, 12)) api_expect(b->name, &c);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: attn_sdpa");
    TCase *cases = tcase_create("shapes");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, lengths, 0, n);
    tcase_add_loop_test(cases, grouped, 0, n);
    tcase_add_loop_test(cases, masks, 0, n);
    tcase_add_loop_test(cases, extremes, 0, n);
    tcase_add_loop_test(cases, heads_together, 0, n);
    tcase_add_loop_test(cases, awkward, 0, n);
    tcase_add_loop_test(cases, models, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
