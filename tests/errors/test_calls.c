/* Everything but tensors that attn_sdpa, attn_additive, attn_head and attn_multihead can be given wrong. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "suite.h"

static void args_null(struct fixture *f) { f->args_size = SIZE_MAX; }
static void args_size_0(struct fixture *f) { f->args_size = 0; }
static void args_size_1(struct fixture *f) { f->args_size = 1; }
static void args_size_huge(struct fixture *f) { f->args_size = SIZE_MAX / 2; }
static void scoring_size_huge(struct fixture *f) { f->scoring.size = SIZE_MAX; }
static void scoring_size_0(struct fixture *f) { f->scoring.size = 0; }
static void scale_nan(struct fixture *f) { f->scoring.scale = NAN; }
static void scale_inf(struct fixture *f) { f->scoring.scale = INFINITY; }
static void scale_minus_inf(struct fixture *f) { f->scoring.scale = -INFINITY; }
static void causal_4(struct fixture *f) { f->scoring.causal = (attn_causal)4; }
static void causal_minus(struct fixture *f) { f->scoring.causal = (attn_causal)-1; }
static void q_length(struct fixture *f) { f->q_lengths[1] = N_Q + 1; }
static void q_length_huge(struct fixture *f) { f->q_lengths[0] = SIZE_MAX; }
static void kv_length(struct fixture *f) { f->kv_lengths[1] = N_KV + 1; }
static void kv_length_huge(struct fixture *f) { f->kv_lengths[0] = SIZE_MAX; }

static void a_q_gone(struct fixture *f) { f->a_q_argument = NULL; } /* then p_q must be c */
static void a_k_gone(struct fixture *f) { f->a_k_argument = NULL; }
static void a_q_entry(struct fixture *f) { f->a_q[N_HEAD - 1] = NULL; }
static void a_k_entry(struct fixture *f) { f->a_k[N_HEAD_KV - 1] = NULL; }
static void a_q_inputs(struct fixture *f) { f->a_q[N_HEAD - 1] = fixture_matrix(f, C, P_Q + 1); }
static void a_k_inputs(struct fixture *f) { f->a_k[N_HEAD_KV - 1] = fixture_matrix(f, C, P_K + 1); }
static void a_q_outputs(struct fixture *f) { f->a_q[N_HEAD - 1] = fixture_matrix(f, C + 1, P_Q); }
static void a_k_outputs(struct fixture *f) { f->a_k[N_HEAD_KV - 1] = fixture_matrix(f, C + 1, P_K); }

/* The magic of a matrix broken in place. */
static void spoil(const void *matrix) { *(unsigned char *)(uintptr_t)matrix ^= 1; }
static void a_q_spoilt(struct fixture *f) { spoil(f->a_q[N_HEAD - 1]); }
static void a_k_spoilt(struct fixture *f) { spoil(f->a_k[N_HEAD_KV - 1]); }
static void w_q_spoilt(struct fixture *f) { spoil(f->layer.w_q); }
static void w_k_spoilt(struct fixture *f) { spoil(f->layer.w_k); }
static void w_v_spoilt(struct fixture *f) { spoil(f->layer.w_v); }
static void w_o_spoilt(struct fixture *f) { spoil(f->layer.w_o); }

