/*
 * Does the harness catch what it is for? Each saboteur is the best backend of this CPU with one slot broken
 * in one way; the tables below must notice it, in a child process where that means a crash. The honest
 * backend must pass the same tables.
 */
#include "differential/saboteurs.h"
#include "support/api_case.h"
#include "support/linear_case.h"
#include "support/merge_case.h"
#include "support/pool_case.h"
#include "support/shapes.h"

/* ---- The tables ---- */

static int slots_catch(const struct attn_backend *b) {
    static const size_t linear[][3] = {{1, 1, 1}, {2, 3, 4}, {7, 17, 5}, {9, 70, 33}};
    struct verdict v = {.ok = 1};
    for (uint64_t i = 0; i < 10 * SHAPES_COUNT(linear) && v.ok; i++) {
        const size_t *s = linear[i % SHAPES_COUNT(linear)];
        const struct linear_case c = {.m = s[0],
                                      .n = s[1],
                                      .k = s[2],
                                      .o1 = s[1],
                                      .bias = i % 2 == 0,
                                      .layout = (unsigned)(i / 4 % 3),
                                      .stream = i};
        linear_case_check(b, &c, &v);
    }
    static const size_t pool[][5] = {
        {1, 1, 1, 1, 1}, {3, 2, 20, 5, 3}, {0, 3, 40, 8, 17}, {0, 1, 2100, 4, 5}};
    for (uint64_t i = 0; i < 40 * SHAPES_COUNT(pool) && v.ok; i++) {
        const size_t *s = pool[i % SHAPES_COUNT(pool)];
        struct pool_case c = {.score = i % 3 ? ATTN_SCORE_DOT : ATTN_SCORE_ADDITIVE,
                              .n_rows = s[0] ? s[0] : b->pool_rows,
                              .group = s[1],
                              .n_kv = s[2],
                              .d_k = s[3],
                              .d_v = s[4],
                              .sight = (enum sight)(i / 4 % (N_SIGHTS - 1)),
                              .mask = (enum attn_mask_kind)(i / 5 % 4),
                              .documents = i / 7 % 5 == 2,
                              .alibi = i / 11 % 3 == 0,
                              .soft_cap = i / 13 % 3 == 0 ? 1.5f : 0,
                              .sinks = (int)(i / 9 % 3),
                              .lse_sinks = i % 2 == 0,
                              .mask_bits = (unsigned)(i / 7 % 8),
                              .lse = 1,
                              .parts = b->splits && i / 4 % 2,
                              .layout = i / 8 % 4 == 3 ? LAYOUT_FAR : (unsigned)(i / 8 % 4),
                              .stream = i};
        c.weights = !c.parts && i / 16 % 2;
        c.scores = !c.parts && i / 24 % 2;
        pool_case_check(b, &c, &v);
    }
    for (uint64_t i = 0; i < 8 && v.ok; i++) { /* the order of what shapes a score */
        const struct pool_case c = {.n_rows = 3,
                                    .group = 2,
                                    .n_kv = 40,
                                    .d_k = 5,
                                    .d_v = 3,
                                    .mask = ATTN_MASK_F32,
                                    .mask_bits = 7,
                                    .soft_cap = 1.5f,
                                    .alibi = i % 2 != 0,
                                    .stream = 700 + i};
        pool_case_check(b, &c, &v);
    }
    return !v.ok;
}

/* Each rule of attn_scoring by itself, and two together. */
static void features_catch(struct verdict *v) {
    for (uint64_t i = 0; i < 40 && v->ok; i++) {
        struct api_case c = {.call = i % 4 == 3 ? API_ADDITIVE : API_SDPA,
                             .batch = 1,
                             .n_head = 4,
                             .n_head_kv = 2,
                             .n_q = i % 2 ? 6 : 30,
                             .n_kv = 45,
                             .p_q = 8,
                             .p_k = 8,
                             .p_v = 5,
                             .c = 8,
                             .lse = 1,
                             .layout = (unsigned)(i % 3),
                             .stream = 900 + i};
        switch (i / 4 % 8) {
        case 0: c.window = API_WINDOW_BOTH; break;
        case 1: c.causal = ATTN_CAUSAL_TOP_LEFT, c.window = API_WINDOW_LEFT, c.prefixes = 1; break;
        case 2: c.documents = API_DOCUMENTS_SHUFFLED; break;
        case 3: c.ragged = 3; break;
        case 4: c.sinks = API_SINKS_NORMAL; break;
        case 5: c.alibi = 1; break;
        case 6: c.soft_cap = 1.5f, c.mask = API_MASK_F32, c.mask_bits = 15; break;
        case 7: c.ragged = 2, c.window = API_WINDOW_BOTH, c.alibi = 1; break;
        }
        api_case_check(honest->name, &c, v);
    }
}

