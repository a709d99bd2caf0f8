/*
 * Rows appended to caches of every pair of types, as every type that appending takes: the bytes of attn_rope_apply() and
 * attn_convert(), in rows and panels, from ragged batches, beside bytes that stay what they were; the copy of a shared
 * block, byte for byte; no dequantised copy in scratch.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kv/model.h"
#include "support/grid.h"
#include "support/guard.h"
#include "support/harness.h"

enum {
    N_TYPES = 5,
    N_INPUTS = 3,
    HEADS = 3,
    SEQUENCES = 3,
    BLOCK_ROWS = 32,
    SLOTS = 5,
    BLOCKS = SEQUENCES * SLOTS
};

static const attn_dtype types[N_TYPES] = {ATTN_F32, ATTN_F16, ATTN_BF16, ATTN_Q8_0, ATTN_Q4_0};
static const attn_dtype inputs[N_INPUTS] = {ATTN_F32, ATTN_F16, ATTN_BF16};
static const size_t starts[SEQUENCES + 1] = {2, 2 + 37, 2 + 37, 2 + 37 + 50};
enum { ROWS = 2 + 37 + 50 + 1 };

static const struct attn_backend *backends[4];

struct types_case {
    attn_kv_layout layout;
    attn_dtype k, v, input_k, input_v;
    int rotated;
    attn_rope rope;
    size_t p_k, p_v;
    uint64_t stream;
};

struct cache {
    struct guard memory;
    attn_kv kv;
    size_t bytes;
};

static void cache_make(const struct types_case *c, attn_context *context, struct cache *to) {
    const attn_kv_shape shape = {.size = sizeof shape,
                                 .layout = c->layout,
                                 .n_sequences = SEQUENCES,
                                 .blocks_per_sequence = SLOTS,
                                 .block_rows = BLOCK_ROWS,
                                 .n_head_kv = HEADS,
                                 .p_k = c->p_k,
                                 .p_v = c->p_v,
                                 .k_dtype = c->k,
                                 .v_dtype = c->v};
    ck_assert_msg(attn_kv_bytes(context, &shape, &to->bytes) == ATTN_OK, "%s", attn_context_error(context));
    to->memory = guard_alloc(to->bytes, 0);
    to->kv = (attn_kv){.size = sizeof to->kv};
    ck_assert_msg(attn_kv_create(context, &shape, to->memory.data, to->bytes, &to->kv) == ATTN_OK, "%s",
                  attn_context_error(context));
}

/* ---- What is appended ---------------------------------------------------------------------------------- */

/* Values that rounding and blocks treat in a way of their own. NaNs have no payload: what a conversion from f16 keeps of one
 * is its own. */
static float special(struct rng *r, int finite) {
    static const float values[] = {0,         -0.0f,     65504.0f,   65519.99f, 65520.0f,  0x1p-24f,
                                   0x1p-25f,  0x3p-26f,  0x1p-14f,   -1e-30f,   1e-38f,    1e30f,
                                   0x1.01p0f, 0x1.03p0f, 0x1.002p0f, INFINITY,  -INFINITY, NAN};
    return values[rng_below(r, sizeof values / sizeof *values - (finite ? 3 : 0))];
}

/* Rows of which some are special: [1, head, row, column] in memory of any layout. */
static struct grid draw(const struct types_case *c, struct rng *r, attn_dtype type, size_t columns,
                        attn_tensor *t) {
    const struct grid g = grid_make(r, attn_dtype_size(type, NULL), (size_t[]){1, HEADS, ROWS, columns},
                                    (unsigned)rng_below(r, LAYOUT_FAR));
    float x[512];
    for (size_t h = 0; h < HEADS; h++)
        for (size_t i = 0; i < ROWS; i++) {
            rng_floats(r, (enum fill)rng_below(r, N_FILLS), x, columns);
            if (rng_chance(r, 20))
                for (size_t n = 1 + rng_below(r, 5); n > 0; n--)
                    x[rng_below(r, columns)] = special(r, c->rotated);
            attn_backend_scalar.from_f32(type, x, columns, grid_u8(&g, 0, h, i));
        }
    *t = grid_tensor(&g);
    t->dtype = type;
    return g;
}

