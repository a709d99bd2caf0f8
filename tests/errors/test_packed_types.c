/* Packed weights of every type: hostile headers; attn_unpack_linear. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "suite.h"

static void must_be(attn_context *context, const char *what, attn_status got, attn_status want,
                    const char *named) {
    const char *text = attn_context_error(context);
    ck_assert_msg(got == want, "%s: status %s, not %s (\"%s\")", what, attn_status_name(got),
                  attn_status_name(want), text);
    ck_assert_msg(strstr(text, named), "%s: \"%s\" does not name %s", what, text, named);
}

/* ---- Opening ---------------------------------------------------------------------------------------- */

/* The header as it lies in memory: src/pack.h. */
enum { AT_DTYPE = 16, AT_BIAS = 20, AT_N = 24, AT_K = 32, AT_BYTES = 40 };

/* Packed weights of one type, with room behind them. */
enum { COLUMNS = 512, ROWS = 3, MOST = 1 << 17 };
struct file {
    attn_context *context;
    unsigned char *memory;
    attn_tensor w;
    attn_dtype type;
    size_t block, row, bytes; /* of the type; of a row; of all */
};

static void set(const struct file *f, size_t at, uint64_t x) {
    if (at < AT_N) {
        const uint32_t word = (uint32_t)x;
        memcpy(f->memory + at, &word, sizeof word);
    } else {
        memcpy(f->memory + at, &x, sizeof x);
    }
}

static void opens(const struct file *f, size_t bytes) {
    const attn_packed *opened = NULL;
    ck_assert_msg(attn_packed_open(f->context, f->memory, bytes, &opened) == ATTN_OK, "%s",
                  attn_context_error(f->context));
    ck_assert_int_eq(attn_packed_dtype(opened), f->type);
}

static void refused(const struct file *f, const char *what, size_t bytes) {
    const attn_packed *opened = NULL;
    must_be(f->context, what, attn_packed_open(f->context, f->memory, bytes, &opened), ATTN_ERROR_PACKED,
            "memory");
    ck_assert_ptr_null(opened);
}

/* A member has another value, then its own again. */
static void refused_with(const struct file *f, const char *what, size_t at, uint64_t x, uint64_t own) {
    set(f, at, x);
    refused(f, what, MOST);
    set(f, at, own);
}

static void other_types(const struct file *f) {
    static float data[COLUMNS];
    const attn_tensor x = attn_tensor_contiguous(data, ATTN_F32, 1, 1, 1, COLUMNS),
                      y = attn_tensor_contiguous(data, ATTN_F32, 1, 1, 1, ROWS);
    for (uint32_t other = 0; other < 70; other++) {
        size_t block;
        const size_t size = attn_dtype_size((attn_dtype)other, &block);
        const int as_large = other != ATTN_BOOL && size && COLUMNS / block * size == f->row;
        if (as_large) continue; /* the type itself; f16 and bf16; q4_0 and Q4_K */
        set(f, AT_DTYPE, other);
        refused(f, "another type", MOST);
        if (other > ATTN_Q4_1)
            must_be(f->context, "no type",
                    attn_linear(f->context, &x, (const attn_packed *)(const void *)f->memory, &y),
                    ATTN_ERROR_PACKED, "w");
    }
    set(f, AT_DTYPE, (uint64_t)f->type);
    refused_with(f, "a type of many bits", AT_DTYPE, 0x80000000u | (uint32_t)f->type, (uint64_t)f->type);
}

static void other_sizes(const struct file *f) {
    refused_with(f, "more outputs", AT_N, 17, ROWS);
    refused_with(f, "outputs without end", AT_N, UINT64_MAX / 2, ROWS);
    refused_with(f, "inputs without end", AT_K, UINT64_MAX - 511, COLUMNS);
    refused_with(f, "inputs that wrap", AT_K, UINT64_MAX / 4 + 1 + COLUMNS, COLUMNS);
    refused_with(f, "two biases", AT_BIAS, 2, 0);
    set(f, AT_N, 17);
    set(f, AT_BYTES, 64 + 32 * f->row);
    refused(f, "more outputs than bytes", 64 + 32 * f->row - 1);
    opens(f, 64 + 32 * f->row);
    set(f, AT_N, ROWS);
    for (size_t k = COLUMNS + 1; k < COLUMNS + f->block; k++) {
        set(f, AT_K, k);
        for (size_t guess = f->bytes; guess <= f->bytes + 16 * f->row / (COLUMNS / f->block); guess += 64) {
            set(f, AT_BYTES, guess);
            refused(f, "k inside a block", MOST);
        }
    }
    set(f, AT_K, COLUMNS);
    set(f, AT_BYTES, f->bytes);
}

