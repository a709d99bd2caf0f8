/*
 * Caches in files: a hole where nothing was stored, mapped again to be read only, cut off; and memory that
 * was spoilt, which is refused or sound, but never lets anything reach beyond it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/call.h"

static const struct kv_sizes sizes = {.layout = ATTN_KV_PANELS,
                                      .ring = 1,
                                      .n_sequences = 5,
                                      .n_blocks = 11,
                                      .slots = 3,
                                      .block_rows = 16,
                                      .n_head = 2,
                                      .p_k = 12,
                                      .p_v = 64,
                                      .most = 300,
                                      .k_type = ATTN_BF16,
                                      .v_type = ATTN_Q4_0};

static void append(const attn_kv *kv, struct model *m, attn_context *context, struct rng *r, size_t times) {
    for (size_t i = 0; i < times; i++) {
        struct call c;
        call_open(&c, m, NULL, context, r);
        const attn_status status = call_run(&c, kv, context);
        ck_assert_int_eq(status, model_append(m, c.rows, c.n) ? ATTN_OK : ATTN_ERROR_CAPACITY);
        call_close(&c);
    }
}

static void *map(int file, size_t bytes, int protection) {
    void *p = mmap(NULL, bytes, protection, MAP_SHARED, file, 0);
    ck_assert_ptr_ne(p, MAP_FAILED);
    return p;
}

START_TEST(files) {
    char name[] = "/tmp/attn-kv-XXXXXX";
    const attn_kv_shape shape = {.size = sizeof shape,
                                 .n_sequences = 64,
                                 .blocks_per_sequence = 16,
                                 .block_rows = 256,
                                 .n_head_kv = 4,
                                 .p_k = 128,
                                 .p_v = 128};
    struct rng r = rng_make(test_seed(), 1);
    struct stat stat;
    size_t bytes = 0;
    attn_kv kv = {.size = sizeof kv};
    attn_context *context = harness_context(NULL, 2);
    ck_assert_int_eq(attn_kv_bytes(context, &shape, &bytes), ATTN_OK);
    const int file = mkstemp(name);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(unlink(name), 0);
    ck_assert_int_eq(ftruncate(file, (off_t)bytes), 0);
    void *memory = map(file, bytes, PROT_READ | PROT_WRITE);
    ck_assert_int_eq(attn_kv_create(context, &shape, memory, bytes, &kv), ATTN_OK);
    const size_t rows = 300;
    float *values = calloc(4 * rows * 128, sizeof *values);
    ck_assert_ptr_nonnull(values);
    rng_floats(&r, FILL_NORMAL, values, 4 * rows * 128);
    const attn_tensor k = attn_tensor_contiguous(values, ATTN_F32, 1, 4, rows, 128);
    const attn_kv_append_args args = {.size = sizeof args, .kv = &kv, .k = &k, .v = &k};
    ck_assert_msg(attn_kv_append(context, &args) == ATTN_OK, "%s", attn_context_error(context));
    ck_assert_int_eq(munmap(memory, bytes), 0);
    ck_assert_int_eq(fstat(file, &stat), 0);
    ck_assert_msg((size_t)stat.st_blocks * 512 < bytes / 16, "%zu bytes of %zu were written",
                  (size_t)stat.st_blocks * 512, bytes);
    memory = map(file, bytes, PROT_READ);
    attn_kv again = {.size = sizeof again};
    ck_assert_msg(attn_kv_open(context, memory, bytes, &again) == ATTN_OK, "%s", attn_context_error(context));
    ck_assert_uint_eq(again.lengths[0], rows);
    ck_assert_uint_eq(attn_kv_free_blocks(&again), 64 * 16 - 2);
    for (size_t row = 0; row < rows; row++)
        for (size_t h = 0; h < 4; h++) {
            const size_t at = (((size_t)again.blocks[row / 256] * 4 + h) * 256 + row % 256) * 128;
            ck_assert_mem_eq((float *)again.k.data + at, values + (h * rows + row) * 128,
                             128 * sizeof(float));
            ck_assert_mem_eq((float *)again.v.data + at, values + (h * rows + row) * 128,
                             128 * sizeof(float));
        }
    ck_assert_int_eq(attn_kv_open(context, memory, bytes - 1, &again), ATTN_ERROR_PACKED);
    ck_assert_int_eq(munmap(memory, bytes), 0);
    close(file);
    free(values);
    attn_context_destroy(context);
}
END_TEST

/* Reads everything that a cache claims to hold; a guard page catches what lies outside. */
static float touch(const attn_kv *kv) {
    float sum = 0;
    for (size_t s = 0; s < kv->n_sequences; s++)
        for (size_t key = kv->firsts ? kv->firsts[s] : 0; key < kv->lengths[s]; key++) {
            const size_t slot = key / kv->v.size[2] % kv->blocks_per_sequence;
            const ptrdiff_t block = kv->blocks[s * kv->blocks_per_sequence + slot];
            for (size_t h = 0; h < kv->v.size[1]; h++) {
                const char *v = (const char *)kv->v.data + block * kv->v.stride[0] +
                                (ptrdiff_t)h * kv->v.stride[1] +
                                (ptrdiff_t)(key % kv->v.size[2]) * kv->v.stride[2];
                sum += (float)v[model_row(kv->v.dtype, kv->v.size[3]) - 1];
            }
        }
    return sum;
}

