/* Every way to misuse what attn_scoring says, but its mask's shape and lengths (test_tensors.c, test_calls.c). */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "suite.h"

static void cap_negative(struct fixture *f) { f->scoring.soft_cap = -1; }
static void cap_nan(struct fixture *f) { f->scoring.soft_cap = NAN; }
static void cap_inf(struct fixture *f) { f->scoring.soft_cap = INFINITY; }
static void slope_nan(struct fixture *f) { f->slopes[N_HEAD - 1] = NAN; }
static void slope_inf(struct fixture *f) { f->slopes[0] = INFINITY; }
static void slope_minus_inf(struct fixture *f) { f->slopes[1] = -INFINITY; }
static void sink_nan(struct fixture *f) { f->sinks[N_HEAD - 1] = NAN; }
static void sink_inf(struct fixture *f) { f->sinks[0] = INFINITY; }
static void q_documents_only(struct fixture *f) { f->scoring.kv_documents = NULL; }
static void kv_documents_only(struct fixture *f) { f->scoring.q_documents = NULL; }
static void causal_needs_offsets(struct fixture *f) {
    f->scoring.causal = ATTN_CAUSAL_OFFSET;
    f->scoring.offsets = NULL;
}
static void half_mask(struct fixture *f) {
    f->tensor[T_MASK] = attn_tensor_contiguous(f->memory[T_MASK], ATTN_F16, BATCH, N_HEAD, N_Q, N_KV);
}
static void half_mask_odd_address(struct fixture *f) {
    half_mask(f);
    f->tensor[T_MASK].data = (char *)f->tensor[T_MASK].data + 1;
}
static void half_mask_odd_row(struct fixture *f) {
    half_mask(f);
    f->tensor[T_MASK].stride[2] = 2 * N_KV + 1;
}
static void half_mask_odd_batch(struct fixture *f) {
    half_mask(f);
    f->tensor[T_MASK].stride[0]++;
}
static void half_mask_column(struct fixture *f) {
    half_mask(f);
    f->tensor[T_MASK].stride[3] = sizeof(float);
}

/* ---- Of ragged batches ---- */

static void q_starts_only(struct fixture *f) {
    fixture_ragged(f);
    f->scoring.kv_starts = NULL;
}
static void kv_starts_only(struct fixture *f) {
    fixture_ragged(f);
    f->scoring.q_starts = NULL;
}
static void q_starts_descend(struct fixture *f) {
    fixture_ragged(f);
    f->starts[0][1] = 2;
}
static void kv_starts_descend(struct fixture *f) {
    fixture_ragged(f);
    f->starts[1][2] = 1;
}
static void q_starts_beyond(struct fixture *f) {
    fixture_ragged(f);
    f->starts[0][N_SEQUENCES] = N_Q + 1;
}
static void kv_starts_beyond(struct fixture *f) {
    fixture_ragged(f);
    f->starts[1][N_SEQUENCES] = SIZE_MAX;
}
static void q_starts_not_from_0(struct fixture *f) {
    fixture_ragged(f);
    f->starts[0][0] = 1;
}
static void batch_with_starts(struct fixture *f) {
    fixture_ragged(f);
    for (int i = 0; i < T_MASK; i++) f->tensor[i].size[0] = BATCH;
}
static void q_lengths_with_starts(struct fixture *f) {
    fixture_ragged(f);
    f->scoring.q_lengths = f->q_lengths;
}
static void kv_length_of_a_sequence(struct fixture *f) {
    static const size_t lengths[N_SEQUENCES] = {2, 2, 2}; /* the middle one has 1 */
    fixture_ragged(f);
    f->scoring.kv_lengths = lengths;
}
static void sequences_huge(struct fixture *f) {
    fixture_ragged(f);
    f->scoring.n_sequences = SIZE_MAX;
}
static void weights_of_the_tensor(struct fixture *f) {
    fixture_ragged(f);
    f->tensor[T_WEIGHTS].size[3] = N_KV;
}
static void mask_of_the_tensor(struct fixture *f) {
    fixture_ragged(f);
    f->argument[T_MASK] = &f->tensor[T_MASK];
    f->tensor[T_MASK].size[0] = N_SEQUENCES;
}
static void mask_of_other_sequences(struct fixture *f) {
    fixture_ragged(f);
    f->argument[T_MASK] = &f->tensor[T_MASK];
    f->tensor[T_MASK] = attn_tensor_contiguous(f->memory[T_MASK], ATTN_F32, 2, 1, 1, 1);
}

