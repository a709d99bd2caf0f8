/* What attn_kv_append and its scratch query can be given wrong, the cache aside. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "kv_fixture.h"
#include "suite.h"

static void *shifted(void *p, size_t bytes) { return (char *)p + bytes; }

static void args_null(struct cache *t) { t->argument = NULL; }
static void args_size_0(struct cache *t) { t->args.size = 0; }
static void args_size_huge(struct cache *t) { t->args.size = SIZE_MAX / 2; }
static void rows_null(struct cache *t) { t->args.k = NULL; }
static void values_null(struct cache *t) { t->args.v = NULL; }
static void rows_data_null(struct cache *t) { t->k.data = NULL; }
static void rows_bool(struct cache *t) { t->k.dtype = ATTN_BOOL; }
static void rows_blocks(struct cache *t) {
    t->v = attn_tensor_contiguous(t->v_data, ATTN_Q8_0, CALLS, KV_HEADS, ROWS, 32);
}
static void rows_f16_odd(struct cache *t) {
    t->k = attn_tensor_contiguous(shifted(t->k_data, 1), ATTN_F16, CALLS, KV_HEADS, ROWS, KV_P_K);
}
static void rows_bf16_apart(struct cache *t) { t->v.dtype = ATTN_BF16; }
static void rows_apart(struct cache *t) { t->v.stride[3] = 8; }
static void rows_heads(struct cache *t) { t->k.size[1] = 1; }
static void rows_columns(struct cache *t) { t->k.size[3] = KV_P_K - 1; }
static void values_columns(struct cache *t) { t->v.size[3] = KV_P_V - 1; }
static void values_heads(struct cache *t) { t->v.size[1] = 1; }
static void values_rows(struct cache *t) { t->v.size[2]--; }
static void values_batch(struct cache *t) { t->v.size[0]--; }
static void rows_many(struct cache *t) {
    t->k.size[2] = t->v.size[2] = SIZE_MAX / 3;
    t->k.stride[2] = t->v.stride[2] = 0;
    t->args.rope = NULL;
    t->args.counts = NULL;
}
static void ragged(struct cache *t) {
    t->k.size[0] = t->v.size[0] = 1;
    t->args.counts = NULL;
    t->args.starts = t->starts;
    t->args.n_starts = CALLS;
}
static void ragged_batch(struct cache *t) {
    ragged(t);
    t->k.size[0] = t->v.size[0] = 2;
}
static void ragged_counts(struct cache *t) {
    ragged(t);
    t->args.counts = t->counts;
}
static void starts_fall(struct cache *t) {
    ragged(t);
    t->starts[1] = ROWS;
}
static void starts_beyond(struct cache *t) {
    ragged(t);
    t->starts[CALLS] = ROWS + 1;
}
static void starts_many(struct cache *t) {
    ragged(t);
    t->args.n_starts = SIZE_MAX;
    t->args.sequences = NULL;
}
static void starts_misaligned(struct cache *t) {
    ragged(t);
    t->args.starts = shifted(t->starts, 4);
}
static void counts_many(struct cache *t) { t->counts[1] = ROWS + 1; }
static void counts_misaligned(struct cache *t) { t->args.counts = shifted(t->counts, 4); }
static void sequence_4(struct cache *t) { t->sequences[1] = KV_SEQUENCES; }
static void sequence_twice(struct cache *t) { t->sequences[1] = 0; }
static void sequences_misaligned(struct cache *t) { t->args.sequences = shifted(t->sequences, 1); }
static void sequences_many(struct cache *t) {
    t->kv.n_sequences = 1;
    t->args.sequences = NULL;
}
static void ragged_many(struct cache *t) {
    ragged(t);
    sequences_many(t);
}
static void rope_style(struct cache *t) { t->rope.style = (attn_rope_style)2; }
static void rope_dims(struct cache *t) { t->rope.dims = KV_P_K + 2; }
static void rope_size_0(struct cache *t) { t->rope.size = 0; }
static void positions_misaligned(struct cache *t) { t->args.positions = shifted(t->positions, 4); }
static void position_large(struct cache *t) { t->positions[ROWS + 1] = (INT64_C(1) << 53) + 1; }
static void place_large(struct cache *t) { /* a ring that has come far */
    t->args.positions = NULL;
    t->kv.lengths[2] = t->kv.firsts[2] = (size_t)1 << 53;
}
static void place_huge(struct cache *t) {
    t->args.positions = NULL;
    t->kv.lengths[2] = t->kv.firsts[2] = SIZE_MAX - 8;
}
static void length_overflows(struct cache *t) {
    t->args.rope = NULL;
    t->kv.lengths[2] = t->kv.firsts[2] = PTRDIFF_MAX - 1;
}
static void rows_on_k(struct cache *t) { t->k.data = t->kv.k.data; }
static void rows_on_lengths(struct cache *t) { t->k.data = t->kv.lengths; }
static void values_on_v(struct cache *t) {
    t->v.data = shifted(t->kv.v.data, (KV_FLOATS / 11 * 5 - 1) * sizeof(float));
}
static void values_on_references(struct cache *t) { t->v.data = t->kv.references; }
static void sequences_on_lengths(struct cache *t) {
    t->args.sequences = t->kv.lengths + 2;
    t->kv.lengths[3] = 1;
    t->kv.blocks[3 * KV_SLOTS] = 5;
    t->kv.references[5] = 1;
}
static void counts_on_lengths(struct cache *t) { t->args.counts = t->kv.lengths + 2; }
static void positions_on_v(struct cache *t) { t->args.positions = t->kv.v.data; }
static void divisors_on_k(struct cache *t) {
    float *k = t->kv.k.data;
    for (int i = 0; i < KV_P_K; i++) k[i] = 1.0f;
    t->rope.frequency_divisors = k;
}

