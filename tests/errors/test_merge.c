/* Everything that attn_merge can be given wrong. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "fixture.h"
#include "suite.h"

enum { PARTS = 3, ROWS = 2 * 3 * 4, COLUMNS = 5, FLOATS = ROWS * COLUMNS };

/* A valid call, of which a test breaks one thing. */
struct merge {
    float out_data[FLOATS + 8], lse_data[ROWS + 8], outs_data[PARTS][FLOATS + 8], lses_data[PARTS][ROWS + 8];
    attn_tensor out, lse, outs[PARTS], lses[PARTS];
    attn_merge_args args, *argument;
};

static attn_tensor tensor(float *data, size_t columns) {
    return attn_tensor_contiguous(data, ATTN_F32, 2, 3, 4, columns);
}

static void merge_open(struct merge *m) {
    memset(m, 0, sizeof *m);
    memset(m->out_data, 0xa5, sizeof m->out_data);
    memset(m->lse_data, 0xa5, sizeof m->lse_data);
    m->out = tensor(m->out_data, COLUMNS);
    m->lse = tensor(m->lse_data, 1);
    for (int i = 0; i < PARTS; i++) {
        m->outs[i] = tensor(m->outs_data[i], COLUMNS);
        m->lses[i] = tensor(m->lses_data[i], 1);
    }
    m->args = (attn_merge_args){sizeof m->args, PARTS, m->outs, m->lses, &m->out, &m->lse};
    m->argument = &m->args;
}

static int untouched(const struct merge *m) {
    const unsigned char *out = (const unsigned char *)m->out_data, *lse = (const unsigned char *)m->lse_data;
    for (size_t i = 0; i < sizeof m->out_data; i++)
        if (out[i] != 0xa5) return 0;
    for (size_t i = 0; i < sizeof m->lse_data; i++)
        if (lse[i] != 0xa5) return 0;
    return 1;
}

static void args_null(struct merge *m) { m->argument = NULL; }
static void size_0(struct merge *m) { m->args.size = 0; }
static void outs_null(struct merge *m) { m->args.outs = NULL; }
static void lses_null(struct merge *m) { m->args.lses = NULL; }
static void out_null(struct merge *m) { m->args.out = NULL; }
static void out_data(struct merge *m) { m->out.data = NULL; }
static void lse_data(struct merge *m) { m->lse.data = NULL; }
static void part_data(struct merge *m) { m->outs[2].data = NULL; }
static void part_lse_data(struct merge *m) { m->lses[1].data = NULL; }
static void n_parts_huge(struct merge *m) { m->args.n_parts = SIZE_MAX; }
static void out_dtype(struct merge *m) { m->out.dtype = ATTN_BOOL; }
static void part_dtype(struct merge *m) { m->outs[1].dtype = ATTN_F16; }
static void part_lse_dtype(struct merge *m) { m->lses[2].dtype = (attn_dtype)77; }
static void out_columns_0(struct merge *m) { m->out.size[3] = 0; }
static void out_heads_0(struct merge *m) { m->out.size[1] = 0; }
static void lse_rows(struct merge *m) { m->lse.size[2] = 3; }
static void lse_columns(struct merge *m) { m->lse.size[3] = 2; }
static void part_batch(struct merge *m) { m->outs[1].size[0] = 1; }
static void part_heads(struct merge *m) { m->outs[2].size[1] = 2; }
static void part_rows(struct merge *m) { m->outs[0].size[2] = 3; }
static void part_columns(struct merge *m) { m->outs[2].size[3] = COLUMNS - 1; }
static void part_lse_batch(struct merge *m) { m->lses[0].size[0] = 3; }
static void part_lse_columns(struct merge *m) { m->lses[2].size[3] = 2; }
static void out_aliases(struct merge *m) { m->out.stride[2] = 0; }
static void lse_aliases(struct merge *m) { m->lse.stride[0] = 4; }
static void out_column_stride(struct merge *m) { m->out.stride[3] = 8; }
static void part_stride(struct merge *m) { m->outs[1].stride[2] = 21; }
static void part_column_stride(struct merge *m) { m->outs[1].stride[3] = 8; }
static void part_address(struct merge *m) { m->outs[0].data = (char *)m->outs[0].data + 2; }
static void part_far(struct merge *m) { m->outs[2].stride[0] = PTRDIFF_MAX - 3; }
static void lse_in_out(struct merge *m) { m->lse.data = m->out_data + 4; }
static void out_in_second(struct merge *m) { m->args.out = &m->outs[1]; }
static void out_in_part_lse(struct merge *m) { m->lses[2].data = m->out_data; }
static void out_beside_first(struct merge *m) { m->outs[0].data = m->out_data + 1; }
static void out_other_strides(struct merge *m) {
    m->outs[0] = m->out;
    m->outs[0].stride[1] = m->out.stride[2];
    m->outs[0].stride[2] = m->out.stride[1];
}
static void lse_in_second(struct merge *m) { m->lses[1] = m->lse; }
static void lse_in_a_part(struct merge *m) { m->outs[2].data = m->lse_data; }
static void out_in_arrays(struct merge *m) { m->out.data = m->outs; }
static void lse_in_arrays(struct merge *m) { m->lse.data = m->lses; }

