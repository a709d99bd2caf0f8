/*
 * The bits of attn_rope_apply(): golden hashes on every SIMD backend; a row alone, cut, in any batch, in place, by
 * any executor and in either memory order has the bits it has among others.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "exact/exact.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

enum { BATCH = 3, HEADS = 4, ROWS = 37, COLUMNS = 76, ELEMENTS = BATCH * HEADS * ROWS * COLUMNS };

/* A whole problem: x [batch, head, row, column], its positions. */
struct problem {
    attn_rope rope;
    float x[ELEMENTS];
    int64_t offsets[BATCH], positions[BATCH * ROWS];
    float divisors[COLUMNS / 2];
};

static void draw(struct problem *p, size_t i) {
    static const int64_t near[] = {0, 1000, 131072, 1000000, INT32_MAX, INT64_C(1) << 52, INT32_MIN};
    struct rng r = rng_make(test_seed(), 900 + i);
    memset(p, 0, sizeof *p);
    rng_floats(&r, i % 4 == 3 ? FILL_WIDE : FILL_NORMAL, p->x, ELEMENTS);
    for (size_t b = 0; b < BATCH; b++) p->offsets[b] = near[(i + b) % 7];
    for (size_t k = 0; k < BATCH * ROWS; k++) p->positions[k] = (int64_t)rng_below(&r, 1000) - 500;
    for (size_t k = 0; k < COLUMNS / 2; k++) p->divisors[k] = 1.0f + (float)rng_below(&r, 64) / 8;
    p->rope = (attn_rope){.size = sizeof p->rope,
                          .style = (attn_rope_style)(i % 2),
                          .dims = i % 3 ? 0 : 58,
                          .base = i % 5 == 1 ? 500000.0f : 0,
                          .scaling = (attn_rope_scaling)(i / 2 % 5),
                          .factor = 8.0f,
                          .original_context = 4096,
                          .yarn_exact_range = i % 4 == 2,
                          .frequency_divisors = i % 7 == 3 ? p->divisors : NULL};
}

/* Sequences, heads and rows of a problem. */
struct part {
    size_t b, n_b, h, n_h, row, n_row;
    int apart; /* [b, n, h, d] output */
    int in_place;
};

static const struct part whole = {0, BATCH, 0, HEADS, 0, ROWS, 0, 0};

/* The part rotated, as [n_b][n_h][n_row][COLUMNS] in y. */
static void rotate(attn_context *context, const struct problem *p, const struct part *part, float *y) {
    static float memory[ELEMENTS], other[ELEMENTS];
    memcpy(memory, p->x, sizeof memory);
    attn_tensor all = attn_tensor_contiguous(memory, ATTN_F32, BATCH, HEADS, ROWS, COLUMNS), in = all, out;
    in.size[0] = part->n_b;
    in.size[1] = part->n_h;
    in.size[2] = part->n_row;
    in.data = memory + ((part->b * HEADS + part->h) * ROWS + part->row) * COLUMNS;
    out = attn_tensor_contiguous(other, ATTN_F32, part->n_b, part->n_h, part->n_row, COLUMNS);
    if (part->apart) {
        out.stride[1] = COLUMNS * 4;
        out.stride[2] = (ptrdiff_t)part->n_h * COLUMNS * 4;
    }
    if (part->in_place) out = in;
    const attn_rope_args args = {.size = sizeof args,
                                 .rope = &p->rope,
                                 .x = &in,
                                 .y = &out,
                                 .offsets = p->offsets + part->b,
                                 .positions = p->positions + part->b * ROWS + part->row,
                                 .positions_stride = ROWS};
    ck_assert_msg(attn_rope_apply(context, &args) == ATTN_OK, "%s", attn_context_error(context));
    for (size_t b = 0; b < part->n_b; b++)
        for (size_t h = 0; h < part->n_h; h++)
            for (size_t r = 0; r < part->n_row; r++)
                memcpy(y + ((b * part->n_h + h) * part->n_row + r) * COLUMNS,
                       (char *)out.data + (ptrdiff_t)b * out.stride[0] + (ptrdiff_t)h * out.stride[1] +
                           (ptrdiff_t)r * out.stride[2],
                       COLUMNS * sizeof *y);
}