static const struct scoring_error {
    const char *what;
    void (*make)(struct fixture *f);
    attn_status want;
    const char *named;
} scoring_errors[] = {
    {"soft_cap negative", cap_negative, ATTN_ERROR_ARGUMENT, "scoring.soft_cap"},
    {"soft_cap NaN", cap_nan, ATTN_ERROR_ARGUMENT, "scoring.soft_cap"},
    {"soft_cap inf", cap_inf, ATTN_ERROR_ARGUMENT, "scoring.soft_cap"},
    {"a slope NaN", slope_nan, ATTN_ERROR_ARGUMENT, "scoring.alibi_slopes"},
    {"a slope inf", slope_inf, ATTN_ERROR_ARGUMENT, "scoring.alibi_slopes"},
    {"a slope -inf", slope_minus_inf, ATTN_ERROR_ARGUMENT, "scoring.alibi_slopes"},
    {"a sink NaN", sink_nan, ATTN_ERROR_ARGUMENT, "scoring.sinks"},
    {"a sink +inf", sink_inf, ATTN_ERROR_ARGUMENT, "scoring.sinks"},
    {"q_documents only", q_documents_only, ATTN_ERROR_ARGUMENT, "scoring.kv_documents"},
    {"kv_documents only", kv_documents_only, ATTN_ERROR_ARGUMENT, "scoring.q_documents"},
    {"causal offset without offsets", causal_needs_offsets, ATTN_ERROR_ARGUMENT, "scoring.offsets"},
    {"f16 mask at an odd address", half_mask_odd_address, ATTN_ERROR_STRIDE, "scoring.mask"},
    {"f16 mask's row stride odd", half_mask_odd_row, ATTN_ERROR_STRIDE, "scoring.mask"},
    {"f16 mask's batch stride odd", half_mask_odd_batch, ATTN_ERROR_STRIDE, "scoring.mask"},
    {"f16 mask's columns apart", half_mask_column, ATTN_ERROR_STRIDE, "scoring.mask"},
    {"q_starts only", q_starts_only, ATTN_ERROR_ARGUMENT, "scoring.kv_starts"},
    {"kv_starts only", kv_starts_only, ATTN_ERROR_ARGUMENT, "scoring.q_starts"},
    {"q_starts descending", q_starts_descend, ATTN_ERROR_SHAPE, "scoring.q_starts"},
    {"kv_starts descending", kv_starts_descend, ATTN_ERROR_SHAPE, "scoring.kv_starts"},
    {"q_starts beyond q", q_starts_beyond, ATTN_ERROR_SHAPE, "scoring.q_starts"},
    {"kv_starts beyond k", kv_starts_beyond, ATTN_ERROR_SHAPE, "scoring.kv_starts"},
    {"q_starts[0] not 0", q_starts_not_from_0, ATTN_ERROR_SHAPE, "scoring.q_starts"},
    {"a batch beside starts", batch_with_starts, ATTN_ERROR_SHAPE, "q"},
    {"q_lengths beside starts", q_lengths_with_starts, ATTN_ERROR_ARGUMENT, "scoring.q_lengths"},
    {"kv_lengths above a sequence's", kv_length_of_a_sequence, ATTN_ERROR_SHAPE, "scoring.kv_lengths"},
    {"n_sequences huge", sequences_huge, ATTN_ERROR_OVERFLOW, "scoring.n_sequences"},
    {"weights of all keys", weights_of_the_tensor, ATTN_ERROR_SHAPE, ""},
    {"mask of all rows", mask_of_the_tensor, ATTN_ERROR_SHAPE, "scoring.mask"},
    {"mask of 2 of 3 sequences", mask_of_other_sequences, ATTN_ERROR_SHAPE, "scoring.mask"},
};

START_TEST(wrong) {
    const struct scoring_error *e = &scoring_errors[_i];
    attn_context *context = default_context();
    for (int api = 0; api < N_APIS; api++) {
        struct fixture f;
        fixture_open(&f, (enum api)api, context);
        e->make(&f);
        must_fail(&f, e->what, e->want, e->named, e->make != half_mask_odd_address);
        fixture_close(&f);
        must_work(context, (enum api)api);
    }
    attn_context_destroy(context);
}
END_TEST

/* ---- Overlap ---- */

/* The arrays by where the scoring has their address. */
static const struct array {
    const char *name;
    size_t member, bytes;
    int ragged;
} arrays[] = {
    {"q_lengths", offsetof(attn_scoring, q_lengths), BATCH * sizeof(size_t), 0},
    {"kv_lengths", offsetof(attn_scoring, kv_lengths), BATCH * sizeof(size_t), 0},
    {"offsets", offsetof(attn_scoring, offsets), BATCH * sizeof(ptrdiff_t), 0},
    {"window", offsetof(attn_scoring, window), 2 * sizeof(size_t), 0},
    {"prefixes", offsetof(attn_scoring, prefixes), BATCH * sizeof(size_t), 0},
    {"q_documents", offsetof(attn_scoring, q_documents), BATCH *N_Q * sizeof(int32_t), 0},
    {"kv_documents", offsetof(attn_scoring, kv_documents), BATCH *N_KV * sizeof(int32_t), 0},
    {"alibi_slopes", offsetof(attn_scoring, alibi_slopes), N_HEAD * sizeof(float), 0},
    {"sinks", offsetof(attn_scoring, sinks), N_HEAD * sizeof(float), 0},
    {"q_starts", offsetof(attn_scoring, q_starts), (N_SEQUENCES + 1) * sizeof(size_t), 1},
    {"kv_starts", offsetof(attn_scoring, kv_starts), (N_SEQUENCES + 1) * sizeof(size_t), 1},
};

