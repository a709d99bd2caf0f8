/* The bounds of tools/bound.h are of use: small for ordinary shapes, broken by what they should catch. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "suite.h"

/* Approximately normal, from a fixed seed: the sum of four uniforms. */
static float noise(uint64_t *state) {
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(*state >> 33) / 0x1p31;
    }
    return (float)((sum - 2) * sqrt(3));
}

static float *noises(size_t n, uint64_t seed) {
    float *x = malloc(n * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (size_t i = 0; i < n; i++) x[i] = noise(&seed);
    return x;
}

/* Results of a call and their bounds; all [n]. */
struct checked {
    size_t n;
    float *got;
    double *want, *err;
};

static struct checked checked_new(size_t n) {
    struct checked c = {n, calloc(n, sizeof *c.got), calloc(n, sizeof *c.want), calloc(n, sizeof *c.err)};
    ck_assert(c.got && c.want && c.err);
    return c;
}

static void checked_free(struct checked *c) {
    free(c->got);
    free(c->want);
    free(c->err);
}

/* Every result holds with a bound below relative * (|want| + size), and 4 times the bound is caught. */
static void tight(const char *what, const struct checked *c, double size, double relative) {
    double share = 0, ulp = 0, largest = 0;
    for (size_t i = 0; i < c->n; i++) {
        double got = c->got[i], want = c->want[i], err = c->err[i], away = fabs(got - want);
        int exponent;
        frexp(fabs(want) > FLT_MIN ? want : FLT_MIN, &exponent);
        ck_assert_msg(attn_bound_holds(got, want, err),
                      "%s[%zu]: got %.9g, want %.17g: %.3g away (%.3g ulp), allowed %.3g", what, i, got, want,
                      away, away / ldexp(1, exponent - 24), err);
        ck_assert_msg(err <= relative * (fabs(want) + size), "%s[%zu]: bound %.3g is vacuous for %.3g", what,
                      i, err, want);
        ck_assert_msg(!attn_bound_holds(got + 4 * err, want, err), "%s[%zu]: 4 times %.3g passed", what, i,
                      err);
        ck_assert(!attn_bound_holds(NAN, want, err) && !attn_bound_holds(INFINITY, want, err));
        share = fmax(share, away / err);
        largest = fmax(largest, err);
        ulp = fmax(ulp, away / ldexp(1, exponent - 24));
    }
    printf("%-40s error at most %.3f of the bound, %.1f ulp; bound at most %.2g\n", what, share, ulp,
           largest);
}

struct shape {
    size_t n_q, n_kv, p_k, p_v;
};

static const struct shape shapes[] = {{3, 17, 64, 64}, {2, 300, 128, 32}, {2, 4500, 64, 16}};

/* One head of attn_sdpa over the first n_kv keys, with its bounds. */
static void sdpa(attn_context *context, const struct shape *s, float *data[3], struct checked to[3]) {
    attn_tensor q = attn_tensor_contiguous(data[0], ATTN_F32, 1, 1, s->n_q, s->p_k);
    attn_tensor k = attn_tensor_contiguous(data[1], ATTN_F32, 1, 1, s->n_kv, s->p_k);
    attn_tensor v = attn_tensor_contiguous(data[2], ATTN_F32, 1, 1, s->n_kv, s->p_v);
    to[0] = checked_new(s->n_q * s->p_v);
    to[1] = checked_new(s->n_q);
    to[2] = checked_new(s->n_q * s->n_kv);
    attn_tensor out = attn_tensor_contiguous(to[0].got, ATTN_F32, 1, 1, s->n_q, s->p_v);
    attn_tensor lse = attn_tensor_contiguous(to[1].got, ATTN_F32, 1, 1, s->n_q, 1);
    attn_tensor weights = attn_tensor_contiguous(to[2].got, ATTN_F32, 1, 1, s->n_q, s->n_kv);
    attn_sdpa_args args = {
        .size = sizeof args, .q = &q, .k = &k, .v = &v, .out = &out, .lse = &lse, .weights = &weights};
    struct attn_bound_result result = {.out = to[0].want,
                                       .out_err = to[0].err,
                                       .lse = to[1].want,
                                       .lse_err = to[1].err,
                                       .weights = to[2].want,
                                       .weights_err = to[2].err};
    succeeded(context, attn_sdpa(context, &args));
    ck_assert_int_eq(attn_bound_sdpa(attn_bound_arith_of(attn_context_backend(context)), &args, &result), 0);
}

/* Without its last key every row must leave the bound somewhere. */
static void misses_a_key(attn_context *context, const struct shape *s, float *data[3],
                         const struct checked *all) {
    struct shape shorter = *s;
    struct checked less[3];
    shorter.n_kv--;
    sdpa(context, &shorter, data, less);
    for (size_t i = 0; i < s->n_q; i++) {
        size_t caught = 0;
        for (size_t c = i * s->p_v; c < (i + 1) * s->p_v; c++)
            caught += !attn_bound_holds(less[0].got[c], all->want[c], all->err[c]);
        ck_assert_msg(caught > 0, "n_kv = %zu: a missing key passes in row %zu", s->n_kv, i);
    }
    for (int i = 0; i < 3; i++) checked_free(&less[i]);
}

static void sdpa_on(const char *backend) {
    attn_context *context = context_on(backend);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i];
        float *data[] = {noises(s->n_q * s->p_k, 1 + i), noises(s->n_kv * s->p_k, 11 + i),
                         noises(s->n_kv * s->p_v, 21 + i)};
        const char *names[] = {"out", "lse", "weights"};
        const double sizes[] = {1, 1, 0}; /* values are of size 1; an output may be near 0 by cancellation */
        struct checked to[3];
        char what[80];
        sdpa(context, s, data, to);
        for (int o = 0; o < 3; o++) {
            snprintf(what, sizeof what, "%s: sdpa n_kv %zu p_k %zu: %s", backend, s->n_kv, s->p_k, names[o]);
            tight(what, &to[o], sizes[o], 1e-3);
        }
        if (s->n_kv < 1000) /* one key of thousands may weigh less than the bound */
            misses_a_key(context, s, data, &to[0]);
        for (int j = 0; j < 3; j++) {
            checked_free(&to[j]);
            free(data[j]);
        }
    }
    attn_context_destroy(context);
}

