/*
 * NaN and infinities through the public calls: what a row sees and is NaN (or +inf in the score) makes that
 * row NaN, and leaves every other row's bits alone; what a row does not see changes nothing. (The shape tests
 * also spoil inputs at random; here each rule stands by itself.)
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/api_case.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

static const size_t shapes[][5] = {
    /* n_head, n_head_kv, n_q, n_kv, p_v */
    {1, 1, 1, 1, 1},    {4, 2, 3, 20, 7},   {2, 2, 50, 50, 16},  {3, 1, 33, 70, 5},
    {4, 1, 1, 300, 20}, {8, 2, 2, 2100, 9}, {1, 1, 60, 4100, 4},
};

enum where { IN_QUERY, IN_KEY, IN_VALUE, IN_MASK };

static struct api_case make_case(enum api_call call, size_t shape, uint64_t stream) {
    const size_t *s = shapes[shape];
    struct api_case c = {.call = call,
                         .batch = 2,
                         .n_head = s[0],
                         .n_head_kv = s[1],
                         .n_q = s[2],
                         .n_kv = s[3],
                         .p_q = 6,
                         .p_k = 6,
                         .p_v = s[4],
                         .c = 6,
                         .lse = 1,
                         .weights = s[2] * s[3] < 5000,
                         .scores = call == API_SDPA && s[2] * s[3] < 5000,
                         .n_workers = 1 + stream % 2,
                         .stream = stream};
    struct rng r = rng_make(test_seed(), ~stream);
    c.causal = (attn_causal)rng_below(&r, 3);
    c.kv_lengths = rng_chance(&r, 50);
    c.q_lengths = rng_chance(&r, 30);
    c.mask = (enum api_mask)rng_below(&r, 3);
    c.mask_bits = (unsigned)rng_below(&r, 16);
    c.layout = (unsigned)rng_below(&r, N_LAYOUTS);
    return c;
}

/* One position, and what is put there. */
struct spot {
    enum where where;
    size_t b, h, row, column; /* of the tensor */
    float value;
};

static struct spot draw_spot(const struct api_case *c, const struct api_data *d, enum where where,
                             struct rng *r) {
    const struct grid *grids[] = {&d->q, &d->k, &d->v, &d->mask}, *g = grids[where];
    struct spot s = {where,
                     rng_below(r, g->size[0]),
                     rng_below(r, g->size[1]),
                     rng_below(r, g->size[2]),
                     rng_below(r, g->size[3]),
                     NAN};
    if (where == IN_MASK && rng_chance(r, 50)) s.value = INFINITY;
    (void)c;
    return s;
}

/* Whether what row (b, h, i) sees holds the spot. */
static int sees(const struct api_case *c, const struct api_data *d, const struct spot *s, size_t b, size_t h,
                size_t i) {
    const size_t kv = h / (c->n_head / c->n_head_kv);
    if (s->where == IN_QUERY) {
        int any = 0;
        for (size_t j = 0; j < c->n_kv; j++) any |= api_case_sees(c, d, b, h, i, j);
        return any && s->b == b && s->h == h && s->row == i;
    }
    if (s->where != IN_MASK) return s->b == b && s->h == kv && api_case_sees(c, d, b, h, i, s->row);
    if ((c->mask_bits & 1 && s->b != b) || (c->mask_bits & 2 && s->h != h) ||
        (c->mask_bits & 4 && s->row != i))
        return 0;
    int any = 0;
    for (size_t j = 0; j < c->n_kv; j++)
        any |= (!(c->mask_bits & 8) || s->column == j) && api_case_sees(c, d, b, h, i, j);
    return any;
}

static int all_nan(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isnan(x[i])) return 0;
    return 1;
}

static int same(const struct grid *a, const struct grid *b, size_t n, size_t h, size_t i) {
    return memcmp(grid_f32(a, n, h, i), grid_f32(b, n, h, i), a->size[3] * sizeof(float)) == 0;
}

