/*
 * Attention pooling by dot products of keys and values that both are bf16: results lie within the bounds of docs/numerics.md,
 * section 11, of a sum in double. tiers_pool.c has the bits.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exact/exact.h"
#include "support/shapes.h"

static const char *const tier = "avx512bf16";

/* Outliers: a channel a thousand times as large as the others. One: a key as large. Equal: all keys are. */
enum look { NORMAL, OUTLIERS, ONE, EQUAL, SMALL, N_LOOKS };

struct problem {
    size_t n_head, n_head_kv, n_q, n_kv, d_k, d_v;
    attn_dtype q_type;
    int causal;
    float *q, *k, *v, *out, *lse; /* q, k, v: what the typed ones stand for */
    uint16_t *typed_q, *typed_k, *typed_v;
};

static float *floats(size_t n) {
    float *x = calloc(n + 1, sizeof *x);
    if (!x) abort();
    return x;
}

static void round_all(float *x, size_t n, uint16_t *to) {
    attn_backend_scalar.from_f32(ATTN_BF16, x, n, to);
    attn_backend_scalar.to_f32(ATTN_BF16, to, n, x);
}

static struct problem problem_make(struct rng *r, size_t i, enum look look) {
    static const size_t widths[][2] = {{128, 128}, {64, 64}, {37, 19}, {256, 8}};
    static const size_t rows[][2] = {{1, 300}, {3, 2500}, {50, 200}, {12, 77}, {100, 130}};
    struct problem p = {.n_head = 4, .n_head_kv = i % 2 ? 2 : 4, .causal = i / 2 % 2};
    p.d_k = widths[i % 4][0], p.d_v = widths[i % 4][1];
    p.n_q = rows[i % 5][0], p.n_kv = rows[i % 5][1];
    p.q_type = i % 3 ? ATTN_BF16 : ATTN_F32;
    const size_t n_q = p.n_head * p.n_q, n_k = p.n_head_kv * p.n_kv;
    p.q = floats(n_q * p.d_k), p.k = floats(n_k * p.d_k), p.v = floats(n_k * p.d_v);
    p.out = floats(n_q * p.d_v), p.lse = floats(n_q);
    p.typed_q = (uint16_t *)(void *)floats(n_q * p.d_k);
    p.typed_k = (uint16_t *)(void *)floats(n_k * p.d_k);
    p.typed_v = (uint16_t *)(void *)floats(n_k * p.d_v);
    for (size_t j = 0; j < n_q * p.d_k; j++)
        p.q[j] = rng_normal(r) * (look == OUTLIERS && j % p.d_k == 3 ? 30.0f
                                  : look == SMALL                    ? 0x1p-100f
                                                                     : 1.0f);
    for (size_t j = 0; j < n_k * p.d_k; j++) {
        p.k[j] = rng_normal(r) * (look == OUTLIERS && j % p.d_k == 3 ? 30.0f
                                  : look == SMALL                    ? 0x1p-30f
                                                                     : 1.0f);
        if (look == ONE && j / p.d_k % p.n_kv == 5) p.k[j] *= 1000.0f;
        if (look == EQUAL && j >= p.d_k) p.k[j] = p.k[j % p.d_k];
    }
    for (size_t j = 0; j < n_k * p.d_v; j++)
        p.v[j] = rng_normal(r) * (look == OUTLIERS && j % p.d_v == 1 ? 1000.0f : 1.0f);
    round_all(p.k, n_k * p.d_k, p.typed_k);
    round_all(p.v, n_k * p.d_v, p.typed_v);
    if (p.q_type == ATTN_BF16) round_all(p.q, n_q * p.d_k, p.typed_q);
    return p;
}

static void problem_free(struct problem *p) {
    void *const all[] = {p->q, p->k, p->v, p->out, p->lse, p->typed_q, p->typed_k, p->typed_v};
    for (size_t i = 0; i < SHAPES_COUNT(all); i++) free(all[i]);
}

static void pool(attn_context *context, const struct problem *p) {
    void *q = p->q_type == ATTN_BF16 ? (void *)p->typed_q : (void *)p->q;
    const attn_tensor t_q = attn_tensor_contiguous(q, p->q_type, 1, p->n_head, p->n_q, p->d_k),
                      t_k = attn_tensor_contiguous(p->typed_k, ATTN_BF16, 1, p->n_head_kv, p->n_kv, p->d_k),
                      t_v = attn_tensor_contiguous(p->typed_v, ATTN_BF16, 1, p->n_head_kv, p->n_kv, p->d_v),
                      out = attn_tensor_contiguous(p->out, ATTN_F32, 1, p->n_head, p->n_q, p->d_v),
                      lse = attn_tensor_contiguous(p->lse, ATTN_F32, 1, p->n_head, p->n_q, 1);
    const attn_scoring scoring = {.size = sizeof scoring,
                                  .causal = p->causal ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE};
    const attn_sdpa_args args = {
        .size = sizeof args, .q = &t_q, .k = &t_k, .v = &t_v, .out = &out, .lse = &lse, .scoring = &scoring};
    ck_assert_msg(attn_sdpa(context, &args) == ATTN_OK, "%s", attn_context_error(context));
}

