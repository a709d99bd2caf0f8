/* attn_rope_apply() on every backend: shapes, layouts, positions, scalings; and saboteurs of its two slots. */
#include <stdlib.h>
#include <string.h>

#include "support/rope_case.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

static void check(const struct attn_backend *b, struct rope_case *c) {
    struct verdict v = {.ok = 1};
    rope_case_draw(c);
    rope_case_announce(b->name, c);
    rope_case_check(b->name, NULL, c, &v);
    HARNESS_ASSERT(&v);
}

/* Every even number of turning columns up to four vectors and a pair of the widest, with up to three columns more. */
START_TEST(columns) {
    for (size_t dims = 2; dims <= 130; dims += 2)
        for (size_t more = 0; more < 4; more++) {
            struct rope_case c = {.rope = {.dims = more || dims % 4 ? dims : 0},
                                  .batch = 1,
                                  .head = 1 + dims % 3,
                                  .rows = 1 + more,
                                  .columns = dims + (more == 3 ? 37 : more),
                                  .stream = dims * 10 + more};
            if (harness_takes(dims / 2 + more, 7)) check(backends[_i], &c);
        }
}
END_TEST

START_TEST(shapes) {
    static const size_t sizes[][4] = {{0, 2, 3, 8},    {2, 0, 3, 8},      {2, 2, 0, 8},      {1, 1, 1, 2},
                                      {1, 32, 1, 128}, {5, 8, 1, 64},     {70, 1, 1, 2},     {300, 1, 1, 4},
                                      {2, 3, 300, 64}, {1, 1, 3000, 6},   {3, 2, 40, 1024},  {1, 1, 2, 1026},
                                      {2, 1, 3, 2050}, {1, 300, 2, 130},  {1, 1, 1000, 128}, {2, 71, 5, 64},
                                      {4, 16, 9, 192}, {1, 128, 33, 576}, {1, 2000, 3, 32}};
    for (size_t i = 0; i < 4 * SHAPES_COUNT(sizes); i++) {
        const size_t *s = sizes[i % SHAPES_COUNT(sizes)];
        struct rope_case c = {.rope = {.dims = i % 5 == 0 && s[3] > 64 ? 64 : 0},
                              .batch = s[0],
                              .head = s[1],
                              .rows = s[2],
                              .columns = s[3],
                              .stream = 10000 + i};
        if (harness_takes(i, 9)) check(backends[_i], &c);
    }
}
END_TEST

/* Everything else at random, on a small shape. */
START_TEST(random_cases) {
    for (size_t i = 0; i < 3000; i++) {
        struct rope_case c = {.rope = {.dims = i % 3 ? 0 : 6},
                              .batch = 1 + i % 3,
                              .head = 1 + i / 3 % 3,
                              .rows = 1 + i % 7,
                              .columns = 6 + 2 * (i % 41),
                              .stream = 20000 + i};
        if (harness_takes(i, 50)) check(backends[_i], &c);
    }
}
END_TEST

/* A context remembers the frequencies: two parameter sets in turn give what each gives alone, also where only the
 * values of the divisors change. */
START_TEST(cache) {
    attn_context *context = harness_context(backends[_i]->name, 1);
    float x[2 * 64], alone[6][64], divisors[32];
    for (int i = 0; i < 64; i++) x[i] = (float)(i % 9) - 4;
    attn_tensor t_x = attn_tensor_contiguous(x, ATTN_F32, 1, 1, 1, 64), t_y = t_x;
    const int64_t offset = 12345;
    for (int round = 0; round < 24; round++) {
        const int which = round < 6 ? round : round * 5 % 6;
        const attn_rope rope = {.size = sizeof rope,
                                .dims = which == 1 ? 32 : 64,
                                .base = which == 2 ? 500.0f : 0.0f,
                                .scaling = which == 3 ? ATTN_ROPE_SCALING_LINEAR : ATTN_ROPE_SCALING_NONE,
                                .factor = which == 3 ? 3.0f : 0.0f,
                                .frequency_divisors = which > 3 ? divisors : NULL};
        for (int i = 0; i < 32; i++) divisors[i] = which == 4 ? 2.0f : 1.0f + (float)i;
        t_y.data = round < 6 ? alone[round] : x + 64;
        const attn_rope_args args = {
            .size = sizeof args, .rope = &rope, .x = &t_x, .y = &t_y, .offsets = &offset};
        ck_assert_int_eq(attn_rope_apply(context, &args), ATTN_OK);
        ck_assert_msg(memcmp(t_y.data, alone[which], sizeof alone[which]) == 0, "round %d", round);
        for (int other = 0; other < 6 && round == 6; other++)
            ck_assert(other == which || memcmp(alone[other], alone[which], sizeof alone[which]) != 0);
    }
    attn_context_destroy(context);
}
END_TEST

