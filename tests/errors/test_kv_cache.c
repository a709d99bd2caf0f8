/* Caches that attn_kv_append, attn_kv_fork and attn_kv_truncate refuse; numbers that the last two refuse. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "kv_fixture.h"
#include "suite.h"

static void *shifted(void *p, size_t bytes) { return (char *)p + bytes; }

static void kv_null(struct cache *t) { t->args.kv = t->kv_argument = NULL; }
static void kv_size_0(struct cache *t) { t->kv.size = 0; }
static void kv_size_huge(struct cache *t) { t->kv.size = SIZE_MAX; }
static void layout_2(struct cache *t) { t->kv.layout = (attn_kv_layout)2; }
static void layout_minus(struct cache *t) { t->kv.layout = (attn_kv_layout)-1; }
static void k_bool(struct cache *t) { t->kv.k.dtype = ATTN_BOOL; }
static void v_of(struct cache *t, attn_dtype type, size_t columns) {
    t->kv.v = attn_tensor_contiguous(t->kv.v.data, type, KV_BLOCKS, KV_HEADS, KV_ROWS, columns);
}
static void v_of_weights(struct cache *t) { v_of(t, ATTN_Q4_K, 256); }
static void v_unknown(struct cache *t) { t->kv.v.dtype = (attn_dtype)99; }
static void v_of_half_a_block(struct cache *t) { v_of(t, ATTN_Q4_0, 16); }
static void k_of_a_part(struct cache *t) { t->kv.k.dtype = ATTN_Q8_0; }
static void k_f16_apart(struct cache *t) { t->kv.k.dtype = ATTN_F16; }
static void v_bf16_odd(struct cache *t) {
    v_of(t, ATTN_BF16, KV_P_V);
    t->kv.v.stride[1]++;
}
static void v_block_odd(struct cache *t) {
    v_of(t, ATTN_Q8_0, 32);
    t->kv.v.stride[0]++;
}
static void v_blocks_alias(struct cache *t) {
    v_of(t, ATTN_Q8_0, 64);
    t->kv.v.stride[2] = 66;
}
static void v_f16_odd_address(struct cache *t) {
    v_of(t, ATTN_F16, KV_P_V);
    t->kv.v.data = shifted(t->kv.v.data, 1);
}
static void panels_of_blocks(struct cache *t) {
    t->kv.layout = ATTN_KV_PANELS;
    t->kv.v = attn_tensor_contiguous(t->kv.v.data, ATTN_Q8_0, 1, 1, 16, 32);
    t->kv.k = attn_tensor_contiguous(t->kv.k.data, ATTN_Q8_0, 1, 1, 1, 16 * 32);
}
static void blocks_interleaved_badly(struct cache *t) { /* values begin in the keys' second block */
    t->kv.k = attn_tensor_contiguous(t->kv.k.data, ATTN_Q8_0, KV_BLOCKS, 1, 1, 64);
    t->kv.v = attn_tensor_contiguous(shifted(t->kv.k.data, 66), ATTN_Q4_0, KV_BLOCKS, 1, 1, 32);
    t->kv.k.stride[0] = t->kv.v.stride[0] = 100;
}
static void k_apart(struct cache *t) { t->kv.k.stride[3] = 8; }
static void k_odd(struct cache *t) { t->kv.k.stride[1]++; }
static void k_aliases(struct cache *t) { t->kv.k.stride[0] = 0; }
static void v_aliases(struct cache *t) { t->kv.v.stride[2] = 4; }
static void no_heads(struct cache *t) { t->kv.k.size[1] = t->kv.v.size[1] = 0; }
static void no_rows(struct cache *t) { t->kv.k.size[2] = t->kv.v.size[2] = 0; }
static void no_k_columns(struct cache *t) { t->kv.k.size[3] = 0; }
static void no_v_columns(struct cache *t) { t->kv.v.size[3] = 0; }
static void k_blocks(struct cache *t) { t->kv.k.size[0]--; }
static void k_heads(struct cache *t) { t->kv.k.size[1]--; }
static void k_rows(struct cache *t) { t->kv.k.size[2]--; }
static void panels_of_4(struct cache *t) { t->kv.layout = ATTN_KV_PANELS; }
static void panels_odd(struct cache *t) {
    t->kv.layout = ATTN_KV_PANELS;
    t->kv.v = attn_tensor_contiguous(t->kv.v.data, ATTN_F32, 1, 1, 16, 4);
    t->kv.k = attn_tensor_contiguous(t->kv.k.data, ATTN_F32, 1, 1, 1, 40);
}
static void no_slots(struct cache *t) { t->kv.blocks_per_sequence = 0; }
static void slots_huge(struct cache *t) { t->kv.blocks_per_sequence = SIZE_MAX / 8; }
static void table_huge(struct cache *t) { t->kv.blocks_per_sequence = SIZE_MAX / 20; }
static void blocks_huge(struct cache *t) {
    t->kv.k.size[0] = t->kv.v.size[0] = (size_t)INT32_MAX + 1;
    t->kv.v.size[3] = t->kv.k.size[3] = 1;
}
static void blocks_null(struct cache *t) { t->kv.blocks = NULL; }
static void contiguous_few(struct cache *t) {
    t->kv.blocks = NULL;
    t->kv.references = NULL;
    t->kv.n_sequences = KV_BLOCKS + 1;
}
static void lengths_null(struct cache *t) { t->kv.lengths = NULL; }
static void lengths_misaligned(struct cache *t) { t->kv.lengths = shifted(t->kv.lengths, 4); }
static void firsts_misaligned(struct cache *t) { t->kv.firsts = shifted(t->kv.lengths, 1); }
static void blocks_misaligned(struct cache *t) { t->kv.blocks = shifted(t->kv.blocks, 2); }
static void references_misaligned(struct cache *t) { t->kv.references = shifted(t->kv.references, 3); }
static void sequences_huge(struct cache *t) { t->kv.n_sequences = SIZE_MAX / 4; }
static void length_long(struct cache *t) { t->kv.lengths[3] = KV_SLOTS * KV_ROWS + 1; }
static void first_above(struct cache *t) { t->kv.firsts[1] = KEYS_1 + 1; }
static void ring_long(struct cache *t) { t->kv.lengths[0] = KV_SLOTS * KV_ROWS + 1; }
static void k_data_null(struct cache *t) { t->kv.k.data = NULL; }
static void v_data_null(struct cache *t) { t->kv.v.data = NULL; }
static void k_misaligned(struct cache *t) { t->kv.k.data = shifted(t->kv.k.data, 2); }
static void k_on_v(struct cache *t) { t->kv.v.data = shifted(t->kv.k.data, 4); }
static void interleaved_badly(struct cache *t) { /* values begin in the last column of the keys */
    t->kv.k.stride[0] = t->kv.v.stride[0] = KV_HEADS * KV_ROWS * (KV_P_K + KV_P_V) * 4;
    t->kv.v.data = shifted(t->kv.k.data, KV_HEADS * KV_ROWS * KV_P_K * 4 - 4);
}
static void k_on_lengths(struct cache *t) { t->kv.k.data = t->kv.lengths; }
static void v_on_blocks(struct cache *t) { t->kv.blocks = t->kv.v.data; }
static void blocks_on_references(struct cache *t) { t->kv.references = (uint32_t *)t->kv.blocks; }

