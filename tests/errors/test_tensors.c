/* Every way to misuse a tensor of attn_sdpa, attn_additive, attn_head, attn_multihead and their queries. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "suite.h"

/* ---- Tensors ---------------------------------------------------------------------------------------- */

enum field { POINTER, DTYPE, SIZE0, SIZE1, SIZE2, SIZE3, STRIDE0, STRIDE1, STRIDE2, STRIDE3, DATA, ADDRESS };

/* tensor's field becomes value (ADDRESS: is moved by value bytes). */
static const struct tensor_error {
    unsigned apis;
    enum tensor tensor;
    enum field field;
    ptrdiff_t value;
    attn_status want;
} tensor_errors[] = {
    {ALL, T_Q, POINTER, 0, ATTN_ERROR_ARGUMENT},
    {ALL, T_K, POINTER, 0, ATTN_ERROR_ARGUMENT},
    {ALL, T_V, POINTER, 0, ATTN_ERROR_ARGUMENT},
    {ALL, T_OUT, POINTER, 0, ATTN_ERROR_ARGUMENT},
    {HAVE_W, T_W, POINTER, 0, ATTN_ERROR_ARGUMENT},
    {ALL, T_Q, DATA, 0, ATTN_ERROR_ARGUMENT},
    {ALL, T_K, DATA, 0, ATTN_ERROR_ARGUMENT},
    {ALL, T_V, DATA, 0, ATTN_ERROR_ARGUMENT},
    {ALL, T_OUT, DATA, 0, ATTN_ERROR_ARGUMENT},
    {ALL, T_LSE, DATA, 0, ATTN_ERROR_ARGUMENT},
    {ALL, T_WEIGHTS, DATA, 0, ATTN_ERROR_ARGUMENT},
    {ALL, T_MASK, DATA, 0, ATTN_ERROR_ARGUMENT},
    {SDPA, T_LSE_SINKS, DATA, 0, ATTN_ERROR_ARGUMENT},
    {SDPA, T_SCORES, DATA, 0, ATTN_ERROR_ARGUMENT},
    {HAVE_W, T_W, DATA, 0, ATTN_ERROR_ARGUMENT},
    {ALL, T_Q, DTYPE, ATTN_BOOL, ATTN_ERROR_DTYPE},
    {ALL, T_K, DTYPE, ATTN_BOOL, ATTN_ERROR_DTYPE},
    {ALL, T_V, DTYPE, ATTN_BOOL, ATTN_ERROR_DTYPE},
    {ALL, T_OUT, DTYPE, ATTN_BOOL, ATTN_ERROR_DTYPE},
    {ALL, T_LSE, DTYPE, ATTN_BOOL, ATTN_ERROR_DTYPE},
    {ALL, T_WEIGHTS, DTYPE, ATTN_BOOL, ATTN_ERROR_DTYPE},
    {SDPA, T_LSE_SINKS, DTYPE, ATTN_BOOL, ATTN_ERROR_DTYPE},
    {SDPA, T_SCORES, DTYPE, ATTN_BOOL, ATTN_ERROR_DTYPE},
    {SDPA, T_SCORES, DTYPE, ATTN_F16, ATTN_ERROR_DTYPE},
    {ALL & ~SDPA, T_Q, DTYPE, ATTN_F16, ATTN_ERROR_DTYPE},
    {ALL & ~SDPA, T_K, DTYPE, ATTN_F16, ATTN_ERROR_DTYPE},
    {ALL & ~SDPA, T_V, DTYPE, ATTN_F16, ATTN_ERROR_DTYPE},
    {ALL & ~SDPA, T_OUT, DTYPE, ATTN_F16, ATTN_ERROR_DTYPE},
    {ALL & ~SDPA, T_OUT, DTYPE, ATTN_BF16, ATTN_ERROR_DTYPE},
    {ALL, T_K, DTYPE, ATTN_Q4_1, ATTN_ERROR_DTYPE},
    {ALL, T_V, DTYPE, ATTN_Q6_K, ATTN_ERROR_DTYPE},
    {ALL, T_OUT, DTYPE, ATTN_Q8_0, ATTN_ERROR_DTYPE},
    {SDPA, T_Q, DTYPE, ATTN_Q4_0, ATTN_ERROR_DTYPE},
    {SDPA, T_K, DTYPE, ATTN_Q8_0, ATTN_ERROR_SHAPE}, /* of columns that no block divides */
    {SDPA, T_V, DTYPE, ATTN_Q4_0, ATTN_ERROR_SHAPE},
    {SDPA, T_K, DTYPE, ATTN_BF16, ATTN_ERROR_STRIDE}, /* of columns four bytes apart */
    {ALL, T_LSE, DTYPE, ATTN_F16, ATTN_ERROR_DTYPE},
    {HAVE_W, T_W, DTYPE, ATTN_F16, ATTN_ERROR_DTYPE},
    {HAVE_W, T_W, DTYPE, ATTN_BOOL, ATTN_ERROR_DTYPE},
    {ALL, T_Q, DTYPE, 77, ATTN_ERROR_DTYPE},
    {ALL, T_MASK, DTYPE, 77, ATTN_ERROR_DTYPE},
    {ALL, T_OUT, DTYPE, -1, ATTN_ERROR_DTYPE},
    /* addresses and strides */
    {ALL, T_Q, ADDRESS, 1, ATTN_ERROR_STRIDE},
    {ALL, T_K, ADDRESS, 2, ATTN_ERROR_STRIDE},
    {ALL, T_V, ADDRESS, 3, ATTN_ERROR_STRIDE},
    {ALL, T_OUT, ADDRESS, 2, ATTN_ERROR_STRIDE},
    {ALL, T_LSE, ADDRESS, 1, ATTN_ERROR_STRIDE},
    {ALL, T_WEIGHTS, ADDRESS, 1, ATTN_ERROR_STRIDE},
    {SDPA, T_LSE_SINKS, ADDRESS, 2, ATTN_ERROR_STRIDE},
    {SDPA, T_SCORES, ADDRESS, 1, ATTN_ERROR_STRIDE},
    {ALL, T_MASK, ADDRESS, 2, ATTN_ERROR_STRIDE},
    {HAVE_W, T_W, ADDRESS, 2, ATTN_ERROR_STRIDE},
    {ALL, T_Q, STRIDE0, 258, ATTN_ERROR_STRIDE},
    {SDPA | ADDITIVE, T_K, STRIDE1, 81, ATTN_ERROR_STRIDE},
    {ALL, T_V, STRIDE2, 31, ATTN_ERROR_STRIDE},
    {ALL, T_OUT, STRIDE2, 61, ATTN_ERROR_STRIDE},
    {ALL, T_Q, STRIDE3, 8, ATTN_ERROR_STRIDE},
    {ALL, T_V, STRIDE3, 0, ATTN_ERROR_STRIDE},
    {ALL, T_OUT, STRIDE3, 8, ATTN_ERROR_STRIDE},
    {ALL, T_OUT, STRIDE3, -4, ATTN_ERROR_STRIDE},
    {ALL, T_MASK, STRIDE3, 8, ATTN_ERROR_STRIDE},
    {HAVE_W, T_W, STRIDE3, 8, ATTN_ERROR_STRIDE},
    {ALL, T_OUT, STRIDE2, 0, ATTN_ERROR_STRIDE}, /* rows on top of each other */
    {ALL, T_OUT, STRIDE2, 8, ATTN_ERROR_STRIDE},
    {ALL, T_OUT, STRIDE0, 0, ATTN_ERROR_STRIDE},
    {SDPA | ADDITIVE, T_OUT, STRIDE1, 4, ATTN_ERROR_STRIDE},
    {ALL, T_LSE, STRIDE2, 0, ATTN_ERROR_STRIDE},
    {SDPA, T_LSE_SINKS, STRIDE2, 0, ATTN_ERROR_STRIDE},
    {SDPA, T_SCORES, STRIDE2, 4, ATTN_ERROR_STRIDE},
    {SDPA, T_SCORES, STRIDE3, 8, ATTN_ERROR_STRIDE},
    {ALL, T_WEIGHTS, STRIDE2, 4, ATTN_ERROR_STRIDE},
    /* sizes */
    {ALL, T_Q, SIZE3, 0, ATTN_ERROR_SHAPE},
    {ALL, T_V, SIZE3, 0, ATTN_ERROR_SHAPE},
    {ALL, T_K, SIZE0, 1, ATTN_ERROR_SHAPE},
    {ALL, T_V, SIZE0, 1, ATTN_ERROR_SHAPE},
    {ALL, T_OUT, SIZE0, 1, ATTN_ERROR_SHAPE},
    {ALL, T_LSE, SIZE0, 1, ATTN_ERROR_SHAPE},
    {ALL, T_WEIGHTS, SIZE0, 1, ATTN_ERROR_SHAPE},
    {SDPA | ADDITIVE, T_V, SIZE1, 1, ATTN_ERROR_SHAPE},
    {SDPA | ADDITIVE, T_Q, SIZE1, 3, ATTN_ERROR_SHAPE}, /* no multiple of 2 */
    {SDPA | ADDITIVE, T_Q, SIZE1, 0, ATTN_ERROR_SHAPE},
    {LAYERS, T_Q, SIZE1, 2, ATTN_ERROR_SHAPE},
    {LAYERS, T_K, SIZE1, 2, ATTN_ERROR_SHAPE},
    {LAYERS, T_V, SIZE1, 2, ATTN_ERROR_SHAPE},
    {ALL, T_OUT, SIZE1, 0, ATTN_ERROR_SHAPE},
    {ALL, T_LSE, SIZE1, 0, ATTN_ERROR_SHAPE},
    {ALL, T_WEIGHTS, SIZE1, 0, ATTN_ERROR_SHAPE},
    {ALL, T_V, SIZE2, 4, ATTN_ERROR_SHAPE},
    {ALL, T_OUT, SIZE2, 2, ATTN_ERROR_SHAPE},
    {ALL, T_LSE, SIZE2, 2, ATTN_ERROR_SHAPE},
    {ALL, T_WEIGHTS, SIZE2, 2, ATTN_ERROR_SHAPE},
    {ALL, T_OUT, SIZE3, 5, ATTN_ERROR_SHAPE},
    {ALL, T_LSE, SIZE3, 0, ATTN_ERROR_SHAPE},
    {SDPA, T_LSE_SINKS, SIZE0, 1, ATTN_ERROR_SHAPE},
    {SDPA, T_LSE_SINKS, SIZE1, 1, ATTN_ERROR_SHAPE},
    {SDPA, T_LSE_SINKS, SIZE2, 2, ATTN_ERROR_SHAPE},
    {SDPA, T_LSE_SINKS, SIZE3, 0, ATTN_ERROR_SHAPE},
    {SDPA, T_SCORES, SIZE0, 1, ATTN_ERROR_SHAPE},
    {SDPA, T_SCORES, SIZE1, 1, ATTN_ERROR_SHAPE},
    {SDPA, T_SCORES, SIZE2, 2, ATTN_ERROR_SHAPE},
    {SDPA, T_SCORES, SIZE3, 4, ATTN_ERROR_SHAPE},
    {ALL, T_WEIGHTS, SIZE3, 4, ATTN_ERROR_SHAPE},
    {SDPA, T_K, SIZE3, 3, ATTN_ERROR_SHAPE},   /* p_k */
    {LAYERS, T_Q, SIZE3, 5, ATTN_ERROR_SHAPE}, /* d_q, d_k, d_v */
    {LAYERS, T_K, SIZE3, 5, ATTN_ERROR_SHAPE},
    {LAYERS, T_V, SIZE3, 5, ATTN_ERROR_SHAPE},
    {ALL, T_MASK, SIZE0, 3, ATTN_ERROR_SHAPE},
    {ALL, T_MASK, SIZE1, 2, ATTN_ERROR_SHAPE},
    {ALL, T_MASK, SIZE1, 0, ATTN_ERROR_SHAPE},
    {ALL, T_MASK, SIZE2, 2, ATTN_ERROR_SHAPE},
    {ALL, T_MASK, SIZE3, 4, ATTN_ERROR_SHAPE},
    {HAVE_W, T_W, SIZE0, 2, ATTN_ERROR_SHAPE},
    {HAVE_W, T_W, SIZE1, 2, ATTN_ERROR_SHAPE},
    {HAVE_W, T_W, SIZE2, 2, ATTN_ERROR_SHAPE},
    {HAVE_W, T_W, SIZE3, 6, ATTN_ERROR_SHAPE},
    {HAVE_W, T_W, SIZE3, 0, ATTN_ERROR_SHAPE},
    /* sizes and strides that leave the address space */
    {ALL, T_Q, SIZE2, PTRDIFF_MAX / 8, ATTN_ERROR_OVERFLOW},
    {ALL, T_K, SIZE2, PTRDIFF_MAX / 8, ATTN_ERROR_OVERFLOW},
    {ALL, T_V, SIZE2, -1, ATTN_ERROR_OVERFLOW},
    {ALL, T_Q, SIZE0, -1, ATTN_ERROR_OVERFLOW},
    {ALL, T_OUT, SIZE2, -2, ATTN_ERROR_OVERFLOW},
    {ALL, T_Q, STRIDE0, PTRDIFF_MAX - 3, ATTN_ERROR_OVERFLOW},
    {ALL, T_K, STRIDE2, PTRDIFF_MIN, ATTN_ERROR_OVERFLOW},
    {ALL, T_OUT, STRIDE0, PTRDIFF_MAX - 3, ATTN_ERROR_OVERFLOW},
    {ALL, T_MASK, STRIDE0, PTRDIFF_MAX - 3, ATTN_ERROR_OVERFLOW},
};

