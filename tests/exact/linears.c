/* attn_linears(): the bits of attn_linear() for every one of the projections, on every backend and tier, for any mixture of types
 * and any number of threads; its errors, which write nothing. */
#include <stdlib.h>
#include <string.h>

#include "dtype.h"
#include "exact/exact.h"

enum { K = 512, MOST = 150 }; /* columns of x; outputs of a projection */
static const attn_dtype types[] = {ATTN_F32,  ATTN_F16,  ATTN_BF16, ATTN_Q8_0,
                                   ATTN_Q4_0, ATTN_Q4_1, ATTN_Q4_K, ATTN_Q6_K};

struct projections {
    attn_context *context;
    size_t n, m;
    float *x, *w, *y[ATTN_LINEARS], *alone[ATTN_LINEARS];
    void *packed[ATTN_LINEARS];
    const attn_packed *weights[ATTN_LINEARS];
    attn_tensor input, outputs[ATTN_LINEARS];
    const attn_tensor *to[ATTN_LINEARS];
};

static void *need(void *memory) {
    ck_assert_ptr_nonnull(memory);
    return memory;
}

/* A type that attn_convert writes, of random floats; of the others blocks of random bytes with small scales. */
static void draw(struct projections *p, struct rng *r, attn_dtype type, const attn_tensor *w) {
    if (type != ATTN_Q4_1 && type != ATTN_Q4_K && type != ATTN_Q6_K) {
        const attn_tensor from = attn_tensor_contiguous(p->w, ATTN_F32, 1, 1, w->size[2], K);
        rng_floats(r, FILL_NORMAL, p->w, w->size[2] * K);
        ck_assert_int_eq(attn_convert(p->context, &from, w), ATTN_OK);
        return;
    }
    const size_t bytes = attn_dtype_bytes(type), blocks = w->size[2] * K / attn_dtype_block(type);
    const uint16_t scales[2] = {0x1000, 0x1800};
    unsigned char *at = w->data;
    for (size_t i = 0; i < blocks; i++, at += bytes) {
        for (size_t b = 0; b < bytes; b++) at[b] = (unsigned char)rng_next(r);
        memcpy(type == ATTN_Q6_K ? at + bytes - 2 : at, scales, type == ATTN_Q6_K ? 2 : 4);
    }
}

static void add(struct projections *p, struct rng *r, attn_dtype type) {
    const size_t n = 1 + rng_below(r, MOST), i = p->n++;
    void *rows = need(malloc(n * attn_dtype_row(type, K)));
    const attn_tensor w = attn_tensor_contiguous(rows, type, 1, 1, n, K);
    size_t bytes;
    draw(p, r, type, &w);
    ck_assert_int_eq(attn_pack_linear_bytes(p->context, &w, &bytes), ATTN_OK);
    p->packed[i] = need(aligned_alloc(64, (bytes + 63) / 64 * 64));
    ck_assert_int_eq(attn_pack_linear(p->context, &w, NULL, p->packed[i], bytes, &p->weights[i]), ATTN_OK);
    free(rows);
    p->y[i] = need(calloc(p->m * n, sizeof(float)));
    p->alone[i] = need(calloc(p->m * n, sizeof(float)));
    p->outputs[i] = attn_tensor_contiguous(p->y[i], ATTN_F32, 1, 1, p->m, n);
    p->to[i] = &p->outputs[i];
}

static void open(struct projections *p, const char *backend, struct rng *r, size_t m) {
    const attn_options options = {
        .size = sizeof options, .backend = backend, .n_threads = 1 + rng_below(r, 3)};
    *p = (struct projections){.m = m};
    ck_assert_int_eq(attn_context_create(&options, &p->context), ATTN_OK);
    p->x = need(malloc(m * K * sizeof *p->x));
    p->w = need(malloc(MOST * K * sizeof *p->w));
    rng_floats(r, FILL_NORMAL, p->x, m * K);
    p->input = attn_tensor_contiguous(p->x, ATTN_F32, 1, 1, m, K);
}

static void close(struct projections *p) {
    for (size_t i = 0; i < p->n; i++) {
        free(p->packed[i]);
        free(p->y[i]);
        free(p->alone[i]);
    }
    free(p->x);
    free(p->w);
    attn_context_destroy(p->context);
}