/* The array's last float is the output's first. */
START_TEST(overlap) {
    static const enum tensor outputs[] = {T_OUT, T_LSE, T_WEIGHTS, T_LSE_SINKS, T_SCORES};
    const struct array *a = &arrays[_i];
    attn_context *context = default_context();
    for (int api = 0; api < N_APIS; api++)
        for (size_t o = 0; o < sizeof outputs / sizeof *outputs; o++) {
            struct fixture f;
            char what[80];
            const void *old, *new_address;
            fixture_open(&f, (enum api)api, context);
            if (a->ragged) fixture_ragged(&f);
            if (f.argument[outputs[o]]) {
                char *block = malloc(a->bytes + FIXTURE_FLOATS * sizeof(float));
                ck_assert_ptr_nonnull(block);
                memcpy(&old, (char *)&f.scoring + a->member, sizeof old);
                memcpy(block, old, a->bytes);
                new_address = block;
                memcpy((char *)&f.scoring + a->member, &new_address, sizeof new_address);
                f.tensor[outputs[o]].data = block + a->bytes - sizeof(float);
                snprintf(what, sizeof what, "%s in %s", fixture_name((enum api)api, outputs[o]), a->name);
                must_fail(&f, what, ATTN_ERROR_OVERLAP, a->name, 0);
                f.tensor[outputs[o]].data = block + a->bytes; /* side by side is allowed */
                ck_assert_msg(fixture_call(&f) == ATTN_OK, "%s beside: %s", what,
                              attn_context_error(context));
                free(block);
            }
            fixture_close(&f);
        }
    attn_context_destroy(context);
}
END_TEST

/* ---- Allowed ---- */

static void no_sink(struct fixture *f) {
    for (int i = 0; i < N_HEAD; i++) f->sinks[i] = -INFINITY;
}
static void odd_slopes(struct fixture *f) {
    f->slopes[0] = 0;
    f->slopes[1] = -1;
}
static void window_of_one(struct fixture *f) { f->window[0] = f->window[1] = 0; }
static void no_window(struct fixture *f) { f->window[0] = f->window[1] = SIZE_MAX; }
static void widest_window(struct fixture *f) { f->window[0] = f->window[1] = SIZE_MAX - 1; }
static void extreme_offsets(struct fixture *f) {
    f->scoring.causal = ATTN_CAUSAL_OFFSET;
    f->offsets[0] = PTRDIFF_MIN;
    f->offsets[1] = PTRDIFF_MAX;
}
static void prefix_of_all(struct fixture *f) { f->prefixes[0] = f->prefixes[1] = SIZE_MAX; }
static void no_sequence(struct fixture *f) {
    fixture_ragged(f);
    f->scoring.n_sequences = 0;
    f->starts[0][0] = f->starts[1][0] = 0;
    f->tensor[T_WEIGHTS].size[3] = f->tensor[T_SCORES].size[3] = 0;
}
static void rows_behind(struct fixture *f) {
    fixture_ragged(f);
    f->starts[0][N_SEQUENCES] = 1;
    f->starts[1][N_SEQUENCES] = 4;
}
static void mask_with_starts(struct fixture *f) {
    fixture_ragged(f);
    f->argument[T_MASK] = &f->tensor[T_MASK];
    f->tensor[T_MASK] = attn_tensor_contiguous(f->memory[T_MASK], ATTN_F16, N_SEQUENCES, N_HEAD, 2, 2);
}
static void unread_sequences(struct fixture *f) { f->scoring.n_sequences = SIZE_MAX; }

START_TEST(allowed) {
    static void (*const make[])(struct fixture *) = {
        half_mask,     no_sink,          odd_slopes,      window_of_one, no_window,
        widest_window, fixture_ragged,   extreme_offsets, prefix_of_all, no_sequence,
        rows_behind,   mask_with_starts, unread_sequences};
    must_allow(make, sizeof make / sizeof *make);
}
END_TEST

/* A struct of version 0.1.0 ends after the mask: what it lacks is not read. */
START_TEST(short_scoring) {
    attn_context *context = default_context();
    for (int api = 0; api < N_APIS; api++) {
        struct fixture f;
        fixture_open(&f, (enum api)api, context);
        f.scoring.size = offsetof(attn_scoring, offsets);
        f.scoring.soft_cap = NAN;
        f.scoring.kv_documents = NULL;
        f.scoring.window = (const size_t *)1;
        ck_assert_msg(fixture_call(&f) == ATTN_OK, "%s: %s", api_name((enum api)api),
                      attn_context_error(context));
        fixture_close(&f);
    }
    attn_context_destroy(context);
}
END_TEST

void add_scoring_tests(Suite *suite) {
    TCase *t = tcase_create("scoring");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, wrong, 0, (int)(sizeof scoring_errors / sizeof *scoring_errors));
    tcase_add_loop_test(t, overlap, 0, (int)(sizeof arrays / sizeof *arrays));
    tcase_add_test(t, allowed);
    tcase_add_test(t, short_scoring);
    suite_add_tcase(suite, t);
}