/* Rows that see the spot are NaN (of a value: in its column), the others have the bits they had. */
static void compare(const struct api_case *c, const struct api_data *d, const struct spot *s,
                    const struct api_outputs *clean, const struct api_outputs *dirty, struct verdict *v) {
    for (size_t b = 0; b < c->batch; b++)
        for (size_t h = 0; h < c->n_head; h++)
            for (size_t i = 0; i < c->n_q; i++) {
                const float *out = grid_f32(&dirty->out, b, h, i), *lse = grid_f32(&dirty->lse, b, h, i);
                if (!sees(c, d, s, b, h, i)) {
                    if (!same(&clean->out, &dirty->out, b, h, i) ||
                        !same(&clean->lse, &dirty->lse, b, h, i) ||
                        (c->weights && !same(&clean->weights, &dirty->weights, b, h, i)) ||
                        (c->scores && !same(&clean->scores, &dirty->scores, b, h, i)))
                        verdict_fail(v, "row %zu %zu %zu does not see the spot, and changed", b, h, i);
                } else if (s->where == IN_VALUE) {
                    if (!isnan(out[s->column]) || !same(&clean->lse, &dirty->lse, b, h, i) ||
                        (c->scores && !same(&clean->scores, &dirty->scores, b, h, i)))
                        verdict_fail(v, "row %zu %zu %zu: value %a, lse or scores changed?", b, h, i,
                                     out[s->column]);
                } else if (!all_nan(out, c->p_v) || !isnan(*lse)) {
                    verdict_fail(v, "row %zu %zu %zu is not NaN: %a, lse %a", b, h, i, *out, *lse);
                }
            }
}

static void spoil_and_check(const char *backend, const struct api_case *c, enum where where) {
    struct verdict v = {.ok = 1};
    struct api_data *d = api_case_make(c);
    attn_context *context = harness_context(backend, c->n_workers);
    api_case_pack(context, c, d);
    struct api_outputs clean = api_case_run(context, c, d, &v);
    struct rng r = rng_make(test_seed(), c->stream ^ 77);
    for (int i = 0; i < 4; i++) {
        const struct spot s = draw_spot(c, d, where, &r);
        struct grid *const grids[] = {&d->q, &d->k, &d->v, &d->mask};
        float *at = grid_f32(grids[where], s.b, s.h, s.row) + s.column;
        const float before = *at;
        api_case_announce(backend, c);
        if (before == -INFINITY) continue; /* a mask's hidden key would become visible */
        *at = s.value;
        struct api_outputs dirty = api_case_run(context, c, d, &v);
        compare(c, d, &s, &clean, &dirty, &v);
        api_outputs_free(&dirty);
        *at = before;
        if (!v.ok)
            ck_abort_msg("seed %llu, %s: NaN in %d at %zu %zu %zu %zu: %s", (unsigned long long)test_seed(),
                         harness_case_text(), where, s.b, s.h, s.row, s.column, v.text);
    }
    api_outputs_free(&clean);
    attn_context_destroy(context);
    api_case_free(d);
}

static void spoil_all(const char *backend, enum where where) {
    for (uint64_t i = 0; i < 10 * SHAPES_COUNT(shapes); i++) {
        struct api_case c = make_case(i % 2 ? API_ADDITIVE : API_SDPA, i / 2 % SHAPES_COUNT(shapes),
                                      1000 * (uint64_t)where + i);
        if (where == IN_MASK) c.mask = API_MASK_F32;
        const int large = c.n_q * c.n_kv > 50000; /* fewer of those */
        if (harness_takes(i, 23) && (!large || i % 6 == 0)) spoil_and_check(backend, &c, where);
    }
}

START_TEST(nan_in_a_query) { spoil_all(backends[_i]->name, IN_QUERY); }
END_TEST

START_TEST(nan_in_a_key) { spoil_all(backends[_i]->name, IN_KEY); }
END_TEST

START_TEST(nan_in_a_value) { spoil_all(backends[_i]->name, IN_VALUE); }
END_TEST

START_TEST(nan_or_inf_in_a_mask) { spoil_all(backends[_i]->name, IN_MASK); }
END_TEST

