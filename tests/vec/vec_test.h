/* Tests of the operations of one src/<isa>/vec.h, included before this file. */
#ifndef TEST_VEC_TEST_H
#define TEST_VEC_TEST_H

#include <check.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "support/guard.h"
#include "support/harness.h"
#include "support/rng.h"
#include "vec/vec_cases.h"

enum { N = VF32_N };

static int rounds(void) { return harness_full() ? 20000 : 1000; }

static uint32_t bits(float x) {
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    return b;
}

/* Equal to the bit, or both NaN. */
static int same(float a, float b) { return bits(a) == bits(b) || (isnan(a) && isnan(b)); }

/* A float of any kind: ordinary, special, or 32 random bits. */
static float any_float(struct rng *r) {
    static const float special[] = {0.0f, -0.0f,   1.0f,     -1.0f,   INFINITY, -INFINITY,
                                    NAN,  FLT_MAX, -FLT_MAX, FLT_MIN, 0x1p-149f};
    const uint32_t raw = (uint32_t)rng_next(r);
    float x;
    memcpy(&x, &raw, sizeof x);
    if (rng_chance(r, 30)) return special[rng_below(r, sizeof special / sizeof *special)];
    return rng_chance(r, 50) ? rng_normal(r) : x;
}

START_TEST(loads_and_stores) {
    struct rng r = rng_make(test_seed(), 1);
    for (unsigned place = 0; place <= GUARD_SHIFTS; place++) {
        struct guard from = guard_alloc(N * sizeof(float), place), to = guard_alloc(N * sizeof(float), place);
        float *x = (float *)(void *)from.data, *y = (float *)(void *)to.data;
        for (int i = 0; i < N; i++) x[i] = any_float(&r);
        guard_seal(&from);
        v_store(y, v_load(x));
        ck_assert_mem_eq(x, y, N * sizeof *x);
        v_store(y, v_set1(2.5f));
        for (int i = 0; i < N; i++) ck_assert(y[i] == 2.5f);
        v_store(y, v_zero());
        for (int i = 0; i < N; i++) ck_assert_uint_eq(bits(y[i]), 0);
        ck_assert(guard_intact(&to));
        guard_unseal(&from);
        guard_free(&from);
        guard_free(&to);
    }
}
END_TEST

/* Every length, against the page behind and the page in front. */
START_TEST(tails) {
    struct rng r = rng_make(test_seed(), 2);
    for (size_t n = 0; n <= N; n++)
        for (unsigned place = 0; place <= GUARD_SHIFTS; place++) {
            struct guard from = guard_alloc(n * sizeof(float), place),
                         to = guard_alloc(n * sizeof(float), place);
            float *x = (float *)(void *)from.data, *y = (float *)(void *)to.data, all[N];
            for (size_t i = 0; i < n; i++) x[i] = any_float(&r);
            guard_seal(&from);
            const vf32 v = v_load_tail(x, n);
            guard_unseal(&from);
            v_store(all, v);
            ck_assert(n == 0 || memcmp(all, x, n * sizeof *x) == 0);
            for (size_t i = n; i < N; i++) ck_assert_uint_eq(bits(all[i]), 0);
            for (size_t i = 0; i < N; i++) all[i] = (float)i + 1;
            v_store_tail(y, v_load(all), n);
            for (size_t i = 0; i < n; i++) ck_assert(y[i] == (float)i + 1);
            ck_assert(guard_intact(&to));
            guard_free(&from);
            guard_free(&to);
        }
}
END_TEST

/* Three vectors of any floats, and what comes out. */
struct lanes {
    float a[N], b[N], c[N], out[N];
};

static struct lanes draw(struct rng *r) {
    struct lanes l;
    for (int i = 0; i < N; i++) {
        l.a[i] = any_float(r);
        l.b[i] = rng_chance(r, 10) ? l.a[i] : any_float(r);
        l.c[i] = any_float(r);
        l.out[i] = 0;
    }
    return l;
}

