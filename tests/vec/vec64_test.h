/* Tests of the operations of one src/<isa>/vec64.h, included after vec_test.h. */
#ifndef TEST_VEC64_TEST_H
#define TEST_VEC64_TEST_H

enum { N64 = VF64_N };

/* A double of any size, now and then a halfway case or an integer. */
static double any_double(struct rng *r) {
    const double x = (double)rng_normal(r) * ldexp(1, (int)rng_below(r, 120) - 60);
    return rng_chance(r, 25) ? (double)((int64_t)rng_below(r, 2001) - 1000) / 2 : x;
}

static void store64(double *out, vf64 x) { memcpy(out, &x, sizeof x); }

#define CHECK_LANES64(operation, want)                                                       \
    do {                                                                                     \
        store64(out, operation);                                                             \
        for (int i = 0; i < N64; i++)                                                        \
            if (out[i] != (want))                                                            \
                ck_abort_msg(#operation " lane %d: %a, want %a", i, out[i], (double)(want)); \
    } while (0)

START_TEST(arithmetic64) {
    struct rng r = rng_make(test_seed(), 64);
    for (int round = 0; round < rounds(); round++) {
        double a[N64], b[N64], c[N64], out[N64];
        for (int i = 0; i < N64; i++) a[i] = any_double(&r), b[i] = any_double(&r), c[i] = any_double(&r);
        const vf64 x = v64_load(a), y = v64_load(b), z = v64_load(c);
        CHECK_LANES64(v64_add(x, y), a[i] + b[i]);
        CHECK_LANES64(v64_sub(x, y), a[i] - b[i]);
        CHECK_LANES64(v64_mul(x, y), a[i] * b[i]);
        CHECK_LANES64(v64_fma(x, y, z), fma(a[i], b[i], c[i]));
        CHECK_LANES64(v64_fms(x, y, z), fma(a[i], b[i], -c[i]));
        CHECK_LANES64(v64_round(x), rint(a[i]));
        CHECK_LANES64(v64_set1(a[0]), a[0]);
    }
}
END_TEST

/* Rounded once to f32, and exactly as many floats written. */
START_TEST(narrowing64) {
    struct rng r = rng_make(test_seed(), 65);
    struct guard one = guard_alloc(N64 * sizeof(float), 0), two = guard_alloc(2 * N64 * sizeof(float), 0);
    float *x = (float *)(void *)one.data, *y = (float *)(void *)two.data;
    for (int round = 0; round < rounds(); round++) {
        double a[N64], b[N64];
        for (int i = 0; i < N64; i++) a[i] = any_double(&r), b[i] = any_double(&r);
        v64_store_f32(x, v64_load(a));
        v64_store_pairs(y, v64_load(a), v64_load(b));
        for (int i = 0; i < N64; i++)
            if (x[i] != (float)a[i] || y[2 * i] != (float)a[i] || y[2 * i + 1] != (float)b[i])
                ck_abort_msg("lane %d: %a, pair %a %a, from %a %a", i, x[i], y[2 * i], y[2 * i + 1], a[i],
                             b[i]);
    }
    ck_assert(guard_intact(&one) && guard_intact(&two));
    guard_free(&one);
    guard_free(&two);
}
END_TEST

/* Against libm's long double, and to the bit against SLEEF's scalar form, which every instruction set has. */
START_TEST(sincospi64) {
    struct rng r = rng_make(test_seed(), 66);
    for (int round = 0; round < rounds(); round++) {
        double x[N64], sines[N64], cosines[N64];
        vf64 s, c;
        for (int i = 0; i < N64; i++) {
            x[i] = ((double)rng_below(&r, UINT64_C(1) << 53) * 0x1p-52 - 1) * (1 + 0x1p-50);
            if (rng_chance(&r, 20)) x[i] = ldexp(x[i], -(int)rng_below(&r, 200));
            if (rng_chance(&r, 20)) x[i] = (double)((int64_t)rng_below(&r, 65) - 32) / 32 + ldexp(x[i], -40);
        }
        v64_sincospi(v64_load(x), &s, &c);
        store64(sines, s);
        store64(cosines, c);
        for (int i = 0; i < N64; i++) {
            const long double angle = 3.14159265358979323846264338327950288L * x[i];
            const Sleef_double_2 same = Sleef_finz_sincospid1_u35purecfma(x[i]);
            if (fabsl(sines[i] - sinl(angle)) > 0x1p-51L || fabsl(cosines[i] - cosl(angle)) > 0x1p-51L)
                ck_abort_msg("sincospi(%a) = %a, %a", x[i], sines[i], cosines[i]);
            if (memcmp(&sines[i], &same.x, sizeof same.x) != 0 ||
                memcmp(&cosines[i], &same.y, sizeof same.y) != 0)
                ck_abort_msg("sincospi(%a) = %a, %a; the scalar form: %a, %a", x[i], sines[i], cosines[i],
                             same.x, same.y);
        }
    }
}
END_TEST

TCase *vec64_cases(void) {
    TCase *cases = tcase_create("operations of f64");
    tcase_set_timeout(cases, 300);
    tcase_add_test(cases, arithmetic64);
    tcase_add_test(cases, narrowing64);
    tcase_add_test(cases, sincospi64);
    return cases;
}

#endif