static void layer_null(struct fixture *f) { f->layer_argument = NULL; }
static void layer_size_0(struct fixture *f) { f->layer.size = 0; }
static void n_head_0(struct fixture *f) { f->layer.n_head = 0; }
static void n_head_kv_0(struct fixture *f) { f->layer.n_head_kv = 0; }
static void n_head_kv_3(struct fixture *f) { f->layer.n_head_kv = 3; }
static void n_head_huge(struct fixture *f) { f->layer.n_head = SIZE_MAX - 1; }
static void pooling_2(struct fixture *f) { f->layer.pooling = (attn_pooling)2; }
static void head_out_of_range(struct fixture *f) { f->head = N_HEAD; }
static void head_huge(struct fixture *f) { f->head = SIZE_MAX; }
static void w_q_null(struct fixture *f) { f->layer.w_q = NULL; }
static void w_k_null(struct fixture *f) { f->layer.w_k = NULL; }
static void w_v_null(struct fixture *f) { f->layer.w_v = NULL; }
static void w_q_rows(struct fixture *f) { f->layer.w_q = fixture_matrix(f, N_HEAD * P_K + 1, D_Q); }
static void w_k_rows(struct fixture *f) { f->layer.w_k = fixture_matrix(f, N_HEAD_KV * P_K + 1, D_K); }
static void w_v_rows(struct fixture *f) { f->layer.w_v = fixture_matrix(f, N_HEAD_KV * P_V + 1, D_V); }
static void p_q_not_p_k(struct fixture *f) { f->layer.w_q = fixture_matrix(f, N_HEAD * (P_K + 1), D_Q); }
static void w_o_inputs(struct fixture *f) { f->layer.w_o = fixture_matrix(f, P_O, N_HEAD * P_V + 1); }
static void w_o_outputs(struct fixture *f) { f->layer.w_o = fixture_matrix(f, P_O + 1, N_HEAD * P_V); }
static void w_o_gone(struct fixture *f) { f->layer.w_o = NULL; } /* out must be [h_1; ...; h_h] */