/* NaN and infinities reach their own pair only; columns beyond dims are copied whatever they hold. */
START_TEST(not_finite) {
    attn_context *context = harness_context(backends[_i]->name, 1);
    for (int style = 0; style < 2; style++)
        for (uint32_t column = 0; column < 50; column++) {
            float x[50], clean[50], y[50];
            const uint32_t payload = 0x7fc12345;
            for (int i = 0; i < 50; i++) x[i] = 1.0f;
            attn_tensor t_x = attn_tensor_contiguous(x, ATTN_F32, 1, 1, 1, 50), t_y = t_x;
            const int64_t offset = 3;
            const attn_rope rope = {.size = sizeof rope, .style = (attn_rope_style)style, .dims = 46};
            const attn_rope_args args = {
                .size = sizeof args, .rope = &rope, .x = &t_x, .y = &t_y, .offsets = &offset};
            t_y.data = clean;
            ck_assert_int_eq(attn_rope_apply(context, &args), ATTN_OK);
            memcpy(x + column, &payload, sizeof payload);
            t_y.data = y;
            ck_assert_int_eq(attn_rope_apply(context, &args), ATTN_OK);
            for (uint32_t i = 0; i < 50; i++) {
                const int pair =
                    column < 46 && i < 46 && (style ? i % 23 == column % 23 : i / 2 == column / 2);
                if (i >= 46)
                    ck_assert_mem_eq(y + i, x + i, sizeof *y);
                else if (pair)
                    ck_assert_msg(y[i] != y[i], "style %d column %u: %u is %g", style, column, i,
                                  (double)y[i]);
                else
                    ck_assert_mem_eq(y + i, clean + i, sizeof *y);
            }
        }
    attn_context_destroy(context);
}
END_TEST

/* ---- Saboteurs --------------------------------------------------------------------------------------------- */

static const struct attn_backend *honest;

static float *last_row(const struct attn_rope_task *t) {
    return t->y + (ptrdiff_t)(t->n_rows - 1) * t->y_row + (ptrdiff_t)(t->n_head - 1) * t->y_head;
}

static void skips_last_row(const struct attn_rope_task *t) {
    struct attn_rope_task less = *t;
    if (--less.n_rows) honest->rope(&less);
}

static void skips_last_pair(const struct attn_rope_task *t) {
    const float old = *(last_row(t) + 2 * t->n - 1);
    honest->rope(t);
    last_row(t)[2 * t->n - 1] = old;
}

static void skips_copy(const struct attn_rope_task *t) {
    struct attn_rope_task less = *t;
    less.columns = 2 * t->n;
    honest->rope(&less);
}

static void turns_backwards(const struct attn_rope_task *t) {
    honest->rope(t);
    *last_row(t) = -*last_row(t);
}

static void writes_one_past(const struct attn_rope_task *t) {
    honest->rope(t);
    last_row(t)[t->columns] = 0;
}

static void reads_one_past(const struct attn_rope_task *t) {
    honest->rope(t);
    for (size_t h = 0; h < t->n_head; h++)
        (void)*(const volatile float *)(t->x + (ptrdiff_t)(t->n_rows - 1) * t->x_row +
                                        (ptrdiff_t)h * t->x_head + t->columns);
}