static void break_tensor(struct fixture *f, const struct tensor_error *e) {
    attn_tensor *t = &f->tensor[e->tensor];
    switch (e->field) {
    case POINTER: f->argument[e->tensor] = NULL; break;
    case DTYPE: t->dtype = (attn_dtype)e->value; break;
    case DATA: t->data = NULL; break;
    case ADDRESS: t->data = (char *)t->data + e->value; break;
    default:
        if (e->field < STRIDE0)
            t->size[e->field - SIZE0] = (size_t)e->value;
        else
            t->stride[e->field - STRIDE0] = e->value;
    }
}

START_TEST(tensors) {
    static const char *const fields[] = {"pointer",   "dtype",     "size[0]",   "size[1]",
                                         "size[2]",   "size[3]",   "stride[0]", "stride[1]",
                                         "stride[2]", "stride[3]", "data",      "address"};
    const struct tensor_error *e = &tensor_errors[_i];
    attn_context *context = default_context();
    for (int api = 0; api < N_APIS; api++) {
        struct fixture f;
        char what[80];
        const char *name = fixture_name((enum api)api, e->tensor);
        if (!(e->apis & 1u << api)) continue;
        fixture_open(&f, (enum api)api, context);
        break_tensor(&f, e);
        snprintf(what, sizeof what, "%s %s = %td", name, fields[e->field], e->value);
        must_fail(&f, what, e->want, name, e->field != DATA && e->field != ADDRESS);
        fixture_close(&f);
        must_work(context, (enum api)api);
    }
    attn_context_destroy(context);
}
END_TEST

