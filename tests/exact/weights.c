/*
 * Weights of every type: a projection has the bits that it has with the same weights as floats (attn_convert), for any shape,
 * stride and number of threads; packed weights unpack to the same bytes. On every backend, scalar too.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dtype.h"
#include "exact/exact.h"
#include "support/guard.h"

static const struct attn_backend *backends[4];

static const attn_dtype types[] = {ATTN_F16,  ATTN_BF16, ATTN_Q8_0, ATTN_Q4_0,
                                   ATTN_Q4_1, ATTN_Q4_K, ATTN_Q6_K, ATTN_F32};
enum { N_TYPES = sizeof types / sizeof *types };

/* ---- Weights --------------------------------------------------------------------------------------------- */

/* A binary16 or the upper half of a float: any bits, or a normal number within 2^-10 to 2^4. */
static uint16_t half(struct rng *r, attn_dtype type, int special) {
    const uint16_t any = (uint16_t)rng_next(r);
    if (special && rng_chance(r, 50)) return any;
    const unsigned fraction = type == ATTN_BF16 ? 7 : 10, bias = type == ATTN_BF16 ? 127 : 15;
    return (uint16_t)((any & (0x8000u | ((1u << fraction) - 1))) | (bias - 10 + any % 15) << fraction);
}

/* Blocks are any bytes, but for their scales. */
static void draw_row(struct rng *r, attn_dtype type, size_t k, int special, unsigned char *row) {
    static const struct {
        size_t first, n;
    } scales[ATTN_DTYPES] = {
        [ATTN_Q8_0] = {0, 1},   [ATTN_Q4_0] = {0, 1}, [ATTN_Q4_1] = {0, 2}, [ATTN_Q4_K] = {0, 2},
        [ATTN_Q6_K] = {208, 1}, [ATTN_F16] = {0, 1},  [ATTN_BF16] = {0, 1}};
    const size_t bytes = attn_dtype_bytes(type);
    if (type == ATTN_F32) rng_floats(r, FILL_WIDE, (float *)(void *)row, k);
    for (size_t i = 0; i < k / attn_dtype_block(type) && type != ATTN_F32; i++) {
        unsigned char *block = row + i * bytes;
        for (size_t b = 0; b < bytes; b++) block[b] = (unsigned char)rng_next(r);
        for (size_t s = 0; s < scales[type].n; s++) {
            const uint16_t x = half(r, type, special);
            memcpy(block + scales[type].first + 2 * s, &x, sizeof x);
        }
    }
}

/* A matrix of one type, and the same as floats; both packed, in sealed guards of just their size. */
struct matrix {
    attn_tensor typed, floats;
    unsigned char *data;
    struct guard packed[2];
    const attn_packed *w[2];
};

static const attn_packed *pack(attn_context *context, const attn_tensor *w, const float *bias,
                               struct guard *g) {
    const attn_packed *packed;
    size_t bytes, need = attn_dtype_row(w->dtype, w->size[3] + w->size[3] % (w->dtype == ATTN_BF16 ? 2 : 1));
    ck_assert_int_eq(attn_pack_linear_bytes(context, w, &bytes), ATTN_OK);
    ck_assert_uint_le(bytes, 64 + (w->size[2] + 15) / 16 * 16 * (need + 4) + 2 * 63);
    void *memory = aligned_alloc(64, bytes);
    ck_assert_ptr_nonnull(memory);
    memset(memory, 0xa5, bytes);
    ck_assert_int_eq(attn_pack_linear(context, w, bias, memory, bytes, &packed), ATTN_OK);
    *g = guard_alloc(bytes - (bias ? 0 : (w->size[2] + 15) / 16 * 64), 0);
    memcpy(g->data, memory, g->bytes);
    free(memory);
    guard_seal(g);
    ck_assert_msg(attn_packed_open(context, g->data, g->bytes, &packed) == ATTN_OK, "%s",
                  attn_context_error(context));
    ck_assert_int_eq(attn_packed_dtype(packed), w->dtype);
    return packed;
}

static void check_unpacked(attn_context *context, const struct matrix *m, const float *bias) {
    const size_t n = m->typed.size[2], row = attn_dtype_row(m->typed.dtype, m->typed.size[3]);
    struct guard g = guard_alloc(n * row, 0), b = guard_alloc(n * sizeof(float), 0);
    const attn_tensor to = attn_tensor_contiguous(g.data, m->typed.dtype, 1, 1, n, m->typed.size[3]);
    float *floats = (float *)(void *)b.data;
    ck_assert_msg(attn_unpack_linear(context, m->w[0], &to, floats) == ATTN_OK, "%s",
                  attn_context_error(context));
    for (size_t o = 0; o < n; o++) {
        ck_assert_msg(
            !memcmp(g.data + o * row, (char *)m->typed.data + (ptrdiff_t)o * m->typed.stride[2], row),
            "%s: row %zu unpacks to other bytes", harness_case_text(), o);
        ck_assert(bias ? !memcmp(&floats[o], &bias[o], sizeof *bias) : floats[o] == 0.0f);
    }
    ck_assert(guard_intact(&g) && guard_intact(&b));
    guard_free(&g);
    guard_free(&b);
}