/* ---- Blocks -------------------------------------------------------------------------------------------- */

static void full(struct cache *t) {
    t->kv.lengths[1] = KV_SLOTS * KV_ROWS - 1;
    t->sequences[1] = 1;
}
static void none_free(struct cache *t) {
    for (int i = 0; i < KV_BLOCKS; i++) t->kv.references[i] += !t->kv.references[i];
}
static void hosts_none(struct cache *t) { t->kv.references = NULL; }
static void hosts_beyond(struct cache *t) {
    t->kv.references = NULL;
    t->kv.blocks[2 * KV_SLOTS] = KV_BLOCKS;
}

static void keys_without_block(struct cache *t) { t->kv.blocks[1] = -3; }
static void block_beyond(struct cache *t) { t->kv.blocks[1] = KV_BLOCKS; }
static void not_referenced(struct cache *t) { t->kv.references[t->kv.blocks[1]] = 0; }

static const struct kv_error call_errors[] = {
    ARGUMENT(args_null, "args"),
    ARGUMENT(args_size_0, "args"),
    ARGUMENT(args_size_huge, "args"),
    ARGUMENT(rows_null, "k"),
    ARGUMENT(values_null, "v"),
    OTHER(rows_data_null, ARGUMENT, "k: its data", 0),
    OTHER(rows_bool, DTYPE, "k", 1),
    OTHER(rows_blocks, DTYPE, "v: its element type q8_0", 1),
    OTHER(rows_f16_odd, STRIDE, "k: its data", 0),
    STRIDE(rows_bf16_apart, "v: its column stride"),
    STRIDE(rows_apart, "v"),
    SHAPE(rows_heads, "k: its head"),
    SHAPE(rows_columns, "k: its column"),
    SHAPE(values_columns, "v: its column"),
    SHAPE(values_heads, "v: its head"),
    SHAPE(values_rows, "v: its row"),
    SHAPE(values_batch, "v: its batch"),
    OTHER(rows_many, CAPACITY, "sequence 0", 0),
    SHAPE(ragged_batch, "args.starts"),
    ARGUMENT(ragged_counts, "args.counts"),
    SHAPE(starts_fall, "args.starts[2]"),
    SHAPE(starts_beyond, "args.starts[2]"),
    OTHER(starts_many, OVERFLOW, "args.starts", 1),
    STRIDE(starts_misaligned, "args.starts"),
    SHAPE(counts_many, "args.counts[1]"),
    STRIDE(counts_misaligned, "args.counts"),
    SHAPE(sequence_4, "args.sequences[1]"),
    OTHER(sequence_twice, ARGUMENT, "args.sequences[1]", 0),
    STRIDE(sequences_misaligned, "args.sequences"),
    OTHER(sequences_many, SHAPE, "k: 2 sequences", 0),
    OTHER(ragged_many, SHAPE, "args.n_starts", 0),
    ARGUMENT(rope_style, "rope.style"),
    SHAPE(rope_dims, "rope.dims"),
    ARGUMENT(rope_size_0, "rope"),
    STRIDE(positions_misaligned, "args.positions"),
    ARGUMENT(position_large, "args.positions"),
    RING(place_large, ARGUMENT, "kv.lengths", 1),
    RING(place_huge, OVERFLOW, "kv.lengths[2]", 1),
    RING(length_overflows, OVERFLOW, "kv.lengths[2]", 1),
    OTHER(rows_on_k, OVERLAP, "kv.k overlaps k", 0),
    OTHER(rows_on_lengths, OVERLAP, "overlaps k", 0),
    OTHER(values_on_v, OVERLAP, "kv.v overlaps v", 0),
    OTHER(values_on_references, OVERLAP, "overlaps v", 0),
    OTHER(sequences_on_lengths, OVERLAP, "kv.lengths overlaps args.sequences", 0),
    OTHER(counts_on_lengths, OVERLAP, "kv.lengths overlaps args.counts", 0),
    OTHER(positions_on_v, OVERLAP, "kv.v overlaps args.positions", 0),
    OTHER(divisors_on_k, OVERLAP, "kv.k overlaps rope.frequency_divisors", 0),
    OTHER(full, CAPACITY, "sequence 1", 0),
    OTHER(none_free, CAPACITY, "sequence 2", 0),
    OTHER(hosts_none, ARGUMENT, "kv.blocks[6]", 0),
    OTHER(hosts_beyond, SHAPE, "kv.blocks[6]", 0),
    OTHER(keys_without_block, ARGUMENT, "kv.blocks[1]", 0),
    OTHER(block_beyond, SHAPE, "kv.blocks[1]", 0),
    OTHER(not_referenced, ARGUMENT, "kv.references[", 0),
};

