#include "kv_fixture.h"

#include <check.h>
#include <string.h>

attn_kv_shape cache_shape(int ring) {
    return (attn_kv_shape){.size = sizeof(attn_kv_shape),
                           .ring = ring,
                           .n_sequences = KV_SEQUENCES,
                           .n_blocks = KV_BLOCKS,
                           .blocks_per_sequence = KV_SLOTS,
                           .block_rows = KV_ROWS,
                           .n_head_kv = KV_HEADS,
                           .p_k = KV_P_K,
                           .p_v = KV_P_V};
}

static void fill(struct cache *t, size_t sequence, size_t keys) {
    float zeros[KV_HEADS * KEYS_0 * KV_P_K] = {0};
    attn_tensor k = attn_tensor_contiguous(zeros, ATTN_F32, 1, KV_HEADS, keys, KV_P_K);
    attn_tensor v = attn_tensor_contiguous(zeros, ATTN_F32, 1, KV_HEADS, keys, KV_P_V);
    attn_kv_append_args args = {.size = sizeof args, .kv = &t->kv, .k = &k, .v = &v, .sequences = &sequence};
    ck_assert_msg(attn_kv_append(t->context, &args) == ATTN_OK, "%s", attn_context_error(t->context));
}

void cache_open(struct cache *t, attn_context *context, int ring) {
    const attn_kv_shape shape = cache_shape(ring);
    memset(t, 0, sizeof *t);
    t->context = context;
    t->kv.size = sizeof t->kv;
    t->kv_argument = &t->kv;
    ck_assert_int_eq(attn_kv_bytes(context, &shape, &t->bytes), ATTN_OK);
    ck_assert_uint_le(t->bytes, KV_BYTES);
    ck_assert_msg(attn_kv_create(context, &shape, t->memory, t->bytes, &t->kv) == ATTN_OK, "%s",
                  attn_context_error(context));
    fill(t, 0, KEYS_0);
    fill(t, 1, KEYS_1);
    t->k = attn_tensor_contiguous(t->k_data, ATTN_F32, CALLS, KV_HEADS, ROWS, KV_P_K);
    t->v = attn_tensor_contiguous(t->v_data, ATTN_F32, CALLS, KV_HEADS, ROWS, KV_P_V);
    for (int i = 0; i < KV_P_K / 2; i++) t->divisors[i] = 1.0f;
    for (int i = 0; i < CALLS; i++) {
        t->sequences[i] = 2 * (size_t)i;
        t->counts[i] = ROWS - (size_t)i;
        t->starts[i + 1] = t->starts[i] + 1;
    }
    t->rope = (attn_rope){.size = sizeof t->rope, .frequency_divisors = t->divisors};
    t->args = (attn_kv_append_args){.size = sizeof t->args,
                                    .kv = &t->kv,
                                    .k = &t->k,
                                    .v = &t->v,
                                    .sequences = t->sequences,
                                    .counts = t->counts,
                                    .rope = &t->rope,
                                    .positions = t->positions};
    t->argument = &t->args;
}

void cache_watch(struct cache *t) { memcpy(t->before, t->memory, sizeof t->before); }

int cache_untouched(const struct cache *t) { return memcmp(t->before, t->memory, sizeof t->before) == 0; }

void cache_expect(const char *call, const struct kv_error *e, const struct cache *t, attn_status got) {
    const char *text = attn_context_error(t->context);
    ck_assert_msg(got == e->want, "%s, %s: status %s, not %s (\"%s\")", call, e->what, attn_status_name(got),
                  attn_status_name(e->want), text);
    ck_assert_msg(strstr(text, e->named), "%s, %s: \"%s\" does not name %s", call, e->what, text, e->named);
    ck_assert_msg(cache_untouched(t), "%s, %s: the cache was written", call, e->what);
}

void cache_refuses(const struct kv_error *e, attn_context *context) {
    struct cache t;
    size_t bytes = 12345;
    cache_open(&t, context, e->ring);
    e->make(&t);
    cache_watch(&t);
    cache_expect("append", e, &t, attn_kv_append(context, t.argument));
    if (e->query_too) cache_expect("query", e, &t, attn_kv_append_scratch(context, t.argument, &bytes));
    ck_assert_uint_eq(bytes, 12345);
    cache_open(&t, context, e->ring); /* and nothing is left behind */
    cache_watch(&t);
    ck_assert_msg(attn_kv_append(context, t.argument) == ATTN_OK, "%s", attn_context_error(context));
    ck_assert(!cache_untouched(&t));
}
