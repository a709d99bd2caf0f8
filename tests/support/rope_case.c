#include "support/rope_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"

/* ---- Formulas -------------------------------------------------------------------------------------------- */

static const long double pi = 3.14159265358979323846264338327950288L;

static double or_else(float value, double otherwise) { return value != 0.0f ? (double)value : otherwise; }

/* YaRN's interpolation share of pair i (Peng et al., 2023, as published with the models). */
static long double yarn_share(const attn_rope *r, size_t dims, size_t i) {
    const long double log_base = logl((long double)or_else(r->base, 10000)), context = r->original_context;
    long double low = dims * logl(context / (or_else(r->beta_fast, 32) * 2 * pi)) / (2 * log_base);
    long double high = dims * logl(context / (or_else(r->beta_slow, 1) * 2 * pi)) / (2 * log_base);
    low = fmaxl(r->yarn_exact_range ? low : floorl(low), 0);
    high = fminl(r->yarn_exact_range ? high : ceill(high), (long double)dims - 1);
    return fminl(fmaxl((i - low) / fmaxl(high - low, 0.001), 0), 1);
}

/* Llama 3.1's, by wavelengths. */
static long double llama3_share(const attn_rope *r, long double f) {
    const long double wavelength = 2 * pi / f, context = r->original_context;
    const long double low = or_else(r->low_freq_factor, 1), high = or_else(r->high_freq_factor, 4);
    if (wavelength < context / high) return 0;
    if (wavelength > context / low) return 1;
    return 1 - (context / wavelength - low) / (high - low);
}

long double rope_oracle_frequency(const attn_rope *r, size_t dims, size_t i) {
    const long double s = r->factor, power = -2.0L * i / dims;
    long double base = (long double)or_else(r->base, 10000);
    if (r->scaling == ATTN_ROPE_SCALING_NTK) base *= powl(s, (long double)dims / (dims - 2));
    const long double f = powl(base, power);
    switch (r->scaling) {
    case ATTN_ROPE_SCALING_LINEAR: return f / s;
    case ATTN_ROPE_SCALING_YARN: {
        const long double share = yarn_share(r, dims, i);
        return f / s * share + f * (1 - share);
    }
    case ATTN_ROPE_SCALING_LLAMA3: {
        const long double share = llama3_share(r, f);
        return f / s * share + f * (1 - share);
    }
    default: return f;
    }
}

double rope_oracle_magnitude(const attn_rope *r) {
    if (r->attention_factor != 0.0f) return (double)r->attention_factor;
    const double s = (double)r->factor;
    return r->scaling == ATTN_ROPE_SCALING_YARN && s > 1 ? 0.1 * log(s) + 1 : 1;
}

/* ---- A case ------------------------------------------------------------------------------------------------ */

struct data {
    struct grid x, y; /* y: where not in place */
    float *divisors;
    int64_t *offsets, *positions;
    size_t stride; /* of positions */
    attn_rope rope;
    attn_tensor t_x, t_y;
    attn_rope_args args;
};

static void *get(size_t n, size_t each) {
    void *p = calloc(n ? n : 1, each);
    if (!p) abort();
    return p;
}

static size_t dims_of(const struct rope_case *c) { return c->rope.dims ? c->rope.dims : c->columns; }

