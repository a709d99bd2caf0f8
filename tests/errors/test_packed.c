/* Packing, opening packed memory, and attn_linear. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "suite.h"

enum { N = 5, K = 9, M = 4, ROOM = 8192 };

/* Valid arguments of attn_pack_linear, attn_packed_open and attn_linear. */
struct packing {
    attn_context *context;
    float w_data[N * K], bias_data[N], x_data[2 * M * K], y_data[2 * M * N];
    attn_tensor w, x, y;
    const attn_tensor *w_argument, *x_argument, *y_argument;
    const float *bias;
    unsigned char *memory; /* ROOM bytes */
    void *memory_argument;
    size_t bytes; /* what attn_pack_linear is told */
    const attn_packed *packed, *packed_argument;
};

static void packing_open(struct packing *p, attn_context *context) {
    memset(p, 0, sizeof *p);
    p->context = context;
    p->w = attn_tensor_contiguous(p->w_data, ATTN_F32, 1, 1, N, K);
    p->x = attn_tensor_contiguous(p->x_data, ATTN_F32, 2, 1, M, K);
    p->y = attn_tensor_contiguous(p->y_data, ATTN_F32, 2, 1, M, N);
    p->w_argument = &p->w;
    p->x_argument = &p->x;
    p->y_argument = &p->y;
    p->bias = p->bias_data;
    p->memory = aligned_alloc(64, ROOM);
    ck_assert_ptr_nonnull(p->memory);
    memset(p->memory, 0xa5, ROOM);
    p->memory_argument = p->memory;
    ck_assert_int_eq(attn_pack_linear_bytes(context, &p->w, &p->bytes), ATTN_OK);
    ck_assert_uint_le(p->bytes, ROOM);
}

static attn_status packing_pack(struct packing *p) {
    return attn_pack_linear(p->context, p->w_argument, p->bias, p->memory_argument, p->bytes, &p->packed);
}

static attn_status packing_linear(struct packing *p) {
    return attn_linear(p->context, p->x_argument, p->packed_argument, p->y_argument);
}

static int all_bytes(const void *memory, size_t bytes, unsigned char value) {
    for (size_t i = 0; i < bytes; i++)
        if (((const unsigned char *)memory)[i] != value) return 0;
    return 1;
}

static void must_be(const struct packing *p, const char *what, attn_status got, attn_status want,
                    const char *named) {
    const char *text = attn_context_error(p->context);
    ck_assert_msg(got == want, "%s: status %s, not %s (\"%s\")", what, attn_status_name(got),
                  attn_status_name(want), text);
    ck_assert_msg(strstr(text, named), "%s: \"%s\" does not name %s", what, text, named);
}

/* ---- Packing ---------------------------------------------------------------------------------------- */

static void w_null(struct packing *p) { p->w_argument = NULL; }
static void w_bool(struct packing *p) { p->w.dtype = ATTN_BOOL; }
static void w_batch(struct packing *p) { p->w.size[0] = 2; }
static void w_heads(struct packing *p) { p->w.size[1] = 2; }
static void w_no_rows(struct packing *p) { p->w.size[2] = 0; }
static void w_no_columns(struct packing *p) { p->w.size[3] = 0; }
static void w_column_stride(struct packing *p) { p->w.stride[3] = 8; }
static void w_row_stride(struct packing *p) { p->w.stride[2] = 37; }
static void w_rows_huge(struct packing *p) { p->w.size[2] = SIZE_MAX / 16; }
static void w_rows_most(struct packing *p) { p->w.size[2] = SIZE_MAX; }
static void w_broadcast_huge(struct packing *p) {
    p->w.size[2] = SIZE_MAX / 4;
    p->w.stride[2] = 0;
}
static void w_columns_huge(struct packing *p) { p->w.size[3] = PTRDIFF_MAX / 8; }
static void w_data_null(struct packing *p) { p->w.data = NULL; }
static void w_misaligned(struct packing *p) { p->w.data = (char *)p->w_data + 2; }
static void memory_null(struct packing *p) { p->memory_argument = NULL; }
static void memory_misaligned(struct packing *p) { p->memory_argument = p->memory + 4; }
static void memory_32(struct packing *p) { p->memory_argument = p->memory + 32; }
static void memory_short(struct packing *p) { p->bytes--; }
static void memory_none(struct packing *p) { p->bytes = 0; }
static void bias_misaligned(struct packing *p) {
    p->bias = (const float *)(const void *)((const char *)p->bias_data + 1);
}
static void bias_in_memory(struct packing *p) { p->bias = (const float *)(const void *)(p->memory + 64); }
static void w_in_memory(struct packing *p) { p->w.data = p->memory + 128; }

