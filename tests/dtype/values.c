/* Conversions value by value against the formats' definitions, with what ggml leaves undefined; lengths, guard pages, and
 * attn_convert() with its errors. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "dtype/suite.h"
#include "support/guard.h"
#include "support/half.h"
#include "support/harness.h"

static const attn_dtype all_types[] = {ATTN_F32,  ATTN_F16,  ATTN_BF16, ATTN_Q8_0,
                                       ATTN_Q4_0, ATTN_Q4_1, ATTN_Q4_K, ATTN_Q6_K};
enum { TYPES = sizeof all_types / sizeof *all_types, STORED = 5 };

static uint32_t bits_of(float x) {
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    return b;
}

static float float_of(uint32_t b) {
    float x;
    memcpy(&x, &b, sizeof x);
    return x;
}

/* ---- Halves ------------------------------------------------------------------------------------------- */

START_TEST(halves_to_f32) {
    const struct attn_backend *backends[4];
    const size_t n = harness_backends(backends);
    for (size_t i = 0; i < n; i++) {
        for (unsigned h = 0; h < 65536; h++) {
            const uint16_t x = (uint16_t)h;
            float f16, bf16;
            backends[i]->to_f32(ATTN_F16, &x, 1, &f16);
            backends[i]->to_f32(ATTN_BF16, &x, 1, &bf16);
            const float half = half_value(x);
            /* a NaN keeps what it carries; f16's becomes quiet */
            const uint32_t nan = (h & 0x8000) << 16 | 0x7fc00000 | (h & 1023) << 13;
            ck_assert_msg(bits_of(f16) == (isnan(half) ? nan : bits_of(half)), "%s: f16 %04x",
                          backends[i]->name, h);
            ck_assert_msg(bits_of(bf16) == h << 16, "%s: bf16 %04x", backends[i]->name, h);
        }
    }
}
END_TEST

/* Between each two neighbours: their middle goes to the even one, what is next to it to the nearer one. */
START_TEST(halves_from_f32) {
    const struct attn_backend *backends[4];
    const size_t n = harness_backends(backends);
    for (size_t i = 0; i < n; i++) {
        for (unsigned h = 0; h < 0x7c00; h++) {
            const double lo = half_value((uint16_t)h),
                         hi = h < 0x7bff ? half_value((uint16_t)(h + 1)) : 65536.0;
            const float middle = (float)((lo + hi) / 2);
            const float x[4] = {middle, nextafterf(middle, 0.0f), nextafterf(middle, INFINITY), -middle};
            const unsigned even = h + (h & 1);
            uint16_t y[4];
            backends[i]->from_f32(ATTN_F16, x, 4, y);
            ck_assert_msg(y[0] == even && y[1] == h && y[2] == h + 1 && y[3] == (even | 0x8000), "%s: %04x",
                          backends[i]->name, h);
        }
        for (unsigned h = 0; h < 0x7f80; h++) {
            const uint32_t at = h << 16, even = h + (h & 1);
            const float x[4] = {float_of(at | 0x8000), float_of(at | 0x7fff), float_of(at | 0x8001),
                                float_of(at)};
            uint16_t y[4];
            backends[i]->from_f32(ATTN_BF16, x, 4, y);
            ck_assert_msg(y[0] == even && y[1] == h && y[2] == h + 1 && y[3] == h, "%s: bf16 %04x",
                          backends[i]->name, h);
        }
    }
}
END_TEST

START_TEST(halves_of_nan) {
    const struct attn_backend *backends[4];
    const size_t n = harness_backends(backends);
    const float x[4] = {float_of(0x7fc00000), float_of(0xffa00001), INFINITY, -INFINITY};
    for (size_t i = 0; i < n; i++) {
        uint16_t y[4];
        backends[i]->from_f32(ATTN_F16, x, 4, y);
        ck_assert(y[0] == 0x7e00 && y[1] == 0xff00 && y[2] == 0x7c00 && y[3] == 0xfc00);
        backends[i]->from_f32(ATTN_BF16, x, 4, y);
        ck_assert(y[0] == 0x7fc0 && y[1] == 0xffe0 && y[2] == 0x7f80 && y[3] == 0xff80);
    }
}
END_TEST

/* ---- Blocks ------------------------------------------------------------------------------------------- */

