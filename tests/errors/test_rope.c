/* What attn_rope_apply and its scratch query can be given wrong. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "suite.h"

enum { B = 2, H = 3, R = 4, D = 12, FLOATS = B * H * R * D, CANARY_BYTE = 0xa5 };

/* Valid arguments; a test breaks one thing. */
struct turning {
    attn_context *context;
    float x_data[FLOATS], y_data[FLOATS], divisors[D / 2];
    int64_t offsets[B], positions[B * R];
    attn_tensor x, y;
    attn_rope rope;
    attn_rope_args args;
    const attn_rope_args *argument;
};

static void turning_open(struct turning *t, attn_context *context) {
    memset(t, 0, sizeof *t);
    memset(t->y_data, CANARY_BYTE, sizeof t->y_data);
    t->context = context;
    t->x = attn_tensor_contiguous(t->x_data, ATTN_F32, B, H, R, D);
    t->y = attn_tensor_contiguous(t->y_data, ATTN_F32, B, H, R, D);
    for (int i = 0; i < D / 2; i++) t->divisors[i] = 1.0f;
    t->rope = (attn_rope){.size = sizeof t->rope,
                          .style = ATTN_ROPE_HALF_SPLIT,
                          .scaling = ATTN_ROPE_SCALING_YARN,
                          .factor = 4.0f,
                          .original_context = 2048,
                          .frequency_divisors = t->divisors};
    t->args = (attn_rope_args){.size = sizeof t->args,
                               .rope = &t->rope,
                               .x = &t->x,
                               .y = &t->y,
                               .offsets = t->offsets,
                               .positions = t->positions,
                               .positions_stride = R};
    t->argument = &t->args;
}

static int untouched(const struct turning *t) {
    for (size_t i = 0; i < sizeof t->y_data; i++)
        if (((const unsigned char *)t->y_data)[i] != CANARY_BYTE) return 0;
    return 1;
}

