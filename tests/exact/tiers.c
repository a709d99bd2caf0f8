/*
 * Instruction tiers: projections lie within the bounds of docs/numerics.md, section 11, of the sums in double; their bits
 * do not depend on threads, on other rows or on how x lies; types without dot products, and all types of a strict
 * context, have the bits of the backend that the tier belongs to.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "dtype.h"
#include "exact/exact.h"

static const struct attn_backend *tiers[4];

static const attn_dtype types[] = {ATTN_BF16, ATTN_Q8_0, ATTN_Q4_0, ATTN_Q4_1,
                                   ATTN_Q4_K, ATTN_Q6_K, ATTN_F16,  ATTN_F32};
enum { N_TYPES = sizeof types / sizeof *types };

/* What x looks like. */
enum look { NORMAL, OUTLIERS, TINY, ZEROS, N_LOOKS };

struct problem {
    attn_dtype type;
    size_t m, n, k;
    float *x, *w, *bias, *y; /* w: what the weights stand for */
    void *typed;
    int to_odd; /* how the tier rounds sums of bf16 */
};

static void draw_x(struct rng *r, enum look look, const struct problem *p) {
    for (size_t i = 0; i < p->m * p->k; i++) {
        const float x = rng_normal(r);
        /* one channel a thousand times as large as its neighbours, as some models have them */
        p->x[i] = look == ZEROS && i / 32 % 3 == 0         ? 0.0f
                  : look == OUTLIERS && i % p->k % 50 == 7 ? 1000.0f * x
                  : look == TINY && i / p->k % 2 == 0      ? 0x1p-120f * x
                  : look == TINY                           ? 0x1p-140f * x
                                                           : x;
    }
}

/* Random blocks, whose scales are about 2^-6, or converted floats. */
static void draw_w(struct rng *r, attn_context *context, const struct problem *p) {
    const attn_tensor floats = attn_tensor_contiguous(p->w, ATTN_F32, 1, 1, p->n, p->k);
    const attn_tensor typed = attn_tensor_contiguous(p->typed, p->type, 1, 1, p->n, p->k);
    if (p->type == ATTN_Q4_1 || p->type == ATTN_Q4_K || p->type == ATTN_Q6_K) {
        const size_t bytes = attn_dtype_bytes(p->type);
        for (size_t i = 0; i < p->n * p->k / attn_dtype_block(p->type); i++) {
            unsigned char *block = (unsigned char *)p->typed + i * bytes;
            const uint16_t d = (uint16_t)(0x2000 + rng_below(r, 1024)),
                           m = (uint16_t)(0x2400 | rng_below(r, 1024));
            for (size_t b = 0; b < bytes; b++) block[b] = (unsigned char)rng_next(r);
            memcpy(block + (p->type == ATTN_Q6_K ? bytes - 2 : 0), &d, 2);
            if (p->type != ATTN_Q6_K) memcpy(block + 2, &m, 2);
        }
    } else {
        for (size_t i = 0; i < p->n * p->k; i++) p->w[i] = rng_normal(r);
        ck_assert_int_eq(attn_convert(context, &floats, &typed), ATTN_OK);
    }
    ck_assert_int_eq(attn_convert(context, &typed, &floats), ATTN_OK);
}

static struct problem problem_make(struct rng *r, attn_context *context, attn_dtype type, size_t m, size_t n,
                                   size_t k, enum look look) {
    struct problem p = {type,
                        m,
                        n,
                        k,
                        malloc(m * k * 4),
                        malloc(n * k * 4),
                        malloc(n * 4),
                        malloc(m * n * 4),
                        malloc(n * k * 4),
                        strcmp(attn_context_backend(context), "neonbf16") == 0};
    ck_assert(p.x && p.w && p.bias && p.y && p.typed);
    draw_x(r, look, &p);
    draw_w(r, context, &p);
    for (size_t i = 0; i < n; i++) p.bias[i] = rng_normal(r);
    return p;
}

static void problem_free(struct problem *p) {
    free(p->x);
    free(p->w);
    free(p->bias);
    free(p->y);
    free(p->typed);
}