/* ---- What should be stored ----------------------------------------------------------------------------- */

static void convert(attn_context *context, const attn_tensor *from, const attn_tensor *to) {
    ck_assert_msg(attn_convert(context, from, to) == ATTN_OK, "%s", attn_context_error(context));
}

/* The rows as the public functions have them, [head][row] contiguous: f32, turned, of the cache's type. */
static unsigned char *expected(const struct types_case *c, attn_context *context, const attn_tensor *rows,
                               attn_dtype type, int rotated, const int64_t *positions) {
    const size_t columns = rows->size[3], n = HEADS * ROWS;
    float *x = malloc(n * columns * sizeof *x);
    unsigned char *to = malloc(n * model_row(type, columns));
    ck_assert(x && to);
    const attn_tensor floats = attn_tensor_contiguous(x, ATTN_F32, 1, HEADS, ROWS, columns),
                      stored = attn_tensor_contiguous(to, type, 1, HEADS, ROWS, columns);
    const attn_rope_args args = {
        .size = sizeof args, .rope = &c->rope, .x = &floats, .y = &floats, .positions = positions};
    convert(context, rows, &floats);
    if (rotated) ck_assert_msg(attn_rope_apply(context, &args) == ATTN_OK, "%s", attn_context_error(context));
    convert(context, &floats, &stored);
    free(x);
    return to;
}

/* ---- What is there ------------------------------------------------------------------------------------- */

static unsigned char *place(const attn_tensor *t, size_t block, size_t head, size_t row) {
    return (unsigned char *)t->data + (ptrdiff_t)block * t->stride[0] + (ptrdiff_t)head * t->stride[1] +
           (ptrdiff_t)row * t->stride[2];
}

/* Compares a stored row with the expected one, or, without one, expects canary. */
static int check_row(const struct types_case *c, const attn_kv *kv, int values, size_t block, size_t head,
                     size_t row, const unsigned char *want) {
    const attn_tensor *t = values ? &kv->v : &kv->k;
    const size_t e = attn_dtype_size(t->dtype, NULL), columns = values ? c->p_v : c->p_k;
    const size_t bytes = model_row(t->dtype, columns);
    if (values || c->layout == ATTN_KV_ROWS) {
        const unsigned char *at = place(t, block, head, row);
        return want ? memcmp(at, want, bytes) == 0 : guard_is_canary(at, bytes);
    }
    for (size_t i = 0; i < columns; i++) {
        const unsigned char *at = place(t, block, head, row / 16) + (i * 16 + row % 16) * e;
        if (want ? memcmp(at, want + i * e, e) != 0 : !guard_is_canary(at, e)) return 0;
    }
    return 1;
}

/* Every row of every block: those of the table as expected, the others untouched. */
static void check_cache(const struct types_case *c, const struct cache *x, const unsigned char *k,
                        const unsigned char *v) {
    const unsigned char *want[2] = {k, v};
    size_t row_of[BLOCKS][BLOCK_ROWS] = {{0}}; /* 1 + the row of k and v that lies there */
    for (size_t s = 0; s < SEQUENCES; s++) {
        ck_assert_uint_eq(x->kv.lengths[s], starts[s + 1] - starts[s]);
        for (size_t j = 0; j < x->kv.lengths[s]; j++)
            row_of[x->kv.blocks[s * SLOTS + j / BLOCK_ROWS]][j % BLOCK_ROWS] = 1 + starts[s] + j;
    }
    for (int i = 0; i < 2; i++) {
        const size_t bytes = i ? model_row(c->v, c->p_v) : model_row(c->k, c->p_k);
        for (size_t block = 0; block < BLOCKS; block++)
            for (size_t h = 0; h < HEADS; h++)
                for (size_t row = 0; row < BLOCK_ROWS; row++) {
                    const size_t at = row_of[block][row];
                    ck_assert_msg(check_row(c, &x->kv, i, block, h, row,
                                            at ? want[i] + (h * ROWS + at - 1) * bytes : NULL),
                                  "%s: %s row %zu of block %zu, head %zu: %s", harness_case_text(),
                                  i ? "value" : "key", row, block, h, at ? "other bytes" : "was written");
                }
    }
    ck_assert_msg(guard_intact(&x->memory), "%s: memory beside the cache", harness_case_text());
}

