/* A cache with some sequences, and a valid append to it, of which a test breaks one thing. */
#ifndef ERRORS_KV_FIXTURE_H
#define ERRORS_KV_FIXTURE_H

#include <attn/attn.h>

/* Sequences 0 and 1 have KEYS_0 and KEYS_1 keys, the others none; the call has CALLS sequences of ROWS
 * rows. */
enum {
    KV_SEQUENCES = 4,
    KV_SLOTS = 3,
    KV_BLOCKS = 6,
    KV_ROWS = 4,
    KV_HEADS = 2,
    KV_P_K = 6,
    KV_P_V = 5,
    KEYS_0 = 5,
    KEYS_1 = 2,
    CALLS = 2,
    ROWS = 3,
    KV_FLOATS = KV_BLOCKS * KV_ROWS * KV_HEADS * (KV_P_K + KV_P_V),
    KV_BYTES = 8192,
    SPARE = 64
};

struct cache {
    attn_context *context;
    _Alignas(64) unsigned char memory[KV_BYTES];
    unsigned char before[KV_BYTES];
    size_t bytes;
    attn_kv kv;
    const attn_kv *kv_argument;
    float k_data[CALLS * KV_HEADS * ROWS * KV_P_K + SPARE], v_data[CALLS * KV_HEADS * ROWS * KV_P_V + SPARE];
    float divisors[KV_P_K / 2];
    attn_tensor k, v;
    size_t sequences[CALLS + 1], counts[CALLS + 1], starts[CALLS + 1];
    int64_t positions[CALLS * ROWS + 1];
    attn_rope rope;
    attn_kv_append_args args;
    const attn_kv_append_args *argument;
};

/* Everything valid: counts, sequences 0 and 2, RoPE with positions. */
void cache_open(struct cache *t, attn_context *context, int ring);

attn_kv_shape cache_shape(int ring);

/* From here on the cache's memory should stay as it is. */
void cache_watch(struct cache *t);
int cache_untouched(const struct cache *t);

struct kv_error {
    const char *what;
    void (*make)(struct cache *t);
    attn_status want;
    const char *named;
    int query_too, ring;
};

#define ARGUMENT(make, named) \
    { #make, make, ATTN_ERROR_ARGUMENT, named, 1, 0 }
#define SHAPE(make, named) \
    { #make, make, ATTN_ERROR_SHAPE, named, 1, 0 }
#define STRIDE(make, named) \
    { #make, make, ATTN_ERROR_STRIDE, named, 1, 0 }
#define OTHER(make, status, named, query) \
    { #make, make, ATTN_ERROR_##status, named, query, 0 }
#define RING(make, status, named, query) \
    { #make, make, ATTN_ERROR_##status, named, query, 1 }

/* The right status, the argument's name in the text, and nothing written. */
void cache_expect(const char *call, const struct kv_error *e, const struct cache *t, attn_status got);

/* attn_kv_append() and its query refuse it; the next call works. */
void cache_refuses(const struct kv_error *e, attn_context *context);

#endif
