/* Packing and attn_linear() on every backend: batches and heads in every layout, weights that were copied. */
#include <stdlib.h>
#include <string.h>

#include "bound.h"
#include "support/grid.h"
#include "support/harness.h"
#include "support/oracle.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

struct shape {
    size_t batch, head, m, n, k;
};

/* Packs into guarded memory of exactly the size asked for, copies that elsewhere (it is position independent)
 * and opens the copy. */
static struct guard pack(attn_context *context, const attn_tensor *w, const float *bias,
                         const attn_packed **packed) {
    size_t bytes = 0, n = 0, k = 0;
    ck_assert_int_eq(attn_pack_linear_bytes(context, w, &bytes), ATTN_OK);
    const unsigned place = bytes % ATTN_ALIGN != 0; /* flush to the end where that is aligned */
    struct guard first = guard_alloc(bytes, place), copy = guard_alloc(bytes, place);
    ck_assert_int_eq(attn_pack_linear(context, w, bias, first.data, bytes, packed), ATTN_OK);
    ck_assert_ptr_eq(*packed, (const void *)first.data);
    ck_assert(guard_intact(&first));
    memcpy(copy.data, first.data, bytes);
    guard_free(&first);
    guard_seal(&copy);
    ck_assert_int_eq(attn_packed_open(context, copy.data, bytes, packed), ATTN_OK);
    attn_packed_shape(*packed, &n, &k);
    ck_assert_uint_eq(n, w->size[2]);
    ck_assert_uint_eq(k, w->size[3]);
    return copy;
}

static void compare(const char *backend, const struct shape *s, const struct grid *x, const float *w,
                    const float *bias, const struct grid *y, struct verdict *v) {
    double *memory = malloc((s->k + 3 * s->n) * sizeof *memory);
    double *row = memory, *want = row + s->k, *theirs = want + s->n, *err = theirs + s->n;
    if (!memory) abort();
    for (size_t b = 0; b < s->batch; b++)
        for (size_t h = 0; h < s->head; h++)
            for (size_t i = 0; i < s->m; i++) {
                for (size_t j = 0; j < s->k; j++) row[j] = grid_f32(x, b, h, i)[j];
                oracle_linear(s->n, s->k, row, w, bias, want);
                attn_bound_linear_row(attn_bound_arith_of(backend), row, NULL, w, s->k, bias, s->n, s->k,
                                      theirs, err);
                for (size_t o = 0; o < s->n; o++) {
                    const float got = grid_f32(y, b, h, i)[o];
                    if (!attn_bound_holds(got, want[o], err[o]) ||
                        !attn_bound_holds(theirs[o], want[o], err[o]))
                        verdict_fail(v, "y[%zu][%zu][%zu][%zu]: %a, oracles %a, %a, bound %g", b, h, i, o,
                                     got, want[o], theirs[o], err[o]);
                }
            }
    free(memory);
}

static void check(const struct attn_backend *b, const struct shape *s, uint64_t stream) {
    struct rng r = rng_make(test_seed(), stream);
    struct verdict v = {.ok = 1};
    const unsigned layout = (unsigned)rng_below(&r, N_LAYOUTS);
    const enum fill fill = rng_chance(&r, 50) ? FILL_NORMAL : (enum fill)rng_below(&r, N_FILLS);
    attn_context *context = harness_context(b->name, 1 + stream % 2);
    struct grid w = grid_make(&r, 4, (size_t[4]){1, 1, s->n, s->k}, layout);
    struct grid x = grid_make(&r, 4, (size_t[4]){s->batch, s->head, s->m, s->k}, layout);
    struct grid y =
        grid_make(&r, 4, (size_t[4]){s->batch, s->head, s->m, s->n}, (unsigned)rng_below(&r, N_LAYOUTS));
    struct guard bias = guard_alloc(s->n * 4, 0);
    float *values = (float *)(void *)bias.data, *flat = malloc(s->n * s->k * sizeof *flat);
    ck_assert_ptr_nonnull(flat);
    harness_case("%s attn_linear batch %zu head %zu m %zu n %zu k %zu fill %d layout %u stream %llu", b->name,
                 s->batch, s->head, s->m, s->n, s->k, fill, layout, (unsigned long long)stream);
    grid_fill(&w, &r, FILL_NORMAL);
    grid_fill(&x, &r, fill);
    rng_floats(&r, fill, values, s->n);
    for (size_t o = 0; o < s->n; o++) memcpy(flat + o * s->k, grid_f32(&w, 0, 0, o), s->k * sizeof *flat);
    const attn_tensor t_w = grid_tensor(&w), t_x = grid_tensor(&x), t_y = grid_tensor(&y);
    const attn_packed *packed = NULL;
    const float *const used = stream % 3 ? values : NULL;
    guard_seal(&w.guard);
    guard_seal(&x.guard);
    struct guard memory = pack(context, &t_w, used, &packed);
    ck_assert_int_eq(attn_linear(context, &t_x, packed, &t_y), ATTN_OK);
    guard_unseal(&w.guard);
    guard_unseal(&x.guard);
    guard_unseal(&memory);
    if (!grid_gaps_intact(&y) || !grid_all_written(&y))
        verdict_fail(&v, "wrote outside y, or left some of it unwritten");
    compare(b->name, s, &x, flat, used, &y, &v);
    HARNESS_ASSERT(&v);
    free(flat);
    grid_free(&w);
    grid_free(&x);
    grid_free(&y);
    guard_free(&bias);
    guard_free(&memory);
    attn_context_destroy(context);
}

START_TEST(small) {
    const struct attn_backend *b = backends[_i];
    for (size_t m = 1; m <= 2 * b->linear_rows + 1; m++)
        for (size_t n = 1; n <= 2 * b->layout + 1; n += 1 + (m * 7 + n) % 9) {
            const struct shape s = {1 + n % 2, 1 + m % 3, m, n, 1 + (m * n) % 40};
            if (harness_takes(m + n, 17)) check(b, &s, m * 1000 + n);
        }
}
END_TEST

START_TEST(extremes) {
    static const struct shape shapes[] = {{0, 2, 3, 4, 5},    {2, 2, 0, 4, 5},      {1, 1, 1, 1, 1},
                                          {2, 3, 300, 5, 3},  {1, 1, 1000, 1, 1},   {1, 1, 1, 3000, 2},
                                          {1, 1, 2, 3, 5000}, {3, 1, 7, 129, 1025}, {1, 1, 500, 200, 64}};
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < 3 * SHAPES_COUNT(shapes); i++)
        if (harness_takes(i, 4)) check(b, &shapes[i % SHAPES_COUNT(shapes)], 100000 + i);
}
END_TEST

START_TEST(awkward) {
    const struct attn_backend *b = backends[_i];
    struct rng r = rng_make(test_seed(), 200000);
    for (size_t i = 0; i < 150; i++) {
        const size_t *sizes = shapes_awkward, n = SHAPES_COUNT(shapes_awkward);
        const struct shape s = {1 + rng_below(&r, 2), 1 + rng_below(&r, 2), sizes[rng_below(&r, n - 3)],
                                sizes[rng_below(&r, n)], sizes[rng_below(&r, n)]};
        if (harness_takes(i, 30)) check(b, &s, 200001 + i);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: attn_linear");
    TCase *cases = tcase_create("shapes");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, small, 0, n);
    tcase_add_loop_test(cases, extremes, 0, n);
    tcase_add_loop_test(cases, awkward, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