static void check(const char *backend, struct rng *r, size_t n, size_t m) {
    struct projections p;
    open(&p, backend, r, m);
    for (size_t i = 0; i < n; i++) add(&p, r, types[rng_below(r, sizeof types / sizeof *types)]);
    for (size_t i = 0; i < n; i++) {
        attn_tensor y = p.outputs[i];
        y.data = p.alone[i];
        ck_assert_int_eq(attn_linear(p.context, &p.input, p.weights[i], &y), ATTN_OK);
    }
    ck_assert_msg(attn_linears(p.context, &p.input, p.weights, p.to, n) == ATTN_OK, "%s",
                  attn_context_error(p.context));
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(!memcmp(p.y[i], p.alone[i], m * p.outputs[i].size[3] * sizeof(float)),
                      "%s: projection %zu of %zu, %zu rows, differs", backend, i, n, m);
    close(&p);
}

START_TEST(same_bits) {
    static const size_t rows[] = {1, 3, 33, 130}, counts[] = {1, 2, 3, 4, 7, ATTN_LINEARS};
    struct rng r = rng_make(test_seed(), 1);
    for (int tiers = 0; tiers < 2; tiers++) {
        const struct attn_backend *list[4];
        const size_t n_backends = tiers ? harness_tiers(list) : harness_backends(list);
        for (size_t b = 0; b < n_backends; b++)
            for (size_t k = 0; k < sizeof counts / sizeof *counts; k++)
                for (size_t i = 0; i < (harness_full() ? sizeof rows / sizeof *rows : 1); i++)
                    check(list[b]->name, &r, counts[k], rows[i]);
    }
}
END_TEST

static void refused(struct projections *p, const char *what, attn_status want, const char *named,
                    const attn_packed *const *w, const attn_tensor *const *y, size_t n) {
    const attn_status got = attn_linears(p->context, &p->input, w, y, n);
    ck_assert_msg(got == want, "%s: %s", what, attn_status_name(got));
    ck_assert_msg(strstr(attn_context_error(p->context), named), "%s: %s", what,
                  attn_context_error(p->context));
    for (size_t i = 0; i < p->n; i++)
        for (size_t at = 0; at < p->m * p->outputs[i].size[3]; at++)
            ck_assert_msg(p->y[i][at] == 0.0f, "%s: something was written", what);
}

START_TEST(errors) {
    struct rng r = rng_make(test_seed(), 2);
    struct projections p;
    open(&p, NULL, &r, 5);
    for (size_t i = 0; i < 3; i++) add(&p, &r, types[i]);
    const attn_tensor *to[3] = {p.to[0], p.to[1], p.to[2]};
    const attn_packed *w[3] = {p.weights[0], p.weights[1], p.weights[2]};
    refused(&p, "none", ATTN_ERROR_ARGUMENT, "n is 0", w, to, 0);
    refused(&p, "too many", ATTN_ERROR_ARGUMENT, "n is 17", w, to, ATTN_LINEARS + 1);
    refused(&p, "no weights", ATTN_ERROR_ARGUMENT, "w", NULL, to, 3);
    refused(&p, "no outputs", ATTN_ERROR_ARGUMENT, "y", w, NULL, 3);
    w[1] = NULL;
    refused(&p, "one without weights", ATTN_ERROR_ARGUMENT, "w", w, to, 3);
    w[1] = p.weights[1];
    to[2] = NULL;
    refused(&p, "one without output", ATTN_ERROR_ARGUMENT, "y", w, to, 3);
    attn_tensor y = p.outputs[2];
    to[2] = &y;
    y.size[2]--;
    refused(&p, "a row too few", ATTN_ERROR_SHAPE, "y", w, to, 3);
    y = p.outputs[2];
    y.data = p.x;
    refused(&p, "output over input", ATTN_ERROR_OVERLAP, "y", w, to, 3);
    w[2] = w[0];
    to[2] = to[0];
    refused(&p, "two outputs in one place", ATTN_ERROR_OVERLAP, "y", w, to, 3);
    ck_assert_int_eq(attn_linears(p.context, &p.input, p.weights, p.to, 3), ATTN_OK);
    close(&p);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn_linears");
    TCase *tc = tcase_create("attn_linears");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, same_bits);
    tcase_add_test(tc, errors);
    suite_add_tcase(suite, tc);
    return harness_main(suite);
}