/* ---- Overlap ---------------------------------------------------------------------------------------- */

START_TEST(overlap) {
    const enum tensor outputs[] = {T_OUT, T_LSE, T_WEIGHTS, T_LSE_SINKS, T_SCORES};
    const enum tensor output = outputs[_i];
    attn_context *context = default_context();
    for (int api = 0; api < N_APIS; api++)
        for (int other = 0; other < N_TENSORS; other++) {
            struct fixture f;
            char what[80];
            fixture_open(&f, (enum api)api, context);
            if (other == (int)output || !f.argument[other] || !f.argument[output]) {
                fixture_close(&f);
                continue;
            }
            /* the output's first float is the other's second */
            const char *name = fixture_name((enum api)api, output);
            f.tensor[output].data = (char *)f.tensor[other].data + sizeof(float);
            snprintf(what, sizeof what, "%s in %s", name, fixture_name((enum api)api, (enum tensor)other));
            must_fail(&f, what, ATTN_ERROR_OVERLAP, name, 0);
            fixture_close(&f);
        }
    attn_context_destroy(context);
}
END_TEST

START_TEST(overlap_with_weights) {
    attn_context *context = default_context();
    for (int api = 0; api < N_APIS; api++) {
        struct fixture f;
        size_t matrices;
        fixture_open(&f, (enum api)api, context);
        matrices = f.n_matrices;
        fixture_close(&f);
        for (size_t i = 0; i < matrices; i++) {
            char before[256];
            char what[40];
            fixture_open(&f, (enum api)api, context);
            if (api != API_MULTIHEAD && f.matrix[i] == (const void *)f.layer.w_o) { /* not read */
                fixture_close(&f);
                continue;
            }
            memcpy(before, f.matrix[i], sizeof before);
            f.tensor[T_LSE].data = (char *)f.matrix[i] + 64;
            snprintf(what, sizeof what, "lse in matrix %zu", i);
            if (api == API_HEAD_ADDITIVE && i >= 4 && i != 4 + N_HEAD - 1 && i != 4 + N_HEAD + N_HEAD_KV - 1)
                ck_assert_msg(fixture_call(&f) == ATTN_OK || fixture_untouched(&f), "%s",
                              what); /* of another head */
            else
                must_fail(&f, what, ATTN_ERROR_OVERLAP, "lse", 0);
            fixture_close(&f);
        }
    }
    attn_context_destroy(context);
}
END_TEST

void add_tensor_tests(Suite *suite) {
    TCase *t = tcase_create("tensors");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, tensors, 0, (int)(sizeof tensor_errors / sizeof *tensor_errors));
    tcase_add_loop_test(t, overlap, 0, 5);
    tcase_add_test(t, overlap_with_weights);
    suite_add_tcase(suite, t);
}