/* +inf in a key against a positive query is a score of +inf; in a value it is an infinite output. */
START_TEST(infinite_inputs) {
    for (size_t shape = 0; shape < SHAPES_COUNT(shapes); shape++) {
        struct api_case c = make_case(API_SDPA, shape, 9000 + shape);
        c.causal = ATTN_CAUSAL_NONE;
        c.q_lengths = c.kv_lengths = 0;
        c.mask = API_MASK_NONE;
        struct verdict v = {.ok = 1};
        struct api_data *d = api_case_make(&c);
        attn_context *context = harness_context(backends[_i]->name, 1);
        api_case_announce(backends[_i]->name, &c);
        for (size_t h = 0; h < c.n_head; h++)
            for (size_t i = 0; i < c.n_q; i++)
                for (size_t j = 0; j < c.p_q; j++) grid_f32(&d->q, 1, h, i)[j] = 0.25f;
        grid_f32(&d->k, 1, 0, c.n_kv - 1)[2] = INFINITY;
        grid_f32(&d->v, 0, 0, c.n_kv / 2)[0] = INFINITY;
        struct api_outputs o = api_case_run(context, &c, d, &v);
        HARNESS_ASSERT(&v);
        for (size_t i = 0; i < c.n_q; i++) {
            ck_assert(all_nan(grid_f32(&o.out, 1, 0, i), c.p_v));
            ck_assert(isnan(*grid_f32(&o.lse, 1, 0, i)));
            ck_assert(!isfinite(*grid_f32(&o.out, 0, 0, i)));
            ck_assert(isfinite(*grid_f32(&o.lse, 0, 0, i)));
        }
        api_outputs_free(&o);
        attn_context_destroy(context);
        api_case_free(d);
    }
}
END_TEST

/* A mask of -inf everywhere: 0 and -inf, whatever the inputs are. */
START_TEST(nothing_visible) {
    for (uint64_t i = 0; i < 2 * SHAPES_COUNT(shapes); i++) {
        struct api_case c = make_case(i % 2 ? API_ADDITIVE : API_SDPA, i / 2, 9100 + i);
        struct verdict v = {.ok = 1};
        c.mask = i % 4 < 2 ? API_MASK_F32 : API_MASK_BOOL;
        struct api_data *d = api_case_make(&c);
        for (size_t b = 0; b < d->mask.size[0]; b++)
            for (size_t h = 0; h < d->mask.size[1]; h++)
                for (size_t row = 0; row < d->mask.size[2]; row++)
                    for (size_t j = 0; j < d->mask.size[3]; j++) {
                        if (c.mask == API_MASK_F32)
                            grid_f32(&d->mask, b, h, row)[j] = -INFINITY;
                        else
                            grid_u8(&d->mask, b, h, row)[j] = 0;
                    }
        struct rng r = rng_make(test_seed(), i);
        grid_spoil(&d->q, &r, 1);
        grid_spoil(&d->k, &r, 1);
        grid_spoil(&d->v, &r, 1);
        attn_context *context = harness_context(backends[_i]->name, 1);
        api_case_announce(backends[_i]->name, &c);
        struct api_outputs o = api_case_run(context, &c, d, &v);
        HARNESS_ASSERT(&v);
        for (size_t b = 0; b < c.batch; b++)
            for (size_t h = 0; h < c.n_head; h++)
                for (size_t row = 0; row < c.n_q; row++) {
                    for (size_t j = 0; j < c.p_v; j++) ck_assert(grid_f32(&o.out, b, h, row)[j] == 0);
                    ck_assert(*grid_f32(&o.lse, b, h, row) == -INFINITY);
                    for (size_t j = 0; c.weights && j < c.n_kv; j++)
                        ck_assert(grid_f32(&o.weights, b, h, row)[j] == 0);
                    for (size_t j = 0; c.scores && j < c.n_kv; j++)
                        ck_assert(grid_f32(&o.scores, b, h, row)[j] == -INFINITY);
                }
        api_outputs_free(&o);
        attn_context_destroy(context);
        api_case_free(d);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: NaN and infinities");
    TCase *cases = tcase_create("rules");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, nan_in_a_query, 0, n);
    tcase_add_loop_test(cases, nan_in_a_key, 0, n);
    tcase_add_loop_test(cases, nan_in_a_value, 0, n);
    tcase_add_loop_test(cases, nan_or_inf_in_a_mask, 0, n);
    tcase_add_loop_test(cases, infinite_inputs, 0, n);
    tcase_add_loop_test(cases, nothing_visible, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
