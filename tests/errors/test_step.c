/* What attn_multihead_step and its scratch query can be given wrong: neither the outputs nor the cache are written. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "step_fixture.h"
#include "suite.h"

#undef ARGUMENT
#undef SHAPE
#undef STRIDE
#undef OTHER
#undef RING

static void *shifted(void *p, size_t bytes) { return (char *)p + bytes; }

static void args_null(struct step *t) { t->argument = NULL; }
static void args_size_0(struct step *t) { t->args.size = 0; }
static void args_size_huge(struct step *t) { t->args.size = SIZE_MAX / 2; }
static void weights_null(struct step *t) { t->args.weights = NULL; }
static void weights_size_0(struct step *t) { t->weights.size = 0; }
static void heads_odd(struct step *t) { t->weights.n_head = 3; }
static void w_q_null(struct step *t) { t->weights.w_q = NULL; }
static void w_k_rows(struct step *t) { t->weights.w_k = step_matrix(t, 13, STEP_D); }
static void w_k_width(struct step *t) {
    t->weights.w_q = step_matrix(t, (size_t)STEP_HEADS * 8, STEP_D);
    t->weights.w_k = step_matrix(t, (size_t)KV_HEADS * 8, STEP_D);
}
static void w_v_width(struct step *t) {
    t->weights.w_v = step_matrix(t, (size_t)KV_HEADS * 4, STEP_D);
    t->weights.w_o = step_matrix(t, STEP_P_O, (size_t)STEP_HEADS * 4);
}
static void w_k_q_apart(struct step *t) { t->weights.w_q = step_matrix(t, (size_t)STEP_HEADS * 8, STEP_D); }
static void w_o_inputs(struct step *t) { t->weights.w_o = step_matrix(t, STEP_P_O, 19); }
static void heads_of_cache(struct step *t) {
    t->weights.n_head_kv = 4;
    t->weights.w_k = step_matrix(t, (size_t)4 * KV_P_K, STEP_D);
    t->weights.w_v = step_matrix(t, (size_t)4 * KV_P_V, STEP_D);
}
static void pooling_2(struct step *t) { t->weights.pooling = (attn_pooling)2; }
static void additive(struct step *t) {
    t->weights.pooling = ATTN_POOLING_ADDITIVE;
    t->weights.w_a = &t->x;
}
static void x_null(struct step *t) { t->args.x = NULL; }
static void x_data_null(struct step *t) { t->x.data = NULL; }
static void x_f16(struct step *t) { t->x.dtype = ATTN_F16; }
static void x_columns(struct step *t) { t->x.size[3]--; }
static void x_heads(struct step *t) { t->x.size[1] = 2; }
static void w_v_inputs(struct step *t) {
    t->weights.w_v = step_matrix(t, (size_t)KV_HEADS * KV_P_V, STEP_D + 1);
}
static void out_null(struct step *t) { t->args.out = NULL; }
static void out_data_null(struct step *t) { t->out.data = NULL; }
static void out_columns(struct step *t) { t->out.size[3]--; }
static void out_rows(struct step *t) { t->out.size[2]--; }
static void out_aliases(struct step *t) { t->out.stride[0] = 0; }
static void lse_heads(struct step *t) { t->lse.size[1] = KV_HEADS; }
static void lse_bool(struct step *t) { t->lse.dtype = ATTN_BOOL; }
static void lse_data_null(struct step *t) { t->lse.data = NULL; }
static void kv_null(struct step *t) { t->args.kv = NULL; }
static void kv_layout(struct step *t) { t->cache.kv.layout = (attn_kv_layout)2; }
static void kv_lengths_null(struct step *t) { t->cache.kv.lengths = NULL; }
static void q_norm_misaligned(struct step *t) { t->args.q_norm = shifted(t->q_norm, 2); }
static void k_norm_misaligned(struct step *t) { t->args.k_norm = shifted(t->k_norm, 1); }
static void epsilon_negative(struct step *t) { t->args.norm_epsilon = -1e-6f; }
static void epsilon_nan(struct step *t) { t->args.norm_epsilon = NAN; }
static void rope_style(struct step *t) { t->cache.rope.style = (attn_rope_style)2; }
static void rope_dims(struct step *t) { t->cache.rope.dims = KV_P_K + 2; }
static void position_large(struct step *t) { t->cache.positions[ROWS + 1] = (INT64_C(1) << 53) + 1; }
static void positions_misaligned(struct step *t) { t->args.positions = shifted(t->cache.positions, 4); }
static void counts_many(struct step *t) { t->cache.counts[1] = ROWS + 1; }
static void sequence_4(struct step *t) { t->cache.sequences[1] = KV_SEQUENCES; }
static void sequence_twice(struct step *t) { t->cache.sequences[1] = 0; }
static void sequences_many(struct step *t) {
    t->cache.kv.n_sequences = 1;
    t->args.sequences = NULL;
}
static void ragged(struct step *t) {
    t->x.size[0] = t->out.size[0] = t->lse.size[0] = 1;
    t->args.counts = NULL;
    t->args.starts = t->cache.starts;
    t->args.n_starts = CALLS;
    t->mask.size[3] = KEYS_0 + 1;
}
static void ragged_counts(struct step *t) {
    ragged(t);
    t->args.counts = t->cache.counts;
}
static void ragged_batch(struct step *t) {
    ragged(t);
    t->x.size[0] = t->out.size[0] = t->lse.size[0] = 2;
}
static void starts_late(struct step *t) {
    ragged(t);
    t->cache.starts[0] = 1;
}
static void starts_beyond(struct step *t) {
    ragged(t);
    t->cache.starts[CALLS] = ROWS + 1;
}
static void ragged_many(struct step *t) {
    ragged(t);
    sequences_many(t);
}
static void scoring_size_0(struct step *t) { t->scoring.size = 0; }
static void scoring_q_lengths(struct step *t) { t->scoring.q_lengths = t->cache.counts; }
static void scoring_kv_lengths(struct step *t) { t->scoring.kv_lengths = t->numbers; }
static void scoring_q_starts(struct step *t) { t->scoring.q_starts = t->numbers; }
static void scoring_kv_starts(struct step *t) { t->scoring.kv_starts = t->numbers; }
static void scoring_offsets(struct step *t) { t->scoring.causal = ATTN_CAUSAL_OFFSET; }
static void sink_nan(struct step *t) { t->sinks[2] = NAN; }
static void mask_keys(struct step *t) { t->mask.size[3] = KEYS_0; }
static void mask_heads(struct step *t) { t->mask.size[1] = 3; }
static void mask_misaligned(struct step *t) {
    t->mask.dtype = ATTN_F16;
    t->mask.stride[3] = 2;
    t->mask.data = t->mask_data + 1;
}

/* ---- Memory -------------------------------------------------------------------------------------------- */