static void make(struct data *d, const struct rope_case *c, struct rng *r) {
    const size_t size[4] = {c->batch, c->head, c->rows, c->columns}, n = dims_of(c) / 2;
    d->x = grid_make(r, sizeof(float), size, c->layout);
    grid_fill(&d->x, r, c->fill);
    if (!c->in_place) d->y = grid_make(r, sizeof(float), size, c->y_layout);
    d->stride = c->positions == ROPE_SEQUENCES ? c->rows + rng_below(r, 3) : 0;
    d->divisors = get(n, sizeof *d->divisors);
    d->offsets = get(c->batch, sizeof *d->offsets);
    d->positions = get(c->batch * (c->rows + 3), sizeof *d->positions);
    for (size_t i = 0; i < n; i++)
        d->divisors[i] = rng_chance(r, 10) ? INFINITY : 1.0f + (float)rng_below(r, 1000) / 64;
    for (size_t b = 0; b < c->batch; b++) d->offsets[b] = c->around + (int64_t)(b * rng_below(r, 100)) - 7;
    for (size_t i = 0; i < c->batch * (c->rows + 3); i++)
        d->positions[i] =
            (int64_t)rng_below(r, 2 * c->rows + 1) - (int64_t)c->rows + (c->offsets ? 0 : c->around);
    d->rope = c->rope;
    d->rope.size = sizeof d->rope;
    d->rope.frequency_divisors = c->divided ? d->divisors : NULL;
    d->t_x = grid_tensor(&d->x);
    d->t_y = grid_tensor(c->in_place ? &d->x : &d->y);
    d->args = (attn_rope_args){.size = sizeof d->args,
                               .rope = &d->rope,
                               .x = &d->t_x,
                               .y = &d->t_y,
                               .offsets = c->offsets ? d->offsets : NULL,
                               .positions = c->positions ? d->positions : NULL,
                               .positions_stride = d->stride};
}

static int64_t position_of(const struct rope_case *c, const struct data *d, size_t b, size_t row) {
    const int64_t offset = c->offsets ? d->offsets[b] : 0;
    return offset + (c->positions ? d->positions[b * d->stride + row] : (int64_t)row);
}

/*
 * docs/numerics.md, section 8: |y^ - y| for y0 = x0 C - x1 S (y1 alike, with S and -C), C and S exact, of an angle
 * of that many radians. The 2^-56 is the oracle's own: angles of 64 bits, from
 * a mixture's share that is the quotient of differences.
 */
static double bound(const char *backend, double c, double s, double x0, double x1, double angle,
                    double magnitude) {
    const double u = 0x1p-24, sizes = fabs(x0) + fabs(x1), ours = fabs(c * x0) + fabs(s * x1);
    const double e = magnitude * (0x1p-48 + fabs(angle) * (0x1p-90 + 0x1p-56));
    if (strcmp(backend, "scalar") == 0)
        return u * fabs(c * x0 - s * x1) + (1 + u) * sizes * e + 0x1p-50 * ours + 0x1p-149;
    return 3.01 * u * ours + (1 + 4 * u) * sizes * e + (2 + sizes) * 0x1p-149;
}

static void compare(const char *backend, float got, double x0, double x1, double c, double s, double angle,
                    double magnitude, const size_t at[4], struct verdict *v) {
    const double want = x0 * c - x1 * s, e = bound(backend, c, s, x0, x1, angle, magnitude);
    if (!(fabs((double)got - want) <= e))
        verdict_fail(v, "y[%zu][%zu][%zu] column %zu: %a, want %a, bound %g (angle %g)", at[0], at[1], at[2],
                     at[3], (double)got, want, e, angle);
}

/* cos and sin of a row's pairs, times the magnitude, and the angles. */
struct turns {
    long double *frequency;
    double *cos, *sin, *angle;
};

static struct turns turns_make(const struct rope_case *c, const struct data *d) {
    const size_t dims = dims_of(c), n = dims / 2;
    struct turns t = {get(n, sizeof *t.frequency), get(n, sizeof *t.cos), get(n, sizeof *t.sin),
                      get(n, sizeof *t.angle)};
    for (size_t i = 0; i < n; i++) {
        t.frequency[i] = rope_oracle_frequency(&d->rope, dims, i);
        if (c->divided) t.frequency[i] /= (long double)d->divisors[i];
    }
    return t;
}

static void turns_of_row(struct turns *t, const struct rope_case *c, const struct data *d, size_t b,
                         size_t row) {
    const long double magnitude = rope_oracle_magnitude(&d->rope);
    for (size_t i = 0; i < dims_of(c) / 2; i++) {
        const long double angle = t->frequency[i] * position_of(c, d, b, row);
        t->cos[i] = (double)(magnitude * cosl(angle));
        t->sin[i] = (double)(magnitude * sinl(angle));
        t->angle[i] = (double)angle;
    }
}

