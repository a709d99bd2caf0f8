/* What attn_sdpa refuses of a cache, and what it takes: nothing is written then. */
#include <string.h>

#include "fixture.h"
#include "kv_fixture.h"
#include "suite.h"

enum { GROUP = 2, Q_HEADS = KV_HEADS * GROUP, NEW = 2 };

/* Two rows of sequences 0 and 1. */
struct pooling {
    struct cache cache;
    float q_data[2 * Q_HEADS * NEW * KV_P_K], out_data[2 * Q_HEADS * NEW * KV_P_V];
    attn_tensor q, out, mask;
    unsigned char mask_data[KEYS_0 + 1];
    size_t sequences[2], q_starts[3], window[2], lengths[2];
    attn_scoring scoring;
    attn_sdpa_args args;
};

static void pooling_open(struct pooling *t, attn_context *context, int ring) {
    memset(t, 0, sizeof *t);
    cache_open(&t->cache, context, ring);
    t->q = attn_tensor_contiguous(t->q_data, ATTN_F32, 2, Q_HEADS, NEW, KV_P_K);
    t->out = attn_tensor_contiguous(t->out_data, ATTN_F32, 2, Q_HEADS, NEW, KV_P_V);
    t->mask = attn_tensor_contiguous(t->mask_data, ATTN_BOOL, 1, 1, 1, KEYS_0);
    t->sequences[1] = 1;
    t->window[1] = SIZE_MAX;
    t->scoring = (attn_scoring){.size = sizeof t->scoring, .causal = ATTN_CAUSAL_BOTTOM_RIGHT};
    t->args = (attn_sdpa_args){.size = sizeof t->args,
                               .q = &t->q,
                               .out = &t->out,
                               .scoring = &t->scoring,
                               .kv = &t->cache.kv,
                               .kv_sequences = t->sequences};
    for (size_t i = 0; i < sizeof t->out_data / sizeof *t->out_data; i++) t->out_data[i] = 77;
}

static void k_beside(struct pooling *t) { t->args.k = &t->q; }
static void v_beside(struct pooling *t) { t->args.v = &t->q; }
static void kv_null(struct pooling *t) { t->args.kv = NULL; }
static void kv_starts(struct pooling *t) { t->scoring.kv_starts = t->q_starts; }
static void sequence_beyond(struct pooling *t) { t->sequences[1] = KV_SEQUENCES; }
static void sequences_few(struct pooling *t) {
    t->args.kv_sequences = NULL;
    t->q.size[0] = t->out.size[0] = KV_SEQUENCES + 1;
    t->q.stride[0] = 0;
}
static void q_columns(struct pooling *t) { t->q.size[3]--; }
static void q_heads(struct pooling *t) { t->q.size[1]--; }
static void out_columns(struct pooling *t) { t->out.size[3]--; }
static void mask_columns(struct pooling *t) {
    t->mask.size[3] = KEYS_0 + 1; /* the longest sequence has KEYS_0 */
    t->scoring.mask = &t->mask;
}
static void length_above(struct pooling *t) {
    t->lengths[1] = KEYS_1 + 1;
    t->scoring.kv_lengths = t->lengths;
}
static void no_block(struct pooling *t) { t->cache.kv.blocks[1] = -1; }
static void block_beyond(struct pooling *t) { t->cache.kv.blocks[1] = KV_BLOCKS; }
static void out_in_values(struct pooling *t) { t->out.data = t->cache.kv.v.data; }
static void out_in_table(struct pooling *t) { /* short enough to touch neither keys nor values */
    t->q.size[0] = t->out.size[0] = 1;
    t->q.size[1] = t->out.size[1] = KV_HEADS;
    t->out.data = t->cache.kv.lengths;
}
static void out_in_sequences(struct pooling *t) { t->out.data = t->sequences; }
static void overwritten(struct pooling *t) { t->cache.kv.firsts[0] = 2; }