static void out_on_x(struct step *t) { t->out.data = t->x_data; }
static void out_on_lse(struct step *t) { t->out.data = t->lse_data; }
static void out_on_keys(struct step *t) { t->out.data = t->cache.kv.k.data; }
static void out_on_lengths(struct step *t) { t->out.data = t->cache.kv.lengths; }
static void out_on_weights(struct step *t) { t->out.data = shifted(t->matrix[3], 64); }
static void out_on_mask(struct step *t) { t->mask.data = t->out_data; }
static void lse_on_values(struct step *t) { t->lse.data = t->cache.kv.v.data; }
static void lse_on_norm(struct step *t) { t->args.q_norm = t->lse_data; }
static void lse_on_sinks(struct step *t) { t->scoring.sinks = t->lse_data; }
static void x_on_keys(struct step *t) { t->x.data = t->cache.kv.k.data; }
static void norm_on_values(struct step *t) { t->args.k_norm = t->cache.kv.v.data; }
static void counts_on_lengths(struct step *t) {
    t->args.counts = t->cache.kv.lengths + 2;
    t->mask.size[3] = 1;
}
static void positions_on_values(struct step *t) { t->args.positions = t->cache.kv.v.data; }
static void sinks_on_keys(struct step *t) {
    float *k = t->cache.kv.k.data;
    for (int i = 0; i < STEP_HEADS; i++) k[i] = 0.0f;
    t->scoring.sinks = k;
    cache_watch(&t->cache);
}

/* ---- Room ---------------------------------------------------------------------------------------------- */

