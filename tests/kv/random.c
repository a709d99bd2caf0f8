/*
 * Caches against a model: appends, forks and truncations at random, and caches moved in memory. After every
 * step all live rows have the model's bits, references are counted right and shared blocks shared with the
 * right sequences; what does not fit changes nothing. The same memory, to the bit, from 1, 2 and 5 threads
 * and from every backend (with RoPE: every backend with vectors).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/call.h"

enum { SCENARIOS = 104, WIDE = 8, N_THREADS = 3 }; /* every WIDE-th one has rows for several tasks */

static const struct attn_backend *backends[4];
static const size_t n_threads[N_THREADS] = {1, 2, 5};

struct scenario {
    size_t number;
    enum subject_kind kind;
    struct kv_sizes z;
    int rotated;
    attn_rope rope;
    size_t steps;
};

/* Contexts of one backend. */
struct machines {
    attn_context *context[N_THREADS];
};

static void draw_blocks(struct scenario *s, struct rng *r) {
    static const size_t rows[] = {1, 3, 16, 17, 32}, panels[] = {16, 32, 48};
    struct kv_sizes *z = &s->z;
    z->block_rows = z->layout == ATTN_KV_PANELS ? panels[rng_below(r, 3)] : rows[rng_below(r, 5)];
    z->n_sequences = 1 + rng_below(r, 6);
    z->slots = 1 + rng_below(r, 60 / z->block_rows + 2);
    if (s->kind == SUBJECT_CONTIGUOUS) {
        z->slots = 1;
        if (z->layout == ATTN_KV_ROWS) z->block_rows = 1 + rng_below(r, 60);
        z->n_blocks = z->n_sequences + rng_below(r, 2);
    } else {
        const size_t all = z->n_sequences * z->slots;
        z->n_blocks = s->kind == SUBJECT_TABLE || rng_chance(r, 20) ? all : 1 + rng_below(r, all);
    }
    z->most = z->ring ? 4 * model_capacity(z) + 40 : model_capacity(z);
}

/* Every pair in several scenarios; panels hold no blocks of keys. */
static void draw_types(struct kv_sizes *z, size_t i, struct rng *r) {
    static const attn_dtype types[] = {ATTN_F32, ATTN_F16, ATTN_BF16, ATTN_Q8_0, ATTN_Q4_0};
    const int panels = z->layout == ATTN_KV_PANELS;
    z->k_type = types[panels ? i / 2 % 3 : i / 2 % 5];
    z->v_type = types[(i / 2 / 5 + (panels ? i / 2 % 5 : 0)) % 5];
    if (rng_chance(r, 10)) z->k_type = z->v_type = ATTN_F32;
}

static size_t whole_blocks(attn_dtype type, size_t columns) {
    size_t block;
    attn_dtype_size(type, &block);
    return (columns + block - 1) / block * block;
}

static struct scenario draw(size_t i, struct rng *r) {
    struct scenario s = {.number = i, .steps = 40};
    struct kv_sizes *z = &s.z;
    const int wide = i % WIDE == WIDE - 1;
    s.kind = rng_chance(r, 70) ? SUBJECT_CREATED : (enum subject_kind)(1 + rng_below(r, 2));
    z->layout = (attn_kv_layout)(i % 2);
    if (wide) z->layout = (attn_kv_layout)(i / WIDE % 2);
    z->ring = (int)(i / 2 % 2);
    s.rotated = (int)(i / 4 % 2);
    if (wide) s.rotated = (int)(i / WIDE / 2 % 2);
    draw_blocks(&s, r);
    z->n_head = 1 + rng_below(r, 3);
    z->p_k = 2 + rng_below(r, 40);
    z->p_v = 1 + rng_below(r, 40);
    draw_types(z, i, r);
    if (wide) {
        s.steps = 6;
        z->n_head += 3;
        z->p_k = rng_chance(r, 30) ? 1100 : 300 + rng_below(r, 300);
        z->p_v = 300 + rng_below(r, 300);
    }
    z->p_k = whole_blocks(z->k_type, z->p_k);
    z->p_v = whole_blocks(z->v_type, z->p_v);
    s.rope = (attn_rope){.size = sizeof s.rope,
                         .style = (attn_rope_style)rng_below(r, 2),
                         .dims = z->p_k % 2 || rng_chance(r, 30) ? 2 * (1 + rng_below(r, z->p_k / 2)) : 0,
                         .base = rng_chance(r, 50) ? 0 : 500000.0f};
    return s;
}

static void append(struct scenario *s, struct subject *subject, struct model *m, const struct machines *on,
                   size_t threads, struct rng *r) {
    struct call c;
    attn_context *context = on->context[threads], *lean = NULL;
    struct guard scratch = {.pages = NULL};
    call_open(&c, m, s->rotated ? &s->rope : NULL, on->context[0], r);
    if (threads == 0) { /* on no more scratch than the query asks for */
        const size_t bytes = call_scratch(&c, &subject->kv, context);
        scratch = guard_alloc(bytes, 0);
        const attn_options options = {.size = sizeof options,
                                      .backend = attn_context_backend(context),
                                      .n_threads = 1,
                                      .scratch = scratch.data,
                                      .scratch_bytes = bytes};
        ck_assert_int_eq(attn_context_create(&options, &lean), ATTN_OK);
        context = lean;
    }
    const uint64_t before = subject_hash(subject);
    const int fits = model_append(m, c.rows, c.n);
    const attn_status status = call_run(&c, &subject->kv, context);
    const char *text = attn_context_error(context);
    if (fits)
        ck_assert_msg(status == ATTN_OK, "%s: %s", harness_case_text(), text);
    else
        ck_assert_msg(status == ATTN_ERROR_CAPACITY && strstr(text, "sequence") &&
                          subject_hash(subject) == before,
                      "%s: no room, status %s (%s)%s", harness_case_text(), attn_status_name(status), text,
                      subject_hash(subject) == before ? "" : ", and something was written");
    attn_context_destroy(lean);
    guard_free(&scratch);
    call_close(&c);
}

