/* The pool, merge and pool_scratch slots of every backend, over shapes. Built twice: POOL_SCORE says for
 * which score. */
#include "order.h"
#include "support/pool_case.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

static void check(const struct attn_backend *b, const struct pool_case *c) {
    struct verdict v = {.ok = 1};
    pool_case_announce(b, c);
    pool_case_check(b, c, &v);
    HARNESS_ASSERT(&v);
}

/* A shape, and everything that it leaves open drawn from its number. */
static struct pool_case draw(const struct attn_backend *b, size_t n_rows, size_t group, size_t n_kv,
                             size_t d_k, size_t d_v, uint64_t stream) {
    struct rng r = rng_make(test_seed(), ~stream);
    struct pool_case c = {.score = POOL_SCORE,
                          .n_rows = n_rows,
                          .group = group,
                          .n_kv = n_kv,
                          .d_k = d_k,
                          .d_v = d_v,
                          .stream = stream};
    c.first = rng_chance(&r, 50) ? rng_below(&r, group) : 0;
    c.sight = (enum sight)rng_below(&r, N_SIGHTS - 1); /* SIGHT_NONE has a test of its own */
    c.mask = rng_chance(&r, 50) ? ATTN_MASK_NONE : (enum attn_mask_kind)(1 + rng_below(&r, 3));
    c.mask_bits = (unsigned)rng_below(&r, 8);
    c.parts = b->splits && rng_chance(&r, 33);
    c.documents = rng_chance(&r, 20);
    c.alibi = rng_chance(&r, 30);
    c.soft_cap = rng_chance(&r, 70) ? 0 : rng_chance(&r, 50) ? 1.5f : 30;
    c.sinks = rng_chance(&r, 60) ? 0 : rng_chance(&r, 66) ? 1 : 2;
    c.lse = rng_chance(&r, 50);
    c.lse_sinks = rng_chance(&r, 40);
    c.weights = !c.parts && rng_chance(&r, 33);
    c.rising = rng_chance(&r, 25);
    c.spoiled = rng_chance(&r, 15);
    c.shared_w = rng_chance(&r, 50);
    c.fill = rng_chance(&r, 60) ? FILL_NORMAL : (enum fill)rng_below(&r, N_FILLS);
    c.layout = (unsigned)rng_below(&r, N_LAYOUTS);
    c.scores = !c.parts && rng_chance(&r, 25);
    return c;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Every height of a block by every number of keys up to two tiles and a key. */
START_TEST(heights) {
    const struct attn_backend *b = backends[_i];
    for (size_t rows = 1; rows <= b->pool_rows; rows++)
        for (size_t n_kv = 1; n_kv <= 2 * ATTN_KEY_TILE + 1; n_kv++) {
            const size_t i = rows * 100 + n_kv;
            const struct pool_case c = draw(b, rows, 1 + i % 5, n_kv, 1 + i % 7, 1 + i % 9, i);
            if (harness_takes(i, 41)) check(b, &c);
        }
}
END_TEST

/* Every width of keys by every width of values up to two vectors and one; then those of models. */
START_TEST(widths) {
    static const size_t models[][2] = {{64, 64}, {80, 80}, {96, 96},   {128, 128}, {576, 512},
                                       {64, 1},  {1, 64},  {192, 128}, {256, 256}, {127, 129}};
    const struct attn_backend *b = backends[_i];
    for (size_t d_k = 1; d_k <= 33; d_k++)
        for (size_t d_v = 1; d_v <= 33; d_v++) {
            const size_t i = 10000 + d_k * 100 + d_v;
            const struct pool_case c =
                draw(b, least(1 + (d_k * d_v) % 21, b->pool_rows), 1 + i % 3, 18 + i % 5, d_k, d_v, i);
            if (harness_takes(i, 41)) check(b, &c);
        }
    for (size_t i = 0; i < SHAPES_COUNT(models) * 8; i++) {
        const size_t *d = models[i % SHAPES_COUNT(models)];
        const struct pool_case c =
            draw(b, least(1 + 7 * (i % 7), b->pool_rows), 1 + i % 3, 1 + i * 3, d[0], d[1], 20000 + i);
        if (harness_takes(i, 13)) check(b, &c);
    }
}
END_TEST

/* Around the ends of chunks, whole and in parts. */
START_TEST(chunks) {
    static const size_t ends[] = {ATTN_CHUNK, 2 * ATTN_CHUNK};
    const struct attn_backend *b = backends[_i];
    const size_t rows[] = {1, 5, least(17, b->pool_rows), b->pool_rows};
    const size_t step = POOL_SCORE == ATTN_SCORE_DOT ? 1 : 3;
    for (size_t e = 0; e < SHAPES_COUNT(ends); e++)
        for (size_t n_kv = ends[e] - 17; n_kv <= ends[e] + 18;
             n_kv += n_kv + 3 < ends[e] || n_kv > ends[e] + 2 ? 5 : step)
            for (size_t i = 0; i < 2 * SHAPES_COUNT(rows); i++) {
                struct pool_case c = draw(b, rows[i % SHAPES_COUNT(rows)], 1 + i % 3, n_kv, 3 + i, 2 + i,
                                          30000 + n_kv * 10 + i);
                c.parts = b->splits && i >= SHAPES_COUNT(rows);
                c.weights = c.weights && !c.parts;
                c.scores = c.scores && !c.parts;
                if (harness_takes(n_kv + i, 23)) check(b, &c);
            }
}
END_TEST

START_TEST(groups) {
    static const size_t counts[] = {1, 2, 3, 4, 7, 8, 71};
    const struct attn_backend *b = backends[_i];
    for (size_t g = 0; g < SHAPES_COUNT(counts); g++)
        for (size_t rows = 1; rows <= b->pool_rows; rows++) {
            const struct pool_case c = draw(b, rows, counts[g], 20 + rows, 8, 5, 80000 + g * 100 + rows);
            if (harness_takes(rows + g, 11)) check(b, &c);
        }
}
END_TEST

/* Every mask, broadcast in every way, under every kind of range; with and without the optional outputs. */
START_TEST(masks) {
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < 4 * 8 * N_SIGHTS * 4; i++) {
        struct pool_case c = draw(b, least(19, b->pool_rows), 3, 50, 6, 9, 90000 + i);
        c.mask = (enum attn_mask_kind)(i % 4);
        c.mask_bits = i / 4 % 8;
        c.sight = (enum sight)(i / 32 % N_SIGHTS);
        c.lse = i / 32 / N_SIGHTS % 2 != 0;
        c.weights = !c.parts && i / 32 / N_SIGHTS / 2 != 0;
        c.fill = FILL_NORMAL;
        if (harness_takes(i, 19)) check(b, &c);
    }
}
END_TEST