/* Those that attn_kv_fork and attn_kv_truncate find as well. */
static const struct kv_error cache_errors[] = {
    ARGUMENT(kv_null, "kv"),
    ARGUMENT(kv_size_0, "kv"),
    ARGUMENT(kv_size_huge, "kv"),
    ARGUMENT(layout_2, "kv.layout"),
    ARGUMENT(layout_minus, "kv.layout"),
    OTHER(k_bool, DTYPE, "kv.k", 1),
    OTHER(v_of_weights, DTYPE, "kv.v: its element type q4_K", 1),
    OTHER(v_unknown, DTYPE, "kv.v: its element type 99", 1),
    SHAPE(v_of_half_a_block, "kv.v: its column size 16 is no multiple of 32"),
    SHAPE(k_of_a_part, "kv.k: its column size 6 is no multiple of 32"),
    STRIDE(k_f16_apart, "kv.k: its column stride"),
    STRIDE(v_bf16_odd, "kv.v: its head stride"),
    STRIDE(v_block_odd, "kv.v: its batch stride"),
    STRIDE(v_blocks_alias, "kv.v: its row stride"),
    OTHER(v_f16_odd_address, STRIDE, "kv.v: its data", 0),
    OTHER(panels_of_blocks, DTYPE, "kv.k: its element type is q8_0, but panels hold f32, f16 or bf16", 1),
    OTHER(blocks_interleaved_badly, OVERLAP, "kv.k overlaps kv.v", 0),
    STRIDE(k_apart, "kv.k"),
    STRIDE(k_odd, "kv.k"),
    STRIDE(k_aliases, "kv.k"),
    STRIDE(v_aliases, "kv.v"),
    SHAPE(no_heads, "kv.v: it has no heads"),
    SHAPE(no_rows, "kv.v: it has no rows"),
    SHAPE(no_k_columns, "kv.k"),
    SHAPE(no_v_columns, "kv.v: it has no columns"),
    SHAPE(k_blocks, "kv.k"),
    SHAPE(k_heads, "kv.k"),
    SHAPE(k_rows, "kv.k"),
    SHAPE(panels_of_4, "kv.v"),
    SHAPE(panels_odd, "kv.k"),
    SHAPE(no_slots, "kv.blocks_per_sequence"),
    OTHER(slots_huge, OVERFLOW, "kv.blocks_per_sequence", 1),
    OTHER(table_huge, OVERFLOW, "kv.blocks", 1),
    OTHER(blocks_huge, OVERFLOW, "kv.v", 1),
    OTHER(blocks_null, ARGUMENT, "kv.blocks", 0),
    OTHER(contiguous_few, SHAPE, "kv.v", 0),
    OTHER(lengths_null, ARGUMENT, "kv.lengths", 0),
    STRIDE(lengths_misaligned, "kv.lengths"),
    STRIDE(firsts_misaligned, "kv.firsts"),
    STRIDE(blocks_misaligned, "kv.blocks"),
    STRIDE(references_misaligned, "kv.references"),
    OTHER(sequences_huge, OVERFLOW, "kv.lengths", 1),
    SHAPE(length_long, "kv.lengths[3]"),
    RING(first_above, SHAPE, "kv.firsts[1]", 1),
    RING(ring_long, SHAPE, "kv.lengths[0]", 1),
    OTHER(k_data_null, ARGUMENT, "kv.k", 0),
    OTHER(v_data_null, ARGUMENT, "kv.v", 0),
    OTHER(k_misaligned, STRIDE, "kv.k", 0),
    OTHER(k_on_v, OVERLAP, "kv.k overlaps kv.v", 0),
    OTHER(interleaved_badly, OVERLAP, "kv.k overlaps kv.v", 0),
    OTHER(k_on_lengths, OVERLAP, "kv.k overlaps kv.lengths", 0),
    OTHER(v_on_blocks, OVERLAP, "kv.v overlaps kv.blocks", 0),
    OTHER(blocks_on_references, OVERLAP, "kv.blocks overlaps kv.references", 0),
};

