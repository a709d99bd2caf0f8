/*
 * NaN in every place that a row does not see (beyond lengths, masked, in the future, outside the window, of other
 * documents and sequences; other queries; the mask's own elements there; unused places of a cache) changes none of the
 * row's bits.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exact/exact.h"
#include "support/cache_case.h"
#include "support/half.h"

static const struct attn_backend *backends[4];

static void fill_row(struct grid *g, size_t b, size_t row) {
    for (size_t h = 0; h < g->size[1]; h++)
        for (size_t j = 0; j < g->size[3]; j++) grid_f32(g, b, h, row)[j] = NAN;
}

/* Whether the row of the tensors sees key j of its sequence in any head. */
static int any_head_sees(const struct api_case *c, const struct api_data *d, size_t b, size_t i, size_t j) {
    for (size_t h = 0; h < c->n_head; h++)
        if (api_case_sees(c, d, b, h, i, j)) return 1;
    return 0;
}

/* What of an additive mask the row does not read. A boolean one has no NaN; what hides stays as it is. */
static void fill_mask(const struct api_case *c, struct api_data *d, const struct api_place *p) {
    const uint16_t half = HALF_NAN;
    const float nan = NAN;
    const size_t *size = d->mask.size;
    if (c->mask != API_MASK_F32 && c->mask != API_MASK_F16) return;
    for (size_t s = 0; s < size[0]; s++)
        for (size_t h = 0; h < size[1]; h++)
            for (size_t i = 0; i < size[2]; i++)
                for (size_t j = 0; j < size[3]; j++) {
                    const int mine = (size[0] == 1 || s == p->sequence) && (size[2] == 1 || i == p->row);
                    if (mine && (size[3] == 1 || api_case_in_sight(c, d, p, j))) continue;
                    memcpy(grid_u8(&d->mask, s, h, i) + j * d->mask.element,
                           c->mask == API_MASK_F16 ? (const void *)&half : (const void *)&nan,
                           d->mask.element);
                }
}

static void hide(const struct api_case *c, struct api_data *d, size_t b, size_t i) {
    const struct api_place p = api_case_place(c, d, b, i);
    int sees_any = 0;
    for (size_t e = 0; e < c->batch; e++) {
        for (size_t row = 0; row < c->n_q; row++)
            if (e != b || row != i) fill_row(&d->q, e, row);
        for (size_t row = 0; row < c->n_kv; row++) {
            const int own = e == b && row >= p.first_key && row - p.first_key < p.n_kv;
            if (own && any_head_sees(c, d, b, i, row - p.first_key))
                sees_any = 1;
            else {
                fill_row(&d->k, e, row);
                fill_row(&d->v, e, row);
            }
        }
    }
    if (!sees_any) fill_row(&d->q, b, i);
    fill_mask(c, d, &p);
}

static void same(const char *what, const struct grid *a, const struct grid *p, size_t b, size_t row) {
    for (size_t h = 0; h < a->size[1]; h++)
        if (memcmp(grid_f32(a, b, h, row), grid_f32(p, b, h, row), a->size[3] * sizeof(float)) != 0)
            ck_abort_msg(
                "%s: %s of %zu head %zu row %zu is not the same with NaN where it does not look: %a, %a",
                harness_case_text(), what, b, h, row, *grid_f32(a, b, h, row), *grid_f32(p, b, h, row));
}

static void check_row(const char *backend, const struct api_case *c, const struct api_outputs *all, size_t b,
                      size_t i) {
    struct verdict v = {.ok = 1};
    struct api_data *d = api_case_make(c);
    attn_context *context = harness_context(backend, 1);
    api_case_pack(context, c, d);
    hide(c, d, b, i);
    struct cache_case cache;
    struct cache_shape shape = cache_shapes[c->cache % CACHE_SHAPES];
    shape.stream = c->stream;
    const int cached = c->cache && c->call == API_SDPA && cache_case_make(c, d, &shape, &cache);
    struct api_outputs o = api_case_run(context, c, cached ? &cache.data : d, &v);
    HARNESS_ASSERT(&v);
    if (cached) cache_case_free(&cache);
    same("out", &all->out, &o.out, b, i);
    same("lse", &all->lse, &o.lse, b, i);
    if (c->lse_sinks) same("lse_sinks", &all->lse_sinks, &o.lse_sinks, b, i);
    if (c->weights) same("weights", &all->weights, &o.weights, b, i);
    if (c->scores) same("scores", &all->scores, &o.scores, b, i);
    api_outputs_free(&o);
    attn_context_destroy(context);
    api_case_free(d);
}

static void check(const char *backend, const struct api_case *c) {
    struct verdict v = {.ok = 1};
    struct api_data *d = api_case_make(c);
    attn_context *context = harness_context(backend, 1);
    api_case_announce(backend, c);
    api_case_pack(context, c, d);
    struct api_outputs all = api_case_run(context, c, d, &v);
    HARNESS_ASSERT(&v);
    struct rng r = rng_make(test_seed(), c->stream ^ 0x4a4);
    const size_t n = harness_full() ? 6 : 2;
    for (size_t i = 0; i < n; i++)
        check_row(backend, c, &all, rng_below(&r, c->batch), rng_below(&r, c->n_q));
    api_outputs_free(&all);
    attn_context_destroy(context);
    api_case_free(d);
}

START_TEST(hidden_is_nan) {
    for (size_t i = 0; i < EXACT_FEATURES; i++)
        for (int call = API_SDPA; call <= API_MULTIHEAD; call++) {
            struct api_case c = exact_features(i, (enum api_call)call);
            c.cache = (unsigned)i;
            c.weights = i % 2 && c.n_q * c.n_kv * c.n_head < 200000;
            c.scores = c.weights && call == API_SDPA;
            if (harness_takes(i + (size_t)call, 9)) check(backends[_i]->name, &c);
        }
}
END_TEST

/* One feature each, so that nothing else hides what it must. */
START_TEST(one_feature) {
    for (size_t i = 0; i < 30; i++) {
        struct api_case c = exact_features(7, i % 2 ? API_ADDITIVE : API_SDPA);
        c = (struct api_case){.call = c.call,
                              .batch = 1,
                              .n_head = 4,
                              .n_head_kv = 2,
                              .n_q = i % 4 ? 40 : 3,
                              .n_kv = i % 3 ? 70 : 2200,
                              .p_q = 8,
                              .p_k = 8,
                              .p_v = 7,
                              .c = 8,
                              .lse = 1,
                              .n_workers = 1,
                              .layout = i % 3 ? 0 : LAYOUT_BNHD,
                              .cache = (unsigned)(i / 2 % 14),
                              .stream = 300000 + i};
        switch (i / 2 % 8) {
        case 0: c.ragged = 4; break;
        case 1: c.window = (enum api_window)(1 + i / 16 + i % 2); break;
        case 2: c.documents = API_DOCUMENTS_SORTED; break;
        case 3: c.documents = API_DOCUMENTS_SHUFFLED; break;
        case 4: c.causal = ATTN_CAUSAL_BOTTOM_RIGHT, c.prefixes = 1; break;
        case 5: c.causal = ATTN_CAUSAL_OFFSET, c.offsets = API_OFFSETS_FAR; break;
        case 6: c.mask = API_MASK_F16, c.mask_bits = 15; break;
        case 7: c.ragged = 3, c.kv_lengths = 1, c.window = API_WINDOW_SELF; break;
        }
        if (harness_takes(i, 5)) check(backends[_i]->name, &c);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("exact: what is hidden");
    TCase *cases = tcase_create("NaN");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, hidden_is_nan, 0, n);
    tcase_add_loop_test(cases, one_feature, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