static const struct {
    void (*make)(struct pooling *t);
    attn_status want;
    const char *named;
    int query_too, ring;
} errors[] = {
    {k_beside, ATTN_ERROR_ARGUMENT, "k is given beside kv", 1, 0},
    {v_beside, ATTN_ERROR_ARGUMENT, "v is given beside kv", 1, 0},
    {kv_null, ATTN_ERROR_ARGUMENT, "kv_sequences is given", 1, 0},
    {kv_starts, ATTN_ERROR_ARGUMENT, "scoring.kv_starts", 1, 0},
    {sequence_beyond, ATTN_ERROR_SHAPE, "kv_sequences[1]", 1, 0},
    {sequences_few, ATTN_ERROR_SHAPE, "kv has 4 sequences", 1, 0},
    {q_columns, ATTN_ERROR_SHAPE, "q: its column size", 1, 0},
    {q_heads, ATTN_ERROR_SHAPE, "q: its head size", 1, 0},
    {out_columns, ATTN_ERROR_SHAPE, "out", 1, 0},
    {mask_columns, ATTN_ERROR_SHAPE, "scoring.mask", 1, 0},
    {length_above, ATTN_ERROR_SHAPE, "scoring.kv_lengths[1]", 1, 0},
    {no_block, ATTN_ERROR_ARGUMENT, "kv.blocks[1]", 0, 0},
    {block_beyond, ATTN_ERROR_SHAPE, "kv.blocks[1]", 0, 0},
    {out_in_values, ATTN_ERROR_OVERLAP, "kv.v", 0, 0},
    {out_in_table, ATTN_ERROR_OVERLAP, "kv.lengths", 0, 0},
    {out_in_sequences, ATTN_ERROR_OVERLAP, "kv_sequences", 0, 0},
    {overwritten, ATTN_ERROR_ARGUMENT, "the ring's first one is 2", 0, 1},
};

START_TEST(refused) {
    attn_context *context = default_context();
    struct pooling t;
    size_t bytes = 77;
    pooling_open(&t, context, errors[_i].ring);
    errors[_i].make(&t);
    cache_watch(&t.cache);
    ck_assert_int_eq(attn_sdpa(context, &t.args), errors[_i].want);
    ck_assert_msg(strstr(attn_context_error(context), errors[_i].named) != NULL, "'%s' does not name '%s'",
                  attn_context_error(context), errors[_i].named);
    ck_assert(cache_untouched(&t.cache));
    for (size_t i = 0; i < sizeof t.out_data / sizeof *t.out_data; i++) ck_assert(t.out_data[i] == 77.0f);
    if (errors[_i].query_too) {
        ck_assert_int_eq(attn_sdpa_scratch(context, &t.args, &bytes), errors[_i].want);
        ck_assert_uint_eq(bytes, 77);
    }
    attn_context_destroy(context);
}
END_TEST

/* A ring's rows that see what is left; a query without data or arrays. */
START_TEST(allowed) {
    attn_context *context = default_context();
    struct pooling t;
    size_t bytes = 0;
    pooling_open(&t, context, 1);
    overwritten(&t);
    t.window[0] = 1; /* rows 0 and 1 stand on keys 3 and 4 */
    t.scoring.window = t.window;
    ck_assert_int_eq(attn_sdpa(context, &t.args), ATTN_OK);
    t.q.data = t.out.data = t.cache.kv.k.data = t.cache.kv.v.data = NULL;
    t.cache.kv.lengths = t.cache.kv.firsts = NULL;
    ck_assert_int_eq(attn_sdpa_scratch(context, &t.args, &bytes), ATTN_OK);
    ck_assert_uint_gt(bytes, 0);
    attn_context_destroy(context);
}
END_TEST

void add_kv_sdpa_tests(Suite *suite) {
    TCase *t = tcase_create("attn_sdpa from caches");
    tcase_add_loop_test(t, refused, 0, (int)(sizeof errors / sizeof *errors));
    tcase_add_test(t, allowed);
    suite_add_tcase(suite, t);
}