static struct matrix matrix_make(attn_context *context, struct rng *r, attn_dtype type, size_t n, size_t k,
                                 int special, const float *bias) {
    const size_t row = attn_dtype_row(type, k), gap = 4 * rng_below(r, 3), stride = row + gap;
    struct matrix m = {.data = malloc(n * stride + n * k * sizeof(float) + 4)};
    ck_assert_ptr_nonnull(m.data);
    for (size_t o = 0; o < n; o++) draw_row(r, type, k, special, m.data + o * stride);
    m.typed = attn_tensor_contiguous(m.data, type, 1, 1, n, k);
    m.typed.stride[2] = (ptrdiff_t)stride;
    m.floats = attn_tensor_contiguous(m.data + (n * stride + 3) / 4 * 4, ATTN_F32, 1, 1, n, k);
    ck_assert_int_eq(attn_convert(context, &m.typed, &m.floats), ATTN_OK);
    m.w[0] = pack(context, &m.typed, bias, &m.packed[0]);
    m.w[1] = pack(context, &m.floats, bias, &m.packed[1]);
    return m;
}

static void matrix_free(struct matrix *m) {
    for (int i = 0; i < 2; i++) {
        guard_unseal(&m->packed[i]);
        guard_free(&m->packed[i]);
    }
    free(m->data);
}

/* ---- Projections ----------------------------------------------------------------------------------------- */

/* The same bits; any NaN is as good as another. */
static void same(const float *got, const float *want, size_t n, const char *what, size_t row) {
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(!memcmp(got + i, want + i, sizeof *got) || (isnan(got[i]) && isnan(want[i])),
                      "%s: %s, row %zu column %zu: %a, as floats %a", harness_case_text(), what, row, i,
                      (double)got[i], (double)want[i]);
}

struct shape {
    size_t m, n, k;
    int special;
};

/* y of m rows, each `gap` floats apart, in a guard. */
static struct guard project(attn_context *context, const struct shape *s, const struct guard *x, size_t x_gap,
                            const attn_packed *w, size_t y_gap) {
    struct guard y = guard_alloc(((s->m - 1) * (s->n + y_gap) + s->n) * sizeof(float), 0);
    attn_tensor from = attn_tensor_contiguous(x->data, ATTN_F32, 1, 1, s->m, s->k),
                to = attn_tensor_contiguous(y.data, ATTN_F32, 1, 1, s->m, s->n);
    from.stride[2] += (ptrdiff_t)(x_gap * sizeof(float));
    to.stride[2] += (ptrdiff_t)(y_gap * sizeof(float));
    ck_assert_msg(attn_linear(context, &from, w, &to) == ATTN_OK, "%s", attn_context_error(context));
    ck_assert_msg(guard_intact(&y), "%s: wrote outside y", harness_case_text());
    for (size_t i = 0; i + 1 < s->m; i++)
        ck_assert_msg(
            guard_is_canary(y.data + (i * (s->n + y_gap) + s->n) * sizeof(float), y_gap * sizeof(float)),
            "%s: wrote between the rows of y", harness_case_text());
    return y;
}

/* The weights as they are on `threaded`, as floats on `context`. */
static void check(attn_context *context, attn_context *threaded, attn_dtype type, const struct shape *s,
                  uint64_t stream) {
    struct rng r = rng_make(test_seed(), stream);
    const size_t x_gap = rng_below(&r, 3), gaps[2] = {rng_below(&r, 3), rng_below(&r, 3)};
    float *bias = malloc(s->n * sizeof *bias);
    struct guard x = guard_alloc(((s->m - 1) * (s->k + x_gap) + s->k) * sizeof(float), 0);
    ck_assert_ptr_nonnull(bias);
    harness_case("%s %s, m %zu n %zu k %zu%s, stream %llu", attn_context_backend(context),
                 attn_dtype_name(type), s->m, s->n, s->k, s->special ? " special" : "",
                 (unsigned long long)stream);
    rng_floats(&r, FILL_NORMAL, bias, s->n);
    for (size_t i = 0; i < s->m; i++)
        rng_floats(&r, FILL_WIDE, (float *)(void *)x.data + i * (s->k + x_gap), s->k);
    const float *given = rng_chance(&r, 50) ? bias : NULL;
    struct matrix w = matrix_make(context, &r, type, s->n, s->k, s->special, given);
    check_unpacked(context, &w, given);
    guard_seal(&x);
    struct guard typed = project(threaded, s, &x, x_gap, w.w[0], gaps[0]),
                 floats = project(context, s, &x, x_gap, w.w[1], gaps[1]);
    for (size_t i = 0; i < s->m; i++)
        same((float *)(void *)typed.data + i * (s->n + gaps[0]),
             (float *)(void *)floats.data + i * (s->n + gaps[1]), s->n, "attn_linear", i);
    guard_unseal(&x);
    guard_free(&x);
    guard_free(&typed);
    guard_free(&floats);
    matrix_free(&w);
    free(bias);
}

