/* What attn_kv_bytes, attn_kv_create and attn_kv_open can be given wrong; memory that holds no sound
 * cache. */
#include <stdint.h>
#include <string.h>

#include "fixture.h"
#include "kv_fixture.h"
#include "suite.h"

/* Arguments of attn_kv_create(); a test breaks one thing. */
struct making {
    attn_kv_shape shape;
    const attn_kv_shape *argument;
    unsigned char *memory;
    size_t bytes;
    attn_kv kv;
    attn_kv *target;
};

static void shape_null(struct making *m) { m->argument = NULL; }
static void shape_size_0(struct making *m) { m->shape.size = 0; }
static void shape_size_huge(struct making *m) { m->shape.size = SIZE_MAX; }
static void layout_2(struct making *m) { m->shape.layout = (attn_kv_layout)2; }
static void ring_2(struct making *m) { m->shape.ring = 2; }
static void ring_minus(struct making *m) { m->shape.ring = -1; }
static void no_sequences(struct making *m) { m->shape.n_sequences = 0; }
static void no_slots(struct making *m) { m->shape.blocks_per_sequence = 0; }
static void no_rows(struct making *m) { m->shape.block_rows = 0; }
static void no_heads(struct making *m) { m->shape.n_head_kv = 0; }
static void no_k(struct making *m) { m->shape.p_k = 0; }
static void no_v(struct making *m) { m->shape.p_v = 0; }
static void panels_of_4(struct making *m) { m->shape.layout = ATTN_KV_PANELS; }
static void sequences_huge(struct making *m) { m->shape.n_sequences = SIZE_MAX / 2; }
static void slots_huge(struct making *m) { m->shape.blocks_per_sequence = SIZE_MAX / 16; }
static void blocks_huge(struct making *m) { m->shape.n_blocks = (size_t)INT32_MAX + 1; }
static void blocks_too_many(struct making *m) {
    m->shape.n_blocks = 0;
    m->shape.n_sequences = 1 << 20;
    m->shape.blocks_per_sequence = 1 << 12;
}
static void rows_huge(struct making *m) { m->shape.block_rows = SIZE_MAX / 16; }
static void heads_huge(struct making *m) { m->shape.n_head_kv = SIZE_MAX / 4; }
static void k_huge(struct making *m) { m->shape.p_k = SIZE_MAX / 64; }
static void v_huge(struct making *m) { m->shape.p_v = SIZE_MAX / 256; }
static void k_type_99(struct making *m) { m->shape.k_dtype = (attn_dtype)99; }
static void v_type_minus(struct making *m) { m->shape.v_dtype = (attn_dtype)-1; }
static void k_bool(struct making *m) { m->shape.k_dtype = ATTN_BOOL; }
static void v_of_weights(struct making *m) { m->shape.v_dtype = ATTN_Q6_K; }
static void k_of_a_part(struct making *m) { m->shape.k_dtype = ATTN_Q8_0; }
static void v_of_a_part(struct making *m) {
    m->shape.v_dtype = ATTN_Q4_0;
    m->shape.p_v = 33;
}
static void panels_of_blocks(struct making *m) {
    m->shape.layout = ATTN_KV_PANELS;
    m->shape.block_rows = 16;
    m->shape.k_dtype = ATTN_Q4_0;
    m->shape.p_k = 32;
}
static void blocks_of_values_huge(struct making *m) {
    m->shape.v_dtype = ATTN_Q8_0;
    m->shape.p_v = SIZE_MAX / 512 * 32;
}
static void memory_null(struct making *m) { m->memory = NULL; }
static void memory_misaligned(struct making *m) { m->memory += 32; }
static void memory_small(struct making *m) { m->bytes--; }
static void memory_none(struct making *m) { m->bytes = 0; }
static void kv_null(struct making *m) { m->target = NULL; }
static void kv_size_0(struct making *m) { m->kv.size = 0; }
static void kv_size_short(struct making *m) { m->kv.size = offsetof(attn_kv, references); }
static void kv_size_huge(struct making *m) { m->kv.size = SIZE_MAX; }