static void linear_on(const char *backend) {
    enum { M = 3, N = 50, K = 384 };
    attn_context *context = context_on(backend);
    float *x = noises(M * K, 31), *w = noises(N * K, 32), *bias = noises(N, 33);
    attn_packed *packed = pack_matrix(context, w, bias, N, K);
    struct checked to = checked_new(M * N);
    attn_tensor tx = attn_tensor_contiguous(x, ATTN_F32, 1, 1, M, K);
    attn_tensor ty = attn_tensor_contiguous(to.got, ATTN_F32, 1, 1, M, N);
    struct attn_bound_matrix plain = {w, N, K, bias};
    char what[80];
    succeeded(context, attn_linear(context, &tx, packed, &ty));
    ck_assert_int_eq(attn_bound_linear(attn_bound_arith_of(backend), &tx, &plain, to.want, to.err), 0);
    snprintf(what, sizeof what, "%s: linear k %d", backend, K);
    tight(what, &to, sqrt(K), 1e-3); /* sums of K products of size 1 */
    checked_free(&to);
    free(x);
    free(w);
    free(bias);
    free(packed);
    attn_context_destroy(context);
}

static void on_every_backend(void (*run)(const char *backend)) {
    const char *names[8];
    int runnable[8];
    size_t n = attn_backend_list(names, runnable, 8);
    for (size_t i = 0; i < n; i++)
        if (runnable[i]) run(names[i]);
}

START_TEST(linear_bounds_are_tight) { on_every_backend(linear_on); }
END_TEST

START_TEST(sdpa_bounds_are_tight) { on_every_backend(sdpa_on); }
END_TEST

/* What no bound can be given for accepts anything but a NaN that is not there. */
START_TEST(overflow_has_no_bound) {
    float q[] = {1e30f}, k[] = {1e30f}, v[] = {1};
    attn_tensor t[] = {attn_tensor_contiguous(q, ATTN_F32, 1, 1, 1, 1),
                       attn_tensor_contiguous(k, ATTN_F32, 1, 1, 1, 1),
                       attn_tensor_contiguous(v, ATTN_F32, 1, 1, 1, 1)};
    attn_sdpa_args args = {.size = sizeof args, .q = &t[0], .k = &t[1], .v = &t[2]};
    double lse, lse_err;
    struct attn_bound_result result = {.lse = &lse, .lse_err = &lse_err};
    ck_assert_int_eq(attn_bound_sdpa(ATTN_BOUND_SIMD, &args, &result), 0);
    ck_assert(isinf(lse_err));
    q[0] = NAN;
    ck_assert_int_eq(attn_bound_sdpa(ATTN_BOUND_SIMD, &args, &result), 0);
    ck_assert(isnan(lse) && attn_bound_holds(NAN, lse, lse_err) && !attn_bound_holds(0, lse, lse_err));
}
END_TEST

void add_bound_tests(Suite *suite) {
    TCase *t = tcase_create("bounds");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, linear_bounds_are_tight);
    tcase_add_test(t, sdpa_bounds_are_tight);
    tcase_add_test(t, overflow_has_no_bound);
    suite_add_tcase(suite, t);
}
