/*
 * The ends of what attn_scoring can say, each with the answer that attn.h gives by itself: rows that see nothing or only a
 * sink, windows of one, offsets and prefixes beyond the keys, uniform rows, empty sequences.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "differential/edge.h"

static const struct attn_backend *backends[4];

static const float some_sinks[HEADS] = {0.5f, -3, 70, -INFINITY};

START_TEST(only_a_sink) {
    static const size_t none[2] = {0, 0};
    static const size_t sizes[] = {1, 40, 4100};
    for (size_t s = 0; s < 3; s++) {
        struct edge e = edge_open(backends[_i], 2, 3, sizes[s]);
        e.d->scoring.kv_lengths = none;
        e.d->scoring.sinks = some_sinks;
        e.c.weights = e.c.scores = s != 2; /* then in chunks, whose parts are merged */
        edge_run(&e);
        for (size_t i = 0; i < 3; i++) {
            expect_nothing(&e, 0, i);
            expect_nothing(&e, 1, i);
        }
        edge_close(&e);
    }
}
END_TEST

START_TEST(no_keys_at_all) {
    struct edge e = edge_open(backends[_i], 1, 3, 0);
    e.d->scoring.sinks = some_sinks;
    edge_run(&e);
    for (size_t i = 0; i < 3; i++) expect_nothing(&e, 0, i);
    edge_close(&e);
}
END_TEST

/* A window {0, 0} is the row's own key, which is copied; rows without one see nothing. */
START_TEST(window_of_one) {
    static const size_t window[2] = {0, 0};
    static const ptrdiff_t offsets[] = {0, 5, -3, 2040, -100, 1 << 20};
    for (size_t o = 0; o < 6; o++) {
        struct edge e = edge_open(backends[_i], 1, 20, 2060);
        e.d->scoring.window = window;
        e.d->scoring.offsets = &offsets[o];
        edge_run(&e);
        for (size_t i = 0; i < 20; i++) {
            const ptrdiff_t p = (ptrdiff_t)i + offsets[o];
            if (p < 0 || p >= 2060) {
                expect_nothing(&e, 0, i);
                continue;
            }
            expect_keys(&e, 0, i, (size_t)p, (size_t)p + 1);
            for (size_t h = 0; h < HEADS; h++)
                ck_assert_mem_eq(grid_f32(&e.o.out, 0, h, i), grid_f32(&e.d->v, 0, h / 2, (size_t)p),
                                 P_V * sizeof(float));
        }
        edge_close(&e);
    }
}
END_TEST

/* Causal at an offset: keys up to the row's position, all or none of them where that lies outside. */
START_TEST(offsets_outside) {
    static const ptrdiff_t offsets[] = {PTRDIFF_MIN, -21, -20, -1, 0, 29, 30, 1 << 30, PTRDIFF_MAX};
    for (size_t o = 0; o < sizeof offsets / sizeof *offsets; o++) {
        struct edge e = edge_open(backends[_i], 1, 20, 30);
        e.d->scoring.causal = ATTN_CAUSAL_OFFSET;
        e.d->scoring.offsets = &offsets[o];
        edge_run(&e);
        for (size_t i = 0; i < 20; i++) {
            const ptrdiff_t seen = offsets[o] > 30    ? 30
                                   : offsets[o] < -30 ? 0
                                                      : offsets[o] + (ptrdiff_t)i + 1;
            if (seen <= 0)
                expect_nothing(&e, 0, i);
            else
                expect_keys(&e, 0, i, 0, seen > 30 ? 30 : (size_t)seen);
        }
        edge_close(&e);
    }
}
END_TEST