static const struct {
    const char *what;
    void (*make)(struct making *m);
    attn_status want;
    const char *named;
    int bytes_too;
} errors[] = {
#define SHAPE_ERROR(make, status, named) \
    { #make, make, ATTN_ERROR_##status, named, 1 }
    SHAPE_ERROR(shape_null, ARGUMENT, "shape"),
    SHAPE_ERROR(shape_size_0, ARGUMENT, "shape"),
    SHAPE_ERROR(shape_size_huge, ARGUMENT, "shape"),
    SHAPE_ERROR(layout_2, ARGUMENT, "shape.layout"),
    SHAPE_ERROR(ring_2, ARGUMENT, "shape.ring"),
    SHAPE_ERROR(ring_minus, ARGUMENT, "shape.ring"),
    SHAPE_ERROR(no_sequences, SHAPE, "shape.n_sequences"),
    SHAPE_ERROR(no_slots, SHAPE, "shape.blocks_per_sequence"),
    SHAPE_ERROR(no_rows, SHAPE, "shape.block_rows"),
    SHAPE_ERROR(no_heads, SHAPE, "shape.n_head_kv"),
    SHAPE_ERROR(no_k, SHAPE, "shape.p_k"),
    SHAPE_ERROR(no_v, SHAPE, "shape.p_v"),
    SHAPE_ERROR(panels_of_4, SHAPE, "shape.block_rows"),
    SHAPE_ERROR(sequences_huge, OVERFLOW, "shape"),
    SHAPE_ERROR(slots_huge, OVERFLOW, "shape"),
    SHAPE_ERROR(blocks_huge, OVERFLOW, "int32_t"),
    SHAPE_ERROR(blocks_too_many, OVERFLOW, "int32_t"),
    SHAPE_ERROR(rows_huge, OVERFLOW, "shape"),
    SHAPE_ERROR(heads_huge, OVERFLOW, "shape"),
    SHAPE_ERROR(k_huge, OVERFLOW, "shape"),
    SHAPE_ERROR(v_huge, OVERFLOW, "shape"),
    SHAPE_ERROR(k_type_99, DTYPE, "shape.k_dtype: element type 99"),
    SHAPE_ERROR(v_type_minus, DTYPE, "shape.v_dtype: element type -1"),
    SHAPE_ERROR(k_bool, DTYPE, "shape.k_dtype: element type bool"),
    SHAPE_ERROR(v_of_weights, DTYPE, "shape.v_dtype: element type q6_K"),
    SHAPE_ERROR(k_of_a_part, SHAPE, "shape.p_k is 6, no multiple of 32"),
    SHAPE_ERROR(v_of_a_part, SHAPE, "shape.p_v is 33, no multiple of 32"),
    SHAPE_ERROR(panels_of_blocks, DTYPE, "shape.k_dtype"),
    SHAPE_ERROR(blocks_of_values_huge, OVERFLOW, "shape"),
    {"memory null", memory_null, ATTN_ERROR_ARGUMENT, "memory", 0},
    {"memory misaligned", memory_misaligned, ATTN_ERROR_STRIDE, "memory", 0},
    {"memory small", memory_small, ATTN_ERROR_SCRATCH, "memory", 0},
    {"no memory", memory_none, ATTN_ERROR_SCRATCH, "memory", 0},
    {"kv null", kv_null, ATTN_ERROR_ARGUMENT, "kv", 0},
    {"kv.size 0", kv_size_0, ATTN_ERROR_ARGUMENT, "kv", 0},
    {"kv.size short", kv_size_short, ATTN_ERROR_ARGUMENT, "kv", 0},
    {"kv.size huge", kv_size_huge, ATTN_ERROR_ARGUMENT, "kv", 0},
};

START_TEST(wrong_shapes) {
    static _Alignas(64) unsigned char memory[KV_BYTES], before[KV_BYTES];
    attn_context *context = default_context();
    struct making m = {.shape = cache_shape(_i % 2), .memory = memory, .kv = {.size = sizeof m.kv}};
    size_t bytes = 12345;
    m.argument = &m.shape;
    m.target = &m.kv;
    ck_assert_int_eq(attn_kv_bytes(context, &m.shape, &m.bytes), ATTN_OK);
    errors[_i].make(&m);
    const attn_kv kv = m.kv;
    attn_status got = attn_kv_create(context, m.argument, m.memory, m.bytes, m.target);
    ck_assert_msg(got == errors[_i].want && strstr(attn_context_error(context), errors[_i].named),
                  "%s: %s (%s)", errors[_i].what, attn_status_name(got), attn_context_error(context));
    ck_assert(memcmp(memory, before, sizeof memory) == 0 && memcmp(&kv, &m.kv, sizeof kv) == 0);
    got = attn_kv_bytes(context, m.argument, &bytes);
    ck_assert_int_eq(got, errors[_i].bytes_too ? errors[_i].want : ATTN_OK);
    ck_assert(!errors[_i].bytes_too || bytes == 12345);
    ck_assert_int_eq(attn_kv_bytes(context, &m.shape, NULL), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_kv_bytes(NULL, &m.shape, &bytes), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_kv_create(NULL, &m.shape, memory, sizeof memory, &m.kv), ATTN_ERROR_ARGUMENT);
    attn_context_destroy(context);
}
END_TEST

/* ---- Opening ------------------------------------------------------------------------------------------- */

static void sound(struct cache *t) { (void)t; }
static void zeros(struct cache *t) { memset(t->memory, 0, sizeof t->memory); }
static void version(struct cache *t) { t->memory[8]++; }
static void old_version(struct cache *t) { t->memory[8] = 1; }
/* Types that were changed, with a hash that fits: FNV-1a of what stands before it. */
static void types_as(struct cache *t, unsigned char k, unsigned char v) {
    uint64_t x = UINT64_C(0xcbf29ce484222325);
    t->memory[24] = k;
    t->memory[28] = v;
    for (size_t i = 0; i < 96; i++) x = (x ^ t->memory[i]) * UINT64_C(0x100000001b3);
    memcpy(t->memory + 96, &x, sizeof x);
}
static void types_same(struct cache *t) { t->memory[24] = ATTN_F16; }
static void types_shorter(struct cache *t) { types_as(t, ATTN_F32, ATTN_F16); }
static void types_of_blocks(struct cache *t) { types_as(t, ATTN_Q8_0, ATTN_F32); }
static void types_of_masks(struct cache *t) { types_as(t, ATTN_F32, ATTN_BOOL); }
static void types_unknown(struct cache *t) { types_as(t, 200, ATTN_F32); }
static void word(struct cache *t) { t->memory[12] = 4; }
static void layout(struct cache *t) { t->memory[16] = 1; }
static void ring(struct cache *t) { t->memory[20] ^= 1; }
static void reserved(struct cache *t) { t->memory[127] = 1; }
static void length_long(struct cache *t) { t->kv.lengths[3] = SIZE_MAX; }
static void first_above(struct cache *t) { t->kv.firsts[1] = KEYS_1 + 1; }
static void length_more(struct cache *t) { t->kv.lengths[1] += KV_ROWS; }
static void no_block(struct cache *t) {
    t->kv.references[t->kv.blocks[0]]--;
    t->kv.blocks[0] = -1;
}
static void block_beyond(struct cache *t) { t->kv.blocks[1] = KV_BLOCKS; }
static void referenced(struct cache *t) { t->kv.references[5] = 1; }
static void not_referenced(struct cache *t) { t->kv.references[t->kv.blocks[1]] = 0; }

static const struct {
    const char *what;
    void (*make)(struct cache *t);
    size_t bytes; /* 0: all */
    const char *named;
    int ring;
} unsound[] = {
    {"nothing", sound, 1, "header", 0},
    {"half a header", sound, 127, "header", 0},
    {"a header alone", sound, 128, "memory", 0},
    {"all but a byte", sound, 2431, "its header says 2432", 0},
    {"zeros", zeros, 0, "does not hold a cache", 0},
    {"another version", version, 0, "version 3, this library's is 2", 0},
    {"an old version", old_version, 0, "version 1, this library's is 2", 0},
    {"another type", types_same, 0, "header", 0},
    {"a shorter type", types_shorter, 0, "header", 0},
    {"a type of blocks", types_of_blocks, 0, "header", 0},
    {"a type of masks", types_of_masks, 0, "header", 0},
    {"an unknown type", types_unknown, 0, "header", 0},
    {"another word", word, 0, "size_t", 0},
    {"another layout", layout, 0, "header", 0},
    {"another ring", ring, 0, "header", 0},
    {"reserved", reserved, 0, "header", 0},
    {"a length too long", length_long, 0, "lengths[3]", 0},
    {"a length too long, ring", length_long, 0, "lengths[3]", 1},
    {"a first key above the length", first_above, 0, "firsts[1]", 1},
    {"keys without a block", length_more, 0, "blocks[4]", 0},
    {"no block", no_block, 0, "blocks[0]", 1},
    {"a block beyond", block_beyond, 0, "blocks[1]", 0},
    {"a reference too many", referenced, 0, "block 5", 0},
    {"a reference too few", not_referenced, 0, "references", 0},
};

START_TEST(unsound_memory) {
    attn_context *context = default_context();
    struct cache t;
    cache_open(&t, context, unsound[_i].ring);
    if (!unsound[_i].ring) ck_assert_uint_eq(t.bytes, 2432);
    unsound[_i].make(&t);
    cache_watch(&t);
    attn_kv kv = {.size = sizeof kv};
    const attn_kv none = kv;
    const attn_status got =
        attn_kv_open(context, t.memory, unsound[_i].bytes ? unsound[_i].bytes : t.bytes, &kv);
    ck_assert_msg(got == ATTN_ERROR_PACKED && strstr(attn_context_error(context), unsound[_i].named),
                  "%s: %s (%s)", unsound[_i].what, attn_status_name(got), attn_context_error(context));
    ck_assert(cache_untouched(&t) && memcmp(&kv, &none, sizeof kv) == 0);
    attn_context_destroy(context);
}
END_TEST

/* The types come back from the memory; a caller that does not know the types gets f32. */
START_TEST(types) {
    static _Alignas(64) unsigned char memory[KV_BYTES];
    attn_context *context = default_context();
    attn_kv_shape shape = cache_shape(0);
    attn_kv kv = {.size = sizeof kv}, again = {.size = sizeof again};
    size_t bytes = 0, fewer = 0;
    ck_assert_int_eq(attn_kv_bytes(context, &shape, &bytes), ATTN_OK);
    shape.k_dtype = ATTN_BF16;
    shape.v_dtype = ATTN_F16;
    ck_assert_int_eq(attn_kv_bytes(context, &shape, &fewer), ATTN_OK);
    ck_assert_uint_lt(fewer, bytes);
    ck_assert_int_eq(attn_kv_create(context, &shape, memory, fewer, &kv), ATTN_OK);
    ck_assert(kv.k.dtype == ATTN_BF16 && kv.v.dtype == ATTN_F16 && kv.k.stride[3] == 2);
    ck_assert_int_eq(attn_kv_open(context, memory, fewer, &again), ATTN_OK);
    ck_assert(again.k.dtype == ATTN_BF16 && again.v.dtype == ATTN_F16 && again.v.data == kv.v.data);
    ck_assert_mem_eq(again.k.stride, kv.k.stride, sizeof kv.k.stride);
    shape.size = offsetof(attn_kv_shape, k_dtype);
    ck_assert_int_eq(attn_kv_create(context, &shape, memory, bytes, &kv), ATTN_OK);
    ck_assert(kv.k.dtype == ATTN_F32 && kv.v.dtype == ATTN_F32);
    attn_context_destroy(context);
}
END_TEST

START_TEST(opening) {
    attn_context *context = default_context();
    struct cache t;
    cache_open(&t, context, 0);
    types_as(&t, ATTN_F32, ATTN_F32); /* changes nothing: the hash is the header's */
    attn_kv kv = {.size = sizeof kv};
    ck_assert_int_eq(attn_kv_open(context, t.memory, t.bytes + 1, &kv), ATTN_OK);
    ck_assert(kv.layout == ATTN_KV_ROWS && kv.n_sequences == KV_SEQUENCES && !kv.firsts);
    ck_assert(kv.lengths == t.kv.lengths && kv.blocks == t.kv.blocks && kv.references == t.kv.references);
    ck_assert(kv.k.data == t.kv.k.data && kv.v.data == t.kv.v.data && kv.blocks_per_sequence == KV_SLOTS);
    ck_assert_mem_eq(kv.k.stride, t.kv.k.stride, sizeof kv.k.stride);
    ck_assert_mem_eq(kv.v.size, t.kv.v.size, sizeof kv.v.size);
    ck_assert_int_eq(attn_kv_open(context, NULL, t.bytes, &kv), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_kv_open(context, t.memory + 8, t.bytes, &kv), ATTN_ERROR_STRIDE);
    ck_assert_int_eq(attn_kv_open(context, t.memory, t.bytes, NULL), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_kv_open(NULL, t.memory, t.bytes, &kv), ATTN_ERROR_ARGUMENT);
    kv.size = 0;
    ck_assert_int_eq(attn_kv_open(context, t.memory, t.bytes, &kv), ATTN_ERROR_ARGUMENT);
    struct { /* as a later version's */
        attn_kv kv;
        size_t later;
    } grown = {.kv = {.size = sizeof grown}, .later = 1};
    ck_assert_int_eq(attn_kv_open(context, t.memory, t.bytes, &grown.kv), ATTN_OK);
    ck_assert(grown.later == 0 && grown.kv.size == sizeof grown && grown.kv.lengths == t.kv.lengths);
    ck_assert_uint_eq(attn_kv_free_blocks(&grown.kv), KV_BLOCKS - 3);
    ck_assert_uint_eq(attn_kv_free_blocks(NULL), 0);
    grown.kv.size = 0;
    ck_assert_uint_eq(attn_kv_free_blocks(&grown.kv), 0);
    t.kv.references = NULL;
    ck_assert_uint_eq(attn_kv_free_blocks(&t.kv), 0);
    attn_context_destroy(context);
}
END_TEST

void add_kv_memory_tests(Suite *suite) {
    TCase *t = tcase_create("kv memory");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, wrong_shapes, 0, (int)(sizeof errors / sizeof *errors));
    tcase_add_loop_test(t, unsound_memory, 0, (int)(sizeof unsound / sizeof *unsound));
    tcase_add_test(t, opening);
    tcase_add_test(t, types);
    suite_add_tcase(suite, t);
}