static void expect_part(attn_context *context, const struct problem *p, const struct part *part,
                        const float *all, const char *how) {
    static float y[ELEMENTS];
    rotate(context, p, part, y);
    for (size_t b = 0; b < part->n_b; b++)
        for (size_t h = 0; h < part->n_h; h++)
            for (size_t r = 0; r < part->n_row; r++)
                ck_assert_msg(
                    memcmp(y + ((b * part->n_h + h) * part->n_row + r) * COLUMNS,
                           all + (((part->b + b) * HEADS + part->h + h) * ROWS + part->row + r) * COLUMNS,
                           COLUMNS * sizeof *y) == 0,
                    "sequence %zu head %zu row %zu: other bits %s", part->b + b, part->h + h, part->row + r,
                    how);
}

START_TEST(parts) {
    static struct problem p;
    static float all[ELEMENTS];
    attn_context *context = harness_context(backends[_i]->name, 1),
                 *three = harness_context(backends[_i]->name, 3);
    for (size_t i = 0; i < 20; i++) {
        if (!harness_takes(i, 7)) continue;
        struct rng r = rng_make(test_seed(), i);
        harness_case("%s rope %zu", backends[_i]->name, i);
        draw(&p, i);
        rotate(context, &p, &whole, all);
        struct part part = whole;
        expect_part(three, &p, &part, all, "with three threads");
        part.in_place = 1;
        expect_part(context, &p, &part, all, "in place");
        part.in_place = 0;
        part.apart = 1;
        expect_part(context, &p, &part, all, "in another layout");
        for (size_t row = 0; row < ROWS; row += part.n_row) {
            part = (struct part){rng_below(&r, BATCH), 1, rng_below(&r, HEADS), 1, row, 1, 0, (int)(row % 2)};
            part.n_row = 1 + rng_below(&r, ROWS - row < 9 ? ROWS - row : 9);
            expect_part(context, &p, &part, all, "alone");
        }
    }
    attn_context_destroy(three);
    attn_context_destroy(context);
}
END_TEST

/* Both styles are one arithmetic: columns in the other order give the same numbers. */
START_TEST(styles) {
    static struct problem p, q;
    static float a[ELEMENTS], b[ELEMENTS];
    attn_context *context = harness_context(backends[_i]->name, 1);
    draw(&p, 1);
    q = p;
    p.rope.style = ATTN_ROPE_INTERLEAVED;
    q.rope.style = ATTN_ROPE_HALF_SPLIT;
    for (size_t row = 0; row < ELEMENTS; row += COLUMNS)
        for (size_t i = 0; i < COLUMNS; i++) q.x[row + i % 2 * (COLUMNS / 2) + i / 2] = p.x[row + i];
    rotate(context, &p, &whole, a);
    rotate(context, &q, &whole, b);
    for (size_t row = 0; row < ELEMENTS; row += COLUMNS)
        for (size_t i = 0; i < COLUMNS; i++)
            ck_assert_mem_eq(&b[row + i % 2 * (COLUMNS / 2) + i / 2], &a[row + i], sizeof *a);
    attn_context_destroy(context);
}
END_TEST

/* Changing one is a new major version of the bits. */
static const uint64_t golden_hashes[] = {
    0x592c720c592048b2, 0x784465b9f6586ffe, 0x3635b405b124a59a, 0x131cbd7b6d1329c2, 0xb252e9f175171431,
    0xb7619fb3cb8649b2, 0xe016793d84dbb98f, 0xc93719cf7e607d79, 0x30da3cab0be1cf9e, 0x51713b3dedf1768c,
    0x1fd035ef6b6fa5c6, 0x942aa3f83e646180, 0x747e98dd9b804cba, 0x1cb43cdf28e99b52,
};

START_TEST(golden) {
    static struct problem p;
    static float all[ELEMENTS];
    attn_context *context = harness_context(backends[_i]->name, 1);
    char text[1024] = "";
    int wrong = 0;
    for (size_t i = 0; i < SHAPES_COUNT(golden_hashes); i++) {
        draw(&p, i);
        rotate(context, &p, &whole, all);
        const uint64_t hash = exact_hash_floats(EXACT_HASH_START, all, ELEMENTS);
        wrong += hash != golden_hashes[i];
        snprintf(text + strlen(text), sizeof text - strlen(text), " 0x%016" PRIx64 ",", hash);
    }
    ck_assert_msg(wrong == 0, "%s: %d results have other bits; they are%s", backends[_i]->name, wrong, text);
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    test_seed_fix(20261124);
    Suite *suite = suite_create("exact: rotary position embedding");
    TCase *cases = tcase_create("bits");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, parts, 0, n);
    tcase_add_loop_test(cases, styles, 0, n);
    tcase_add_loop_test(cases, golden, 0, n - 1); /* without scalar, which rounds once */
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
