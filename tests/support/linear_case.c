#include "support/linear_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bound.h"
#include "support/oracle.h"

static size_t panel_width(size_t nr, size_t n, size_t o) {
    const size_t left = n - o / nr * nr;
    return left >= nr ? nr : (left + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
}

static size_t padded(size_t nr, size_t n) { return (n - 1) / nr * nr + panel_width(nr, n, n - 1); }

struct guard linear_case_pack(size_t nr, size_t n, size_t k, const float *w) {
    struct guard g = guard_alloc(padded(nr, n) * k * sizeof(float), 0);
    float *panels = (float *)(void *)g.data;
    memset(panels, 0, g.bytes);
    for (size_t o = 0; o < n; o++)
        for (size_t i = 0; i < k; i++)
            panels[o / nr * nr * k + i * panel_width(nr, n, o) + o % nr] = w[o * k + i];
    return g;
}

/* The inputs of a case, and what a slot makes of them. */
struct linear_data {
    struct grid x;
    float *w, *bias;
};

static struct grid run(const struct attn_backend *b, const struct linear_case *c, const struct linear_data *d,
                       struct rng *r, struct verdict *v) {
    const size_t nr = b->layout, n_y = c->o1 - c->o0;
    struct guard panels = linear_case_pack(nr, c->n, c->k, d->w), bias = {0};
    if (d->bias) {
        bias = guard_alloc(padded(nr, c->n) * sizeof(float), 0);
        memset(bias.data, 0, bias.bytes);
        memcpy(bias.data, d->bias, c->n * sizeof(float));
    }
    struct grid y = grid_make(r, sizeof(float), (size_t[4]){1, 1, c->m, n_y}, c->layout);
    guard_seal(&d->x.guard);
    guard_seal(&panels);
    guard_seal(&bias);
    const struct attn_linear_task task = {.x = grid_f32(&d->x, 0, 0, 0),
                                          .x_row = d->x.stride[2],
                                          .y = grid_f32(&y, 0, 0, 0),
                                          .y_row = y.stride[2],
                                          .m = c->m,
                                          .k = c->k,
                                          .row_bytes = c->k * sizeof(float),
                                          .panels = panels.data,
                                          .bias = (const float *)(const void *)bias.data,
                                          .n = c->n,
                                          .o0 = c->o0,
                                          .o1 = c->o1};
    b->linear(&task);
    guard_unseal(&d->x.guard);
    guard_unseal(&panels);
    guard_unseal(&bias);
    if (!grid_gaps_intact(&y)) verdict_fail(v, "%s wrote outside y", b->name);
    if (!grid_all_written(&y)) verdict_fail(v, "%s left elements of y unwritten", b->name);
    guard_free(&panels);
    guard_free(&bias);
    return y;
}

/* Small integers: every partial sum is exact in f32, whatever the order. */
static int exact(const struct linear_case *c) { return c->fill == FILL_INTEGER && c->k < 1 << 16; }

static void compare_row(const struct attn_backend *b, const struct linear_case *c,
                        const struct linear_data *d, size_t i, const float *got, const float *reference,
                        struct verdict *v) {
    double *x = malloc((c->k + 3 * c->n) * sizeof *x);
    double *want = x + c->k, *theirs = want + c->n, *err = theirs + c->n;
    if (!x) abort();
    for (size_t j = 0; j < c->k; j++) x[j] = grid_f32(&d->x, 0, 0, i)[j];
    oracle_linear(c->n, c->k, x, d->w, d->bias, want);
    attn_bound_linear_row(attn_bound_arith_of(b->name), x, NULL, d->w, c->k, d->bias, c->n, c->k, theirs,
                          err);
    for (size_t o = c->o0; o < c->o1; o++) {
        const double e = exact(c) ? 0 : err[o], y = got[o - c->o0];
        if (!attn_bound_holds(y, want[o], e))
            verdict_fail(v, "row %zu output %zu: %a, oracle %a, bound %g", i, o, y, want[o], e);
        if (!attn_bound_holds(theirs[o], want[o], err[o]))
            verdict_fail(v, "row %zu output %zu: the oracles disagree: %a, %a", i, o, want[o], theirs[o]);
        if (reference && !attn_bound_holds(y, reference[o - c->o0], 2 * e))
            verdict_fail(v, "row %zu output %zu: %a, scalar %a, bound %g", i, o, y, reference[o - c->o0], e);
    }
    free(x);
}

void linear_case_check(const struct attn_backend *b, const struct linear_case *c, struct verdict *v) {
    struct rng r = rng_make(test_seed(), c->stream);
    struct linear_data d = {grid_make(&r, sizeof(float), (size_t[4]){1, 1, c->m, c->k}, c->layout), NULL,
                            NULL};
    grid_fill(&d.x, &r, c->fill);
    d.w = malloc((c->n * c->k + c->n) * sizeof *d.w);
    if (!d.w) abort();
    rng_floats(&r, c->fill == FILL_DENORMAL ? FILL_NORMAL : c->fill, d.w, c->n * c->k);
    if (c->bias) {
        d.bias = d.w + c->n * c->k;
        rng_floats(&r, c->fill, d.bias, c->n);
    }
    struct grid y = run(b, c, &d, &r, v), reference = {0};
    const size_t nr = attn_backend_scalar.layout;
    const int both = b != &attn_backend_scalar && c->o0 % nr == 0 && (c->o1 % nr == 0 || c->o1 == c->n);
    if (both) reference = run(&attn_backend_scalar, c, &d, &r, v);
    for (size_t i = 0; i < c->m; i++)
        compare_row(b, c, &d, i, grid_f32(&y, 0, 0, i), both ? grid_f32(&reference, 0, 0, i) : NULL, v);
    grid_free(&d.x);
    grid_free(&y);
    grid_free(&reference);
    free(d.w);
}