static int calls_catch(const struct attn_backend *b) {
    struct verdict v = {.ok = 1};
    api_case_substitute = b;
    features_catch(&v);
    for (uint64_t i = 0; i < 32 && v.ok; i++) {
        struct api_case c = {.call = (enum api_call)(i % 4),
                             .batch = 1,
                             .n_head = 4,
                             .n_head_kv = 2,
                             .n_q = 3,
                             .n_kv = 20,
                             .d_q = 5,
                             .d_k = 6,
                             .d_v = 7,
                             .p_q = 8,
                             .p_k = 8,
                             .p_v = 9,
                             .p_o = i / 4 % 2 ? 10 : 0,
                             .pooling = i / 8 % 2 ? ATTN_POOLING_ADDITIVE : ATTN_POOLING_DOT,
                             .c = 8,
                             .bias = 1,
                             .lse = 1,
                             .causal = (attn_causal)(i / 4 % 3),
                             .mask = (enum api_mask)(i / 5 % 3),
                             .mask_bits = 15,
                             .layout = (unsigned)(i / 4 % 3),
                             .stream = i};
        c.weights = i / 16 != 0;
        c.scores = c.call == API_SDPA && i / 16;
        c.a_q = api_is_additive(&c) && i % 3;
        c.a_k = api_is_additive(&c) && i % 5;
        api_case_check(honest->name, &c, &v);
    }
    return !v.ok;
}

static int merges_catch(const struct attn_backend *b) {
    struct verdict v = {.ok = 1};
    for (uint64_t i = 0; i < 24 && v.ok; i++) {
        const struct merge_case c = {.batch = 1,
                                     .n_head = 2,
                                     .n_q = 3,
                                     .p_v = 5 + i % 3 * 16,
                                     .n_parts = 2 + i % 4,
                                     .lse = 1,
                                     .hidden = i % 2 ? 30 : 0,
                                     .width = 1.0f,
                                     .layout = (unsigned)(i / 4 % 3),
                                     .stream = i};
        merge_case_check(honest->name, b, &c, &v);
    }
    return !v.ok;
}

static struct attn_backend broken(const struct saboteur *s) {
    struct attn_backend b = *honest;
    b.linear = s->linear ? s->linear : b.linear;
    b.pool = s->pool ? s->pool : b.pool;
    b.merge = s->merge ? s->merge : b.merge;
    b.combine = s->combine ? s->combine : b.combine;
    b.pool_scratch = s->pool_scratch ? s->pool_scratch : b.pool_scratch;
    return b;
}

static int child_of_slots(void *b) { return slots_catch(b); }

static int child_of_calls(void *b) { return calls_catch(b); }

static int child_of_merges(void *b) { return merges_catch(b); }

START_TEST(slots_catch_saboteur) {
    const struct saboteur *s = &saboteurs[_i];
    if ((s->merge || s->pool_scratch) && !honest->splits)
        return; /* the scalar backend has nothing to break there */
    struct attn_backend b = broken(s);
    const enum child_end end = harness_child(s->combine ? child_of_merges : child_of_slots, &b);
    ck_assert_msg(end == CHILD_CRASHED || (!s->crash && end == CHILD_NONZERO), "%s was not caught (%d)",
                  s->name, (int)end);
}
END_TEST

START_TEST(calls_catch_saboteur) {
    const struct saboteur *s = &saboteurs[_i];
    if (!s->in_calls) return;
    struct attn_backend b = broken(s);
    const enum child_end end = harness_child(child_of_calls, &b);
    ck_assert_msg(end == CHILD_CRASHED || (!s->crash && end == CHILD_NONZERO), "%s was not caught (%d)",
                  s->name, (int)end);
}
END_TEST

START_TEST(honest_backend_passes) {
    struct attn_backend b = *honest;
    ck_assert_int_eq(harness_child(child_of_slots, &b), CHILD_ZERO);
    ck_assert_int_eq(harness_child(child_of_calls, &b), CHILD_ZERO);
    ck_assert_int_eq(harness_child(child_of_merges, &b), CHILD_ZERO);
}
END_TEST

/* Every slot of every backend is there. */
START_TEST(slots_are_filled) {
    const struct attn_backend *list[4];
    for (size_t i = 0, n = harness_backends(list); i < n; i++) {
        const struct attn_backend *b = list[i];
        ck_assert(b->name && b->linear && b->pool && b->merge && b->pool_scratch && b->rope_table &&
                  b->rope && b->combine);
        ck_assert(b->layout % ATTN_PANEL_UNIT == 0 && b->layout > 0 && b->linear_rows > 0);
        ck_assert(b->pool_rows > 0 && b->pool_rows <= ATTN_ROWS_MAX);
    }
}
END_TEST

int main(void) {
    const struct attn_backend *list[4];
    harness_backends(list);
    honest = list[0];
    Suite *suite = suite_create("differential: saboteurs");
    TCase *cases = tcase_create("saboteurs");
    tcase_set_timeout(cases, 600);
    tcase_add_test(cases, honest_backend_passes);
    tcase_add_test(cases, slots_are_filled);
    tcase_add_loop_test(cases, slots_catch_saboteur, 0, (int)n_saboteurs);
    tcase_add_loop_test(cases, calls_catch_saboteur, 0, (int)n_saboteurs);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