/* Row i of head h: its scores by sums in double, and what each of them may be off by. */
struct row {
    size_t n;
    double *s, off, most, sum;
};

static struct row row_of(const struct problem *p, size_t h, size_t i) {
    const size_t kv = h / (p->n_head / p->n_head_kv);
    struct row r = {p->causal && p->n_kv + i + 1 > p->n_q ? p->n_kv + i + 1 - p->n_q : p->n_kv, NULL, 0,
                    -INFINITY, 0};
    const float *q = p->q + (h * p->n_q + i) * p->d_k;
    const double scale = (double)(1.0f / sqrtf((float)p->d_k)),
                 rounding = p->q_type == ATTN_BF16 ? 0 : 0x1p-8;
    r.s = calloc(r.n, sizeof *r.s);
    if (!r.s) abort();
    for (size_t j = 0; j < r.n; j++) {
        const float *k = p->k + (kv * p->n_kv + j) * p->d_k;
        double sum = 0, all = 0, keys = 0;
        for (size_t c = 0; c < p->d_k; c++) {
            sum += (double)q[c] * (double)k[c];
            all += fabs((double)q[c] * (double)k[c]);
            keys += fabs((double)k[c]);
        }
        r.s[j] = scale * sum;
        /* q, the chain, the scale; subnormal q and products */
        const double off = scale * (all * (rounding + ((double)p->d_k + 4) * 0x1p-24) * 1.001 +
                                    keys * 0x1p-126 + (double)p->d_k * 0x1p-125);
        r.off = fmax(r.off, off + 0x1p-22 * fabs(r.s[j]));
        r.most = fmax(r.most, r.s[j]);
    }
    for (size_t j = 0; j < r.n; j++) r.sum += exp(r.s[j] - r.most);
    return r;
}

static void within_bounds(const struct problem *p) {
    for (size_t h = 0; h < p->n_head; h++)
        for (size_t i = 0; i < p->n_q; i++) {
            const struct row r = row_of(p, h, i);
            const float *v = p->v + h / (p->n_head / p->n_head_kv) * p->n_kv * p->d_v;
            const float *out = p->out + (h * p->n_q + i) * p->d_v;
            const double lse = r.most + log(r.sum), got = (double)p->lse[h * p->n_q + i];
            ck_assert_msg(fabs(got - lse) <= r.off * 1.01 + 0x1p-20 + 0x1p-20 * (1 + fabs(lse)),
                          "%s: head %zu row %zu: lse %g, not %g +- %g", harness_case_text(), h, i, got, lse,
                          r.off);
            for (size_t c = 0; c < p->d_v; c++) {
                double want = 0, all = 0, apart = 0, most = 0;
                for (size_t j = 0; j < r.n; j++) {
                    const double w = exp(r.s[j] - r.most) / r.sum, x = (double)v[j * p->d_v + c];
                    want += w * x;
                    all += w * fabs(x);
                    most = fmax(most, fabs(x));
                }
                for (size_t j = 0; j < r.n; j++)
                    apart += exp(r.s[j] - r.most) / r.sum * fabs((double)v[j * p->d_v + c] - want);
                /* scores; probabilities to bf16; the exponential and sums; what is flushed to zero */
                const double bound = expm1(2 * r.off) * apart +
                                     ((0x1p-8 + 0x1p-17) * exp(2 * r.off) + ((double)r.n + 32) * 0x1p-24) *
                                         (all + expm1(2 * r.off) * apart) * 1.01 +
                                     (double)r.n * 0x1p-117 * (most + 1);
                ck_assert_msg(fabs((double)out[c] - want) <= bound,
                              "%s: head %zu row %zu column %zu: %g, not %g +- %g", harness_case_text(), h, i,
                              c, (double)out[c], want, bound);
            }
            free(r.s);
        }
}

START_TEST(bounds) {
    attn_context *context = harness_context(tier, 1);
    for (size_t i = 0; i < 20; i++)
        for (int look = 0; look < N_LOOKS; look++) {
            struct rng r = rng_make(test_seed(), 100 * i + (size_t)look);
            if (!harness_takes(i + (size_t)look, 5)) continue;
            struct problem p = problem_make(&r, i, (enum look)look);
            harness_case("problem %zu, look %d", i, look);
            pool(context, &p);
            within_bounds(&p);
            problem_free(&p);
        }
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    const struct attn_backend *list[4];
    const size_t n = harness_tiers(list);
    Suite *suite = suite_create("exact: bounds of attention by bf16 dot products");
    TCase *t = tcase_create("bounds");
    tcase_set_timeout(t, 300);
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i]->name, tier) == 0) tcase_add_test(t, bounds);
    suite_add_tcase(suite, t);
    return harness_main(suite);
}