static const struct other_error {
    unsigned apis;
    const char *what;
    void (*make)(struct fixture *f);
    attn_status want;
    const char *named;
} other_errors[] = {
    {ALL, "args null", args_null, ATTN_ERROR_ARGUMENT, "args"},
    {ALL, "args.size 0", args_size_0, ATTN_ERROR_ARGUMENT, "args"},
    {ALL, "args.size 1", args_size_1, ATTN_ERROR_ARGUMENT, "args"},
    {ALL, "args.size huge", args_size_huge, ATTN_ERROR_ARGUMENT, "args"},
    {ALL, "scoring.size huge", scoring_size_huge, ATTN_ERROR_ARGUMENT, "scoring"},
    {ALL, "scoring.size 0", scoring_size_0, ATTN_ERROR_ARGUMENT, "scoring"},
    {ALL, "scale NaN", scale_nan, ATTN_ERROR_ARGUMENT, "scoring.scale"},
    {ALL, "scale +inf", scale_inf, ATTN_ERROR_ARGUMENT, "scoring.scale"},
    {ALL, "scale -inf", scale_minus_inf, ATTN_ERROR_ARGUMENT, "scoring.scale"},
    {ALL, "causal 4", causal_4, ATTN_ERROR_ARGUMENT, "scoring.causal"},
    {ALL, "causal -1", causal_minus, ATTN_ERROR_ARGUMENT, "scoring.causal"},
    {ALL, "q_lengths above n_q", q_length, ATTN_ERROR_SHAPE, "scoring.q_lengths"},
    {ALL, "q_lengths huge", q_length_huge, ATTN_ERROR_SHAPE, "scoring.q_lengths"},
    {ALL, "kv_lengths above n_kv", kv_length, ATTN_ERROR_SHAPE, "scoring.kv_lengths"},
    {ALL, "kv_lengths huge", kv_length_huge, ATTN_ERROR_SHAPE, "scoring.kv_lengths"},
    {HAVE_W, "no a_q, p_q not c", a_q_gone, ATTN_ERROR_SHAPE, ""},
    {HAVE_W, "no a_k, p_k not c", a_k_gone, ATTN_ERROR_SHAPE, ""},
    {HAVE_W, "a_q[last] null", a_q_entry, ATTN_ERROR_ARGUMENT, "a_q"},
    {HAVE_W, "a_k[last] null", a_k_entry, ATTN_ERROR_ARGUMENT, "a_k"},
    {HAVE_W, "a_q[last] inputs", a_q_inputs, ATTN_ERROR_SHAPE, "a_q"},
    {HAVE_W, "a_k[last] inputs", a_k_inputs, ATTN_ERROR_SHAPE, "a_k"},
    {HAVE_W, "a_q[last] outputs", a_q_outputs, ATTN_ERROR_SHAPE, "a_q"},
    {HAVE_W, "a_k[last] outputs", a_k_outputs, ATTN_ERROR_SHAPE, "a_k"},
    {HAVE_W, "a_q[last] spoilt", a_q_spoilt, ATTN_ERROR_PACKED, "a_q"},
    {HAVE_W, "a_k[last] spoilt", a_k_spoilt, ATTN_ERROR_PACKED, "a_k"},
    {LAYERS, "weights null", layer_null, ATTN_ERROR_ARGUMENT, "weights"},
    {LAYERS, "weights.size 0", layer_size_0, ATTN_ERROR_ARGUMENT, "weights"},
    {LAYERS, "n_head 0", n_head_0, ATTN_ERROR_SHAPE, "n_head"},
    {LAYERS, "n_head_kv 0", n_head_kv_0, ATTN_ERROR_SHAPE, "n_head"},
    {LAYERS, "4 heads on 3", n_head_kv_3, ATTN_ERROR_SHAPE, "n_head"},
    {LAYERS, "n_head huge", n_head_huge, ATTN_ERROR_SHAPE, ""},
    {LAYERS, "pooling 2", pooling_2, ATTN_ERROR_ARGUMENT, "pooling"},
    {HEAD | HEAD_ADDITIVE, "head = n_head", head_out_of_range, ATTN_ERROR_ARGUMENT, "head"},
    {HEAD | HEAD_ADDITIVE, "head huge", head_huge, ATTN_ERROR_ARGUMENT, "head"},
    {LAYERS, "w_q null", w_q_null, ATTN_ERROR_ARGUMENT, "w_q"},
    {LAYERS, "w_k null", w_k_null, ATTN_ERROR_ARGUMENT, "w_k"},
    {LAYERS, "w_v null", w_v_null, ATTN_ERROR_ARGUMENT, "w_v"},
    {LAYERS, "w_q spoilt", w_q_spoilt, ATTN_ERROR_PACKED, "w_q"},
    {LAYERS, "w_k spoilt", w_k_spoilt, ATTN_ERROR_PACKED, "w_k"},
    {LAYERS, "w_v spoilt", w_v_spoilt, ATTN_ERROR_PACKED, "w_v"},
    {MULTI, "w_o spoilt", w_o_spoilt, ATTN_ERROR_PACKED, "w_o"},
    {LAYERS, "w_q no multiple of n_head", w_q_rows, ATTN_ERROR_SHAPE, "w_q"},
    {LAYERS, "w_k no multiple of n_head_kv", w_k_rows, ATTN_ERROR_SHAPE, "w_k"},
    {LAYERS, "w_v no multiple of n_head_kv", w_v_rows, ATTN_ERROR_SHAPE, "w_v"},
    {HEAD | MULTI, "p_q not p_k", p_q_not_p_k, ATTN_ERROR_SHAPE, "w_"},
    {MULTI, "w_o inputs", w_o_inputs, ATTN_ERROR_SHAPE, "w_o"},
    {MULTI, "w_o outputs, not out's", w_o_outputs, ATTN_ERROR_SHAPE, "out"},
    {MULTI, "no w_o, out of p_o", w_o_gone, ATTN_ERROR_SHAPE, "out"},
};

START_TEST(others) {
    const struct other_error *e = &other_errors[_i];
    attn_context *context = default_context();
    for (int api = 0; api < N_APIS; api++) {
        struct fixture f;
        if (!(e->apis & 1u << api)) continue;
        fixture_open(&f, (enum api)api, context);
        e->make(&f);
        must_fail(&f, e->what, e->want, e->named, 1);
        fixture_close(&f);
        must_work(context, (enum api)api);
    }
    attn_context_destroy(context);
}
END_TEST