/* One value that is not finite makes its block NaN, not its neighbours'; too large a scale makes zeros NaN, as in ggml. */
START_TEST(blocks_not_finite) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    const struct attn_backend *backends[4];
    const size_t n = harness_backends(backends);
    for (size_t at = 0; at < 96 * 3; at++) {
        float x[96], y[96];
        uint8_t blocks[3 * 34];
        for (size_t i = 0; i < 96; i++) x[i] = (float)i - 40.0f;
        x[at % 96] = bad[at / 96];
        for (size_t i = 0; i < 2 * n; i++) {
            const attn_dtype type = i % 2 ? ATTN_Q4_0 : ATTN_Q8_0;
            const struct attn_backend *b = backends[i / 2];
            b->from_f32(type, x, 96, blocks);
            b->to_f32(type, blocks, 96, y);
            for (size_t j = 0; j < 96; j++)
                ck_assert_msg(!isnan(y[j]) == (j / 32 != at % 96 / 32), "%s, %s: %zu of %zu", b->name,
                              attn_dtype_name(type), j, at);
        }
    }
}
END_TEST

/* ---- Lengths, places, types ----------------------------------------------------------------------------- */

/* Every length and every type, source and result each against the page behind and the page in front. */
START_TEST(places) {
    const struct attn_backend *backends[4];
    const size_t n = harness_backends(backends);
    struct rng r = rng_make(test_seed(), 7);
    for (size_t at = 0; at < n * TYPES * 40; at++) {
        if (!harness_takes(at, 7)) continue;
        const struct attn_backend *b = backends[at % n];
        const attn_dtype type = all_types[at / n % TYPES];
        const size_t block = attn_dtype_block(type), values = (at / n / TYPES + 1) * (block > 1 ? block : 1);
        const size_t bytes = attn_dtype_row(type, values);
        harness_case("%s, %s, %zu values", b->name, attn_dtype_name(type), values);
        for (unsigned place = 0; place < 2; place++) {
            struct guard packed = guard_alloc(bytes, place), x = guard_alloc(values * sizeof(float), place);
            float *f = (float *)(void *)x.data;
            for (size_t i = 0; i < bytes; i++) packed.data[i] = (unsigned char)rng_next(&r);
            guard_seal(&packed);
            b->to_f32(type, packed.data, values, f);
            guard_unseal(&packed);
            for (size_t i = 0; i < values; i += block) {
                float alone[ATTN_BLOCK_MAX];
                b->to_f32(type, packed.data + attn_dtype_row(type, i), block, alone);
                for (size_t j = 0; j < block; j++)
                    ck_assert_msg(bits_of(alone[j]) == bits_of(f[i + j]), "%s", harness_case_text());
            }
            if (at / n % TYPES < STORED) {
                guard_seal(&x);
                b->from_f32(type, f, values, packed.data);
                guard_unseal(&x);
            }
            ck_assert(guard_intact(&packed) && guard_intact(&x));
            guard_free(&packed);
            guard_free(&x);
        }
    }
}
END_TEST

/* Between any two types: through f32. Strides of rows and heads, several threads. */
START_TEST(tensors) {
    enum { N = 512, ROWS = 3, HEADS = 2, PITCH = N * 4 + 64 };
    static _Alignas(64) uint8_t from[HEADS * ROWS * PITCH], to[HEADS * ROWS * PITCH];
    static float x[N];
    static uint8_t want[N * 4];
    struct rng r = rng_make(test_seed(), 8);
    for (size_t pair = 0; pair < TYPES * STORED; pair++) {
        const attn_dtype a = all_types[pair % TYPES], b = all_types[pair / TYPES];
        const attn_tensor in = {
            from, a, {1, HEADS, ROWS, N}, {0, ROWS * PITCH, PITCH, (ptrdiff_t)attn_dtype_bytes(a)}};
        const attn_tensor out = {
            to, b, {1, HEADS, ROWS, N}, {0, PITCH, HEADS * PITCH, (ptrdiff_t)attn_dtype_bytes(b)}};
        attn_context *c = harness_context(NULL, 1 + pair % 3);
        for (size_t i = 0; i < sizeof from; i++) from[i] = (uint8_t)(rng_next(&r) & 0x3f);
        memset(to, 0xa5, sizeof to);
        ck_assert(attn_convert(c, &in, &out) == ATTN_OK);
        for (size_t row = 0; row < HEADS * ROWS; row++) {
            const uint8_t *got = to + (row / ROWS + row % ROWS * HEADS) * PITCH;
            attn_backend_scalar.to_f32(a, from + row * PITCH, N, x);
            attn_backend_scalar.from_f32(b, x, N, want);
            ck_assert_msg(!memcmp(got, want, attn_dtype_row(b, N)), "%s to %s", attn_dtype_name(a),
                          attn_dtype_name(b));
            for (size_t i = attn_dtype_row(b, N); i < PITCH; i++) ck_assert(got[i] == 0xa5);
        }
        attn_context_destroy(c);
    }
}
END_TEST

