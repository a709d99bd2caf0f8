/* mask_look(): whatever it takes a mask for must show exactly the keys that the mask shows; and the patterns of llama.cpp's
 * caches must be recognised. */
#include <stdlib.h>

#include "plugin.h"
#include "support/harness.h"
#include "support/rng.h"

enum { SEQ = 3, ROWS = 40, KEYS = 200 };
static const uint16_t hidden = 0xfc00;

struct pattern {
    size_t n_seq, n_q, n_kv;
    uint16_t m[SEQ][ROWS][KEYS];
};

static struct mask_shape look(struct pattern *p, ptrdiff_t *offsets, size_t *lengths) {
    attn_tensor t = attn_tensor_contiguous(p->m, ATTN_F16, p->n_seq, 1, p->n_q, p->n_kv);
    t.stride[0] = sizeof p->m[0];
    t.stride[1] = 0;
    t.stride[2] = sizeof p->m[0][0];
    return mask_look(&t, offsets, lengths);
}

/* The result as a mask again. Returns whether it was recognised. */
static int check(struct pattern *p) {
    ptrdiff_t offsets[SEQ];
    size_t lengths[SEQ];
    const struct mask_shape s = look(p, offsets, lengths);
    if (s.dense) return 0;
    for (size_t b = 0; b < p->n_seq; b++)
        for (size_t i = 0; i < p->n_q; i++)
            for (size_t j = 0; j < p->n_kv; j++) {
                const ptrdiff_t key = (ptrdiff_t)j - (ptrdiff_t)s.first, own = offsets[b] + (ptrdiff_t)i;
                int sees = key >= 0 && key < (ptrdiff_t)lengths[b];
                if (s.causal) {
                    sees = sees && key <= own;
                    if (s.left != SIZE_MAX) sees = sees && key >= own - (ptrdiff_t)s.left;
                }
                ck_assert_msg(p->m[b][i][j] == (sees ? 0 : hidden), "sequence %zu row %zu key %zu of %zu", b,
                              i, j, p->n_kv);
            }
    return 1;
}

static size_t between(struct rng *r, size_t lo, size_t hi) { return lo + rng_below(r, hi - lo + 1); }

static void show(struct pattern *p, size_t b, size_t i, size_t from, size_t to) {
    for (size_t j = 0; j < p->n_kv; j++) p->m[b][i][j] = j >= from && j < to ? 0 : hidden;
}

static struct pattern *sized(struct rng *r) {
    struct pattern *p = calloc(1, sizeof *p);
    p->n_seq = between(r, 1, SEQ);
    p->n_q = between(r, 1, ROWS);
    p->n_kv = between(r, p->n_q, KEYS);
    return p;
}

/* Causal rows behind a cache of any length, with a window or without; a sequence a cache. */
static void fill_causal(struct pattern *p, struct rng *r, size_t left) {
    for (size_t b = 0; b < p->n_seq; b++) {
        const size_t cached = between(r, 0, p->n_kv - p->n_q);
        for (size_t i = 0; i < p->n_q; i++) {
            const size_t own = cached + i;
            show(p, b, i, own > left ? own - left : 0, own + 1);
        }
    }
}

static void check_recognised(size_t number) {
    struct rng r = rng_make(test_seed(), number);
    struct pattern *p = sized(&r);
    fill_causal(p, &r, SIZE_MAX);
    ck_assert(check(p));
    fill_causal(p, &r, between(&r, 0, p->n_kv));
    ck_assert(check(p));
    for (size_t b = 0; b < p->n_seq; b++) { /* an encoder's: as long as the sequence */
        const size_t to = between(&r, 1, p->n_kv);
        for (size_t i = 0; i < p->n_q; i++) show(p, b, i, 0, to);
    }
    ck_assert(check(p));
    p->n_seq = 1;
    p->n_q = 1; /* one row with a window that does not begin at the first key */
    show(p, 0, 0, between(&r, 0, p->n_kv / 2), p->n_kv / 2 + 1);
    ck_assert(check(p));
    free(p);
}

/* One change anywhere: another result, or none. */
static void check_changed(size_t number) {
    struct rng r = rng_make(test_seed(), number);
    struct pattern *p = sized(&r);
    fill_causal(p, &r, number % 2 ? SIZE_MAX : between(&r, 0, 20));
    for (int times = 0; times < 20; times++) {
        uint16_t *at =
            &p->m[between(&r, 0, p->n_seq - 1)][between(&r, 0, p->n_q - 1)][between(&r, 0, p->n_kv - 1)];
        const uint16_t was = *at,
                       other[] = {(uint16_t)(was ? 0 : hidden), 0x3c00, 0x7e00, 0x8000, 0xfbff, 0x7c00};
        const size_t which = between(&r, 0, 5);
        *at = other[which];
        const int found = check(p);
        ck_assert(!found || which == 0);
        *at = was;
    }
    free(p);
}

static void check_rows_without_keys(size_t number) {
    struct rng r = rng_make(test_seed(), number);
    struct pattern *p = sized(&r);
    fill_causal(p, &r, SIZE_MAX);
    show(p, 0, between(&r, 0, p->n_q - 1), 0, 0);
    ck_assert(!check(p));
    free(p);
}

/* In one process: a fork for each would take most of the time. */
START_TEST(patterns) {
    for (size_t i = 0; i < (harness_full() ? 300 : 60); i++) {
        check_recognised(i);
        check_changed(i);
        check_rows_without_keys(i);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("ggml masks");
    TCase *tc = tcase_create("patterns");
    tcase_set_timeout(tc, 100);
    tcase_add_test(tc, patterns);
    suite_add_tcase(suite, tc);
    return harness_main(suite);
}
