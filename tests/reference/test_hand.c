/* Cases whose results can be worked out by hand, on every backend that this machine runs. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "cases.h"
#include "suite.h"

static const char *backends[8]; /* the runnable ones; tests run once for each, as number _i */

/* A few ulp: for results that a person wrote down as decimals or functions of them. */
#define NEAR(got, want)                                                                               \
    ck_assert_msg(fabs((got) - (want)) <= 1e-6 * fabs(want), "%s: got %.9g, want %.9g", backends[_i], \
                  (double)(got), (double)(want))

/* One head of attn_sdpa over contiguous arrays with p_k = 1. */
struct small {
    size_t n_q, n_kv, p_v;
    const float *q, *k, *v;
    attn_scoring scoring;
    float out[8], lse[4], weights[16];
};

static attn_tensor plane(const float *x, size_t rows, size_t columns) {
    return attn_tensor_contiguous((void *)(uintptr_t)x, ATTN_F32, 1, 1, rows, columns);
}

static void sdpa(const char *backend, struct small *s) {
    attn_context *context = context_on(backend);
    attn_tensor q = plane(s->q, s->n_q, 1), k = plane(s->k, s->n_kv, 1), v = plane(s->v, s->n_kv, s->p_v);
    attn_tensor out = plane(s->out, s->n_q, s->p_v), lse = plane(s->lse, s->n_q, 1);
    attn_tensor weights = plane(s->weights, s->n_q, s->n_kv);
    s->scoring.size = sizeof s->scoring;
    attn_sdpa_args args = {.size = sizeof args,
                           .q = &q,
                           .k = &k,
                           .v = &v,
                           .out = &out,
                           .scoring = &s->scoring,
                           .lse = &lse,
                           .weights = &weights};
    succeeded(context, attn_sdpa(context, &args));
    attn_context_destroy(context);
}

START_TEST(linear_of_small_integers_is_exact) {
    attn_context *context = context_on(backends[_i]);
    const float x[] = {1, 2, 3, 4, 5, 6}, w[] = {1, 0, -1, 2, 2, 2}, bias[] = {10, -20};
    float y[4];
    attn_packed *packed = pack_matrix(context, w, bias, 2, 3);
    attn_tensor tx = plane(x, 2, 3), ty = plane(y, 2, 2);
    succeeded(context, attn_linear(context, &tx, packed, &ty));
    const float want[] = {10 + 1 - 3, -20 + 12, 10 + 4 - 6, -20 + 30};
    for (int i = 0; i < 4; i++) ck_assert_float_eq(y[i], want[i]);
    size_t n = 0, k = 0;
    attn_packed_shape(packed, &n, &k);
    ck_assert_uint_eq(n, 2);
    ck_assert_uint_eq(k, 3);
    attn_packed_shape(packed, NULL, NULL);
    free(packed);
    attn_context_destroy(context);
}
END_TEST

START_TEST(equal_scores_give_the_mean) {
    const float q[] = {0}, k[] = {5, -7, 9, 1}, v[] = {1, 2, 3, 6};
    struct small s = {.n_q = 1, .n_kv = 4, .p_v = 1, .q = q, .k = k, .v = v};
    sdpa(backends[_i], &s);
    ck_assert_float_eq(s.out[0], 3);
    NEAR(s.lse[0], log(4));
    for (int j = 0; j < 4; j++) ck_assert_float_eq(s.weights[j], 0.25f);
}
END_TEST

START_TEST(weights_1_to_3) { /* scores 0 and ln 3 */
    const float q[] = {1}, k[] = {0, 1.0986123f}, v[] = {4, 100, 8, 200};
    struct small s = {.n_q = 1, .n_kv = 2, .p_v = 2, .q = q, .k = k, .v = v};
    sdpa(backends[_i], &s);
    NEAR(s.weights[0], 0.25);
    NEAR(s.weights[1], 0.75);
    NEAR(s.out[0], 7.0);
    NEAR(s.out[1], 175.0);
    NEAR(s.lse[0], log(4));
    s.scoring.scale = -1; /* now 1 : 1/3 */
    sdpa(backends[_i], &s);
    NEAR(s.weights[0], 0.75);
    NEAR(s.out[0], 5.0);
    NEAR(s.lse[0], log(4.0 / 3));
}
END_TEST