START_TEST(null_context_and_query) {
    attn_context *context = default_context();
    for (int api = 0; api < N_APIS; api++) {
        struct fixture f;
        size_t bytes = 7;
        fixture_open(&f, (enum api)api, context);
        ck_assert_int_eq(fixture_query(&f, NULL), ATTN_ERROR_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(attn_context_error(context), "bytes"));
        f.context = NULL;
        ck_assert_int_eq(fixture_call(&f), ATTN_ERROR_ARGUMENT);
        ck_assert_int_eq(fixture_query(&f, &bytes), ATTN_ERROR_ARGUMENT);
        ck_assert_uint_eq(bytes, 7);
        ck_assert(fixture_untouched(&f));
        fixture_close(&f);
    }
    attn_context_destroy(context);
}
END_TEST

/* A struct of a later version may set what this one does not know: refused, not ignored. */
START_TEST(unknown_members) {
    attn_context *context = default_context();
    struct {
        attn_scoring known;
        int later;
    } grown;
    struct fixture f;
    fixture_open(&f, API_SDPA, context);
    memset(&grown, 0, sizeof grown);
    grown.known = f.scoring;
    grown.known.size = sizeof grown;
    f.scoring_argument = &grown.known;
    ck_assert_int_eq(fixture_call(&f), ATTN_OK);
    memset(f.memory[T_OUT], 0xa5, FIXTURE_FLOATS * sizeof(float));
    memset(f.memory[T_LSE], 0xa5, FIXTURE_FLOATS * sizeof(float));
    memset(f.memory[T_WEIGHTS], 0xa5, FIXTURE_FLOATS * sizeof(float));
    memset(f.memory[T_LSE_SINKS], 0xa5, FIXTURE_FLOATS * sizeof(float));
    memset(f.memory[T_SCORES], 0xa5, FIXTURE_FLOATS * sizeof(float));
    grown.later = 1;
    must_fail(&f, "unknown member", ATTN_ERROR_ARGUMENT, "scoring", 1);
    fixture_close(&f);
    attn_context_destroy(context);
}
END_TEST

/* An earlier version's struct ends after `out`: what it lacks counts as zero and is not read. */
START_TEST(short_structs) {
    attn_context *context = default_context();
    for (int api = 0; api < N_APIS; api++) {
        struct fixture f;
        fixture_open(&f, (enum api)api, context);
        f.args_size = api == API_SDPA       ? offsetof(attn_sdpa_args, scoring)
                      : api == API_ADDITIVE ? offsetof(attn_additive_args, scoring)
                                            : offsetof(attn_head_args, scoring);
        f.tensor[T_MASK].dtype = f.tensor[T_LSE].dtype = f.tensor[T_WEIGHTS].dtype = (attn_dtype)99;
        f.tensor[T_LSE_SINKS].dtype = f.tensor[T_SCORES].dtype = (attn_dtype)99;
        ck_assert_msg(fixture_call(&f) == ATTN_OK, "%s: %s", api_name((enum api)api),
                      attn_context_error(context));
        fixture_close(&f);
    }
    attn_context_destroy(context);
}
END_TEST

START_TEST(callers_scratch) {
    attn_context *own = default_context();
    for (int api = 0; api < N_APIS; api++) {
        struct fixture f;
        size_t bytes = 0;
        fixture_open(&f, (enum api)api, own);
        ck_assert_int_eq(fixture_query(&f, &bytes), ATTN_OK);
        char *memory = malloc(bytes + 1);
        ck_assert_ptr_nonnull(memory);
        /* what the query says is enough at any address */
        attn_options options = {
            .size = sizeof options, .n_threads = 1, .scratch = memory + 1, .scratch_bytes = bytes};
        ck_assert_int_eq(attn_context_create(&options, &f.context), ATTN_OK);
        ck_assert_msg(fixture_call(&f) == ATTN_OK, "%s: %s", api_name((enum api)api),
                      attn_context_error(f.context));
        attn_context_destroy(f.context);
        fixture_close(&f);
        if (bytes > 128) { /* without a float of scratch nothing works that needs any */
            fixture_open(&f, (enum api)api, own);
            options.scratch_bytes = 64;
            ck_assert_int_eq(attn_context_create(&options, &f.context), ATTN_OK);
            must_fail(&f, "scratch of 64 bytes", ATTN_ERROR_SCRATCH, "scratch", 0);
            attn_context_destroy(f.context);
            fixture_close(&f);
        }
        free(memory);
    }
    attn_context_destroy(own);
}
END_TEST