/* Windows as wide as a size_t can say, at extreme positions. */
START_TEST(extreme_windows) {
    static const ptrdiff_t offsets[] = {PTRDIFF_MIN, -5, 0, PTRDIFF_MAX - 100, PTRDIFF_MAX};
    static const size_t windows[][2] = {
        {SIZE_MAX, SIZE_MAX}, {SIZE_MAX - 1, SIZE_MAX - 1}, {SIZE_MAX, 0},
        {0, SIZE_MAX},        {PTRDIFF_MAX, PTRDIFF_MAX},   {(size_t)PTRDIFF_MAX + 1, 3}};
    for (size_t o = 0; o < 5; o++)
        for (size_t w = 0; w < 6; w++) {
            struct edge e = edge_open(backends[_i], 1, 7, 20);
            e.d->scoring.offsets = &offsets[o];
            e.d->scoring.window = windows[w];
            edge_run(&e);
            for (size_t i = 0; i < 7; i++) {
                size_t from = 20, to = 0;
                for (size_t j = 0; j < 20; j++) { /* |distance| as an unsigned number, of either sign */
                    const int behind = offsets[o] >= 0 ? (size_t)offsets[o] + i >= j
                                                       : j <= i && (size_t) - (offsets[o] + 1) + 1 <= i - j;
                    const size_t position = (size_t)offsets[o] + i;
                    const size_t far = behind ? position - j : j - position;
                    const int seen = behind ? windows[w][0] == SIZE_MAX || far <= windows[w][0]
                                            : windows[w][1] == SIZE_MAX || far <= windows[w][1];
                    if (seen && j < from) from = j;
                    if (seen) to = j + 1;
                }
                if (to)
                    expect_keys(&e, 0, i, from, to);
                else
                    expect_nothing(&e, 0, i);
            }
            edge_close(&e);
        }
}
END_TEST

START_TEST(prefix_beyond_the_keys) {
    static const size_t prefixes[] = {0, 1, 17, 30, 31, SIZE_MAX};
    for (size_t p = 0; p < 6; p++) {
        struct edge e = edge_open(backends[_i], 1, 30, 30);
        e.d->scoring.causal = ATTN_CAUSAL_TOP_LEFT;
        e.d->scoring.prefixes = &prefixes[p];
        edge_run(&e);
        for (size_t i = 0; i < 30; i++) {
            const size_t prefix = prefixes[p] < 30 ? prefixes[p] : 30;
            expect_keys(&e, 0, i, 0, prefix > i + 1 ? prefix : i + 1);
        }
        edge_close(&e);
    }
}
END_TEST

/* A prefix far before a window: two ranges, the keys between them hidden and NaN. */
START_TEST(prefix_before_a_window) {
    static const size_t prefix = 3, window[2] = {1, 0}, n_kv = 5000;
    struct edge e = edge_open(backends[_i], 1, 4, n_kv);
    e.d->scoring.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    e.d->scoring.prefixes = &prefix;
    e.d->scoring.window = window;
    for (size_t h = 0; h < HEADS_KV; h++)
        for (size_t j = prefix; j < n_kv - 5; j++) {
            for (size_t c = 0; c < P; c++) grid_f32(&e.d->k, 0, h, j)[c] = NAN;
            for (size_t c = 0; c < P_V; c++) grid_f32(&e.d->v, 0, h, j)[c] = NAN;
        }
    for (e.c.weights = 0; e.c.weights < 2; e.c.weights++) {
        e.c.scores = e.c.weights;
        edge_run(&e);
        for (size_t i = 0; i < 4; i++)
            for (size_t h = 0; h < HEADS; h++) {
                ck_assert(isfinite(*grid_f32(&e.o.lse, 0, h, i)));
                for (size_t j = 0; e.c.weights && j < n_kv; j++)
                    ck_assert((grid_f32(&e.o.weights, 0, h, i)[j] != 0) ==
                              (j < prefix || j + 5 - i == n_kv || j + 4 - i == n_kv));
            }
        if (!e.c.weights) api_outputs_free(&e.o);
    }
    e.c.weights = 1;
    edge_close(&e);
}
END_TEST

/* A mask row of the most negative finite number, with whatever else shapes the scores. */
START_TEST(lowest_mask_is_uniform) {
    static const float slopes[HEADS] = {0.5f, 0.25f, 2, 0};
    for (int f16 = 0; f16 < 2; f16++)
        for (size_t n_kv = 1; n_kv <= 2100; n_kv = n_kv * 3 + 29) {
            struct edge e = edge_open(backends[_i], 1, 5, n_kv);
            float lowest = -FLT_MAX;
            uint16_t lowest_half = 0xfbff;
            const attn_tensor mask = attn_tensor_contiguous(f16 ? (void *)&lowest_half : (void *)&lowest,
                                                            f16 ? ATTN_F16 : ATTN_F32, 1, 1, 1, 1);
            e.d->scoring.mask = &mask;
            if (!f16) e.d->scoring.alibi_slopes = slopes;
            if (!f16) e.d->scoring.soft_cap = 3;
            if (f16) /* -65504 leaves scores their differences: there must be none */
                for (size_t h = 0; h < HEADS; h++)
                    for (size_t i = 0; i < 5; i++) memset(grid_f32(&e.d->q, 0, h, i), 0, P * sizeof(float));
            edge_run(&e);
            for (size_t i = 0; i < 5; i++) {
                expect_keys(&e, 0, i, 0, n_kv);
                expect_mean(&e, i, 0, n_kv);
                const double end = (double)-FLT_MAX * M_LN2;
                for (size_t j = 0; !f16 && j < n_kv; j++)
                    ck_assert(fabs((double)grid_f32(&e.o.scores, 0, i % HEADS, i)[j] / end - 1) < 1e-6);
            }
            edge_close(&e);
        }
}
END_TEST