/* Rows [from, from + m) to y; b x h x rows of them. */
static void project(attn_context *context, const struct problem *p, size_t from, const size_t size[3],
                    float *y) {
    const attn_tensor w = attn_tensor_contiguous(p->typed, p->type, 1, 1, p->n, p->k);
    const attn_tensor x =
        attn_tensor_contiguous(p->x + from * p->k, ATTN_F32, size[0], size[1], size[2], p->k);
    const attn_tensor to = attn_tensor_contiguous(y, ATTN_F32, size[0], size[1], size[2], p->n);
    const attn_packed *packed;
    size_t bytes;
    ck_assert_int_eq(attn_pack_linear_bytes(context, &w, &bytes), ATTN_OK);
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    ck_assert_ptr_nonnull(memory);
    ck_assert_int_eq(attn_pack_linear(context, &w, p->bias, memory, bytes, &packed), ATTN_OK);
    ck_assert_msg(attn_linear(context, &x, packed, &to) == ATTN_OK, "%s", attn_context_error(context));
    free(memory);
}

/* ---- Bounds ---------------------------------------------------------------------------------------------- */

static int is_blocks(attn_dtype type) { return attn_dtype_block(type) > 1; }

/* The bound's share that the rounding of x has, for one output. */
static double rounding(const struct problem *p, const float *x, const float *w) {
    double sum = 0;
    for (size_t k = 0; k < p->k && !is_blocks(p->type); k++)
        sum += fabs((double)w[k]) * (0x1p-8 * fabs((double)x[k]) + 0x1p-126); /* and DAZ */
    for (size_t k0 = 0; k0 < p->k && is_blocks(p->type); k0 += 32) {
        double most = 0, weights = 0;
        for (size_t k = k0; k < k0 + 32; k++) {
            most = fmax(most, fabs((double)x[k]));
            weights += fabs((double)w[k]);
        }
        sum += weights * fmax(most / 127 * (0.5 + 0x1p-14), most < 0x1p-118 ? most : 0);
    }
    return sum;
}

/* What f32 sums lose: of bf16 two roundings a pair (arm64: to odd, each up to 2^-23), of blocks three a unit (the scales' product, the fma, the least added).
 * The terms of Q4_K and q4_1 are a scale's and a minimum's, each larger than their sum: at most 64 times here. */
static double summing(const struct problem *p, const float *x, const float *w) {
    double sum = 0, most = 0;
    for (size_t k = 0; k < p->k; k++) {
        sum += fabs((double)x[k] * (double)w[k]);
        most += fabs((double)x[k]);
    }
    const int adds = p->type == ATTN_Q4_K || p->type == ATTN_Q4_1;
    const double e = p->type == ATTN_BF16 && p->to_odd ? 0x1p-23 : 0x1p-24;
    return ((double)p->k + 8) * e * (sum + (adds ? most * 64 : 0)) * 1.01 + (double)p->k * 0x1p-125;
}

static void within_bounds(const struct problem *p) {
    for (size_t i = 0; i < p->m; i++) {
        for (size_t o = 0; o < p->n; o++) {
            const float *x = p->x + i * p->k, *w = p->w + o * p->k, y = p->y[i * p->n + o];
            double want = (double)p->bias[o];
            for (size_t k = 0; k < p->k; k++) want += (double)x[k] * (double)w[k];
            const double bound =
                rounding(p, x, w) * 1.001 + summing(p, x, w) + 0x1p-22 * fabs((double)p->bias[o]);
            ck_assert_msg(fabs((double)y - want) <= bound, "%s: row %zu output %zu: %g, not %g +- %g",
                          harness_case_text(), i, o, (double)y, want, bound);
        }
    }
}

/* The largest products and sums there are: all weights of a sign or of both, all of x 1 or -1. */
static void draw_extremes(struct rng *r, attn_context *context, const struct problem *p, size_t at) {
    static const uint16_t one = 0x3c00;
    static const unsigned char bytes[][2] = {
        {0x80, 0x80}, {0x7f, 0x7f}, {0x80, 0x7f}, {0xff, 0xff}, {0, 0xff}};
    const attn_tensor floats = attn_tensor_contiguous(p->w, ATTN_F32, 1, 1, p->n, p->k);
    const attn_tensor typed = attn_tensor_contiguous(p->typed, p->type, 1, 1, p->n, p->k);
    const size_t block = attn_dtype_bytes(p->type);
    for (size_t i = 0; i < p->n * p->k / attn_dtype_block(p->type); i++) {
        unsigned char *to = (unsigned char *)p->typed + i * block;
        for (size_t b = 0; b < block; b++) to[b] = bytes[at % 5][rng_below(r, 2)];
        memcpy(to + (p->type == ATTN_Q6_K ? block - 2 : 0), &one, 2);
        if (p->type == ATTN_Q4_1 || p->type == ATTN_Q4_K) memcpy(to + 2, &one, 2);
    }
    for (size_t i = 0; i < p->m * p->k; i++) p->x[i] = at / 5 % 2 && rng_below(r, 2) ? -1.0f : 1.0f;
    ck_assert_int_eq(attn_convert(context, &typed, &floats), ATTN_OK);
}

