/* Rotary position embedding against rope_vectors.txt (make_rope_vectors.py): Hugging Face's frequencies, mpmath's
 * cos and sin. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rope.h"
#include "support/harness.h"

static const struct attn_backend *backends[4];

enum { MOST_DIMS = 1024 };

static FILE *open_vectors(void) {
    const char *path = getenv("ATTN_ROPE_VECTORS");
    FILE *file = path ? fopen(path, "r") : NULL;
    ck_assert_msg(file != NULL, "cannot open ATTN_ROPE_VECTORS=%s", path ? path : "");
    return file;
}

static double number(FILE *file) {
    char text[64];
    ck_assert_int_eq(fscanf(file, "%63s", text), 1);
    return strtod(text, NULL);
}

static void skip_line(FILE *file) {
    for (int c = 0; c != '\n' && c != EOF;) c = fgetc(file);
}

/* The parameters of a line "scaling" after its name. */
static attn_rope read_scaling(FILE *file, float divisors[MOST_DIMS / 2]) {
    attn_rope r = {.size = sizeof r};
    r.dims = (size_t)number(file);
    r.base = (float)number(file);
    r.scaling = (attn_rope_scaling)(int)number(file);
    r.factor = (float)number(file);
    r.original_context = (size_t)number(file);
    r.low_freq_factor = (float)number(file);
    r.high_freq_factor = (float)number(file);
    r.beta_fast = (float)number(file);
    r.beta_slow = (float)number(file);
    r.yarn_exact_range = (int)number(file);
    r.attention_factor = (float)number(file);
    const size_t n = (size_t)number(file);
    ck_assert_uint_le(n, MOST_DIMS / 2);
    for (size_t i = 0; i < n; i++) divisors[i] = (float)number(file);
    r.frequency_divisors = n ? divisors : NULL;
    return r;
}

/* Both sides are double: a power whose exponent was rounded (ln(base) 2^-53, at most 14 of them here) and, in a
 * mixture, the quotient of differences that cancel a few bits, times 1 / s at most 40: below 10^-12 of a frequency. */
static void check_scaling(attn_context *context, const char *name, FILE *file) {
    float divisors[MOST_DIMS / 2];
    struct attn_rope_plan plan;
    const attn_rope rope = read_scaling(file, divisors);
    ck_assert_msg(attn_rope_read(context, "rope", &rope, rope.dims, &plan) == ATTN_OK, "%s: %s", name,
                  attn_context_error(context));
    ck_assert_uint_eq(attn_rope_memory_bytes(&plan), 0);
    attn_rope_prepare(context, &plan, NULL);
    const double magnitude = number(file), two_pi = 6.283185307179586;
    ck_assert_msg(fabs(plan.magnitude - magnitude) <= 1e-15, "%s: cos and sin times %.17g, not %.17g", name,
                  plan.magnitude, magnitude);
    for (size_t i = 0; i < rope.dims / 2; i++) {
        const double want = number(file), got = two_pi * plan.turns[i];
        ck_assert_msg(fabs(got - want) <= 1e-12 * want, "%s: frequency %zu is %.17g, not %.17g", name, i, got,
                      want);
    }
    for (size_t i = rope.dims / 2; i < plan.n_padded; i++)
        ck_assert(plan.turns[i] == 0.0 && plan.turns[plan.n_padded + i] == 0.0);
}

START_TEST(scalings) {
    attn_context *context = harness_context(NULL, 1);
    FILE *file = open_vectors();
    char kind[16], name[64];
    int n = 0;
    while (fscanf(file, " %15s", kind) == 1) {
        if (strcmp(kind, "scaling") == 0) {
            ck_assert_int_eq(fscanf(file, " %63s", name), 1);
            check_scaling(context, name, file);
            n++;
        }
        skip_line(file);
    }
    ck_assert_int_ge(n, 15);
    fclose(file);
    attn_context_destroy(context);
}
END_TEST

/* (1, 0) turns into (cos, sin): the table's rounding and no other (docs/numerics.md, section 8). */
static double error_bound(double exact, double angle) {
    return 0x1p-24 * fabs(exact) + 0x1p-48 + fabs(angle) * 0x1p-90;
}

static void check_turn(attn_context *context, FILE *file) {
    float x[MOST_DIMS] = {0}, y[MOST_DIMS];
    const double base = number(file);
    const size_t dims = (size_t)number(file), pair = (size_t)number(file);
    long long at;
    ck_assert_int_eq(fscanf(file, "%lld", &at), 1);
    const int64_t position = at;
    const double cos = number(file), sin = number(file),
                 angle = (double)at * pow(base, -2.0 * (double)pair / dims);
    attn_tensor t_x = attn_tensor_contiguous(x, ATTN_F32, 1, 1, 1, dims), t_y = t_x;
    t_y.data = y;
    for (int style = 0; style < 2; style++) {
        const attn_rope rope = {.size = sizeof rope, .style = (attn_rope_style)style, .base = (float)base};
        const attn_rope_args args = {
            .size = sizeof args, .rope = &rope, .x = &t_x, .y = &t_y, .offsets = &position};
        const size_t i0 = style == ATTN_ROPE_INTERLEAVED ? 2 * pair : pair;
        const size_t i1 = style == ATTN_ROPE_INTERLEAVED ? 2 * pair + 1 : pair + dims / 2;
        memset(x, 0, sizeof x);
        x[i0] = 1.0f;
        ck_assert_msg(attn_rope_apply(context, &args) == ATTN_OK, "%s", attn_context_error(context));
        ck_assert_msg(fabs((double)y[i0] - cos) <= error_bound(cos, angle) &&
                          fabs((double)y[i1] - sin) <= error_bound(sin, angle),
                      "%s: base %g dims %zu pair %zu position %lld: %a %a, not %a %a",
                      attn_context_backend(context), base, dims, pair, at, (double)y[i0], (double)y[i1], cos,
                      sin);
        for (size_t i = 0; i < dims; i++) ck_assert(i == i0 || i == i1 || y[i] == 0.0f);
    }
}

START_TEST(turns) {
    attn_context *context = harness_context(backends[_i]->name, 1);
    FILE *file = open_vectors();
    char kind[16];
    int n = 0;
    while (fscanf(file, " %15s", kind) == 1) {
        if (strcmp(kind, "turn") == 0) {
            check_turn(context, file);
            n++;
        }
        skip_line(file);
    }
    ck_assert_int_ge(n, 200);
    fclose(file);
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("reference: rotary position embedding");
    TCase *cases = tcase_create("vectors");
    tcase_set_timeout(cases, 300);
    tcase_add_test(cases, scalings);
    tcase_add_loop_test(cases, turns, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