static void full(struct step *t) {
    t->cache.sequences[1] = 1;
    t->cache.kv.lengths[1] = KV_SLOTS * KV_ROWS - 1;
    for (int i = 3; i < 5; i++) {
        t->cache.kv.blocks[KV_SLOTS + i - 2] = i;
        t->cache.kv.references[i] = 1;
    }
    t->mask.size[3] = 1;
    cache_watch(&t->cache);
}
static void none_free(struct step *t) {
    for (int i = 0; i < KV_BLOCKS; i++) t->cache.kv.references[i] += !t->cache.kv.references[i];
    cache_watch(&t->cache);
}
static void no_block_of_host(struct step *t) { t->cache.kv.references = NULL; }
static void keys_without_block(struct step *t) {
    t->cache.kv.blocks[0] = -3;
    cache_watch(&t->cache);
}
static void not_referenced(struct step *t) {
    t->cache.kv.references[t->cache.kv.blocks[1]] = 0;
    cache_watch(&t->cache);
}
/* A ring of 12 keys with 11 of them: two rows more overwrite the first, which a window of all sees. */
static void ring_overwritten(struct step *t) {
    t->cache.sequences[1] = 0;
    t->cache.sequences[0] = 2;
    t->cache.kv.lengths[0] = KV_SLOTS * KV_ROWS - 1;
    for (int i = 0; i < KV_SLOTS; i++) {
        t->cache.kv.blocks[i] = i;
        t->cache.kv.references[i] = 1;
    }
    t->cache.kv.blocks[KV_SLOTS] = 5;
    t->cache.kv.references[5] = 1;
    t->window[0] = 11;
    t->mask.size[3] = 1;
    cache_watch(&t->cache);
}

