/* The linear slot of every backend, over shapes. */
#include "order.h"
#include "support/linear_case.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

static void check(const struct attn_backend *b, const struct linear_case *c) {
    struct verdict v = {.ok = 1};
    harness_case("%s linear m %zu n %zu k %zu outputs [%zu, %zu) bias %d fill %d layout %u stream %llu",
                 b->name, c->m, c->n, c->k, c->o0, c->o1, c->bias, c->fill, c->layout,
                 (unsigned long long)c->stream);
    linear_case_check(b, c, &v);
    HARNESS_ASSERT(&v);
}

/* Everything that a shape leaves open, drawn from its number. */
static struct linear_case draw(size_t m, size_t n, size_t k, uint64_t stream) {
    struct rng r = rng_make(test_seed(), ~stream);
    return (struct linear_case){.m = m,
                                .n = n,
                                .k = k,
                                .o1 = n,
                                .bias = rng_chance(&r, 50),
                                .fill = (enum fill)rng_below(&r, N_FILLS),
                                .layout = (unsigned)rng_below(&r, N_LAYOUTS),
                                .stream = stream};
}

/* Every height up to two register tiles and a row by every width up to two panels and an output. */
START_TEST(tiles) {
    const struct attn_backend *b = backends[_i];
    static const size_t ks[] = {1, 2, 3, 5, 8, 17, 33};
    for (size_t m = 1; m <= 2 * b->linear_rows + 1; m++)
        for (size_t n = 1; n <= 2 * b->layout + 1; n++) {
            const size_t i = m * 1000 + n;
            const struct linear_case c = draw(m, n, ks[(m + n) % SHAPES_COUNT(ks)], i);
            if (harness_takes(m + n, 11)) check(b, &c);
        }
}
END_TEST

/* Inner sizes one by one, and round the ends of K blocks. */
START_TEST(depths) {
    const struct attn_backend *b = backends[_i];
    const size_t nr = b->layout, mr = b->linear_rows;
    static const size_t around[] = {ATTN_K_BLOCK, 2 * ATTN_K_BLOCK, 3 * ATTN_K_BLOCK};
    const size_t shapes[][2] = {{1, 1},           {1, nr + 3},      {mr, nr},
                                {mr + 1, nr + 1}, {2 * mr - 1, 17}, {3, 2 * nr - 1}};
    for (size_t s = 0; s < SHAPES_COUNT(shapes); s++) {
        for (size_t k = 1; k <= 2 * ATTN_PANEL_UNIT + 1; k++) {
            const struct linear_case c = draw(shapes[s][0], shapes[s][1], k, 1000000 + s * 1000 + k);
            if (harness_takes(k + s, 7)) check(b, &c);
        }
        for (size_t i = 0; i < SHAPES_COUNT(around); i++)
            for (size_t k = around[i] - 2; k <= around[i] + 2; k++) {
                const struct linear_case c = draw(shapes[s][0], shapes[s][1], k, 2000000 + s * 100000 + k);
                if (harness_takes(k + s, 5)) check(b, &c);
            }
    }
}
END_TEST

/* Parts of the outputs, as the plan's tasks and the heads of a stacked matrix take them: whole panels, the
 * last one of any width. */
START_TEST(ranges) {
    const struct attn_backend *b = backends[_i];
    const size_t nr = b->layout;
    for (size_t n = 2 * nr + 1; n <= 3 * nr; n++)
        for (size_t o0 = 0; o0 < n; o0 += nr)
            for (size_t o1 = o0 + nr; o1 < n + nr; o1 += nr) {
                struct linear_case c =
                    draw(1 + n % (b->linear_rows + 2), n, 1 + n % 9, 3000000 + n * 5000 + o0 * 7 + o1);
                c.o0 = o0;
                c.o1 = o1 < n ? o1 : n;
                if (harness_takes(n, 13)) check(b, &c);
            }
}
END_TEST

/* Every kind of number in every layout. */
START_TEST(fills) {
    const struct attn_backend *b = backends[_i];
    for (unsigned i = 0; i < N_FILLS * N_LAYOUTS * 2; i++) {
        struct linear_case c = draw(b->linear_rows + 2, b->layout + 7, 45, 4000000 + i);
        c.fill = (enum fill)(i % N_FILLS);
        c.layout = i / N_FILLS % N_LAYOUTS;
        c.bias = i >= N_FILLS * N_LAYOUTS;
        if (harness_takes(i, 11)) check(b, &c);
    }
}
END_TEST

START_TEST(awkward) {
    const struct attn_backend *b = backends[_i];
    struct rng r = rng_make(test_seed(), 5000000);
    for (size_t i = 0; i < 300; i++) {
        const size_t *s = shapes_awkward, n = SHAPES_COUNT(shapes_awkward);
        const size_t m = s[rng_below(&r, n - 5)], width = s[rng_below(&r, n)], k = s[rng_below(&r, n)];
        const struct linear_case c = draw(m, width, k, 5000001 + i);
        if (harness_takes(i, 30)) check(b, &c);
    }
}
END_TEST

/* Shapes of models; the long ones lose rows (all rows of a tile run the same code), not depth. */
START_TEST(models) {
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < SHAPES_COUNT(shapes_linear); i++) {
        const struct shape_linear *s = &shapes_linear[i];
        const size_t most = 8000000 / (s->n * s->k) + 1;
        struct linear_case c = draw(s->m < most ? s->m : most, s->n, s->k, 6000000 + i);
        c.fill = FILL_NORMAL;
        if (harness_takes(i, 4) && (harness_full() || s->n < 1000)) check(b, &c);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: linear slot");
    TCase *cases = tcase_create("shapes");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, tiles, 0, n);
    tcase_add_loop_test(cases, depths, 0, n);
    tcase_add_loop_test(cases, ranges, 0, n);
    tcase_add_loop_test(cases, fills, 0, n);
    tcase_add_loop_test(cases, awkward, 0, n);
    tcase_add_loop_test(cases, models, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