static void args_null(struct turning *t) { t->argument = NULL; }
static void args_size_0(struct turning *t) { t->args.size = 0; }
static void args_size_huge(struct turning *t) { t->args.size = SIZE_MAX; }
static void rope_null(struct turning *t) { t->args.rope = NULL; }
static void rope_size_0(struct turning *t) { t->rope.size = 0; }
static void rope_size_huge(struct turning *t) { t->rope.size = SIZE_MAX / 2; }
static void style_2(struct turning *t) { t->rope.style = (attn_rope_style)2; }
static void style_minus(struct turning *t) { t->rope.style = (attn_rope_style)-1; }
static void scaling_5(struct turning *t) { t->rope.scaling = (attn_rope_scaling)5; }
static void scaling_minus(struct turning *t) { t->rope.scaling = (attn_rope_scaling)-1; }
static void dims_odd(struct turning *t) { t->rope.dims = 7; }
static void dims_many(struct turning *t) { t->rope.dims = D + 2; }
static void dims_huge(struct turning *t) { t->rope.dims = SIZE_MAX - 1; }
static void columns_odd(struct turning *t) { t->x.size[3] = t->y.size[3] = D - 1; }
static void columns_none(struct turning *t) { t->x.size[3] = t->y.size[3] = 0; }
static void ntk_of_2(struct turning *t) {
    t->rope.scaling = ATTN_ROPE_SCALING_NTK;
    t->rope.dims = 2;
}
static void base_1(struct turning *t) { t->rope.base = 1.0f; }
static void base_minus(struct turning *t) { t->rope.base = -10000.0f; }
static void base_nan(struct turning *t) { t->rope.base = NAN; }
static void base_inf(struct turning *t) { t->rope.base = INFINITY; }
static void factor_0(struct turning *t) { t->rope.factor = 0.0f; }
static void factor_0_linear(struct turning *t) {
    t->rope.scaling = ATTN_ROPE_SCALING_LINEAR;
    t->rope.factor = 0.0f;
}
static void factor_minus(struct turning *t) { t->rope.factor = -1.0f; }
static void factor_nan(struct turning *t) { t->rope.factor = NAN; }
static void context_0(struct turning *t) { t->rope.original_context = 0; }
static void context_0_llama3(struct turning *t) {
    t->rope.scaling = ATTN_ROPE_SCALING_LLAMA3;
    t->rope.original_context = 0;
}
static void low_above_high(struct turning *t) {
    t->rope.scaling = ATTN_ROPE_SCALING_LLAMA3;
    t->rope.low_freq_factor = 4.0f;
}
static void low_nan(struct turning *t) {
    t->rope.scaling = ATTN_ROPE_SCALING_LLAMA3;
    t->rope.low_freq_factor = NAN;
}
static void high_minus(struct turning *t) {
    t->rope.scaling = ATTN_ROPE_SCALING_LLAMA3;
    t->rope.high_freq_factor = -4.0f;
}
static void fast_minus(struct turning *t) { t->rope.beta_fast = -1.0f; }
static void slow_inf(struct turning *t) { t->rope.beta_slow = INFINITY; }
static void slow_above_fast(struct turning *t) { t->rope.beta_slow = 33.0f; }
static void exact_range_2(struct turning *t) { t->rope.yarn_exact_range = 2; }
static void attention_minus(struct turning *t) { t->rope.attention_factor = -1.0f; }
static void attention_nan(struct turning *t) { t->rope.attention_factor = NAN; }
static void divisor_0(struct turning *t) { t->divisors[D / 2 - 1] = 0.0f; }
static void divisor_minus(struct turning *t) { t->divisors[2] = -INFINITY; }
static void divisor_nan(struct turning *t) { t->divisors[0] = NAN; }
static void divisors_misaligned(struct turning *t) {
    t->rope.frequency_divisors = (const float *)(const void *)((const char *)t->divisors + 2);
}
static void x_null(struct turning *t) { t->args.x = NULL; }
static void y_null(struct turning *t) { t->args.y = NULL; }
static void x_bool(struct turning *t) { t->x.dtype = ATTN_BOOL; }
static void y_bool(struct turning *t) { t->y.dtype = ATTN_BOOL; }
static void y_rows(struct turning *t) { t->y.size[2]--; }
static void y_columns(struct turning *t) { t->y.size[3] -= 2; }
static void y_batch(struct turning *t) { t->y.size[0] = 1; }
static void y_heads(struct turning *t) { t->y.size[1] = 1; }
static void y_aliases(struct turning *t) { t->y.stride[2] = 0; }
static void x_strided(struct turning *t) { t->x.stride[3] = 8; }
static void x_huge(struct turning *t) { t->x.stride[2] = PTRDIFF_MAX / 8 * 4; }
static void x_data_null(struct turning *t) { t->x.data = NULL; }
static void y_data_null(struct turning *t) { t->y.data = NULL; }
static void y_is_x_shifted(struct turning *t) {
    t->x.size[2] = t->y.size[2] = R - 1;
    t->x.data = t->y_data + D;
}
static void y_is_x_otherwise(struct turning *t) { /* the same memory, heads and rows exchanged */
    t->x = t->y;
    t->x.size[1] = t->x.size[2] = t->y.size[1] = t->y.size[2] = 3;
    t->y.stride[1] = t->x.stride[2];
    t->y.stride[2] = t->x.stride[1];
}
static void y_on_offsets(struct turning *t) { t->args.offsets = (int64_t *)(void *)(t->y_data + 4); }
static void y_on_positions(struct turning *t) { t->args.positions = (int64_t *)(void *)t->y_data; }
static void y_on_divisors(struct turning *t) {
    for (int i = 0; i < D / 2; i++) t->x_data[i] = 1.0f;
    t->y.data = t->x_data; /* the canary stays where it is */
    t->x.data = t->y_data;
    t->rope.frequency_divisors = t->x_data;
}
static void offsets_misaligned(struct turning *t) {
    t->args.offsets = (const int64_t *)(const void *)((const char *)t->offsets + 4);
}
static void positions_misaligned(struct turning *t) {
    t->args.positions = (const int64_t *)(const void *)((const char *)t->positions + 1);
}
static void positions_stride_huge(struct turning *t) { t->args.positions_stride = SIZE_MAX / 2; }
static void offset_large(struct turning *t) { t->offsets[1] = (INT64_C(1) << 53) + 1; }
static void offset_lowest(struct turning *t) { t->offsets[0] = INT64_MIN; }
static void offset_alone(struct turning *t) { /* only its last row is out of reach */
    t->args.positions = NULL;
    t->offsets[1] = (INT64_C(1) << 53) - R + 2;
}
static void offset_overflows(struct turning *t) {
    t->args.positions = NULL;
    t->offsets[0] = INT64_MAX;
}
static void position_large(struct turning *t) { t->positions[B * R - 1] = INT64_C(1) << 54; }
static void position_lowest(struct turning *t) { t->positions[0] = INT64_MIN; }
static void sum_large(struct turning *t) { t->offsets[1] = t->positions[R] = INT64_C(3) << 51; }
static void sum_overflows(struct turning *t) { t->offsets[1] = t->positions[R + 1] = INT64_MAX; }