static const struct {
    const char *what;
    void (*spoil)(struct merge *m);
    attn_status want;
    const char *named;
} mistakes[] = {
#define MISTAKE(spoil, want, named) \
    { #spoil, spoil, want, named }
    MISTAKE(args_null, ATTN_ERROR_ARGUMENT, "args"),
    MISTAKE(size_0, ATTN_ERROR_ARGUMENT, "args"),
    MISTAKE(outs_null, ATTN_ERROR_ARGUMENT, "outs"),
    MISTAKE(lses_null, ATTN_ERROR_ARGUMENT, "lses"),
    MISTAKE(out_null, ATTN_ERROR_ARGUMENT, "out"),
    MISTAKE(out_data, ATTN_ERROR_ARGUMENT, "out"),
    MISTAKE(lse_data, ATTN_ERROR_ARGUMENT, "lse"),
    MISTAKE(part_data, ATTN_ERROR_ARGUMENT, "outs[2]"),
    MISTAKE(part_lse_data, ATTN_ERROR_ARGUMENT, "lses[1]"),
    MISTAKE(n_parts_huge, ATTN_ERROR_OVERFLOW, "n_parts"),
    MISTAKE(out_dtype, ATTN_ERROR_DTYPE, "out"),
    MISTAKE(part_dtype, ATTN_ERROR_DTYPE, "outs[1]"),
    MISTAKE(part_lse_dtype, ATTN_ERROR_DTYPE, "lses[2]"),
    MISTAKE(out_columns_0, ATTN_ERROR_SHAPE, "out"),
    MISTAKE(out_heads_0, ATTN_ERROR_SHAPE, "out"),
    MISTAKE(lse_rows, ATTN_ERROR_SHAPE, "lse"),
    MISTAKE(lse_columns, ATTN_ERROR_STRIDE, "lse"),
    MISTAKE(part_batch, ATTN_ERROR_SHAPE, "outs[1]"),
    MISTAKE(part_heads, ATTN_ERROR_SHAPE, "outs[2]"),
    MISTAKE(part_rows, ATTN_ERROR_SHAPE, "outs[0]"),
    MISTAKE(part_columns, ATTN_ERROR_SHAPE, "outs[2]"),
    MISTAKE(part_lse_batch, ATTN_ERROR_SHAPE, "lses[0]"),
    MISTAKE(part_lse_columns, ATTN_ERROR_SHAPE, "lses[2]"),
    MISTAKE(out_aliases, ATTN_ERROR_STRIDE, "out"),
    MISTAKE(lse_aliases, ATTN_ERROR_STRIDE, "lse"),
    MISTAKE(out_column_stride, ATTN_ERROR_STRIDE, "out"),
    MISTAKE(part_stride, ATTN_ERROR_STRIDE, "outs[1]"),
    MISTAKE(part_column_stride, ATTN_ERROR_STRIDE, "outs[1]"),
    MISTAKE(part_address, ATTN_ERROR_STRIDE, "outs[0]"),
    MISTAKE(part_far, ATTN_ERROR_OVERFLOW, "outs[2]"),
    MISTAKE(lse_in_out, ATTN_ERROR_OVERLAP, "lse"),
    MISTAKE(out_in_second, ATTN_ERROR_OVERLAP, "outs[1]"),
    MISTAKE(out_in_part_lse, ATTN_ERROR_OVERLAP, "lses[2]"),
    MISTAKE(out_beside_first, ATTN_ERROR_OVERLAP, "outs[0]"),
    MISTAKE(out_other_strides, ATTN_ERROR_OVERLAP, "outs[0]"),
    MISTAKE(lse_in_second, ATTN_ERROR_OVERLAP, "lses[1]"),
    MISTAKE(lse_in_a_part, ATTN_ERROR_OVERLAP, "outs[2]"),
    MISTAKE(out_in_arrays, ATTN_ERROR_OVERLAP, "outs"),
    MISTAKE(lse_in_arrays, ATTN_ERROR_OVERLAP, "lses"),
};

START_TEST(refused) {
    attn_context *context = default_context();
    struct merge m;
    merge_open(&m);
    mistakes[_i].spoil(&m);
    const attn_status got = attn_merge(context, m.argument);
    const char *text = attn_context_error(context);
    ck_assert_msg(got == mistakes[_i].want, "%s: status %s, not %s (\"%s\")", mistakes[_i].what,
                  attn_status_name(got), attn_status_name(mistakes[_i].want), text);
    ck_assert_msg(strstr(text, mistakes[_i].named), "%s: \"%s\" does not name %s", mistakes[_i].what, text,
                  mistakes[_i].named);
    ck_assert_msg(untouched(&m), "%s: an output was written", mistakes[_i].what);
    merge_open(&m);
    ck_assert_msg(attn_merge(context, &m.args) == ATTN_OK, "%s", attn_context_error(context));
    ck_assert_str_eq(attn_context_error(context), "");
    ck_assert(!untouched(&m));
    attn_context_destroy(context);
}
END_TEST

/* What looks odd and is allowed: no parts, no lse, in place, parts that are one tensor, empty tensors, a null
 * context. */
START_TEST(allowed) {
    attn_context *context = default_context();
    struct merge m;
    merge_open(&m);
    m.args.n_parts = 0;
    m.args.outs = m.args.lses = NULL;
    ck_assert_int_eq(attn_merge(context, &m.args), ATTN_OK);
    ck_assert(m.out_data[FLOATS - 1] == 0 && m.lse_data[ROWS - 1] < -1e38f);
    merge_open(&m);
    m.args.lse = NULL;
    m.args.out = &m.outs[0];
    m.outs[2] = m.outs[1];
    m.lses[2] = m.lses[0];
    ck_assert_int_eq(attn_merge(context, &m.args), ATTN_OK);
    ck_assert(untouched(&m));
    merge_open(&m);
    m.args.out = &m.outs[0];
    m.args.lse = &m.lses[0];
    ck_assert_int_eq(attn_merge(context, &m.args), ATTN_OK);
    merge_open(&m);
    m.out.size[2] = m.lse.size[2] = 0;
    for (int i = 0; i < PARTS; i++) m.outs[i].size[2] = m.lses[i].size[2] = 0;
    m.outs[1].data = NULL;
    ck_assert_int_eq(attn_merge(context, &m.args), ATTN_OK);
    ck_assert(untouched(&m));
    ck_assert_int_eq(attn_merge(NULL, &m.args), ATTN_ERROR_ARGUMENT);
    attn_context_destroy(context);
}
END_TEST

void add_merge_tests(Suite *suite) {
    TCase *t = tcase_create("merge");
    tcase_add_loop_test(t, refused, 0, (int)(sizeof mistakes / sizeof *mistakes));
    tcase_add_test(t, allowed);
    suite_add_tcase(suite, t);
}