#define CHECK_LANES(l, operation, want)                                                                 \
    do {                                                                                                \
        v_store((l).out, operation);                                                                    \
        for (int i = 0; i < N; i++)                                                                     \
            if (!same((l).out[i], want)) /* each ck_assert would write to a file */                     \
                ck_abort_msg(#operation " lane %d: %a from %a %a %a, want %a", i, (l).out[i], (l).a[i], \
                             (l).b[i], (l).c[i], (float)(want));                                        \
    } while (0)

START_TEST(arithmetic) {
    struct rng r = rng_make(test_seed(), 3);
    for (int round = 0; round < rounds(); round++) {
        struct lanes l = draw(&r);
        const vf32 a = v_load(l.a), b = v_load(l.b), c = v_load(l.c);
        CHECK_LANES(l, v_add(a, b), l.a[i] + l.b[i]);
        CHECK_LANES(l, v_sub(a, b), l.a[i] - l.b[i]);
        CHECK_LANES(l, v_mul(a, b), l.a[i] * l.b[i]);
        CHECK_LANES(l, v_div(a, b), l.a[i] / l.b[i]);
        CHECK_LANES(l, v_fma(a, b, c), fmaf(l.a[i], l.b[i], l.c[i]));
    }
}
END_TEST

/* NaN in the second operand is taken; in the first it may or may not be. */
START_TEST(maximum) {
    struct rng r = rng_make(test_seed(), 4);
    for (int round = 0; round < rounds(); round++) {
        struct lanes l = draw(&r);
        v_store(l.out, v_max(v_load(l.a), v_load(l.b)));
        for (int i = 0; i < N; i++) {
            const float a = l.a[i], b = l.b[i], got = l.out[i];
            const int right = isnan(b)   ? isnan(got)
                              : isnan(a) ? isnan(got) || same(got, b)
                                         : got == (a > b ? a : b);
            if (!right) ck_abort_msg("max(%a, %a) = %a", a, b, got);
        }
    }
}
END_TEST

START_TEST(truth) {
    struct rng r = rng_make(test_seed(), 5);
    for (int round = 0; round < rounds(); round++) {
        struct lanes l = draw(&r);
        const vf32 a = v_load(l.a), b = v_load(l.b), c = v_load(l.c);
        const vmask less = v_lt(a, b), sign = v_sign(c);
        int some = 0, negative = 0;
        for (int i = 0; i < N; i++) {
            some |= l.a[i] < l.b[i];
            negative |= bits(l.c[i]) >> 31 != 0;
        }
        if ((v_any(less) != 0) != some || (v_any(sign) != 0) != negative)
            ck_abort_msg("v_any, v_lt or v_sign");
        CHECK_LANES(l, v_select(less, c, a), l.a[i] < l.b[i] ? l.c[i] : l.a[i]);
        CHECK_LANES(l, v_select(sign, a, b), bits(l.c[i]) >> 31 ? l.a[i] : l.b[i]);
        CHECK_LANES(l, v_select(v_or(less, sign), a, c),
                    l.a[i] < l.b[i] || bits(l.c[i]) >> 31 ? l.a[i] : l.c[i]);
    }
    ck_assert(!v_any(v_lt(v_zero(), v_zero())));
    ck_assert(!v_any(v_lt(v_set1(NAN), v_set1(1.0f))) && !v_any(v_lt(v_set1(1.0f), v_set1(NAN))));
}
END_TEST

START_TEST(transposition) {
    vf32 rows[N];
    float in[N][N], out[N];
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) in[i][j] = (float)(i * 100 + j);
        rows[i] = v_load(in[i]);
    }
    v_transpose(rows);
    for (int i = 0; i < N; i++) {
        v_store(out, rows[i]);
        for (int j = 0; j < N; j++)
            ck_assert_msg(out[j] == in[j][i], "row %d lane %d: %g", i, j, (double)out[j]);
    }
}
END_TEST