START_TEST(open_typed) {
    static float zeros[ROWS * COLUMNS];
    struct file f = {.context = default_context(), .type = (attn_dtype)_i};
    const attn_packed *packed;
    f.memory = aligned_alloc(64, MOST);
    ck_assert_ptr_nonnull(f.memory);
    f.w = attn_tensor_contiguous(zeros, f.type, 1, 1, ROWS, COLUMNS);
    const attn_status status = attn_pack_linear(f.context, &f.w, NULL, f.memory, MOST, &packed);
    if (f.type == ATTN_BOOL) {
        must_be(f.context, "bool", status, ATTN_ERROR_DTYPE, "w");
    } else {
        ck_assert_int_eq(status, ATTN_OK);
        const size_t size = attn_dtype_size(f.type, &f.block);
        f.row = COLUMNS / f.block * size;
        f.bytes = 64 + 16 * f.row; /* the header, and outputs padded to 16: nothing else */
        opens(&f, MOST);
        opens(&f, f.bytes);
        refused(&f, "one byte short", f.bytes - 1);
        other_types(&f);
        other_sizes(&f);
        opens(&f, f.bytes);
        f.w.size[3] = COLUMNS - 1;
        if (f.block > 1)
            must_be(f.context, "k no multiple",
                    attn_pack_linear(f.context, &f.w, NULL, f.memory, MOST, &packed), ATTN_ERROR_SHAPE, "w");
    }
    free(f.memory);
    attn_context_destroy(f.context);
}
END_TEST

/* ---- Unpacking -------------------------------------------------------------------------------------- */

START_TEST(unpack) {
    attn_context *context = default_context();
    enum { N = 5, K = 9 };
    float w_data[N * K], bias_data[N], w[N * K], bias[N];
    unsigned char *memory = aligned_alloc(64, 8192);
    const attn_packed *packed;
    ck_assert_ptr_nonnull(memory);
    for (int i = 0; i < N * K; i++) w_data[i] = (float)i;
    for (int i = 0; i < N; i++) bias_data[i] = (float)-i;
    const attn_tensor from = attn_tensor_contiguous(w_data, ATTN_F32, 1, 1, N, K);
    ck_assert_int_eq(attn_pack_linear(context, &from, bias_data, memory, 8192, &packed), ATTN_OK);
    attn_tensor to = attn_tensor_contiguous(w, ATTN_F32, 1, 1, N, K);
    ck_assert_int_eq(attn_unpack_linear(context, packed, &to, bias), ATTN_OK);
    ck_assert(!memcmp(w, w_data, sizeof w) && !memcmp(bias, bias_data, sizeof bias));
    ck_assert_int_eq(attn_unpack_linear(context, packed, &to, NULL), ATTN_OK);
    memset(w, 0xa5, sizeof w);
    ck_assert_int_eq(attn_unpack_linear(NULL, packed, &to, bias), ATTN_ERROR_ARGUMENT);
    must_be(context, "packed null", attn_unpack_linear(context, NULL, &to, bias), ATTN_ERROR_ARGUMENT,
            "packed");
    must_be(context, "w null", attn_unpack_linear(context, packed, NULL, bias), ATTN_ERROR_ARGUMENT, "w");
    to.dtype = ATTN_F16;
    must_be(context, "w f16", attn_unpack_linear(context, packed, &to, bias), ATTN_ERROR_DTYPE, "w");
    to.dtype = ATTN_F32;
    to.size[2] = N - 1;
    must_be(context, "w rows", attn_unpack_linear(context, packed, &to, bias), ATTN_ERROR_SHAPE, "w");
    to.size[2] = N;
    to.stride[2] = 4;
    must_be(context, "w aliases", attn_unpack_linear(context, packed, &to, bias), ATTN_ERROR_STRIDE, "w");
    to.stride[2] = K * 4;
    must_be(context, "bias in w", attn_unpack_linear(context, packed, &to, w), ATTN_ERROR_OVERLAP, "w");
    must_be(context, "bias misaligned",
            attn_unpack_linear(context, packed, &to, (float *)(void *)((char *)bias + 1)), ATTN_ERROR_STRIDE,
            "bias");
    to.data = memory + 64;
    must_be(context, "w in packed", attn_unpack_linear(context, packed, &to, bias), ATTN_ERROR_OVERLAP, "w");
    memory[8] ^= 1;
    to.data = w;
    must_be(context, "spoilt", attn_unpack_linear(context, packed, &to, bias), ATTN_ERROR_PACKED, "packed");
    for (size_t i = 0; i < sizeof w; i++) ck_assert_int_eq(((unsigned char *)w)[i], 0xa5);
    ck_assert(!memcmp(bias, bias_data, sizeof bias));
    ck_assert_int_eq(attn_packed_dtype(NULL), ATTN_F32);
    free(memory);
    attn_context_destroy(context);
}
END_TEST

void add_packed_types_tests(Suite *suite) {
    TCase *t = tcase_create("packed types");
    tcase_add_loop_test(t, open_typed, 0, ATTN_Q4_1 + 1);
    tcase_add_test(t, unpack);
    suite_add_tcase(suite, t);
}