/* Sizes of k: round blocks, and round ATTN_K_BLOCK; mostly small ones. */
static size_t some_k(attn_dtype type, size_t i) {
    static const size_t values[] = {1, 2, 3, 33, 64, 7, 1023, 16, 1024, 5, 1025, 31, 100, 4, 2049, 15},
                        blocks[] = {32, 64, 96, 32, 992, 128, 64, 1024, 32, 1056, 96, 2080};
    if (attn_dtype_block(type) == 32) return blocks[i % 12];
    return attn_dtype_block(type) == 1 ? values[i % 16]
                                       : (size_t[]){256, 512, 256, 1024, 256, 1280, 2304, 256}[i % 8];
}

START_TEST(shapes) {
    const struct attn_backend *b = backends[_i / N_TYPES];
    const attn_dtype type = types[_i % N_TYPES];
    const size_t rows = 2 * b->linear_rows + 1, columns = 2 * b->layout + 1;
    attn_context *context = harness_context(b->name, 1);
    for (size_t n = 1; n <= columns; n++) { /* every n, and every m with narrow and whole panels */
        if (!harness_takes(n, 26)) continue;
        const struct shape s = {1 + n * 5 % rows, n, some_k(type, n), n % 3 == 0};
        check(context, context, type, &s, n);
    }
    for (size_t m = 1; m <= rows; m++)
        for (size_t i = 0; i < 6; i++) {
            const size_t wide[] = {b->layout, b->layout - 7, b->layout + 16, 2 * b->layout,
                                   16,        b->layout - 1};
            const struct shape s = {m, wide[i], some_k(type, 5 * m + i), i == 5};
            if (harness_takes(m * 6 + i, 26)) check(context, context, type, &s, 1000 + m * 6 + i);
        }
    attn_context_destroy(context);
}
END_TEST

START_TEST(many_rows) {
    const struct attn_backend *b = backends[_i / N_TYPES];
    const attn_dtype type = types[_i % N_TYPES];
    const struct shape large[] = {{200, 2 * b->layout + 5, attn_dtype_block(type) == 1 ? 1100 : 1280, 0},
                                  {67, 5 * b->layout, 256, 1},
                                  {4, 9 * b->layout + 20, 2304, 0},
                                  {1, 20 * b->layout, 512, 0},
                                  {16, 3 * b->layout, 1024, 1}};
    attn_context *context = harness_context(b->name, 1);
    for (size_t i = 0; i < 5; i++)
        for (size_t threads = 2; threads <= 5; threads += 3) {
            if (!harness_takes(i + threads + (size_t)_i, 13)) continue;
            attn_context *threaded = harness_context(b->name, harness_full() ? threads : 1); /* they spin */
            check(context, threaded, type, &large[i], 5000 + i);
            attn_context_destroy(threaded);
        }
    attn_context_destroy(context);
}
END_TEST

/* ---- Layers ------------------------------------------------------------------------------------------------ */

enum { HEADS = 4, HEADS_KV = 2, P = 64, D = 256, ROWS = 9, C = 40, OUT = 48 };

/* Weights of a layer as they are ([0]) and as floats ([1]). */
struct layer {
    struct matrix q, k, v, o, a[HEADS + HEADS_KV];
    attn_weights w[2];
};

static void layer_make(attn_context *context, struct rng *r, attn_dtype type, struct layer *l) {
    l->q = matrix_make(context, r, type, HEADS * P, D, 0, NULL);
    l->k = matrix_make(context, r, type, HEADS_KV * P, D, 0, NULL);
    l->v = matrix_make(context, r, type, HEADS_KV * P, D, 0, NULL);
    l->o = matrix_make(context, r, type, OUT, HEADS * P, 0, NULL);
    for (int h = 0; h < HEADS + HEADS_KV; h++) l->a[h] = matrix_make(context, r, type, C, D, 0, NULL);
    for (int i = 0; i < 2; i++)
        l->w[i] = (attn_weights){.size = sizeof(attn_weights),
                                 .n_head = HEADS,
                                 .n_head_kv = HEADS_KV,
                                 .w_q = l->q.w[i],
                                 .w_k = l->k.w[i],
                                 .w_v = l->v.w[i],
                                 .w_o = l->o.w[i]};
}