static const struct rope_error {
    const char *what;
    void (*make)(struct turning *t);
    attn_status want;
    const char *named;
    int query_too;
} errors[] = {
#define ARGUMENT(make, named) \
    { #make, make, ATTN_ERROR_ARGUMENT, named, 1 }
    ARGUMENT(args_null, "args"),
    ARGUMENT(args_size_0, "args"),
    ARGUMENT(args_size_huge, "args"),
    ARGUMENT(rope_null, "rope"),
    ARGUMENT(rope_size_0, "rope"),
    ARGUMENT(rope_size_huge, "rope"),
    ARGUMENT(style_2, "rope.style"),
    ARGUMENT(style_minus, "rope.style"),
    ARGUMENT(scaling_5, "rope.scaling"),
    ARGUMENT(scaling_minus, "rope.scaling"),
    ARGUMENT(base_1, "rope.base"),
    ARGUMENT(base_minus, "rope.base"),
    ARGUMENT(base_nan, "rope.base"),
    ARGUMENT(base_inf, "rope.base"),
    ARGUMENT(factor_0, "rope.factor"),
    ARGUMENT(factor_0_linear, "rope.factor"),
    ARGUMENT(factor_minus, "rope.factor"),
    ARGUMENT(factor_nan, "rope.factor"),
    ARGUMENT(context_0, "rope.original_context"),
    ARGUMENT(context_0_llama3, "rope.original_context"),
    ARGUMENT(low_above_high, "rope.high_freq_factor"),
    ARGUMENT(low_nan, "rope.low_freq_factor"),
    ARGUMENT(high_minus, "rope.high_freq_factor"),
    ARGUMENT(fast_minus, "rope.beta_fast"),
    ARGUMENT(slow_inf, "rope.beta_slow"),
    ARGUMENT(slow_above_fast, "rope.beta_slow"),
    ARGUMENT(exact_range_2, "rope.yarn_exact_range"),
    ARGUMENT(attention_minus, "rope.attention_factor"),
    ARGUMENT(attention_nan, "rope.attention_factor"),
    ARGUMENT(divisor_0, "rope.frequency_divisors"),
    ARGUMENT(divisor_minus, "rope.frequency_divisors"),
    ARGUMENT(divisor_nan, "rope.frequency_divisors"),
    ARGUMENT(x_null, "x"),
    ARGUMENT(y_null, "y"),
    {"divisors misaligned", divisors_misaligned, ATTN_ERROR_STRIDE, "rope.frequency_divisors", 1},
    {"dims odd", dims_odd, ATTN_ERROR_SHAPE, "rope.dims", 1},
    {"dims above columns", dims_many, ATTN_ERROR_SHAPE, "rope.dims", 1},
    {"dims huge", dims_huge, ATTN_ERROR_SHAPE, "rope.dims", 1},
    {"columns odd", columns_odd, ATTN_ERROR_SHAPE, "rope.dims", 1},
    {"no columns", columns_none, ATTN_ERROR_SHAPE, "rope.dims", 1},
    {"NTK of 2 dims", ntk_of_2, ATTN_ERROR_SHAPE, "rope.dims", 1},
    {"y rows", y_rows, ATTN_ERROR_SHAPE, "y", 1},
    {"y columns", y_columns, ATTN_ERROR_SHAPE, "y", 1},
    {"y batch", y_batch, ATTN_ERROR_SHAPE, "y", 1},
    {"y heads", y_heads, ATTN_ERROR_SHAPE, "y", 1},
    {"x bool", x_bool, ATTN_ERROR_DTYPE, "x", 1},
    {"y bool", y_bool, ATTN_ERROR_DTYPE, "y", 1},
    {"y aliases", y_aliases, ATTN_ERROR_STRIDE, "y", 1},
    {"x columns apart", x_strided, ATTN_ERROR_STRIDE, "x", 1},
    {"x huge", x_huge, ATTN_ERROR_OVERFLOW, "x", 1},
    {"x data null", x_data_null, ATTN_ERROR_ARGUMENT, "x", 0},
    {"y data null", y_data_null, ATTN_ERROR_ARGUMENT, "y", 0},
    {"y is x, a row on", y_is_x_shifted, ATTN_ERROR_OVERLAP, "y", 0},
    {"y is x, other strides", y_is_x_otherwise, ATTN_ERROR_OVERLAP, "y", 0},
    {"y on offsets", y_on_offsets, ATTN_ERROR_OVERLAP, "args.offsets", 0},
    {"y on positions", y_on_positions, ATTN_ERROR_OVERLAP, "args.positions", 0},
    {"y on divisors", y_on_divisors, ATTN_ERROR_OVERLAP, "rope.frequency_divisors", 0},
    {"offsets misaligned", offsets_misaligned, ATTN_ERROR_STRIDE, "args.offsets", 0},
    {"positions misaligned", positions_misaligned, ATTN_ERROR_STRIDE, "args.positions", 0},
    {"positions_stride huge", positions_stride_huge, ATTN_ERROR_OVERFLOW, "args.positions", 0},
    {"offset 2^53 + 1", offset_large, ATTN_ERROR_ARGUMENT, "args.positions", 0},
    {"offset INT64_MIN", offset_lowest, ATTN_ERROR_ARGUMENT, "args.positions", 0},
    {"offset + last row", offset_alone, ATTN_ERROR_ARGUMENT, "args.offsets", 0},
    {"offset + row overflows", offset_overflows, ATTN_ERROR_ARGUMENT, "args.offsets", 0},
    {"position 2^54", position_large, ATTN_ERROR_ARGUMENT, "args.positions", 0},
    {"position INT64_MIN", position_lowest, ATTN_ERROR_ARGUMENT, "args.positions", 0},
    {"offset + position too large", sum_large, ATTN_ERROR_ARGUMENT, "args.positions", 0},
    {"offset + position overflows", sum_overflows, ATTN_ERROR_ARGUMENT, "args.positions", 0},
};

static void expect(const struct rope_error *e, attn_context *context, attn_status got) {
    const char *text = attn_context_error(context);
    ck_assert_msg(got == e->want, "%s: status %s, not %s (\"%s\")", e->what, attn_status_name(got),
                  attn_status_name(e->want), text);
    ck_assert_msg(strstr(text, e->named), "%s: \"%s\" does not name %s", e->what, text, e->named);
}

START_TEST(wrong) {
    const struct rope_error *e = &errors[_i];
    attn_context *context = default_context();
    struct turning t;
    size_t bytes = 12345;
    turning_open(&t, context);
    e->make(&t);
    expect(e, context, attn_rope_apply(context, t.argument));
    ck_assert_msg(untouched(&t), "%s: y was written", e->what);
    if (e->query_too) expect(e, context, attn_rope_apply_scratch(context, t.argument, &bytes));
    ck_assert_uint_eq(bytes, 12345);
    turning_open(&t, context); /* and nothing is left behind */
    ck_assert_msg(attn_rope_apply(context, t.argument) == ATTN_OK, "%s", attn_context_error(context));
    ck_assert(!untouched(&t));
    attn_context_destroy(context);
}
END_TEST

static void no_batch(struct turning *t) {
    t->x.size[0] = t->y.size[0] = 0;
    t->x.data = t->y.data = NULL;
}
static void no_rows(struct turning *t) { t->x.size[2] = t->y.size[2] = 0; }
static void no_heads(struct turning *t) { t->x.size[1] = t->y.size[1] = 0; }
static void no_positions(struct turning *t) { t->args.offsets = t->args.positions = NULL; }
static void in_place(struct turning *t) { t->x.data = t->y_data; }
static void x_broadcast(struct turning *t) { t->x.stride[0] = t->x.stride[1] = 0; }
static void furthest(struct turning *t) {
    t->offsets[0] = INT64_C(1) << 53;
    t->offsets[1] = -(INT64_C(1) << 53);
}
static void divisors_inf(struct turning *t) { t->divisors[0] = INFINITY; }
static void betas_equal(struct turning *t) { t->rope.beta_fast = t->rope.beta_slow = 8.0f; }
static void unread(struct turning *t) { /* members that this scaling does not use */
    t->rope.scaling = ATTN_ROPE_SCALING_NONE;
    t->rope.factor = t->rope.beta_fast = t->rope.low_freq_factor = NAN;
    t->rope.original_context = 0;
}
static void short_structs(struct turning *t) {
    t->args.size = offsetof(attn_rope_args, offsets);
    t->rope.size = offsetof(attn_rope, scaling);
}

START_TEST(allowed) {
    static void (*const make[])(struct turning *) = {
        no_batch, no_rows,      no_heads,    no_positions, in_place,      x_broadcast,
        furthest, divisors_inf, betas_equal, unread,       short_structs,
    };
    attn_context *context = default_context();
    for (size_t i = 0; i < sizeof make / sizeof *make; i++) {
        struct turning t;
        size_t bytes = 0;
        turning_open(&t, context);
        make[i](&t);
        ck_assert_msg(attn_rope_apply(context, t.argument) == ATTN_OK, "variant %zu: %s", i,
                      attn_context_error(context));
        ck_assert_int_eq(attn_rope_apply_scratch(context, t.argument, &bytes), ATTN_OK);
    }
    attn_context_destroy(context);
}
END_TEST

START_TEST(scratch) {
    attn_context *own = default_context();
    struct turning t;
    size_t bytes = 0;
    turning_open(&t, own);
    ck_assert_int_eq(attn_rope_apply_scratch(own, NULL, &bytes), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_rope_apply_scratch(own, t.argument, NULL), ATTN_ERROR_ARGUMENT);
    ck_assert_msg(strstr(attn_context_error(own), "bytes"), "%s", attn_context_error(own));
    ck_assert_int_eq(attn_rope_apply_scratch(NULL, t.argument, &bytes), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_rope_apply(NULL, t.argument), ATTN_ERROR_ARGUMENT);
    t.x.data = t.y.data = NULL; /* a query needs no data */
    t.args.offsets = t.args.positions = NULL;
    ck_assert_int_eq(attn_rope_apply_scratch(own, t.argument, &bytes), ATTN_OK);
    ck_assert_uint_gt(bytes, 64);
    attn_context_destroy(own);
    char *memory = malloc(bytes + 1);
    ck_assert_ptr_nonnull(memory);
    attn_options options = {
        .size = sizeof options, .n_threads = 1, .scratch = memory + 1, .scratch_bytes = bytes};
    turning_open(&t, NULL);
    ck_assert_int_eq(attn_context_create(&options, &t.context), ATTN_OK);
    ck_assert_msg(attn_rope_apply(t.context, t.argument) == ATTN_OK, "%s", attn_context_error(t.context));
    attn_context_destroy(t.context);
    turning_open(&t, NULL);
    options.scratch_bytes = 64;
    ck_assert_int_eq(attn_context_create(&options, &t.context), ATTN_OK);
    ck_assert_int_eq(attn_rope_apply(t.context, t.argument), ATTN_ERROR_SCRATCH);
    ck_assert(strstr(attn_context_error(t.context), "scratch") && untouched(&t));
    attn_context_destroy(t.context);
    free(memory);
}
END_TEST

void add_rope_tests(Suite *suite) {
    TCase *t = tcase_create("rope");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, wrong, 0, (int)(sizeof errors / sizeof *errors));
    tcase_add_test(t, allowed);
    tcase_add_test(t, scratch);
    suite_add_tcase(suite, t);
}