static const struct pack_error {
    const char *what;
    void (*make)(struct packing *p);
    attn_status want;
    const char *named;
    int query_too; /* attn_pack_linear_bytes sees it as well */
} pack_errors[] = {
    {"w null", w_null, ATTN_ERROR_ARGUMENT, "w", 1},
    {"w bool", w_bool, ATTN_ERROR_DTYPE, "w", 1},
    {"w batch 2", w_batch, ATTN_ERROR_SHAPE, "w", 1},
    {"w heads 2", w_heads, ATTN_ERROR_SHAPE, "w", 1},
    {"w without rows", w_no_rows, ATTN_ERROR_SHAPE, "w", 1},
    {"w without columns", w_no_columns, ATTN_ERROR_SHAPE, "w", 1},
    {"w column stride", w_column_stride, ATTN_ERROR_STRIDE, "w", 0},
    {"w row stride", w_row_stride, ATTN_ERROR_STRIDE, "w", 0},
    {"w rows huge", w_rows_huge, ATTN_ERROR_OVERFLOW, "w", 1},
    {"w rows SIZE_MAX", w_rows_most, ATTN_ERROR_OVERFLOW, "w", 1},
    {"w one row SIZE_MAX / 4 times", w_broadcast_huge, ATTN_ERROR_OVERFLOW, "w", 1},
    {"w columns huge", w_columns_huge, ATTN_ERROR_OVERFLOW, "w", 1},
    {"w data null", w_data_null, ATTN_ERROR_ARGUMENT, "w", 0},
    {"w misaligned", w_misaligned, ATTN_ERROR_STRIDE, "w", 0},
    {"memory null", memory_null, ATTN_ERROR_ARGUMENT, "memory", 0},
    {"memory misaligned", memory_misaligned, ATTN_ERROR_STRIDE, "memory", 0},
    {"memory 32-byte aligned", memory_32, ATTN_ERROR_STRIDE, "memory", 0},
    {"memory one byte short", memory_short, ATTN_ERROR_SCRATCH, "memory", 0},
    {"no memory", memory_none, ATTN_ERROR_SCRATCH, "memory", 0},
    {"bias misaligned", bias_misaligned, ATTN_ERROR_STRIDE, "bias", 0},
    {"bias in memory", bias_in_memory, ATTN_ERROR_OVERLAP, "memory", 0},
    {"w in memory", w_in_memory, ATTN_ERROR_OVERLAP, "memory", 0},
};

START_TEST(pack) {
    const struct pack_error *e = &pack_errors[_i];
    attn_context *context = default_context();
    struct packing p;
    packing_open(&p, context);
    e->make(&p);
    must_be(&p, e->what, packing_pack(&p), e->want, e->named);
    ck_assert_msg(all_bytes(p.memory, ROOM, 0xa5), "%s: memory was written", e->what);
    ck_assert_ptr_null(p.packed);
    if (e->query_too) {
        size_t bytes = 77;
        must_be(&p, e->what, attn_pack_linear_bytes(context, p.w_argument, &bytes), e->want, e->named);
        ck_assert_uint_eq(bytes, 77);
    }
    free(p.memory);
    packing_open(&p, context);
    ck_assert_int_eq(packing_pack(&p), ATTN_OK);
    ck_assert_str_eq(attn_context_error(context), "");
    ck_assert(all_bytes(p.memory + p.bytes, ROOM - p.bytes, 0xa5));
    free(p.memory);
    attn_context_destroy(context);
}
END_TEST

START_TEST(pack_null_arguments) {
    attn_context *context = default_context();
    struct packing p;
    size_t bytes = 77;
    packing_open(&p, context);
    must_be(&p, "bytes null", attn_pack_linear_bytes(context, &p.w, NULL), ATTN_ERROR_ARGUMENT, "bytes");
    must_be(&p, "packed null", attn_pack_linear(context, &p.w, NULL, p.memory, p.bytes, NULL),
            ATTN_ERROR_ARGUMENT, "packed");
    ck_assert_int_eq(attn_pack_linear_bytes(NULL, &p.w, &bytes), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_pack_linear(NULL, &p.w, NULL, p.memory, p.bytes, &p.packed), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_packed_open(NULL, p.memory, p.bytes, &p.packed), ATTN_ERROR_ARGUMENT);
    ck_assert(bytes == 77 && all_bytes(p.memory, ROOM, 0xa5) && !p.packed);
    size_t n = 7, k = 7;
    attn_packed_shape(NULL, &n, &k);
    ck_assert(n == 0 && k == 0);
    free(p.memory);
    attn_context_destroy(context);
}
END_TEST