START_TEST(one_visible_key_is_copied) {
    const float q[] = {0.3f, -2, 1e3f}, k[] = {1.7f, 3, -9}, v[] = {0.1f, 0.2f, 0.3f};
    const unsigned char see[] = {0, 1, 0, 0, 0, 7, 255, 0, 0};
    attn_tensor mask = attn_tensor_contiguous((void *)(uintptr_t)see, ATTN_BOOL, 1, 1, 3, 3);
    struct small s = {.n_q = 3, .n_kv = 3, .p_v = 1, .q = q, .k = k, .v = v, .scoring = {.mask = &mask}};
    sdpa(backends[_i], &s);
    const int key[] = {1, 2, 0};
    for (int i = 0; i < 3; i++) {
        ck_assert_float_eq(s.out[i], v[key[i]]);
        NEAR(s.lse[i], (double)q[i] * k[key[i]]);
        for (int j = 0; j < 3; j++) ck_assert_float_eq(s.weights[3 * i + j], j == key[i]);
    }
}
END_TEST

START_TEST(causal_corners) { /* q = 0: the mean of what is visible */
    const float q[3] = {0}, k[] = {1, 1, 1, 1, 1}, v[] = {1, 3, 8, 16, 32};
    struct small s = {.n_q = 3, .n_kv = 5, .p_v = 1, .q = q, .k = k, .v = v};
    s.scoring.causal = ATTN_CAUSAL_TOP_LEFT;
    sdpa(backends[_i], &s);
    ck_assert_float_eq(s.out[0], 1);
    ck_assert_float_eq(s.out[1], 2);
    ck_assert_float_eq(s.out[2], 4);
    s.scoring.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    sdpa(backends[_i], &s);
    ck_assert_float_eq(s.out[0], 4);
    ck_assert_float_eq(s.out[1], 7);
    ck_assert_float_eq(s.out[2], 12);
    const size_t q_length = 2, kv_length = 3; /* of the sequence: its last query sees its last key */
    s.scoring.q_lengths = &q_length;
    s.scoring.kv_lengths = &kv_length;
    sdpa(backends[_i], &s);
    ck_assert_float_eq(s.out[0], 2);
    ck_assert_float_eq(s.out[1], 4);
    ck_assert_float_eq(s.out[2], 0);
    ck_assert(s.lse[2] == -INFINITY);
}
END_TEST

START_TEST(nothing_visible_gives_zero) {
    const float q[] = {1, NAN}, k[] = {NAN, INFINITY}, v[] = {NAN, 1};
    const float hide[] = {-INFINITY};
    attn_tensor mask = plane(hide, 1, 1);
    struct small s = {.n_q = 2, .n_kv = 2, .p_v = 1, .q = q, .k = k, .v = v, .scoring = {.mask = &mask}};
    sdpa(backends[_i], &s);
    for (int i = 0; i < 2; i++) {
        ck_assert(s.out[i] == 0 && s.lse[i] == -INFINITY);
        ck_assert(s.weights[2 * i] == 0 && s.weights[2 * i + 1] == 0);
    }
}
END_TEST

START_TEST(no_keys_give_zero) {
    const float q[] = {1, 2}, none[1] = {0};
    struct small s = {.n_q = 2, .n_kv = 0, .p_v = 1, .q = q, .k = none, .v = none, .out = {NAN, NAN}};
    sdpa(backends[_i], &s);
    ck_assert(s.out[0] == 0 && s.out[1] == 0 && s.lse[0] == -INFINITY && s.lse[1] == -INFINITY);
}
END_TEST

START_TEST(additive_mask_shifts_scores) { /* scores 0, 0 + ln 3, hidden */
    const float q[] = {0}, k[] = {1, 2, NAN}, v[] = {4, 8, NAN}, add[] = {0, 1.0986123f, -INFINITY};
    attn_tensor mask = plane(add, 1, 3);
    struct small s = {.n_q = 1, .n_kv = 3, .p_v = 1, .q = q, .k = k, .v = v, .scoring = {.mask = &mask}};
    sdpa(backends[_i], &s);
    NEAR(s.out[0], 7.0);
    NEAR(s.weights[1], 0.75);
    ck_assert_float_eq(s.weights[2], 0);
}
END_TEST