START_TEST(wrong_cache) {
    const struct kv_error *e = &cache_errors[_i];
    attn_context *context = default_context();
    struct cache t;
    cache_refuses(e, context);
    cache_open(&t, context, e->ring);
    e->make(&t);
    cache_watch(&t);
    cache_expect("fork", e, &t, attn_kv_fork(context, t.kv_argument, 0, 3));
    cache_expect("truncate", e, &t, attn_kv_truncate(context, t.kv_argument, 0, 1));
    attn_context_destroy(context);
}
END_TEST

/* ---- Fork and truncate --------------------------------------------------------------------------------- */

static void keys_without_block(struct cache *t) { t->kv.blocks[1] = -3; }
static void block_beyond(struct cache *t) { t->kv.blocks[1] = KV_BLOCKS; }
static void not_referenced(struct cache *t) { t->kv.references[t->kv.blocks[1]] = 0; }
static void nothing(struct cache *t) { (void)t; }
static void not_empty(struct cache *t) { t->kv.blocks[3 * KV_SLOTS + 2] = 5; }
static void too_often(struct cache *t) { t->kv.references[t->kv.blocks[1]] = UINT32_MAX; }
static void extra_beyond(struct cache *t) { t->kv.blocks[2] = KV_BLOCKS; }
static void no_references(struct cache *t) { t->kv.references = NULL; }

static const struct {
    struct kv_error e;
    size_t a, b; /* of fork: from and to; of truncate: the sequence and its length */
    int fork, truncate;
} number_errors[] = {
    {SHAPE(nothing, "from"), KV_SEQUENCES, 3, 1, 0},
    {SHAPE(nothing, "to"), 0, KV_SEQUENCES, 1, 0},
    {SHAPE(nothing, "to"), 3, 3, 1, 0},
    {SHAPE(nothing, "to: sequence 1"), 0, 1, 1, 0},
    {SHAPE(not_empty, "to: sequence 3"), 0, 3, 1, 0},
    {ARGUMENT(no_references, "kv.references"), 0, 3, 1, 0},
    {ARGUMENT(too_often, "kv.references["), 0, 3, 1, 0},
    {ARGUMENT(keys_without_block, "kv.blocks[1]"), 0, 3, 1, 1},
    {SHAPE(block_beyond, "kv.blocks[1]"), 0, 3, 1, 1},
    {SHAPE(extra_beyond, "kv.blocks[2]"), 0, 3, 1, 1},
    {ARGUMENT(not_referenced, "kv.references["), 0, 3, 1, 1},
    {SHAPE(nothing, "sequence"), KV_SEQUENCES, 0, 0, 1},
    {SHAPE(nothing, "length"), 0, KEYS_0 + 1, 0, 1},
    {SHAPE(nothing, "length"), 3, 1, 0, 1},
};

START_TEST(wrong_numbers) {
    attn_context *context = default_context();
    struct cache t;
    for (size_t i = 0; i < sizeof number_errors / sizeof *number_errors; i++) {
        const struct kv_error *e = &number_errors[i].e;
        cache_open(&t, context, 0);
        e->make(&t);
        cache_watch(&t);
        if (number_errors[i].fork)
            cache_expect("fork", e, &t, attn_kv_fork(context, &t.kv, number_errors[i].a, number_errors[i].b));
        if (number_errors[i].truncate)
            cache_expect("truncate", e, &t,
                         attn_kv_truncate(context, &t.kv, number_errors[i].a, number_errors[i].b));
    }
    ck_assert_int_eq(attn_kv_fork(NULL, &t.kv, 0, 3), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_kv_truncate(NULL, &t.kv, 0, 0), ATTN_ERROR_ARGUMENT);
    attn_context_destroy(context);
}
END_TEST

void add_kv_cache_tests(Suite *suite) {
    TCase *t = tcase_create("kv caches");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, wrong_cache, 0, (int)(sizeof cache_errors / sizeof *cache_errors));
    tcase_add_test(t, wrong_numbers);
    suite_add_tcase(suite, t);
}