static const struct step_error {
    const char *what;
    void (*make)(struct step *t);
    attn_status want;
    const char *named;
    int query_too, ring;
} errors[] = {
#define ERROR(make, status, named, query) \
    { #make, make, ATTN_ERROR_##status, named, query, 0 }
    ERROR(args_null, ARGUMENT, "args", 1),
    ERROR(args_size_0, ARGUMENT, "args", 1),
    ERROR(args_size_huge, ARGUMENT, "args", 1),
    ERROR(weights_null, ARGUMENT, "weights", 1),
    ERROR(weights_size_0, ARGUMENT, "weights", 1),
    ERROR(heads_odd, SHAPE, "weights.n_head", 1),
    ERROR(w_q_null, ARGUMENT, "weights.w_q", 1),
    ERROR(w_k_rows, SHAPE, "weights.w_k", 1),
    ERROR(w_k_width, SHAPE, "weights.w_k", 1),
    ERROR(w_v_width, SHAPE, "weights.w_v", 1),
    ERROR(w_k_q_apart, SHAPE, "weights.w_k", 1),
    ERROR(w_o_inputs, SHAPE, "weights.w_o", 1),
    ERROR(heads_of_cache, SHAPE, "weights.n_head_kv", 1),
    ERROR(pooling_2, ARGUMENT, "weights.pooling", 1),
    ERROR(additive, ARGUMENT, "weights.pooling", 1),
    ERROR(x_null, ARGUMENT, "x", 1),
    ERROR(x_data_null, ARGUMENT, "x: its data", 0),
    ERROR(x_f16, DTYPE, "x", 1),
    ERROR(x_columns, SHAPE, "x: its column", 1),
    ERROR(x_heads, SHAPE, "x: its head", 1),
    ERROR(w_v_inputs, SHAPE, "x: its column", 1),
    ERROR(out_null, ARGUMENT, "out", 1),
    ERROR(out_data_null, ARGUMENT, "out: its data", 0),
    ERROR(out_columns, SHAPE, "out: its column", 1),
    ERROR(out_rows, SHAPE, "out: its row", 1),
    ERROR(out_aliases, STRIDE, "out", 1),
    ERROR(lse_heads, SHAPE, "lse: its head", 1),
    ERROR(lse_bool, DTYPE, "lse", 1),
    ERROR(lse_data_null, ARGUMENT, "lse: its data", 0),
    ERROR(kv_null, ARGUMENT, "kv", 1),
    ERROR(kv_layout, ARGUMENT, "kv.layout", 1),
    ERROR(kv_lengths_null, ARGUMENT, "kv.lengths", 0),
    ERROR(q_norm_misaligned, STRIDE, "args.q_norm", 1),
    ERROR(k_norm_misaligned, STRIDE, "args.k_norm", 1),
    ERROR(epsilon_negative, ARGUMENT, "args.norm_epsilon", 1),
    ERROR(epsilon_nan, ARGUMENT, "args.norm_epsilon", 1),
    ERROR(rope_style, ARGUMENT, "rope.style", 1),
    ERROR(rope_dims, SHAPE, "rope.dims", 1),
    ERROR(position_large, ARGUMENT, "args.positions", 1),
    ERROR(positions_misaligned, STRIDE, "args.positions", 1),
    ERROR(counts_many, SHAPE, "args.counts[1]", 1),
    ERROR(sequence_4, SHAPE, "args.sequences[1]", 1),
    ERROR(sequence_twice, ARGUMENT, "args.sequences[1]", 0),
    ERROR(sequences_many, SHAPE, "x: 2 sequences", 1),
    ERROR(ragged_counts, ARGUMENT, "args.counts", 1),
    ERROR(ragged_batch, SHAPE, "x: its batch", 1),
    ERROR(starts_late, SHAPE, "args.starts[0]", 1),
    ERROR(starts_beyond, SHAPE, "args.starts[2]", 1),
    ERROR(ragged_many, SHAPE, "args.n_starts", 1),
    ERROR(scoring_size_0, ARGUMENT, "scoring", 1),
    ERROR(scoring_q_lengths, ARGUMENT, "scoring.q_lengths", 1),
    ERROR(scoring_kv_lengths, ARGUMENT, "scoring.kv_lengths", 1),
    ERROR(scoring_q_starts, ARGUMENT, "scoring.q_starts", 1),
    ERROR(scoring_kv_starts, ARGUMENT, "scoring.kv_starts", 1),
    ERROR(scoring_offsets, ARGUMENT, "scoring.offsets", 1),
    ERROR(sink_nan, ARGUMENT, "scoring.sinks[2]", 1),
    ERROR(mask_keys, SHAPE, "scoring.mask: its column", 0),
    ERROR(mask_heads, SHAPE, "scoring.mask: its head", 1),
    ERROR(mask_misaligned, STRIDE, "scoring.mask", 0),
    ERROR(out_on_x, OVERLAP, "out overlaps x", 0),
    ERROR(out_on_lse, OVERLAP, "out overlaps lse", 0),
    ERROR(out_on_keys, OVERLAP, "out overlaps kv.k", 0),
    ERROR(out_on_lengths, OVERLAP, "out overlaps kv.", 0),
    ERROR(out_on_weights, OVERLAP, "out overlaps weights.w_o", 0),
    ERROR(out_on_mask, OVERLAP, "out overlaps scoring.mask", 0),
    ERROR(lse_on_values, OVERLAP, "lse overlaps kv.v", 0),
    ERROR(lse_on_norm, OVERLAP, "lse overlaps args.q_norm", 0),
    ERROR(lse_on_sinks, OVERLAP, "lse overlaps scoring.sinks", 0),
    ERROR(x_on_keys, OVERLAP, "kv.k overlaps x", 0),
    ERROR(norm_on_values, OVERLAP, "kv.v overlaps args.k_norm", 0),
    ERROR(counts_on_lengths, OVERLAP, "kv.lengths overlaps args.counts", 0),
    ERROR(positions_on_values, OVERLAP, "kv.v overlaps args.positions", 0),
    ERROR(sinks_on_keys, OVERLAP, "kv.k overlaps scoring.sinks", 0),
    ERROR(full, CAPACITY, "sequence 1", 0),
    ERROR(none_free, CAPACITY, "sequence 2", 0),
    ERROR(no_block_of_host, ARGUMENT, "kv.blocks[6]", 0),
    ERROR(keys_without_block, ARGUMENT, "kv.blocks[0]", 0),
    ERROR(not_referenced, ARGUMENT, "kv.references[", 0),
    {"ring_overwritten", ring_overwritten, ATTN_ERROR_ARGUMENT, "kv: row 0 of sequence 1 sees key 0", 0, 1},
};

static void expect(const char *call, const struct step_error *e, const struct step *t, attn_status got) {
    const char *text = attn_context_error(t->context);
    ck_assert_msg(got == e->want, "%s, %s: status %s, not %s (\"%s\")", call, e->what, attn_status_name(got),
                  attn_status_name(e->want), text);
    ck_assert_msg(strstr(text, e->named), "%s, %s: \"%s\" does not name %s", call, e->what, text, e->named);
    ck_assert_msg(step_untouched(t), "%s, %s: an output or the cache was written", call, e->what);
}

START_TEST(wrong) {
    const struct step_error *e = &errors[_i];
    attn_context *context = default_context();
    struct step t;
    size_t bytes = 12345;
    step_open(&t, context, e->ring);
    e->make(&t);
    if (e->query_too) expect("query", e, &t, attn_multihead_step_scratch(context, t.argument, &bytes));
    expect("step", e, &t, attn_multihead_step(context, t.argument));
    ck_assert_uint_eq(bytes, 12345);
    step_close(&t);
    step_open(&t, context, e->ring); /* and nothing is left behind */
    ck_assert_msg(attn_multihead_step(context, t.argument) == ATTN_OK, "%s", attn_context_error(context));
    ck_assert(!step_untouched(&t));
    step_close(&t);
    attn_context_destroy(context);
}
END_TEST

/* ---- What is allowed ----------------------------------------------------------------------------------- */

static void no_batch(struct step *t) {
    t->x.size[0] = t->out.size[0] = t->lse.size[0] = 0;
    t->x.data = t->out.data = t->lse.data = NULL;
    t->mask.size[3] = 1;
}
static void no_new_rows(struct step *t) {
    t->x.size[2] = t->out.size[2] = t->lse.size[2] = 0;
    t->args.counts = NULL;
    t->mask.size[3] = 1;
}
static void none_count(struct step *t) {
    t->cache.counts[0] = t->cache.counts[1] = 0;
    t->mask.size[3] = 1;
}
static void bare(struct step *t) {
    t->args.q_norm = t->args.k_norm = NULL;
    t->args.rope = NULL;
    t->args.positions = shifted(t->cache.positions, 1); /* not read without RoPE */
    t->args.scoring = NULL;
    t->args.lse = NULL;
    t->args.sequences = NULL;
    t->args.counts = NULL;
}
static void heads_only(struct step *t) {
    t->weights.w_o = NULL;
    t->out = attn_tensor_contiguous(t->out_data, ATTN_F32, CALLS, 1, ROWS, (size_t)STEP_HEADS * KV_P_V);
}
static void short_args(struct step *t) { t->args.size = offsetof(attn_step_args, q_norm); }
static void ring_served(struct step *t) {
    ring_overwritten(t);
    t->window[0] = 9;
}

START_TEST(allowed) {
    static const struct {
        void (*make)(struct step *);
        int ring;
    } variants[] = {{no_batch, 0}, {no_new_rows, 0}, {none_count, 0}, {bare, 0},
                    {ragged, 0},   {heads_only, 0},  {short_args, 0}, {ring_served, 1}};
    attn_context *context = default_context();
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        struct step t;
        size_t bytes = 0;
        step_open(&t, context, variants[i].ring);
        variants[i].make(&t);
        ck_assert_msg(attn_multihead_step_scratch(context, t.argument, &bytes) == ATTN_OK, "variant %zu: %s",
                      i, attn_context_error(context));
        ck_assert_msg(attn_multihead_step(context, t.argument) == ATTN_OK, "variant %zu: %s", i,
                      attn_context_error(context));
        step_close(&t);
    }
    attn_context_destroy(context);
}
END_TEST