START_TEST(wrong_call) {
    attn_context *context = default_context();
    cache_refuses(&call_errors[_i], context);
    attn_context_destroy(context);
}
END_TEST

/* ---- What is allowed ----------------------------------------------------------------------------------- */

static void no_batch(struct cache *t) {
    t->k.size[0] = t->v.size[0] = 0;
    t->k.data = t->v.data = NULL;
}
static void no_new_rows(struct cache *t) {
    t->k.size[2] = t->v.size[2] = 0;
    t->args.counts = NULL;
}
static void no_sequences(struct cache *t) { t->args.sequences = NULL; }
static void unread(struct cache *t) { /* without RoPE */
    t->args.rope = NULL;
    t->args.positions = shifted(t->positions, 1);
    t->args.n_starts = SIZE_MAX;
}
static void rows_broadcast(struct cache *t) { t->k.stride[0] = t->v.stride[0] = t->k.stride[1] = 0; }
static void rows_shared(struct cache *t) { t->v.data = t->k.data; }
static void short_structs(struct cache *t) { t->args.size = offsetof(attn_kv_append_args, starts); }
static void ring_far(struct cache *t) {
    t->args.rope = NULL;
    t->kv.lengths[2] = t->kv.firsts[2] = PTRDIFF_MAX - ROWS;
}
static void interleaved_well(struct cache *t) {
    t->kv.k.stride[0] = t->kv.v.stride[0] = KV_HEADS * KV_ROWS * (KV_P_K + KV_P_V) * 4;
    t->kv.v.data = shifted(t->kv.k.data, KV_HEADS * KV_ROWS * KV_P_K * 4);
}
static void interleaved_rows(struct cache *t) { /* [block][row][keys, then values of a head][column] */
    for (int i = 0; i < 2; i++) {
        attn_tensor *x = i ? &t->kv.v : &t->kv.k;
        x->stride[1] = (KV_P_K + KV_P_V) * 4;
        x->stride[2] = KV_HEADS * x->stride[1];
        x->stride[0] = KV_ROWS * x->stride[2];
    }
    t->kv.v.data = shifted(t->kv.k.data, KV_P_K * 4);
}

START_TEST(allowed) {
    static const struct {
        void (*make)(struct cache *);
        int ring;
    } variants[] = {{no_batch, 0},       {no_new_rows, 0},      {no_sequences, 0},    {unread, 0},
                    {rows_broadcast, 0}, {rows_shared, 0},      {short_structs, 0},   {ragged, 0},
                    {ring_far, 1},       {interleaved_well, 0}, {interleaved_rows, 0}};
    attn_context *context = default_context();
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        struct cache t;
        size_t bytes = 0;
        cache_open(&t, context, variants[i].ring);
        variants[i].make(&t);
        ck_assert_msg(attn_kv_append_scratch(context, t.argument, &bytes) == ATTN_OK, "variant %zu: %s", i,
                      attn_context_error(context));
        ck_assert_msg(attn_kv_append(context, t.argument) == ATTN_OK, "variant %zu: %s", i,
                      attn_context_error(context));
    }
    attn_context_destroy(context);
}
END_TEST

START_TEST(scratch) {
    attn_context *own = default_context();
    struct cache t;
    size_t bytes = 0;
    cache_open(&t, own, 0);
    ck_assert_int_eq(attn_kv_append_scratch(own, t.argument, NULL), ATTN_ERROR_ARGUMENT);
    ck_assert_msg(strstr(attn_context_error(own), "bytes"), "%s", attn_context_error(own));
    ck_assert_int_eq(attn_kv_append_scratch(NULL, t.argument, &bytes), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_kv_append(NULL, t.argument), ATTN_ERROR_ARGUMENT);
    attn_context_destroy(own);
    char memory[64];
    attn_options options = {.size = sizeof options, .n_threads = 1, .scratch = memory, .scratch_bytes = 64};
    ck_assert_int_eq(attn_context_create(&options, &own), ATTN_OK);
    cache_watch(&t);
    ck_assert_int_eq(attn_kv_append(own, t.argument), ATTN_ERROR_SCRATCH);
    ck_assert(strstr(attn_context_error(own), "scratch") && cache_untouched(&t));
    attn_context_destroy(own);
}
END_TEST

void add_kv_append_tests(Suite *suite) {
    TCase *t = tcase_create("kv append");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, wrong_call, 0, (int)(sizeof call_errors / sizeof *call_errors));
    tcase_add_test(t, allowed);
    tcase_add_test(t, scratch);
    suite_add_tcase(suite, t);
}