/* |got - want| in units of the last place of want. */
static double ulps(float got, double want) {
    if (same(got, (float)want)) return 0;
    int exponent;
    frexp(want, &exponent);
    return fabs((double)got - want) / ldexp(1, (exponent < -125 ? -125 : exponent) - 24);
}

static void check_function(const char *name, vf32 (*f)(vf32), double (*want)(double), float lowest,
                           float highest, double most) {
    struct rng r = rng_make(test_seed(), 6);
    for (int round = 0; round < rounds(); round++) {
        float x[N], y[N];
        for (int i = 0; i < N; i++)
            x[i] = lowest + (highest - lowest) * ((float)rng_below(&r, 1u << 24) * 0x1p-24f);
        v_store(y, f(v_load(x)));
        for (int i = 0; i < N; i++)
            if (!(ulps(y[i], want(x[i])) <= most))
                ck_abort_msg("%s(%a) = %a, want %a", name, x[i], y[i], want(x[i]));
    }
}

static vf32 exp2_of(vf32 x) { return v_exp2(x); }
static vf32 log2_of(vf32 x) { return v_log2(x); }
static vf32 tanh_of(vf32 x) { return v_tanh(x); }

static float first_lane(vf32 x) {
    float lanes[N];
    v_store(lanes, x);
    return lanes[0];
}

START_TEST(functions) {
    check_function("exp2", exp2_of, exp2, -125.0f, 127.0f, 1.0);
    check_function("exp2", exp2_of, exp2, -1.0f, 8.0f, 1.0);
    check_function("log2", log2_of, log2, 0x1p-120f, 4.0f, 1.0);
    check_function("log2", log2_of, log2, 1.0f, 0x1p30f, 1.0);
    check_function("tanh", tanh_of, tanh, -10.0f, 10.0f, 3.5);
    check_function("tanh", tanh_of, tanh, -0x1p-6f, 0x1p-6f, 3.5);
    ck_assert(first_lane(v_exp2(v_zero())) == 1.0f);
    ck_assert(first_lane(v_exp2(v_set1(-INFINITY))) == 0.0f);
    ck_assert(first_lane(v_exp2(v_set1(-FLT_MAX))) == 0.0f);
    ck_assert(isinf(first_lane(v_exp2(v_set1(INFINITY)))));
    ck_assert(isnan(first_lane(v_exp2(v_set1(NAN)))));
    ck_assert(first_lane(v_log2(v_set1(1.0f))) == 0.0f);
    ck_assert(first_lane(v_log2(v_zero())) == -INFINITY);
    ck_assert(isnan(first_lane(v_log2(v_set1(NAN)))));
    ck_assert(isnan(first_lane(v_tanh(v_set1(NAN)))));
    ck_assert(first_lane(v_tanh(v_set1(INFINITY))) == 1.0f && first_lane(v_tanh(v_set1(-INFINITY))) == -1.0f);
    ck_assert(first_lane(v_tanh(v_set1(100.0f))) == 1.0f && first_lane(v_tanh(v_zero())) == 0.0f);
}
END_TEST

static vf32 exp2_inline_of(vf32 x) { return v_exp2_inline(x); }

/* The inlined exp2 gives the library's bits for every float that the kernels can feed it (at most 8; here to 60)
 * and stays NaN for NaN; -inf alone is left out (they clamp it). */