/* Every bit of the header; then bytes at random anywhere in front of the keys, with an append where it
 * opens. */
START_TEST(spoilt) {
    struct rng r = rng_make(test_seed(), 2);
    struct subject subject;
    struct model m;
    attn_context *context = harness_context(NULL, 1);
    size_t sound = 0;
    subject_open(&subject, SUBJECT_CREATED, &sizes, context, &r);
    model_open(&m, &sizes, 1);
    append(&subject.kv, &m, context, &r, 12);
    const size_t bytes = subject.memory.bytes,
                 front = (size_t)((unsigned char *)subject.kv.k.data - subject.memory.data);
    struct guard copy = guard_alloc(bytes, 0);
    for (size_t bit = 0; bit < 8 * 128; bit++) {
        attn_kv kv = {.size = sizeof kv};
        memcpy(copy.data, subject.memory.data, bytes);
        copy.data[bit / 8] ^= (unsigned char)(1u << bit % 8);
        ck_assert_msg(attn_kv_open(context, copy.data, bytes, &kv) == ATTN_ERROR_PACKED,
                      "bit %zu of the header does not matter", bit);
    }
    for (size_t i = 0; i < (harness_full() ? 20000u : 2000u); i++) {
        attn_kv kv = {.size = sizeof kv};
        memcpy(copy.data, subject.memory.data, bytes);
        for (size_t n = 1 + rng_below(&r, 3); n > 0; n--) {
            const size_t at = 128 + rng_below(&r, front - 128);
            copy.data[at] = rng_chance(&r, 50) ? (unsigned char)rng_next(&r)
                                               : (unsigned char)(copy.data[at] + rng_below(&r, 3) - 1);
        }
        harness_case("spoilt copy %zu", i);
        const attn_status status = attn_kv_open(context, copy.data, bytes, &kv);
        ck_assert(status == ATTN_OK || status == ATTN_ERROR_PACKED);
        if (status != ATTN_OK) continue;
        sound++;
        struct call c;
        volatile float sum = touch(&kv);
        (void)sum;
        call_open(&c, &m, NULL, context, &r);
        ck_assert(call_run(&c, &kv, context) == ATTN_OK || call_run(&c, &kv, context) == ATTN_ERROR_CAPACITY);
        call_close(&c);
        sum = touch(&kv);
    }
    ck_assert_uint_gt(sound, 0);
    guard_free(&copy);
    model_close(&m);
    subject_close(&subject);
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("kv: memory and files");
    TCase *cases = tcase_create("memory");
    tcase_set_timeout(cases, 600);
    tcase_add_test(cases, files);
    tcase_add_test(cases, spoilt);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