/* ---- Cases --------------------------------------------------------------------------------------------- */

static struct types_case draw_case(size_t i) {
    struct rng r = rng_make(test_seed(), 9100 + i);
    struct types_case c = {.k = types[i % N_TYPES],
                           .v = types[i / N_TYPES % N_TYPES],
                           .input_k = inputs[i / 2 % N_INPUTS],
                           .input_v = inputs[i / 6 % N_INPUTS],
                           .layout = (attn_kv_layout)(i / (N_TYPES * N_TYPES) % 2),
                           .rotated = (int)(i / (2 * N_TYPES * N_TYPES) % 2),
                           .stream = i};
    const size_t odd = rng_below(&r, 2) ? 40 : 47;
    if (c.layout == ATTN_KV_PANELS && attn_dtype_size(c.k, NULL) > 4) c.k = types[i % 3];
    c.p_k = c.k == ATTN_Q8_0 || c.k == ATTN_Q4_0 ? 32 * (1 + rng_below(&r, 5)) : odd + rng_below(&r, 60);
    c.p_v = c.v == ATTN_Q8_0 || c.v == ATTN_Q4_0 ? 32 * (1 + rng_below(&r, 5)) : 1 + rng_below(&r, 99);
    c.rope = (attn_rope){.size = sizeof c.rope,
                         .style = (attn_rope_style)(i % 2),
                         .dims = rng_chance(&r, 50) || c.p_k % 2 ? 2 * (1 + rng_below(&r, c.p_k / 2)) : 0};
    return c;
}

static void check_appended(attn_context *context, const struct types_case *c) {
    struct rng r = rng_make(test_seed(), 9500 + c->stream);
    struct cache x;
    attn_tensor k, v;
    int64_t positions[ROWS], *given = rng_chance(&r, 50) ? positions : NULL;
    harness_case("%s types %llu: %s%s, %s and %s into %s and %s, %zu and %zu columns",
                 attn_context_backend(context), (unsigned long long)c->stream,
                 c->layout == ATTN_KV_PANELS ? "panels" : "rows", c->rotated ? ", rope" : "",
                 attn_dtype_name(c->input_k), attn_dtype_name(c->input_v), attn_dtype_name(c->k),
                 attn_dtype_name(c->v), c->p_k, c->p_v);
    for (size_t i = 0; i < ROWS; i++) positions[i] = (int64_t)rng_below(&r, 100000) - 50000;
    for (size_t s = 0; s < SEQUENCES && !given; s++)
        for (size_t i = starts[s]; i < starts[s + 1]; i++) positions[i] = (int64_t)(i - starts[s]);
    cache_make(c, context, &x);
    struct grid k_grid = draw(c, &r, c->input_k, c->p_k, &k), v_grid = draw(c, &r, c->input_v, c->p_v, &v);
    guard_seal(&k_grid.guard);
    guard_seal(&v_grid.guard);
    const attn_kv_append_args args = {.size = sizeof args,
                                      .kv = &x.kv,
                                      .k = &k,
                                      .v = &v,
                                      .starts = starts,
                                      .n_starts = SEQUENCES,
                                      .rope = c->rotated ? &c->rope : NULL,
                                      .positions = given};
    ck_assert_msg(attn_kv_append(context, &args) == ATTN_OK, "%s: %s", harness_case_text(),
                  attn_context_error(context));
    unsigned char *want_k = expected(c, context, &k, c->k, c->rotated, positions),
                  *want_v = expected(c, context, &v, c->v, 0, NULL);
    check_cache(c, &x, want_k, want_v);
    free(want_k);
    free(want_v);
    guard_unseal(&k_grid.guard);
    guard_unseal(&v_grid.guard);
    grid_free(&k_grid);
    grid_free(&v_grid);
    guard_free(&x.memory);
}