static void turns_free(struct turns *t) {
    free(t->frequency);
    free(t->cos);
    free(t->sin);
    free(t->angle);
}

static void compare_row(const char *backend, const struct rope_case *c, const struct data *d,
                        const struct turns *t, const float *x, const size_t row[3], struct verdict *v) {
    const float *y = grid_f32(c->in_place ? &d->x : &d->y, row[0], row[1], row[2]);
    const size_t dims = dims_of(c), n = dims / 2;
    const double magnitude = rope_oracle_magnitude(&d->rope);
    for (size_t i = 0; i < n; i++) {
        const size_t i0 = c->rope.style == ATTN_ROPE_INTERLEAVED ? 2 * i : i;
        const size_t i1 = c->rope.style == ATTN_ROPE_INTERLEAVED ? 2 * i + 1 : i + n;
        const size_t at0[4] = {row[0], row[1], row[2], i0}, at1[4] = {row[0], row[1], row[2], i1};
        const double x0 = (double)x[i0], x1 = (double)x[i1];
        compare(backend, y[i0], x0, x1, t->cos[i], t->sin[i], t->angle[i], magnitude, at0, v);
        compare(backend, y[i1], x1, x0, t->cos[i], -t->sin[i], t->angle[i], magnitude, at1, v);
    }
    if (memcmp(x + dims, y + dims, (c->columns - dims) * sizeof *x) != 0)
        verdict_fail(v, "y[%zu][%zu][%zu]: columns from %zu on are no copy", row[0], row[1], row[2], dims);
}

/* x: the input's rows, one after the other. */
static void compare_all(const char *backend, const struct rope_case *c, const struct data *d, const float *x,
                        struct verdict *v) {
    struct turns t = turns_make(c, d);
    for (size_t b = 0; b < c->batch; b++)
        for (size_t row = 0; row < c->rows && v->ok; row++) {
            turns_of_row(&t, c, d, b, row);
            for (size_t h = 0; h < c->head; h++) {
                const size_t at[3] = {b, h, row};
                compare_row(backend, c, d, &t, x + ((b * c->head + h) * c->rows + row) * c->columns, at, v);
            }
        }
    turns_free(&t);
}

/* Tasks in reverse order, each on another worker. */
static void run_backwards(void *pool, size_t n_tasks, attn_task *task, void *arg) {
    const struct rope_case *c = pool;
    for (size_t i = n_tasks; i-- > 0;) task(arg, i, i % c->n_workers);
}

/* The call, with scratch of exactly the size asked for. */
static void run(const char *backend, const struct attn_backend *substitute, const struct rope_case *c,
                struct data *d, struct verdict *v) {
    attn_context *context = NULL;
    size_t bytes = 0;
    const attn_executor executor = {run_backwards, (void *)(uintptr_t)c, c->n_workers};
    attn_options options = {.size = sizeof options, .backend = backend, .executor = &executor};
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    if (attn_rope_apply_scratch(context, &d->args, &bytes) != ATTN_OK)
        verdict_fail(v, "scratch: %s", attn_context_error(context));
    attn_context_destroy(context);
    struct guard scratch = guard_alloc(bytes, (unsigned)(c->stream % 2));
    options.scratch = scratch.data;
    options.scratch_bytes = bytes;
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    if (substitute) context->backend = substitute;
    if (!c->in_place) guard_seal(&d->x.guard);
    if (v->ok && attn_rope_apply(context, &d->args) != ATTN_OK)
        verdict_fail(v, "%s", attn_context_error(context));
    if (!c->in_place) guard_unseal(&d->x.guard);
    if (!guard_intact(&scratch)) verdict_fail(v, "wrote outside the scratch");
    attn_context_destroy(context);
    guard_free(&scratch);
}