/* ---- Opening ---------------------------------------------------------------------------------------- */

static void must_not_open(struct packing *p, const char *what, const void *memory, size_t bytes,
                          attn_status want) {
    const attn_packed *opened = NULL;
    must_be(p, what, attn_packed_open(p->context, memory, bytes, &opened), want, "memory");
    ck_assert_ptr_null(opened);
}

START_TEST(open_truncated) {
    attn_context *context = default_context();
    struct packing p;
    const attn_packed *opened;
    packing_open(&p, context);
    ck_assert_int_eq(packing_pack(&p), ATTN_OK);
    must_not_open(&p, "memory null", NULL, p.bytes, ATTN_ERROR_ARGUMENT);
    must_not_open(&p, "memory misaligned", p.memory + 8, p.bytes - 8, ATTN_ERROR_STRIDE);
    for (size_t bytes = 0; bytes < p.bytes; bytes += bytes < 70 ? 1 : 33)
        must_not_open(&p, "truncated", p.memory, bytes, ATTN_ERROR_PACKED);
    must_not_open(&p, "one byte short", p.memory, p.bytes - 1, ATTN_ERROR_PACKED);
    must_be(&p, "packed null", attn_packed_open(context, p.memory, p.bytes, NULL), ATTN_ERROR_ARGUMENT,
            "packed");
    ck_assert_int_eq(attn_packed_open(context, p.memory, p.bytes, &opened), ATTN_OK);
    ck_assert_int_eq(attn_packed_open(context, p.memory, ROOM, &opened), ATTN_OK); /* more is fine */
    ck_assert_ptr_eq(opened, p.memory);
    free(p.memory);
    attn_context_destroy(context);
}
END_TEST

/* Each bit of the header flipped: refused, or harmless (a reserved bit; a number of outputs that fills the
 * same panels); never an open that reaches outside. */