static int uses_dots(const struct attn_backend *tier, attn_dtype type) {
    return tier->prepared_row(type, 256) != 0;
}

START_TEST(bounds) {
    static const size_t shapes[][3] = {
        {1, 64, 256}, {2, 130, 512}, {3, 16, 768}, {7, 77, 1280}, {13, 65, 2304}};
    struct rng r = rng_make(test_seed(), 1);
    const struct attn_backend *tier = tiers[_i];
    attn_context *context = harness_context(tier->name, 1);
    for (size_t at = 0; at < N_TYPES * N_LOOKS * 5; at++) {
        const attn_dtype type = types[at % N_TYPES];
        const enum look look = (enum look)(at / N_TYPES % N_LOOKS);
        const size_t *s = shapes[at / N_TYPES / N_LOOKS];
        if (!uses_dots(tier, type) || !harness_takes(at, 3)) continue;
        harness_case("%s, %s, %zu x %zu x %zu, look %d", tier->name, attn_dtype_name(type), s[0], s[1], s[2],
                     (int)look);
        struct problem p =
            problem_make(&r, context, type, s[0], s[1], s[2] + (is_blocks(type) ? 0 : s[0]), look);
        project(context, &p, 0, (const size_t[]){1, 1, p.m}, p.y);
        within_bounds(&p);
        problem_free(&p);
    }
    attn_context_destroy(context);
}
END_TEST

/* No sum of products leaves its integers. */
START_TEST(extremes) {
    struct rng r = rng_make(test_seed(), 7);
    const struct attn_backend *tier = tiers[_i];
    attn_context *context = harness_context(tier->name, 1);
    for (size_t at = 0; at < N_TYPES * 10 * 3; at++) {
        static const size_t rows[] = {1, 4, 30};
        const attn_dtype type = types[at % N_TYPES];
        if (!is_blocks(type) || !uses_dots(tier, type) || !harness_takes(at, 3)) continue;
        struct problem p = problem_make(&r, context, type, rows[at / N_TYPES / 10], 32, 256, NORMAL);
        draw_extremes(&r, context, &p, at / N_TYPES);
        harness_case("%s, %s, %zu rows, kind %zu", tier->name, attn_dtype_name(type), p.m, at / N_TYPES % 10);
        project(context, &p, 0, (const size_t[]){1, 1, p.m}, p.y);
        within_bounds(&p);
        problem_free(&p);
    }
    attn_context_destroy(context);
}
END_TEST

/* Value i of a row prepared for q8_0 (src/common/dots_prepare.h), and its d. */
static int prepared_value(const struct attn_backend *tier, const unsigned char *row, size_t i, float *d) {
    static const size_t order[] = {0, 2, 1, 3};
    const int halves = strcmp(tier->name, "avx2dot") == 0;
    const size_t bytes = (halves ? 64 : 32) + 8, at = i % 32;
    const unsigned char *unit = row + i / 32 * bytes;
    int16_t half;
    memcpy(d, unit + bytes - 8, sizeof *d);
    memcpy(&half, unit + (halves ? 2 * (at / 4 * 4 + order[at % 4]) : 0), sizeof half);
    return halves ? half : (int8_t)unit[at];
}