START_TEST(appended) {
    attn_context *context[] = {harness_context(backends[_i]->name, 1),
                               harness_context(backends[_i]->name, 3)};
    for (size_t i = 0; i < 4 * N_TYPES * N_TYPES; i++) {
        const struct types_case c = draw_case(i);
        if (harness_takes(i, 7)) check_appended(context[i % 4 == 3], &c);
    }
    attn_context_destroy(context[0]);
    attn_context_destroy(context[1]);
}
END_TEST

/* A sequence with 53 keys is forked; the one that goes on gets a copy of the 21 in the shared block, whatever their bytes are:
 * no block is converted again. */
START_TEST(copied) {
    attn_context *context = harness_context(backends[_i]->name, 1);
    for (size_t i = 0; i < 2 * N_TYPES * N_TYPES; i++) {
        struct types_case c = draw_case(i);
        struct cache x;
        struct rng r = rng_make(test_seed(), 9900 + i);
        attn_tensor k, v;
        harness_case("%s copy %zu: %s and %s", attn_context_backend(context), i, attn_dtype_name(c.k),
                     attn_dtype_name(c.v));
        if (!harness_takes(i, 7)) continue;
        cache_make(&c, context, &x);
        struct grid k_grid = draw(&c, &r, c.input_k, c.p_k, &k), v_grid = draw(&c, &r, c.input_v, c.p_v, &v);
        const size_t starts_of_one[] = {0, 53}, zero = 0, two = 2;
        attn_kv_append_args args = {.size = sizeof args,
                                    .kv = &x.kv,
                                    .k = &k,
                                    .v = &v,
                                    .sequences = &zero,
                                    .starts = starts_of_one,
                                    .n_starts = 1};
        ck_assert_int_eq(attn_kv_append(context, &args), ATTN_OK);
        unsigned char *keys = x.kv.k.data; /* random bytes, as nothing that was converted has them */
        for (unsigned char *at = keys; at < x.memory.data + x.bytes; at++) *at = (unsigned char)rng_next(&r);
        unsigned char *before = malloc(x.bytes);
        ck_assert_ptr_nonnull(before);
        memcpy(before, x.memory.data, x.bytes);
        ck_assert_int_eq(attn_kv_fork(context, &x.kv, 0, 2), ATTN_OK);
        args.sequences = &two;
        args.starts = (const size_t[]){0, 1};
        ck_assert_int_eq(attn_kv_append(context, &args), ATTN_OK);
        const size_t from = (size_t)x.kv.blocks[1], to = (size_t)x.kv.blocks[2 * SLOTS + 1];
        ck_assert_uint_ne(from, to);
        /* What was is where it was, the copy beside it; the new row aside nothing else was written. */
        for (size_t h = 0; h < HEADS; h++)
            for (size_t row = 0; row < BLOCK_ROWS; row++)
                for (int values = 0; values < 2; values++) {
                    const attn_tensor *t = values ? &x.kv.v : &x.kv.k;
                    const int panels = !values && c.layout == ATTN_KV_PANELS;
                    const size_t e = attn_dtype_size(t->dtype, NULL), n = panels ? c.p_k : 1;
                    const size_t bytes = panels ? e : model_row(t->dtype, values ? c.p_v : c.p_k);
                    for (size_t j = 0; j < n; j++) {
                        const size_t in = panels ? (j * 16 + row % 16) * e : 0,
                                     line = panels ? row / 16 : row;
                        const unsigned char *a = place(t, from, h, line) + in,
                                            *b = place(t, to, h, line) + in;
                        const unsigned char *old = before + (a - x.memory.data),
                                            *was = before + (b - x.memory.data);
                        ck_assert_msg(memcmp(a, old, bytes) == 0, "%s: the shared block",
                                      harness_case_text());
                        if (row != 21)
                            ck_assert_msg(memcmp(b, row < 21 ? old : was, bytes) == 0, "%s: row %zu",
                                          harness_case_text(), row);
                    }
                }
        ck_assert(guard_intact(&x.memory));
        free(before);
        grid_free(&k_grid);
        grid_free(&v_grid);
        guard_free(&x.memory);
    }
    attn_context_destroy(context);
}
END_TEST