static void fork_one(struct subject *subject, struct model *m, attn_context *context, struct rng *r) {
    const size_t n = m->z.n_sequences, from = rng_below(r, n), to = rng_below(r, n);
    if (from == to) return;
    if (subject->kind == SUBJECT_CREATED && m->sequences[to].length) {
        ck_assert_int_eq(attn_kv_fork(context, &subject->kv, from, to), ATTN_ERROR_SHAPE);
        if (rng_chance(r, 50)) return;
        model_truncate(m, to, 0);
        ck_assert_int_eq(attn_kv_truncate(context, &subject->kv, to, 0), ATTN_OK);
    }
    if (subject->kind != SUBJECT_CREATED) {
        ck_assert_int_eq(attn_kv_fork(context, &subject->kv, from, to), ATTN_ERROR_ARGUMENT);
        return;
    }
    model_fork(m, from, to);
    ck_assert_msg(attn_kv_fork(context, &subject->kv, from, to) == ATTN_OK, "%s",
                  attn_context_error(context));
}

static void truncate_one(struct subject *subject, struct model *m, attn_context *context, struct rng *r) {
    const size_t s = rng_below(r, m->z.n_sequences), length = m->sequences[s].length;
    size_t to = length - (length ? rng_below(r, length < 5 ? length : 5) : 0);
    if (rng_chance(r, 40)) to = rng_below(r, length + 1);
    if (rng_chance(r, 20)) to = 0;
    ck_assert_int_eq(attn_kv_truncate(context, &subject->kv, s, length + 1), ATTN_ERROR_SHAPE);
    model_truncate(m, s, to);
    ck_assert_msg(attn_kv_truncate(context, &subject->kv, s, to) == ATTN_OK, "%s",
                  attn_context_error(context));
}

/* Runs it; gives a hash of the memory after every step. */
static uint64_t play(size_t number, const struct machines *on, size_t threads, int *rotated) {
    struct rng r = rng_make(test_seed(), number), places = rng_make(test_seed(), 100000 + number);
    struct scenario s = draw(number, &r);
    struct subject subject;
    struct model m;
    uint64_t hash = 0;
    subject_open(&subject, s.kind, &s.z, on->context[0], &places);
    const struct kv_sizes z = s.z;
    model_open(&m, &z, s.kind == SUBJECT_CREATED);
    for (size_t step = 0; step < s.steps; step++) {
        const size_t dice = rng_below(&r, 10);
        struct verdict verdict = {.ok = 1};
        harness_case(
            "%s, %zu threads, scenario %zu, step %zu (kind %d, %s%s, %zu blocks of %zu, %zu sequences "
            "of %zu, %zu heads, %zu and %zu columns, %s and %s%s)",
            attn_context_backend(on->context[0]), n_threads[threads], number, step, (int)s.kind,
            z.layout == ATTN_KV_PANELS ? "panels" : "rows", z.ring ? ", ring" : "", z.n_blocks, z.block_rows,
            z.n_sequences, z.slots, z.n_head, z.p_k, z.p_v, attn_dtype_name(z.k_type),
            attn_dtype_name(z.v_type), s.rotated ? ", rope" : "");
        if (dice < 6)
            append(&s, &subject, &m, on, threads, &r);
        else if (dice < 8)
            fork_one(&subject, &m, on->context[threads], &r);
        else
            truncate_one(&subject, &m, on->context[threads], &r);
        if (s.kind == SUBJECT_CREATED && rng_chance(&r, 10))
            subject_move(&subject, on->context[threads], &places);
        subject_check(&subject, &m, &verdict);
        HARNESS_ASSERT(&verdict);
        hash = hash * 31 + subject_hash(&subject);
    }
    *rotated = s.rotated;
    model_close(&m);
    subject_close(&subject);
    return hash;
}

START_TEST(scenarios) {
    static struct machines on[4];
    const size_t n = harness_backends(backends), from = (size_t)_i * SCENARIOS / 8;
    for (size_t b = 0; b < n; b++)
        for (size_t t = 0; t < N_THREADS; t++)
            on[b].context[t] = harness_context(backends[b]->name, n_threads[t]);
    for (size_t i = from; i < from + SCENARIOS / 8; i++) {
        uint64_t want = 0;
        if (!harness_takes(i, 9)) continue;
        for (size_t b = 0; b < n; b++)
            for (size_t t = 0; t < N_THREADS; t++) {
                int rotated;
                const uint64_t got = play(i, &on[b], t, &rotated);
                if (t == 0 && (b == 0 || (rotated && b == n - 1))) want = got; /* scalar turns otherwise */
                ck_assert_msg(got == want, "%s: other bits", harness_case_text());
            }
    }
    for (size_t b = 0; b < n; b++)
        for (size_t t = 0; t < N_THREADS; t++) attn_context_destroy(on[b].context[t]);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("kv: caches against a model");
    TCase *cases = tcase_create("scenarios");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, scenarios, 0, 8);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