/* Rows as they are prepared: each value is the nearest one; where x is subnormal, which counts as zero, that or zero. */
START_TEST(nearest) {
    enum { K = 4096 };
    static _Alignas(ATTN_ALIGN) unsigned char row[8 * K];
    static float x[K];
    struct rng r = rng_make(test_seed(), 6);
    const struct attn_backend *tier = tiers[_i];
    for (size_t at = 0; at < 2 * N_FILLS; at++) {
        const attn_dtype type = at % 2 ? ATTN_BF16 : ATTN_Q8_0;
        if (!uses_dots(tier, type)) continue;
        rng_floats(&r, (enum fill)(at / 2), x, K);
        memset(x + 64, 0, 32 * sizeof *x);
        tier->prepare(type, x, K, row);
        for (size_t i = 0; i < K; i++) {
            uint16_t bf16;
            float d, got;
            memcpy(&bf16, row + 2 * i, sizeof bf16);
            attn_backend_scalar.to_f32(ATTN_BF16, &bf16, 1, &got);
            const double q = prepared_value(tier, row, i, &d);
            const double error =
                type == ATTN_Q8_0 ? (double)d * q - (double)x[i] : (double)got - (double)x[i];
            const double most = type == ATTN_Q8_0
                                    ? (double)d * (0.5 + 0x1p-14) + (d < 0x1p-126f ? 0x1p-119 : 0)
                                    : 0x1p-8 * fabs((double)x[i]) + (fabsf(x[i]) < FLT_MIN ? 0x1p-126 : 0);
            ck_assert_msg(fabs(error) <= most, "%s, %s: %g is off by %g", tier->name, attn_dtype_name(type),
                          (double)x[i], error);
        }
    }
}
END_TEST

/* ---- Bits ------------------------------------------------------------------------------------------------ */

static void same(const float *got, const float *want, size_t n, const char *what) {
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(!memcmp(got + i, want + i, sizeof *got) || (isnan(got[i]) && isnan(want[i])),
                      "%s: %s: %zu is %a, not %a", harness_case_text(), what, i, (double)got[i],
                      (double)want[i]);
}

START_TEST(bits) {
    static const size_t outputs[] = {1, 15, 16, 17, 33, 64, 65, 100, 129};
    struct rng r = rng_make(test_seed(), 2);
    const struct attn_backend *tier = tiers[_i];
    attn_context *one = harness_context(tier->name, 1), *five = harness_context(tier->name, 5);
    for (size_t at = 0; at < N_TYPES * 52;
         at++) { /* few rows, then many, which a tier may round in its products */
        const attn_dtype type = types[at % N_TYPES];
        const size_t step = at / N_TYPES, m = step < 40 ? step + 1 : 31 + 27 * (step - 40);
        const size_t n = outputs[rng_below(&r, 9)], k = 256 * (1 + rng_below(&r, 9));
        const size_t more = is_blocks(type) ? 0 : step < 40 ? m % 3 : m % 8 * 32;
        if (!uses_dots(tier, type) || !harness_takes(step, 4)) continue;
        struct problem p = problem_make(&r, one, type, m, n, k + more, step % 8 ? NORMAL : TINY);
        float *y = malloc(m * n * sizeof *y);
        ck_assert_ptr_nonnull(y);
        harness_case("%s, %s, %zu x %zu x %zu", tier->name, attn_dtype_name(type), m, n, p.k);
        project(one, &p, 0, (const size_t[]){1, 1, m}, p.y);
        project(five, &p, 0, (const size_t[]){1, m, 1}, y);
        same(y, p.y, m * n, "five threads, rows as heads");
        const size_t row = rng_below(&r, m);
        project(one, &p, row, (const size_t[]){1, 1, 1}, y);
        same(y, p.y + row * n, n, "a row alone");
        free(y);
        problem_free(&p);
    }
    attn_context_destroy(one);
    attn_context_destroy(five);
}
END_TEST

/* More rows than are prepared at once. */
START_TEST(pieces) {
    enum { M = 600, N = 3, K = 16384 };
    struct rng r = rng_make(test_seed(), 3);
    const struct attn_backend *tier = tiers[_i];
    attn_context *context = harness_context(tier->name, 2);
    for (size_t at = 0; at < 2; at++) {
        const attn_dtype type = at ? ATTN_BF16 : ATTN_Q8_0;
        float y[N];
        if (!uses_dots(tier, type) || !harness_takes(at, 2)) continue;
        struct problem p = problem_make(&r, context, type, M, N, K, NORMAL);
        ck_assert_uint_gt(M * tier->prepared_row(type, K), ATTN_PREPARED_BYTES);
        harness_case("%s, %s", tier->name, attn_dtype_name(type));
        project(context, &p, 0, (const size_t[]){3, 2, M / 6}, p.y);
        for (size_t row = 0; row < M; row += 37) {
            project(context, &p, row, (const size_t[]){1, 1, 1}, y);
            same(y, p.y + row * N, N, "a row alone");
        }
        problem_free(&p);
    }
    attn_context_destroy(context);
}
END_TEST