static void layer_free(struct layer *l) {
    struct matrix *const all[] = {&l->q, &l->k, &l->v, &l->o};
    for (int i = 0; i < 4; i++) matrix_free(all[i]);
    for (int h = 0; h < HEADS + HEADS_KV; h++) matrix_free(&l->a[h]);
}

static void heads(attn_context *context, const struct layer *l, int i, attn_tensor *x, float *y) {
    attn_tensor out = attn_tensor_contiguous(y, ATTN_F32, 1, 1, ROWS, OUT),
                one = attn_tensor_contiguous(y + ROWS * OUT, ATTN_F32, 1, 1, ROWS, P);
    attn_head_args args = {
        .size = sizeof args, .weights = &l->w[i], .head = 3, .q = x, .k = x, .v = x, .out = &out};
    ck_assert_msg(attn_multihead(context, &args) == ATTN_OK, "%s", attn_context_error(context));
    args.out = &one;
    ck_assert_msg(attn_head(context, &args) == ATTN_OK, "%s", attn_context_error(context));
}

static void step(attn_context *context, const struct layer *l, int i, attn_tensor *x, float *y) {
    const attn_kv_shape shape = {.size = sizeof shape,
                                 .n_sequences = 1,
                                 .n_head_kv = HEADS_KV,
                                 .block_rows = 32,
                                 .blocks_per_sequence = 1,
                                 .p_k = P,
                                 .p_v = P};
    attn_kv kv = {.size = sizeof kv};
    size_t bytes;
    ck_assert_msg(attn_kv_bytes(context, &shape, &bytes) == ATTN_OK, "%s", attn_context_error(context));
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    ck_assert_msg(attn_kv_create(context, &shape, memory, bytes, &kv) == ATTN_OK, "%s",
                  attn_context_error(context));
    attn_tensor out = attn_tensor_contiguous(y, ATTN_F32, 1, 1, ROWS, OUT);
    const attn_step_args args = {.size = sizeof args, .weights = &l->w[i], .x = x, .out = &out, .kv = &kv};
    ck_assert_msg(attn_multihead_step(context, &args) == ATTN_OK, "%s", attn_context_error(context));
    free(memory);
}

static void additive(attn_context *context, const struct layer *l, int i, attn_tensor *x, float *y) {
    const attn_packed *a[HEADS + HEADS_KV];
    attn_tensor q = attn_tensor_contiguous(x->data, ATTN_F32, 1, HEADS, 2, D),
                k = attn_tensor_contiguous(x->data, ATTN_F32, 1, HEADS_KV, 4, D),
                w = attn_tensor_contiguous(x->data, ATTN_F32, 1, 1, 1, C),
                out = attn_tensor_contiguous(y, ATTN_F32, 1, HEADS, 2, D);
    for (int h = 0; h < HEADS + HEADS_KV; h++) a[h] = l->a[h].w[i];
    const attn_additive_args args = {
        .size = sizeof args, .q = &q, .k = &k, .v = &k, .a_q = a, .a_k = a + HEADS, .w = &w, .out = &out};
    ck_assert_msg(attn_additive(context, &args) == ATTN_OK, "%s", attn_context_error(context));
}

START_TEST(layers) {
    const attn_dtype type = types[_i % N_TYPES];
    if (!harness_takes((size_t)_i, 3)) return;
    attn_context *context = harness_context(backends[_i / N_TYPES]->name, 1);
    void (*const calls[])(attn_context *, const struct layer *, int, attn_tensor *, float *) = {heads, step,
                                                                                                additive};
    struct rng r = rng_make(test_seed(), 77);
    float x_data[ROWS * D];
    static float y[2][HEADS * 4 * D];
    struct layer l;
    harness_case("%s: layers of %s", attn_context_backend(context), attn_dtype_name(type));
    rng_floats(&r, FILL_NORMAL, x_data, ROWS * D);
    for (int i = 0; i < ROWS * D; i++) x_data[i] *= 0.01f;
    attn_tensor x = attn_tensor_contiguous(x_data, ATTN_F32, 1, 1, ROWS, D);
    layer_make(context, &r, type, &l);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        memset(y, 0, sizeof y);
        for (int form = 0; form < 2; form++) calls[i](context, &l, form, &x, y[form]);
        same(y[0], y[1], sizeof y[0] / sizeof *y[0], "a layer", i);
        ck_assert(y[0][0] - y[0][0] == 0.0f && y[0][0] != 0.0f);
    }
    layer_free(&l);
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends) * N_TYPES;
    Suite *suite = suite_create("exact: weights");
    TCase *cases = tcase_create("weights");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, shapes, 0, n);
    tcase_add_loop_test(cases, many_rows, 0, n);
    tcase_add_loop_test(cases, layers, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