/* What looks unusual and is allowed. */
static void no_batch(struct fixture *f) {
    for (int i = 0; i <= T_MASK; i++) f->tensor[i].size[0] = 0;
    f->tensor[T_MASK].size[0] = 1;
}
static void no_rows(struct fixture *f) {
    f->tensor[T_Q].size[2] = f->tensor[T_OUT].size[2] = f->tensor[T_LSE].size[2] = 0;
    f->tensor[T_LSE_SINKS].size[2] = f->tensor[T_SCORES].size[2] = 0;
    f->tensor[T_WEIGHTS].size[2] = f->tensor[T_MASK].size[2] = 0;
    f->q_lengths[0] = f->q_lengths[1] = 0;
    f->tensor[T_Q].data = f->tensor[T_OUT].data = f->tensor[T_LSE].data = f->tensor[T_WEIGHTS].data = NULL;
    f->tensor[T_LSE_SINKS].data = f->tensor[T_SCORES].data = NULL;
}
static void no_keys(struct fixture *f) {
    f->tensor[T_K].size[2] = f->tensor[T_V].size[2] = f->tensor[T_WEIGHTS].size[3] = 0;
    f->tensor[T_MASK].size[3] = f->tensor[T_SCORES].size[3] = 0;
    f->kv_lengths[0] = f->kv_lengths[1] = 0;
    f->tensor[T_K].data = f->tensor[T_V].data = f->tensor[T_MASK].data = NULL;
}
static void broadcast_inputs(struct fixture *f) {
    f->tensor[T_K].stride[0] = f->tensor[T_V].stride[0] = f->tensor[T_K].stride[2] = 0;
}
static void negative_strides(struct fixture *f) {
    f->tensor[T_Q].data = f->memory[T_Q] + FIXTURE_FLOATS / 2;
    f->tensor[T_Q].stride[0] *= -1;
    f->tensor[T_Q].stride[2] *= -1;
}
static void small_mask(struct fixture *f) {
    f->tensor[T_MASK] = attn_tensor_contiguous(f->memory[T_MASK], ATTN_BOOL, 1, 1, 1, 1);
    f->tensor[T_MASK].data = (char *)f->memory[T_MASK] + 1; /* bytes need no alignment */
}
static void no_optionals(struct fixture *f) {
    f->scoring_argument = NULL;
    f->argument[T_LSE] = f->argument[T_WEIGHTS] = f->argument[T_LSE_SINKS] = f->argument[T_SCORES] =
        f->argument[T_MASK] = NULL;
}
static void stride_of_one_column(struct fixture *f) { f->tensor[T_LSE].stride[3] = 3; }

START_TEST(allowed) {
    static void (*const make[])(struct fixture *) = {
        no_batch,         no_rows,    no_keys,      broadcast_inputs,
        negative_strides, small_mask, no_optionals, stride_of_one_column};
    must_allow(make, sizeof make / sizeof *make);
}
END_TEST

void add_call_tests(Suite *suite) {
    TCase *t = tcase_create("calls");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, others, 0, (int)(sizeof other_errors / sizeof *other_errors));
    tcase_add_test(t, null_context_and_query);
    tcase_add_test(t, unknown_members);
    tcase_add_test(t, short_structs);
    tcase_add_test(t, callers_scratch);
    tcase_add_test(t, allowed);
    suite_add_tcase(suite, t);
}