START_TEST(inlined_exp2) {
    const uint64_t step = harness_full() ? 1 : 1021;
    check_function("exp2_inline", exp2_inline_of, exp2, -125.0f, 60.0f, 1.0);
    for (uint64_t first = 0; first < UINT64_C(1) << 32; first += N * step) {
        float x[N], want[N], got[N];
        for (int i = 0; i < N; i++) {
            const uint32_t pattern = (uint32_t)(first + (uint64_t)i * step);
            memcpy(&x[i], &pattern, sizeof pattern);
            if (x[i] > 60.0f || x[i] == -INFINITY) x[i] = 0.0f;
        }
        v_store(want, v_exp2(v_load(x)));
        v_store(got, v_exp2_inline(v_load(x)));
        if (memcmp(want, got, sizeof want) == 0) continue;
        for (int i = 0; i < N; i++)
            ck_assert_msg(isnan(x[i]) ? isnan(got[i]) : memcmp(&want[i], &got[i], sizeof *got) == 0,
                          "exp2(%a) = %a inlined, %a in SLEEF", x[i], got[i], want[i]);
    }
}
END_TEST

START_TEST(lanes) {
    float x[N], y[N];
    for (int i = 0; i < N; i++) x[i] = (float)i - 2.5f;
    ck_assert(v_lane0(v_load(x)) == x[0]);
#define CHECK_SWAP(step)                                              \
    if ((step) < N) {                                                 \
        v_store(y, v_swap(v_load(x), step));                          \
        for (int i = 0; i < N; i++) ck_assert(y[i] == x[i ^ (step)]); \
    }
    CHECK_SWAP(1)
    CHECK_SWAP(2)
    CHECK_SWAP(4)
    CHECK_SWAP(8)
    x[0] = -0.0f, x[1] = -INFINITY, x[2] = NAN;
    v_store(y, v_abs(v_load(x)));
    ck_assert(y[0] == 0.0f && !signbit(y[0]) && y[1] == INFINITY && isnan(y[2]));
    for (int i = 3; i < N; i++) ck_assert(y[i] == fabsf(x[i]));
}
END_TEST

/* Columns of rows that lie a step apart which is no multiple of a vector; of 16 bits all patterns' classes: NaN stays NaN. */
START_TEST(columns) {
    enum { C = VF32_COLUMNS, STEP = 4 * C + 6 };
    unsigned char rows[N * STEP];
    float got[N];
    vf32 x[C];
    vcolumns y[C], z[C];
    for (size_t i = 0; i < sizeof rows; i++) rows[i] = (unsigned char)(i * 37 + i / 251);
    v_load_columns_f16((const char *)rows, STEP, y);
    v_load_columns_bf16((const char *)rows, STEP, z);
    for (int c = 0; c < 2 * C; c++) {
        for (int kind = 0; kind < 2; kind++) {
            v_store(got, kind ? v_column_bf16(z[c / 2], c % 2) : v_column_f16(y[c / 2], c % 2));
            for (int r = 0; r < N; r++) {
                uint16_t bits[N] = {0};
                float want[N];
                memcpy(bits, rows + r * STEP + 2 * c, sizeof *bits);
                v_store(want, kind ? v_load_bf16(bits) : v_load_f16(bits));
                ck_assert(memcmp(&got[r], want, sizeof *want) == 0);
            }
        }
    }
    for (int r = 0; r < N; r++) {
        for (int c = 0; c < C; c++) {
            const float value = (float)(r * 100 + c);
            memcpy(rows + r * (STEP - 2) + 4 * c, &value, sizeof value);
        }
    }
    v_load_columns((const char *)rows, STEP - 2, x);
    for (int c = 0; c < C; c++) {
        v_store(got, x[c]);
        for (int r = 0; r < N; r++) ck_assert(got[r] == (float)(r * 100 + c));
    }
}
END_TEST

TCase *vec_cases(void) {
    TCase *cases = tcase_create("operations");
    tcase_set_timeout(cases, 300);
    tcase_add_test(cases, loads_and_stores);
    tcase_add_test(cases, tails);
    tcase_add_test(cases, arithmetic);
    tcase_add_test(cases, maximum);
    tcase_add_test(cases, truth);
    tcase_add_test(cases, transposition);
    tcase_add_test(cases, functions);
    tcase_add_test(cases, inlined_exp2);
    tcase_add_test(cases, lanes);
    tcase_add_test(cases, columns);
    return cases;
}

#endif