/* A score that overflows downwards stays a visible key's; one that is hidden is not touched. */
START_TEST(scores_stop_at_the_lowest) {
    static const size_t window[2] = {SIZE_MAX, 0};
    for (int hides = 0; hides < 2; hides++) {
        struct edge e = edge_open(backends[_i], 1, 20, 40);
        if (hides) e.d->scoring.window = window;
        for (size_t h = 0; h < HEADS; h++)
            for (size_t i = 0; i < 20; i++)
                for (size_t c = 0; c < P; c++) grid_f32(&e.d->q, 0, h, i)[c] = 1e25f;
        for (size_t h = 0; h < HEADS_KV; h++)
            for (size_t j = 0; j < 40; j++)
                for (size_t c = 0; c < P; c++) grid_f32(&e.d->k, 0, h, j)[c] = j % 3 ? 1e-25f : -1e25f;
        edge_run(&e);
        for (size_t i = 0; i < 20; i++)
            for (size_t j = 0; j < 40; j++) {
                const double got = (double)grid_f32(&e.o.scores, 0, 3, i)[j], end = (double)-FLT_MAX * M_LN2;
                if (hides && j > i + 20) /* the last row stands on the last key */
                    ck_assert(got == -INFINITY);
                else
                    ck_assert(j % 3 ? fabs(got - sqrt(P)) < 1e-5 : fabs(got / end - 1) < 1e-6);
            }
        edge_close(&e);
    }
}
END_TEST

/* Sequences without rows, without keys, without both; rows behind the last one; no sequence. */
START_TEST(empty_sequences) {
    static const size_t q_starts[] = {0, 0, 3, 3, 5, 8}, kv_starts[] = {0, 4, 4, 4, 9, 20};
    for (size_t n = 0; n <= 5; n++) {
        struct edge e = edge_open(backends[_i], 1, 10, 20);
        e.d->scoring.n_sequences = n;
        e.d->scoring.q_starts = q_starts;
        e.d->scoring.kv_starts = kv_starts;
        e.c.ragged = n;
        memcpy(e.d->starts[0], q_starts, sizeof q_starts);
        memcpy(e.d->starts[1], kv_starts, sizeof kv_starts);
        if (n == 0) { /* the harness takes that for no starts */
            e.c.weights = e.c.scores = 0;
            e.c.ragged = 0;
        }
        edge_run(&e);
        for (size_t i = 0; i < 10 && n; i++) {
            size_t s = 0;
            while (s < n && i >= q_starts[s + 1]) s++;
            if (s == n || kv_starts[s] == kv_starts[s + 1])
                expect_nothing(&e, 0, i);
            else
                expect_keys(&e, 0, i, 0, kv_starts[s + 1] - kv_starts[s]);
        }
        for (size_t i = 0; i < 10 && !n; i++)
            for (size_t h = 0; h < HEADS; h++) {
                for (size_t c = 0; c < P_V; c++) ck_assert(grid_f32(&e.o.out, 0, h, i)[c] == 0);
                ck_assert(*grid_f32(&e.o.lse, 0, h, i) == -INFINITY);
            }
        edge_close(&e);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: edges of attn_scoring");
    TCase *cases = tcase_create("edges");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, only_a_sink, 0, n);
    tcase_add_loop_test(cases, no_keys_at_all, 0, n);
    tcase_add_loop_test(cases, window_of_one, 0, n);
    tcase_add_loop_test(cases, offsets_outside, 0, n);
    tcase_add_loop_test(cases, extreme_windows, 0, n);
    tcase_add_loop_test(cases, prefix_beyond_the_keys, 0, n);
    tcase_add_loop_test(cases, prefix_before_a_window, 0, n);
    tcase_add_loop_test(cases, lowest_mask_is_uniform, 0, n);
    tcase_add_loop_test(cases, scores_stop_at_the_lowest, 0, n);
    tcase_add_loop_test(cases, empty_sequences, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