/* ---- Errors ------------------------------------------------------------------------------------------- */

static void refuses(attn_context *c, attn_tensor from, attn_tensor to, attn_status status, const char *text) {
    ck_assert_int_eq(attn_convert(c, &from, &to), status);
    ck_assert_msg(strstr(attn_context_error(c), text) != NULL, "\"%s\" lacks \"%s\"", attn_context_error(c),
                  text);
}

START_TEST(errors) {
    _Alignas(64) uint8_t memory[4096] = {0};
    attn_context *c = harness_context(NULL, 1);
    const attn_tensor f32 = attn_tensor_contiguous(memory, ATTN_F32, 1, 1, 2, 64);
    const attn_tensor q8 = attn_tensor_contiguous(memory + 2048, ATTN_Q8_0, 1, 1, 2, 64);
    attn_tensor t = q8;
    ck_assert_int_eq(q8.stride[2], 68);
    ck_assert(attn_convert(c, &f32, &q8) == ATTN_OK);
    ck_assert_int_eq(attn_convert(c, NULL, &q8), ATTN_ERROR_ARGUMENT);
    t.size[3] = 48;
    refuses(c, f32, t, ATTN_ERROR_SHAPE, "to: its column size 48 is no multiple of 32, a block of q8_0");
    t = q8;
    t.stride[3] = 1;
    refuses(c, f32, t, ATTN_ERROR_STRIDE, "to: its column stride");
    t = q8;
    t.stride[2] = 69;
    refuses(c, f32, t, ATTN_ERROR_STRIDE, "to: its row stride");
    t.stride[2] = 66;
    refuses(c, f32, t, ATTN_ERROR_STRIDE, "share memory");
    t = q8;
    t.data = memory + 2049;
    refuses(c, f32, t, ATTN_ERROR_STRIDE, "to: its data is not aligned");
    t = q8;
    t.dtype = ATTN_Q6_K;
    t.size[3] = 256;
    refuses(c, f32, t, ATTN_ERROR_DTYPE, "to: its element type q6_K is not taken here");
    t.dtype = (attn_dtype)99;
    refuses(c, f32, t, ATTN_ERROR_DTYPE, "to: its element type 99 does not exist");
    t = q8;
    t.size[2] = 3;
    refuses(c, f32, t, ATTN_ERROR_SHAPE, "to: its row size is 3, not 2");
    t = q8;
    t.data = memory + 500;
    refuses(c, f32, t, ATTN_ERROR_OVERLAP, "to overlaps from");
    t = attn_tensor_contiguous(memory, ATTN_BOOL, 1, 1, 2, 64);
    refuses(c, t, q8, ATTN_ERROR_DTYPE, "from: its element type bool");
    ck_assert_str_eq(attn_dtype_name((attn_dtype)-1), "unknown");
    size_t block = 7;
    ck_assert(attn_dtype_size(ATTN_Q4_K, &block) == 144 && block == 256);
    ck_assert(attn_dtype_size((attn_dtype)9, &block) == 0 && block == 0);
    attn_context_destroy(c);
}
END_TEST

void add_value_tests(Suite *suite) {
    TCase *tc = tcase_create("values");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, halves_to_f32);
    tcase_add_test(tc, halves_from_f32);
    tcase_add_test(tc, halves_of_nan);
    tcase_add_test(tc, blocks_not_finite);
    tcase_add_test(tc, places);
    tcase_add_test(tc, tensors);
    tcase_add_test(tc, errors);
    suite_add_tcase(suite, tc);
}