START_TEST(lowest_float_as_a_mask) { /* what hosts write that do not use -inf */
    const float q[] = {0, 0}, k[] = {1, 1}, v[] = {4, 8}, add[] = {-FLT_MAX, 0, -FLT_MAX, -FLT_MAX};
    attn_tensor mask = plane(add, 2, 2);
    struct small s = {.n_q = 2, .n_kv = 2, .p_v = 1, .q = q, .k = k, .v = v, .scoring = {.mask = &mask}};
    sdpa(backends[_i], &s);
    ck_assert_float_eq(s.out[0], 8); /* its weight vanishes beside a score of ordinary size */
    ck_assert_float_eq(s.weights[0], 0);
    ck_assert_float_eq(s.out[1], 6);                        /* but it is visible: the mean of all */
    const float low[] = {-FLT_MAX, -3e38f, -2e38f, -1e38f}; /* 0 and 1 below the clamp, the others not */
    mask = plane(low, 2, 2);
    sdpa(backends[_i], &s);
    ck_assert_float_eq(s.out[0], 6);
    ck_assert_float_eq(s.out[1], 8);
}
END_TEST

START_TEST(nan_stays_in_its_row) {
    const float q[] = {1, NAN, 1}, k[] = {1, 2, NAN}, v[] = {4, 4, 4};
    struct small s = {.n_q = 3, .n_kv = 3, .p_v = 1, .q = q, .k = k, .v = v};
    s.scoring.causal = ATTN_CAUSAL_TOP_LEFT;
    sdpa(backends[_i], &s);
    ck_assert_float_eq(s.out[0], 4);
    ck_assert_float_eq(s.lse[0], 1);
    ck_assert(isnan(s.out[1]) && isnan(s.lse[1])); /* from its query */
    ck_assert(isnan(s.out[2]) && isnan(s.lse[2])); /* from key 2 */
    ck_assert(s.weights[1] == 0 && s.weights[2] == 0);
}
END_TEST

START_TEST(infinite_score_gives_nan) {
    const float q[] = {INFINITY}, k[] = {1, 2}, v[] = {4, 4};
    struct small s = {.n_q = 1, .n_kv = 2, .p_v = 1, .q = q, .k = k, .v = v};
    sdpa(backends[_i], &s);
    ck_assert(isnan(s.out[0]));
}
END_TEST

/* One visible key whose score is NaN alone in its chunk of 2048 keys must not vanish in the merge. */
START_TEST(nan_alone_in_a_chunk) {
    enum { N = 2049 };
    attn_context *context = context_on(backends[_i]);
    float *k = calloc(2 * N, sizeof *k), q[] = {1}, out[] = {0}, lse[] = {0};
    ck_assert_ptr_nonnull(k);
    float *v = k + N;
    const size_t at[] = {N - 1, 0};
    for (int end = 0; end < 2; end++) {
        unsigned char see[N] = {0};
        see[0] = see[5] = see[2048] = 1;
        see[5] = end == 0; /* the second time chunk 0 has NaN only */
        k[at[end]] = NAN;
        attn_tensor tq = plane(q, 1, 1), tk = plane(k, N, 1), tv = plane(v, N, 1), to = plane(out, 1, 1);
        attn_tensor tl = plane(lse, 1, 1);
        attn_tensor mask = attn_tensor_contiguous(see, ATTN_BOOL, 1, 1, 1, N);
        attn_scoring scoring = {.size = sizeof scoring, .mask = &mask};
        attn_sdpa_args args = {
            .size = sizeof args, .q = &tq, .k = &tk, .v = &tv, .out = &to, .scoring = &scoring, .lse = &tl};
        succeeded(context, attn_sdpa(context, &args));
        ck_assert_msg(isnan(out[0]) && isnan(lse[0]), "%s: NaN key %zu is lost: out %g, lse %g", backends[_i],
                      at[end], (double)out[0], (double)lse[0]);
        k[at[end]] = 0;
    }
    free(k);
    attn_context_destroy(context);
}
END_TEST

START_TEST(grouped_heads_share_keys) { /* one visible key, four query heads on two key/value heads */
    attn_context *context = context_on(backends[_i]);
    float q[] = {1, 2, 3, 4}, k[] = {1, 1}, v[] = {5, 7}, out[4];
    attn_tensor tq = attn_tensor_contiguous(q, ATTN_F32, 1, 4, 1, 1);
    attn_tensor tk = attn_tensor_contiguous(k, ATTN_F32, 1, 2, 1, 1);
    attn_tensor tv = attn_tensor_contiguous(v, ATTN_F32, 1, 2, 1, 1);
    attn_tensor to = attn_tensor_contiguous(out, ATTN_F32, 1, 4, 1, 1);
    attn_sdpa_args args = {.size = sizeof args, .q = &tq, .k = &tk, .v = &tv, .out = &to};
    succeeded(context, attn_sdpa(context, &args));
    const float want[] = {5, 5, 7, 7};
    for (int h = 0; h < 4; h++) ck_assert_float_eq(out[h], want[h]);
    attn_context_destroy(context);
}
END_TEST