/* No key at all: nothing may be read, rows are 0 and -inf. */
START_TEST(nothing) {
    const struct attn_backend *b = backends[_i];
    for (size_t rows = 1; rows <= b->pool_rows; rows++)
        for (size_t n_kv = 0; n_kv <= 34; n_kv += 17) {
            struct pool_case c = draw(b, rows, 1 + rows % 4, n_kv, 5, 19, 100000 + rows * 100 + n_kv);
            c.sight = SIGHT_NONE;
            c.mask = n_kv ? c.mask : ATTN_MASK_NONE;
            c.lse = 1;
            if (harness_takes(rows, 11)) check(b, &c);
        }
}
END_TEST

/* Every kind of number in every layout. */
START_TEST(fills) {
    const struct attn_backend *b = backends[_i];
    for (unsigned i = 0; i < N_FILLS * N_LAYOUTS * 4; i++) {
        struct pool_case c = draw(b, least(18, b->pool_rows), 2, 49 + i, 24, 20, 110000 + i);
        c.fill = (enum fill)(i % N_FILLS);
        c.layout = i / N_FILLS % N_LAYOUTS;
        if (harness_takes(i, 19)) check(b, &c);
    }
}
END_TEST

START_TEST(awkward) {
    const struct attn_backend *b = backends[_i];
    struct rng r = rng_make(test_seed(), 120000);
    for (size_t i = 0; i < 400; i++) {
        const size_t *s = shapes_awkward, n = SHAPES_COUNT(shapes_awkward);
        const size_t rows = 1 + rng_below(&r, b->pool_rows), d_k = s[rng_below(&r, n - 4)],
                     d_v = s[rng_below(&r, n - 4)];
        const struct pool_case c =
            draw(b, rows, s[rng_below(&r, 6)], s[rng_below(&r, n)], d_k, d_v, 120001 + i);
        if (harness_takes(i, 40)) check(b, &c);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: pool slot");
    TCase *cases = tcase_create("shapes");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, heights, 0, n);
    tcase_add_loop_test(cases, widths, 0, n);
    tcase_add_loop_test(cases, chunks, 0, n);
    tcase_add_loop_test(cases, groups, 0, n);
    tcase_add_loop_test(cases, masks, 0, n);
    tcase_add_loop_test(cases, nothing, 0, n);
    tcase_add_loop_test(cases, fills, 0, n);
    tcase_add_loop_test(cases, awkward, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