void rope_case_check(const char *backend, const struct attn_backend *substitute, const struct rope_case *c,
                     struct verdict *v) {
    struct rng r = rng_make(test_seed(), c->stream);
    struct data d = {0};
    make(&d, c, &r);
    const size_t n_rows = c->batch * c->head * c->rows;
    float *before = get(n_rows * c->columns, sizeof *before);
    for (size_t i = 0; i < n_rows; i++)
        memcpy(before + i * c->columns,
               grid_f32(&d.x, i / c->rows / c->head, i / c->rows % c->head, i % c->rows),
               c->columns * sizeof *before);
    run(backend, substitute, c, &d, v);
    const struct grid *y = c->in_place ? &d.x : &d.y;
    if (!grid_gaps_intact(y) || !grid_all_written(y))
        verdict_fail(v, "wrote outside y, or left some of it unwritten");
    compare_all(backend, c, &d, before, v);
    free(before);
    free(d.divisors);
    free(d.offsets);
    free(d.positions);
    grid_free(&d.x);
    if (!c->in_place) grid_free(&d.y);
}

/* ---- Drawing ----------------------------------------------------------------------------------------------- */

void rope_case_draw(struct rope_case *c) {
    static const int64_t around[] = {0, 1, 1000, 131072, 1000000, INT32_MAX, -1000000, INT32_MIN, 40, 500};
    static const float bases[] = {0, 10000, 500000, 1e6f, 1.5f, 1e9f};
    struct rng r = rng_make(test_seed(), ~c->stream);
    const size_t dims = c->rope.dims ? c->rope.dims : c->columns;
    c->rope.style = (attn_rope_style)rng_below(&r, 2);
    c->rope.base = bases[rng_below(&r, 6)];
    c->rope.scaling = (attn_rope_scaling)rng_below(&r, 5);
    if (dims < 4 && c->rope.scaling == ATTN_ROPE_SCALING_NTK) c->rope.scaling = ATTN_ROPE_SCALING_NONE;
    c->rope.factor = 0.5f + (float)rng_below(&r, 64) / 2;
    c->rope.original_context = 1 + rng_below(&r, 40000);
    c->rope.low_freq_factor = rng_chance(&r, 50) ? 0 : 1.5f;
    c->rope.high_freq_factor = rng_chance(&r, 50) ? 0 : 6.25f;
    c->rope.beta_fast = rng_chance(&r, 50) ? 0 : 20.0f;
    c->rope.beta_slow = rng_chance(&r, 50) ? 0 : 2.5f;
    c->rope.yarn_exact_range = rng_chance(&r, 50);
    c->rope.attention_factor = rng_chance(&r, 60) ? 0 : 1.375f;
    c->divided = rng_chance(&r, 30);
    c->offsets = rng_chance(&r, 50);
    c->positions = (enum rope_positions)rng_below(&r, 3);
    c->around = around[rng_below(&r, 10)];
    c->in_place = rng_chance(&r, 40);
    c->fill = rng_chance(&r, 60) ? FILL_NORMAL : (enum fill)rng_below(&r, N_FILLS);
    c->layout = (unsigned)rng_below(&r, N_LAYOUTS);
    c->y_layout = (unsigned)rng_below(&r, N_LAYOUTS);
    c->n_workers = 1 + rng_below(&r, 3);
}

void rope_case_announce(const char *backend, const struct rope_case *c) {
    harness_case(
        "%s attn_rope_apply %zu x %zu x %zu x %zu dims %zu style %d base %g scaling %d factor %g context "
        "%zu exact %d divided %d offsets %d positions %d around %lld in place %d fill %d layouts %u %u "
        "workers %zu stream %llu",
        backend, c->batch, c->head, c->rows, c->columns, c->rope.dims, (int)c->rope.style,
        (double)c->rope.base, (int)c->rope.scaling, (double)c->rope.factor, c->rope.original_context,
        c->rope.yarn_exact_range, c->divided, c->offsets, (int)c->positions, (long long)c->around,
        c->in_place, (int)c->fill, c->layout, c->y_layout, c->n_workers, (unsigned long long)c->stream);
}