static void is_inexact(const struct attn_rope_task *t) {
    honest->rope(t);
    *last_row(t) *= 1 + 0x1p-20f;
}

static void writes_input(const struct attn_rope_task *t) {
    honest->rope(t);
    *(volatile float *)(uintptr_t)t->x = *t->x;
}

static void table_forgets_positions(const struct attn_rope_table_task *t) {
    struct attn_rope_table_task other = *t;
    other.positions = NULL;
    honest->rope_table(&other);
}

static void table_forgets_low_parts(const struct attn_rope_table_task *t) {
    struct attn_rope_table_task other = *t;
    double zero[1024] = {0};
    other.turns_lo = zero;
    other.first += INT64_C(1) << 31; /* where it matters */
    if (t->n_padded <= 1024) honest->rope_table(&other);
}

static void table_forgets_magnitude(const struct attn_rope_table_task *t) {
    struct attn_rope_table_task other = *t;
    other.magnitude = 1;
    honest->rope_table(&other);
}

static void table_writes_past(const struct attn_rope_table_task *t) {
    honest->rope_table(t);
    t->table[t->n_rows * 4 * t->n_padded + 2 * ATTN_ALIGN] = 0;
}

static const struct {
    const char *name;
    attn_rope_fn *rope;
    attn_rope_table_fn *table;
    int crash;
} saboteurs[] = {{"skips_last_row", skips_last_row, NULL, 0},
                 {"skips_last_pair", skips_last_pair, NULL, 0},
                 {"skips_copy", skips_copy, NULL, 0},
                 {"turns_backwards", turns_backwards, NULL, 0},
                 {"writes_one_past", writes_one_past, NULL, 0},
                 {"reads_one_past", reads_one_past, NULL, 1},
                 {"is_inexact", is_inexact, NULL, 0},
                 {"writes_input", writes_input, NULL, 1},
                 {"table_forgets_positions", NULL, table_forgets_positions, 0},
                 {"table_forgets_low_parts", NULL, table_forgets_low_parts, 0},
                 {"table_forgets_magnitude", NULL, table_forgets_magnitude, 0},
                 {"table_writes_past", NULL, table_writes_past, 0}};

static int catches(void *arg) {
    struct verdict v = {.ok = 1};
    for (size_t i = 0; i < 60 && v.ok; i++) {
        struct rope_case c = {.rope = {.dims = i % 2 ? 0 : 10},
                              .batch = 2,
                              .head = 2,
                              .rows = 4,
                              .columns = 18,
                              .stream = 30000 + i};
        rope_case_draw(&c);
        rope_case_check(honest->name, arg, &c, &v);
    }
    return !v.ok;
}

START_TEST(catches_saboteur) {
    struct attn_backend b = *honest;
    if (saboteurs[_i].rope == reads_one_past && getenv("ATTN_TEST_READ_GUARDS"))
        return; /* guard pages that may be read */
    if (saboteurs[_i].rope) b.rope = saboteurs[_i].rope;
    if (saboteurs[_i].table) b.rope_table = saboteurs[_i].table;
    const enum child_end end = harness_child(catches, &b);
    ck_assert_msg(end == CHILD_CRASHED || (!saboteurs[_i].crash && end == CHILD_NONZERO),
                  "%s was not caught (%d)", saboteurs[_i].name, (int)end);
}
END_TEST

START_TEST(honest_backend_passes) {
    struct attn_backend b = *honest;
    ck_assert_int_eq(harness_child(catches, &b), CHILD_ZERO);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    honest = backends[0];
    Suite *suite = suite_create("differential: attn_rope_apply");
    TCase *cases = tcase_create("cases");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, columns, 0, n);
    tcase_add_loop_test(cases, shapes, 0, n);
    tcase_add_loop_test(cases, random_cases, 0, n);
    tcase_add_loop_test(cases, cache, 0, n);
    tcase_add_loop_test(cases, not_finite, 0, n);
    tcase_add_test(cases, honest_backend_passes);
    tcase_add_loop_test(cases, catches_saboteur, 0, (int)(sizeof saboteurs / sizeof *saboteurs));
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
