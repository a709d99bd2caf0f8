/* The library against NumPy float64: every case of vectors.txt on every backend that this machine runs. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "suite.h"

/* Distance in units of the last place of the wanted value as f32. */
static double ulps(double got, double want) {
    int exponent;
    if (got == want) return 0;
    frexp(fabs(want) > FLT_MIN ? want : FLT_MIN, &exponent);
    return fabs(got - want) / ldexp(1, exponent - 24);
}

/* What a backend's worst element was. */
struct worst {
    double ulps, share; /* share of its bound */
};

static void compare(const char *backend, const struct vector_case *c, const struct case_output *o,
                    struct worst *w) {
    for (size_t i = 0; i < o->n; i++) {
        /* NumPy rounds too, in double; so does the oracle, whose part of it is in its bound. */
        double got = o->got[i], want = o->want[i], numpy = 1e-13 * (1 + fabs(want));
        double err = o->err[i] + numpy, away = ulps(got, want);
        ck_assert_msg(attn_bound_holds(o->oracle[i], want, numpy),
                      "%s %s, %s[%zu]: the oracle of bound.c says %.17g, NumPy %.17g", c->kind, c->name,
                      o->name, i, o->oracle[i], want);
        ck_assert_msg(attn_bound_holds(got, want, err),
                      "%s: %s %s, %s[%zu]: got %.9g, want %.17g: %.3g ulp away, %.3g, allowed %.3g", backend,
                      c->kind, c->name, o->name, i, got, want, away, fabs(got - want), err);
        if (got != want) {
            w->ulps = fmax(w->ulps, away);
            w->share = fmax(w->share, fabs(got - want) / err);
        }
    }
}

static void each_case(const char *backend, struct worst *w) {
    FILE *file = fopen(getenv("ATTN_VECTORS") ? getenv("ATTN_VECTORS") : "vectors.txt", "r");
    attn_context *context = context_on(backend);
    struct vector_case c;
    size_t cases = 0;
    ck_assert_msg(file != NULL, "set ATTN_VECTORS to the path of vectors.txt");
    for (; vectors_next(file, &c); cases++) {
        struct case_run run = case_execute(context, &c);
        for (size_t i = 0; i < run.n_outputs; i++) compare(backend, &c, &run.output[i], w);
        case_free(&run);
        vectors_free(&c);
    }
    ck_assert_uint_ge(cases, 30);
    attn_context_destroy(context);
    fclose(file);
}

START_TEST(numpy_on_every_backend) {
    const char *names[8];
    int runnable[8];
    size_t n = attn_backend_list(names, runnable, 8);
    for (size_t i = 0; i < n; i++) {
        struct worst w = {0, 0};
        if (!runnable[i]) continue;
        each_case(names[i], &w);
        printf("%-8s against NumPy: at most %.2f ulp, at most %.2f of the bound\n", names[i], w.ulps,
               w.share);
        ck_assert_msg(w.share <= 1, "%s: %.3g times the bound (%.3g ulp)", names[i], w.share, w.ulps);
        if (strcmp(names[i], "scalar") != 0)
            ck_assert_msg(w.ulps > 0, "%s: no error at all is not f32 arithmetic", names[i]);
    }
}
END_TEST

void add_vector_tests(Suite *suite) {
    TCase *t = tcase_create("vectors");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, numpy_on_every_backend);
    suite_add_tcase(suite, t);
}