/* However many rows: at most 17 of one head a worker more than f32 needs. */
START_TEST(scratch) {
    attn_context *context = harness_context(backends[_i]->name, 3);
    for (size_t i = 0; i < N_TYPES * N_INPUTS * 4; i++) {
        const size_t rows[] = {1, 700, 100000};
        struct types_case c = {.k = types[i % N_TYPES],
                               .v = types[(i + 1) % N_TYPES],
                               .layout = (attn_kv_layout)(i / 30),
                               .p_k = 128,
                               .p_v = 128};
        const attn_rope rope = {.size = sizeof rope};
        struct cache x, floats;
        if (c.layout == ATTN_KV_PANELS && attn_dtype_size(c.k, NULL) > 4) continue;
        cache_make(&c, context, &x);
        c.k = c.v = ATTN_F32;
        cache_make(&c, context, &floats);
        for (size_t j = 0; j < 3; j++) {
            size_t bytes = 0, of_floats = 0;
            attn_tensor t =
                attn_tensor_contiguous(NULL, inputs[i / N_TYPES % N_INPUTS], 1, HEADS, rows[j], 128);
            attn_kv_append_args args = {
                .size = sizeof args, .kv = &x.kv, .k = &t, .v = &t, .rope = i / 15 % 2 ? &rope : NULL};
            ck_assert_msg(attn_kv_append_scratch(context, &args, &bytes) == ATTN_OK, "%s",
                          attn_context_error(context));
            t.dtype = ATTN_F32;
            t = attn_tensor_contiguous(NULL, ATTN_F32, 1, HEADS, rows[j], 128);
            args.kv = &floats.kv;
            ck_assert_int_eq(attn_kv_append_scratch(context, &args, &of_floats), ATTN_OK);
            ck_assert_msg(bytes <= of_floats + 3 * 17 * 128 * sizeof(float),
                          "case %zu, %zu rows: %zu bytes of scratch, %zu for f32", i, rows[j], bytes,
                          of_floats);
        }
        guard_free(&x.memory);
        guard_free(&floats.memory);
    }
    attn_context_destroy(context);
}
END_TEST

/* The table of attn.h. */
START_TEST(sizes) {
    attn_context *context = harness_context(NULL, 1);
    static const size_t bytes[N_TYPES][2] = {{256, 512}, {128, 256}, {128, 256}, {68, 136}, {36, 72}};
    for (size_t i = 0; i < N_TYPES; i++)
        for (size_t j = 0; j < 2; j++) {
            const struct types_case c = {.k = types[i], .v = ATTN_F32, .p_k = 64 << j, .p_v = 64};
            struct cache x;
            cache_make(&c, context, &x);
            ck_assert_int_eq(x.kv.k.stride[2], (ptrdiff_t)bytes[i][j]);
            const ptrdiff_t gap = (unsigned char *)x.kv.v.data - (unsigned char *)x.kv.k.data;
            ck_assert_uint_eq((size_t)gap, (BLOCKS * BLOCK_ROWS * HEADS * bytes[i][j] + 63) / 64 * 64);
            guard_free(&x.memory);
        }
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("kv: types");
    TCase *cases = tcase_create("types");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, appended, 0, n);
    tcase_add_loop_test(cases, copied, 0, n);
    tcase_add_loop_test(cases, scratch, 0, n);
    tcase_add_test(cases, sizes);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