/* Where the tier has no dot products, and wherever the context is strict. */
START_TEST(exact_otherwise) {
    struct rng r = rng_make(test_seed(), 4);
    const struct attn_backend *tier = tiers[_i];
    const attn_options options = {.size = sizeof options, .backend = tier->name, .n_threads = 1, .strict = 1};
    attn_context *of[3] = {harness_context(tier->name, 1), harness_context(tier->exact->name, 1), NULL};
    ck_assert_int_eq(attn_context_create(&options, &of[2]), ATTN_OK);
    ck_assert_str_eq(attn_context_backend(of[2]), tier->exact->name);
    for (size_t at = 0; at < N_TYPES; at++) {
        struct problem p = problem_make(&r, of[0], types[at], 9, 70, 512, NORMAL);
        float *y = malloc(p.m * p.n * sizeof *y);
        ck_assert_ptr_nonnull(y);
        harness_case("%s, %s", tier->name, attn_dtype_name(types[at]));
        project(of[1], &p, 0, (const size_t[]){1, 1, p.m}, p.y);
        project(of[2], &p, 0, (const size_t[]){1, 1, p.m}, y);
        same(y, p.y, p.m * p.n, "strict");
        project(of[0], &p, 0, (const size_t[]){1, 1, p.m}, y);
        if (uses_dots(tier, types[at]))
            ck_assert_msg(memcmp(y, p.y, p.m * p.n * sizeof *y) != 0, "%s: nothing was rounded",
                          harness_case_text());
        else
            same(y, p.y, p.m * p.n, "no dot products");
        free(y);
        problem_free(&p);
    }
    for (int i = 0; i < 3; i++) attn_context_destroy(of[i]);
}
END_TEST

/* What is not finite makes its row so, and no other. */
START_TEST(not_finite) {
    enum { M = 8 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    struct rng r = rng_make(test_seed(), 5);
    const struct attn_backend *tier = tiers[_i];
    attn_context *context = harness_context(tier->name, 1);
    for (size_t at = 0; at < N_TYPES * 3; at++) {
        const attn_dtype type = types[at % N_TYPES];
        if (!uses_dots(tier, type)) continue;
        struct problem p = problem_make(&r, context, type, M, 65, 768, NORMAL);
        float *y = malloc(p.m * p.n * sizeof *y);
        ck_assert_ptr_nonnull(y);
        const size_t row = rng_below(&r, M);
        harness_case("%s, %s, %g", tier->name, attn_dtype_name(type), (double)bad[at / N_TYPES]);
        project(context, &p, 0, (const size_t[]){1, 1, M}, p.y);
        p.x[row * p.k + rng_below(&r, p.k)] = bad[at / N_TYPES];
        project(context, &p, 0, (const size_t[]){1, 1, M}, y);
        for (size_t i = 0; i < M; i++) {
            if (i != row) same(y + i * p.n, p.y + i * p.n, p.n, "another row");
            for (size_t o = 0; i == row && o < p.n; o++)
                ck_assert_msg(!isfinite(y[i * p.n + o]), "%s: output %zu is finite", harness_case_text(), o);
        }
        free(y);
        problem_free(&p);
    }
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("tiers");
    TCase *t = tcase_create("tiers");
    const int n = (int)harness_tiers(tiers);
    tcase_set_timeout(t, 300);
    tcase_add_loop_test(t, bounds, 0, n);
    tcase_add_loop_test(t, extremes, 0, n);
    tcase_add_loop_test(t, nearest, 0, n);
    tcase_add_loop_test(t, bits, 0, n);
    tcase_add_loop_test(t, pieces, 0, n);
    tcase_add_loop_test(t, exact_otherwise, 0, n);
    tcase_add_loop_test(t, not_finite, 0, n);
    suite_add_tcase(suite, t);
    return harness_main(suite);
}