START_TEST(additive_by_hand) {
    /* a_q + a_k = 0 for the first key, 20 in both places for the second: scores 0 and ln 3 */
    attn_context *context = context_on(backends[_i]);
    float q[] = {2, -3}, k[] = {-2, 3, 18, 23}, v[] = {4, 8}, w[] = {1, 0.0986123f}, out[1], lse[1],
          weights[2];
    attn_tensor tq = plane(q, 1, 2), tk = plane(k, 2, 2), tv = plane(v, 2, 1), tw = plane(w, 1, 2);
    attn_tensor to = plane(out, 1, 1), tl = plane(lse, 1, 1), ta = plane(weights, 1, 2);
    attn_additive_args args = {
        .size = sizeof args, .q = &tq, .k = &tk, .v = &tv, .w = &tw, .out = &to, .lse = &tl, .weights = &ta};
    succeeded(context, attn_additive(context, &args));
    NEAR(out[0], 7.0);
    NEAR(weights[0], 0.25);
    NEAR(lse[0], log(4));
    attn_context_destroy(context);
}
END_TEST

START_TEST(head_by_hand) {
    /* W_q = 0, so the weights are equal and h = W_v mean(v) + b_v; W_o doubles and adds the halves. */
    attn_context *context = context_on(backends[_i]);
    float x[] = {1, 2, 3, 6}, zero[] = {0, 0}, w_v[] = {1, 1, 2, 0}, b_v[] = {0.5f, 0}, w_o[] = {2, 1},
          out[4];
    attn_packed *pq = pack_matrix(context, zero, NULL, 1, 2), *pv = pack_matrix(context, w_v, b_v, 2, 2);
    attn_packed *po = pack_matrix(context, w_o, NULL, 1, 2);
    attn_weights weights = {
        .size = sizeof weights, .n_head = 1, .n_head_kv = 1, .w_q = pq, .w_k = pq, .w_v = pv};
    attn_tensor tx = plane(x, 2, 2), t2 = plane(out, 2, 2), t1 = plane(out, 2, 1);
    attn_head_args args = {
        .size = sizeof args, .weights = &weights, .q = &tx, .k = &tx, .v = &tx, .out = &t2};
    succeeded(context, attn_head(context, &args)); /* mean(v) = (2, 4) */
    for (int i = 0; i < 2; i++) {
        ck_assert_float_eq(out[2 * i], 6.5f);
        ck_assert_float_eq(out[2 * i + 1], 4);
    }
    weights.w_o = po;
    args.out = &t1;
    succeeded(context, attn_multihead(context, &args));
    ck_assert_float_eq(out[0], 17);
    ck_assert_float_eq(out[1], 17);
    free(pq);
    free(pv);
    free(po);
    attn_context_destroy(context);
}
END_TEST

void add_hand_tests(Suite *suite) {
    const char *names[8];
    int runnable[8], n = 0;
    size_t built = attn_backend_list(names, runnable, 8);
    TCase *t = tcase_create("by hand");
    for (size_t i = 0; i < built; i++)
        if (runnable[i]) backends[n++] = names[i];
    tcase_add_loop_test(t, linear_of_small_integers_is_exact, 0, n);
    tcase_add_loop_test(t, equal_scores_give_the_mean, 0, n);
    tcase_add_loop_test(t, weights_1_to_3, 0, n);
    tcase_add_loop_test(t, one_visible_key_is_copied, 0, n);
    tcase_add_loop_test(t, causal_corners, 0, n);
    tcase_add_loop_test(t, nothing_visible_gives_zero, 0, n);
    tcase_add_loop_test(t, no_keys_give_zero, 0, n);
    tcase_add_loop_test(t, additive_mask_shifts_scores, 0, n);
    tcase_add_loop_test(t, lowest_float_as_a_mask, 0, n);
    tcase_add_loop_test(t, nan_stays_in_its_row, 0, n);
    tcase_add_loop_test(t, infinite_score_gives_nan, 0, n);
    tcase_add_loop_test(t, nan_alone_in_a_chunk, 0, n);
    tcase_add_loop_test(t, grouped_heads_share_keys, 0, n);
    tcase_add_loop_test(t, additive_by_hand, 0, n);
    tcase_add_loop_test(t, head_by_hand, 0, n);
    suite_add_tcase(suite, t);
}