START_TEST(scratch) {
    attn_context *own = default_context(), *small;
    struct step t;
    size_t bytes = 0;
    char memory[64];
    const attn_options options = {
        .size = sizeof options, .n_threads = 1, .scratch = memory, .scratch_bytes = sizeof memory};
    step_open(&t, own, 0);
    ck_assert_int_eq(attn_multihead_step_scratch(own, t.argument, NULL), ATTN_ERROR_ARGUMENT);
    ck_assert_msg(strstr(attn_context_error(own), "bytes"), "%s", attn_context_error(own));
    ck_assert_int_eq(attn_multihead_step_scratch(NULL, t.argument, &bytes), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_multihead_step(NULL, t.argument), ATTN_ERROR_ARGUMENT);
    ck_assert_int_eq(attn_context_create(&options, &small), ATTN_OK);
    ck_assert_int_eq(attn_multihead_step(small, t.argument), ATTN_ERROR_SCRATCH);
    ck_assert(strstr(attn_context_error(small), "scratch") && step_untouched(&t));
    attn_context_destroy(small);
    step_close(&t);
    attn_context_destroy(own);
}
END_TEST

void add_step_tests(Suite *suite) {
    TCase *t = tcase_create("step");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, wrong, 0, (int)(sizeof errors / sizeof *errors));
    tcase_add_test(t, allowed);
    tcase_add_test(t, scratch);
    suite_add_tcase(suite, t);
}