START_TEST(open_corrupt_header) {
    attn_context *context = default_context();
    struct packing p;
    size_t refused = 0;
    packing_open(&p, context);
    ck_assert_int_eq(packing_pack(&p), ATTN_OK);
    for (size_t bit = 0; bit < 64 * 8; bit++) {
        const attn_packed *opened = NULL;
        p.memory[bit / 8] ^= (unsigned char)(1u << bit % 8);
        attn_status status = attn_packed_open(context, p.memory, p.bytes, &opened);
        if (status == ATTN_OK) {
            size_t n, k;
            attn_packed_shape(opened, &n, &k);
            ck_assert_msg(n >= 1 && n <= 16 && k == K, "bit %zu: accepted as %zu x %zu", bit, n, k);
        } else {
            ck_assert_msg(status == ATTN_ERROR_PACKED, "bit %zu: %s", bit, attn_status_name(status));
            ck_assert_ptr_null(opened);
            refused++;
        }
        p.memory[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    ck_assert_uint_ge(refused, 300); /* magic, version, layout, n, k, bytes at least */
    memset(p.memory, 0, 64);
    must_not_open(&p, "zeros", p.memory, p.bytes, ATTN_ERROR_PACKED);
    memset(p.memory, 0xff, 64);
    must_not_open(&p, "ones", p.memory, p.bytes, ATTN_ERROR_PACKED);
    free(p.memory);
    attn_context_destroy(context);
}
END_TEST

/* Weights packed for a backend of another layout are refused; of the same layout they open. */
START_TEST(open_other_backend) {
    const char *names[8];
    int runnable[8];
    size_t n = attn_backend_list(names, runnable, 8), refused = 0, wide = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            attn_context *from, *to;
            struct packing p;
            if (!runnable[i] || !runnable[j]) continue;
            wide |= strcmp(names[i], "avx512") == 0; /* its panels are wider than any other's */
            attn_options options = {.size = sizeof options, .n_threads = 1, .backend = names[i]};
            ck_assert_int_eq(attn_context_create(&options, &from), ATTN_OK);
            options.backend = names[j];
            ck_assert_int_eq(attn_context_create(&options, &to), ATTN_OK);
            packing_open(&p, from);
            ck_assert_int_eq(packing_pack(&p), ATTN_OK);
            p.context = to;
            p.packed_argument = p.packed;
            const attn_packed *opened = NULL;
            attn_status status = attn_packed_open(to, p.memory, p.bytes, &opened);
            if (i == j) ck_assert_int_eq(status, ATTN_OK);
            if (status != ATTN_OK) {
                refused++;
                must_be(&p, names[j], status, ATTN_ERROR_PACKED, names[j]);
                memset(p.y_data, 0xa5, sizeof p.y_data);
                must_be(&p, names[j], packing_linear(&p), ATTN_ERROR_PACKED, "w");
                ck_assert(all_bytes(p.y_data, sizeof p.y_data, 0xa5));
            } else {
                ck_assert_int_eq(packing_linear(&p), ATTN_OK);
            }
            free(p.memory);
            attn_context_destroy(from);
            attn_context_destroy(to);
        }
    if (wide) ck_assert_uint_gt(refused, 0);
}
END_TEST

/* ---- attn_linear ------------------------------------------------------------------------------------ */

static void x_null(struct packing *p) { p->x_argument = NULL; }
static void y_null(struct packing *p) { p->y_argument = NULL; }
static void packed_null(struct packing *p) { p->packed_argument = NULL; }
static void packed_misaligned(struct packing *p) {
    p->packed_argument = (const attn_packed *)(const void *)(p->memory + 4);
}
static void packed_spoilt(struct packing *p) { p->memory[0] ^= 1; }
static void packed_other_version(struct packing *p) { p->memory[8] ^= 1; }
static void packed_is_weights(struct packing *p) { memset(p->memory, 0, 64); }
static void x_bool(struct packing *p) { p->x.dtype = ATTN_BOOL; }
static void y_bool(struct packing *p) { p->y.dtype = ATTN_BOOL; }
static void x_columns(struct packing *p) { p->x.size[3] = K - 1; }
static void y_columns(struct packing *p) { p->y.size[3] = N - 1; }
static void y_rows(struct packing *p) { p->y.size[2] = M - 1; }
static void y_heads(struct packing *p) { p->y.size[1] = 0; }
static void y_batch(struct packing *p) { p->y.size[0] = 1; }
static void x_data_null(struct packing *p) { p->x.data = NULL; }
static void y_data_null(struct packing *p) { p->y.data = NULL; }
static void x_misaligned(struct packing *p) { p->x.data = (char *)p->x_data + 1; }
static void y_misaligned(struct packing *p) { p->y.data = (char *)p->y_data + 2; }
static void x_row_stride(struct packing *p) { p->x.stride[2] = K * 4 + 2; }
static void y_row_stride(struct packing *p) { p->y.stride[2] = N * 4 + 1; }
static void x_column_stride(struct packing *p) { p->x.stride[3] = -4; }
static void y_aliases(struct packing *p) { p->y.stride[2] = 0; }
static void y_rows_cross(struct packing *p) { p->y.stride[2] = (N - 1) * 4; }
static void y_in_x(struct packing *p) { p->y.data = p->x_data + 3; }
static void y_in_w(struct packing *p) { p->y.data = p->memory + 64; }
static void x_rows_huge(struct packing *p) { p->x.size[2] = p->y.size[2] = PTRDIFF_MAX / 8; }
static void y_stride_huge(struct packing *p) { p->y.stride[0] = PTRDIFF_MAX - 3; }

static const struct pack_error linear_errors[] = {
    {"x null", x_null, ATTN_ERROR_ARGUMENT, "x", 0},
    {"y null", y_null, ATTN_ERROR_ARGUMENT, "y", 0},
    {"w null", packed_null, ATTN_ERROR_ARGUMENT, "w", 0},
    {"w misaligned", packed_misaligned, ATTN_ERROR_STRIDE, "w", 0},
    {"w spoilt", packed_spoilt, ATTN_ERROR_PACKED, "w", 0},
    {"w of another version", packed_other_version, ATTN_ERROR_PACKED, "w", 0},
    {"w is no packed memory", packed_is_weights, ATTN_ERROR_PACKED, "w", 0},
    {"x bool", x_bool, ATTN_ERROR_DTYPE, "x", 0},
    {"y bool", y_bool, ATTN_ERROR_DTYPE, "y", 0},
    {"x columns", x_columns, ATTN_ERROR_SHAPE, "x", 0},
    {"y columns", y_columns, ATTN_ERROR_SHAPE, "y", 0},
    {"y rows", y_rows, ATTN_ERROR_SHAPE, "y", 0},
    {"y heads", y_heads, ATTN_ERROR_SHAPE, "y", 0},
    {"y batch", y_batch, ATTN_ERROR_SHAPE, "y", 0},
    {"x data null", x_data_null, ATTN_ERROR_ARGUMENT, "x", 0},
    {"y data null", y_data_null, ATTN_ERROR_ARGUMENT, "y", 0},
    {"x misaligned", x_misaligned, ATTN_ERROR_STRIDE, "x", 0},
    {"y misaligned", y_misaligned, ATTN_ERROR_STRIDE, "y", 0},
    {"x row stride", x_row_stride, ATTN_ERROR_STRIDE, "x", 0},
    {"y row stride", y_row_stride, ATTN_ERROR_STRIDE, "y", 0},
    {"x column stride", x_column_stride, ATTN_ERROR_STRIDE, "x", 0},
    {"y rows on each other", y_aliases, ATTN_ERROR_STRIDE, "y", 0},
    {"y rows cross", y_rows_cross, ATTN_ERROR_STRIDE, "y", 0},
    {"y in x", y_in_x, ATTN_ERROR_OVERLAP, "y", 0},
    {"y in w", y_in_w, ATTN_ERROR_OVERLAP, "y", 0},
    {"x rows huge", x_rows_huge, ATTN_ERROR_OVERFLOW, "x", 0},
    {"y stride huge", y_stride_huge, ATTN_ERROR_OVERFLOW, "y", 0},
};

START_TEST(linear) {
    const struct pack_error *e = &linear_errors[_i];
    attn_context *context = default_context();
    struct packing p;
    unsigned char before[ROOM];
    packing_open(&p, context);
    ck_assert_int_eq(packing_pack(&p), ATTN_OK);
    p.packed_argument = p.packed;
    memset(p.y_data, 0xa5, sizeof p.y_data);
    e->make(&p);
    memcpy(before, p.memory, ROOM);
    must_be(&p, e->what, packing_linear(&p), e->want, e->named);
    ck_assert_msg(all_bytes(p.y_data, sizeof p.y_data, 0xa5), "%s: y was written", e->what);
    ck_assert(all_bytes(p.x_data, sizeof p.x_data, 0) && memcmp(before, p.memory, ROOM) == 0);
    free(p.memory);
    packing_open(&p, context);
    ck_assert_int_eq(packing_pack(&p), ATTN_OK);
    p.packed_argument = p.packed;
    ck_assert_int_eq(packing_linear(&p), ATTN_OK);
    ck_assert_str_eq(attn_context_error(context), "");
    ck_assert_int_eq(attn_linear(NULL, &p.x, p.packed, &p.y), ATTN_ERROR_ARGUMENT);
    free(p.memory);
    attn_context_destroy(context);
}
END_TEST

START_TEST(linear_allowed) {
    attn_context *context = default_context();
    struct packing p;
    packing_open(&p, context);
    ck_assert_int_eq(packing_pack(&p), ATTN_OK);
    p.packed_argument = p.packed;
    p.x.size[2] = p.y.size[2] = 0; /* no rows */
    p.x.data = p.y.data = NULL;
    ck_assert_int_eq(packing_linear(&p), ATTN_OK);
    p.x.data = p.x_data;
    p.y.data = p.y_data;
    p.x.size[2] = p.y.size[2] = M;
    p.x.stride[0] = p.x.stride[2] = 0; /* one row again and again */
    ck_assert_int_eq(packing_linear(&p), ATTN_OK);
    p.x.data = p.x_data + (M - 1) * K; /* rows upside down */
    p.x.stride[2] = -K * (ptrdiff_t)sizeof(float);
    ck_assert_int_eq(packing_linear(&p), ATTN_OK);
    free(p.memory);
    attn_context_destroy(context);
}
END_TEST

void add_packed_tests(Suite *suite) {
    TCase *t = tcase_create("packed");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, pack, 0, (int)(sizeof pack_errors / sizeof *pack_errors));
    tcase_add_test(t, pack_null_arguments);
    tcase_add_test(t, open_truncated);
    tcase_add_test(t, open_corrupt_header);
    tcase_add_test(t, open_other_backend);
    tcase_add_loop_test(t, linear, 0, (int)(sizeof linear_errors / sizeof *linear_errors));
    tcase_add_test(t, linear_allowed);
    suite_add_tcase(suite, t);
}
