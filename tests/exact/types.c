/*
 * Keys, values, queries and outputs of other types: attn_sdpa gives the bits of the f32 call on the values that they stand
 * for, and outputs are rounded once. What is read lies between guard pages.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exact/exact.h"
#include "order.h"
#include "support/guard.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];
static const attn_dtype kv_types[] = {ATTN_F32, ATTN_F16, ATTN_BF16, ATTN_Q8_0, ATTN_Q4_0};
static const attn_dtype row_types[] = {ATTN_F32, ATTN_F16, ATTN_BF16};

enum { HEAD_MAJOR, KEY_MAJOR, PADDED, BACKWARDS, FAR, N_ORDERS };
enum { DECODE, FEW, LANES, PREFILL, BLOCKS, LONG, SPLIT, N_KINDS };

struct type_case {
    attn_dtype k, v, q, out;
    size_t batch, n_head, n_head_kv, n_q, n_kv, d_k, d_v;
    int order, causal, window, mask, documents, sinks, lengths, prefix, cap, spoiled;
    int weights;
    size_t threads;
    uint64_t stream;
};

/* A tensor in guarded memory of its own. */
struct typed {
    attn_tensor t;
    struct guard guard;
};

static struct typed typed_make(struct rng *r, attn_dtype dtype, const size_t size[4], int order) {
    size_t block, bytes = attn_dtype_size(dtype, &block);
    size_t row = size[3] / block * bytes, head, span;
    struct typed x = {.t = {.dtype = dtype}};
    if (order == PADDED)
        row += bytes < 4 ? bytes * (1 + rng_below(r, 3)) : (bytes % 4 ? 2 : 4) * (1 + rng_below(r, 3));
    const size_t step[4] = {0, order == KEY_MAJOR || order == FAR ? row : row * size[2], 0, bytes};
    if (order == KEY_MAJOR) row *= size[1];
    if (order == FAR) row = (row * size[1] + 2047) / 2048 * 2048;
    head = step[1];
    const size_t batch = order == KEY_MAJOR || order == FAR ? row * size[2] : head * size[1];
    span = (size[0] - 1) * batch + (size[1] - 1) * head + (size[2] - 1) * row + size[3] / block * bytes;
    if (!size[2]) span = 0;
    x.guard = guard_alloc(span, rng_chance(r, 70) ? 0 : 1 + (unsigned)rng_below(r, GUARD_SHIFTS));
    memcpy(x.t.size, size, sizeof x.t.size);
    x.t.data = x.guard.data;
    x.t.stride[0] = (ptrdiff_t)batch;
    x.t.stride[1] = (ptrdiff_t)head;
    x.t.stride[2] = (ptrdiff_t)row;
    x.t.stride[3] = (ptrdiff_t)bytes;
    if (order == BACKWARDS && size[2]) {
        x.t.data = x.guard.data + (size[2] - 1) * row;
        x.t.stride[2] = -x.t.stride[2];
    }
    return x;
}

static size_t values(const size_t size[4]) { return size[0] * size[1] * size[2] * size[3]; }

/* A contiguous f32 tensor; free() its data. */
static attn_tensor plain(const size_t size[4]) {
    float *x = calloc(values(size) + 1, sizeof *x);
    if (!x) abort();
    return attn_tensor_contiguous(x, ATTN_F32, size[0], size[1], size[2], size[3]);
}

/* Values of all sizes; rows from `hidden` on are NaN; spoiled: a NaN, infinities and numbers too large for f16. */
static attn_tensor draw_values(struct rng *r, const size_t size[4], const size_t *lengths, int spoiled) {
    attn_tensor t = plain(size);
    float *x = t.data;
    const enum fill fill = rng_chance(r, 75) ? FILL_NORMAL : FILL_WIDE;
    for (size_t b = 0; b < size[0]; b++)
        for (size_t h = 0; h < size[1]; h++)
            for (size_t i = 0; i < size[2]; i++)
                for (size_t c = 0; c < size[3]; c++, x++) {
                    *x = rng_float(r, fill) * (rng_chance(r, 2) ? 0x1p-20f : 1.0f);
                    if (lengths && i >= lengths[b]) *x = NAN;
                    if (spoiled && rng_below(r, values(size)) < 2)
                        *x = rng_chance(r, 40) ? NAN : rng_chance(r, 50) ? -INFINITY : 70000.0f;
                }
    return t;
}

static void convert(attn_context *c, const attn_tensor *from, const attn_tensor *to) {
    ck_assert_msg(attn_convert(c, from, to) == ATTN_OK, "%s: %s", harness_case_text(), attn_context_error(c));
}

static int same_f32(float a, float b) { return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); }

/* Two tensors of the same type and sizes; NaNs are equal. */
static void compare(const char *what, attn_context *c, const attn_tensor *got, const attn_tensor *want) {
    attn_tensor a = plain(got->size), b = plain(got->size);
    convert(c, got, &a);
    convert(c, want, &b);
    const float *x = a.data, *y = b.data;
    for (size_t i = 0; i < values(got->size); i++) {
        const size_t *s = got->size;
        ck_assert_msg(same_f32(x[i], y[i]), "%s: %s[%zu %zu %zu %zu] is %a, not %a", harness_case_text(),
                      what, i / s[3] / s[2] / s[1], i / s[3] / s[2] % s[1], i / s[3] % s[2], i % s[3],
                      (double)x[i], (double)y[i]);
    }
    free(a.data);
    free(b.data);
}

struct extras {
    attn_scoring scoring;
    size_t lengths[64], prefixes[64], window[2];
    int32_t *q_documents, *kv_documents;
    float sinks[64];
    attn_tensor mask;
    unsigned char *mask_data;
};

static struct extras *extras_make(const struct type_case *c, struct rng *r) {
    struct extras *e = calloc(1, sizeof *e);
    const size_t n_documents = c->batch * (c->n_q + c->n_kv) + 1;
    if (!e || !(e->q_documents = calloc(n_documents, 4)) || !(e->mask_data = malloc(c->n_q * c->n_kv + 1)))
        abort();
    e->kv_documents = e->q_documents + c->batch * c->n_q;
    e->scoring = (attn_scoring){.size = sizeof e->scoring, .causal = (attn_causal)c->causal};
    for (size_t b = 0; b < c->batch; b++) {
        e->lengths[b] = c->lengths ? c->n_kv - rng_below(r, c->n_kv / 2 + 1) : c->n_kv;
        e->prefixes[b] = rng_below(r, c->n_kv / 3 + 1);
    }
    e->scoring.kv_lengths = c->lengths ? e->lengths : NULL;
    e->window[0] = rng_below(r, 100);
    e->window[1] = rng_below(r, 40);
    if (c->window) e->scoring.window = e->window;
    if (c->prefix) e->scoring.prefixes = e->prefixes;
    for (size_t i = 0; i < n_documents; i++) e->q_documents[i] = (int32_t)rng_below(r, 3);
    for (size_t i = 0; i < c->batch * c->n_kv; i++) e->kv_documents[i] = (int32_t)(i / 37 % 3);
    if (c->documents) {
        e->scoring.q_documents = e->q_documents;
        e->scoring.kv_documents = e->kv_documents;
    }
    for (size_t h = 0; h < c->n_head; h++) e->sinks[h] = rng_normal(r);
    if (c->sinks) e->scoring.sinks = e->sinks;
    if (c->cap) e->scoring.soft_cap = 5.0f;
    for (size_t i = 0; i < c->n_q * c->n_kv; i++)
        e->mask_data[i] = (unsigned char)(i / 40 % 3 && !rng_chance(r, 20));
    e->mask = attn_tensor_contiguous(e->mask_data, ATTN_BOOL, 1, 1, c->n_q, c->n_kv);
    if (c->mask) e->scoring.mask = &e->mask;
    return e;
}

static void call(attn_context *c, const attn_sdpa_args *args) {
    ck_assert_msg(attn_sdpa(c, args) == ATTN_OK, "%s: %s", harness_case_text(), attn_context_error(c));
}

static void announce(const char *backend, const struct type_case *c) {
    harness_case(
        "%s k %s v %s q %s out %s batch %zu heads %zu/%zu n %zu/%zu d %zu/%zu order %d causal %d window %d "
        "mask %d "
        "documents %d sinks %d lengths %d prefix %d cap %d spoiled %d weights %d threads %zu stream %llu",
        backend, attn_dtype_name(c->k), attn_dtype_name(c->v), attn_dtype_name(c->q), attn_dtype_name(c->out),
        c->batch, c->n_head, c->n_head_kv, c->n_q, c->n_kv, c->d_k, c->d_v, c->order, c->causal, c->window,
        c->mask, c->documents, c->sinks, c->lengths, c->prefix, c->cap, c->spoiled, c->weights, c->threads,
        (unsigned long long)c->stream);
}

static void check(const char *backend, const struct type_case *c) {
    attn_context *context = harness_context(backend, c->threads);
    struct rng rng = rng_make(test_seed(), c->stream), *const r = &rng;
    announce(backend, c);
    const size_t s_q[4] = {c->batch, c->n_head, c->n_q, c->d_k},
                 s_out[4] = {c->batch, c->n_head, c->n_q, c->d_v};
    const size_t s_k[4] = {c->batch, c->n_head_kv, c->n_kv, c->d_k},
                 s_v[4] = {c->batch, c->n_head_kv, c->n_kv, c->d_v};
    const size_t s_lse[4] = {c->batch, c->n_head, c->n_q, 1},
                 s_weights[4] = {c->batch, c->n_head, c->n_q, c->n_kv};
    struct extras *e = extras_make(c, r);
    attn_tensor q = draw_values(r, s_q, NULL, c->spoiled == 1);
    attn_tensor k = draw_values(r, s_k, e->scoring.kv_lengths, c->spoiled == 2);
    attn_tensor v = draw_values(r, s_v, e->scoring.kv_lengths, c->spoiled == 3);
    struct typed t_q = typed_make(r, c->q, s_q, c->order == BACKWARDS ? BACKWARDS : PADDED);
    struct typed t_k = typed_make(r, c->k, s_k, c->order), t_v = typed_make(r, c->v, s_v, c->order);
    struct typed t_out = typed_make(r, c->out, s_out, c->order);
    struct typed *const inputs[3] = {&t_q, &t_k, &t_v};
    convert(context, &q, &t_q.t); /* rounded: then they stand for these values */
    convert(context, &k, &t_k.t);
    convert(context, &v, &t_v.t);
    convert(context, &t_q.t, &q);
    convert(context, &t_k.t, &k);
    convert(context, &t_v.t, &v);
    attn_tensor out = plain(s_out), rounded = t_out.t, lse = plain(s_lse), lse2 = plain(s_lse);
    attn_tensor weights = plain(s_weights), weights2 = plain(s_weights);
    attn_sdpa_args args = {.size = sizeof args,
                           .q = &q,
                           .k = &k,
                           .v = &v,
                           .out = &out,
                           .lse = &lse,
                           .scoring = &e->scoring,
                           .weights = c->weights ? &weights : NULL};
    call(context, &args);
    args.q = &t_q.t;
    args.k = &t_k.t;
    args.v = &t_v.t;
    args.out = &t_out.t;
    args.lse = &lse2;
    args.weights = c->weights ? &weights2 : NULL;
    for (int i = 0; i < 3; i++) guard_seal(&inputs[i]->guard);
    call(context, &args);
    for (int i = 0; i < 3; i++) guard_unseal(&inputs[i]->guard);
    size_t block;
    const size_t bytes = attn_dtype_size(c->out, &block);
    rounded = attn_tensor_contiguous(calloc(values(s_out) + 1, bytes), c->out, s_out[0], s_out[1], s_out[2],
                                     s_out[3]);
    convert(context, &out, &rounded);
    compare("out", context, &t_out.t, &rounded);
    compare("lse", context, &lse2, &lse);
    if (c->weights) compare("weights", context, &weights2, &weights);
    ck_assert_msg(guard_intact(&t_out.guard), "%s: wrote outside out", harness_case_text());
    void *const memory[] = {q.data,    k.data,       v.data,        out.data,       rounded.data, lse.data,
                            lse2.data, weights.data, weights2.data, e->q_documents, e->mask_data, e};
    for (size_t i = 0; i < SHAPES_COUNT(memory); i++) free(memory[i]);
    for (int i = 0; i < 3; i++) guard_free(&inputs[i]->guard);
    guard_free(&t_out.guard);
    attn_context_destroy(context);
}

static int is_block(attn_dtype t) { return t == ATTN_Q8_0 || t == ATTN_Q4_0; }

static struct type_case draw(size_t i, int kind, attn_dtype k, attn_dtype v) {
    static const size_t groups[] = {1, 2, 3, 4, 5, 7, 8};
    static const size_t block_sizes[] = {32, 64, 96, 128, 160}, threads[] = {2, 5};
    struct rng rng = rng_make(test_seed(), ~i), *const r = &rng;
    struct type_case c = {.k = k, .v = v, .stream = i};
    const size_t group = kind == LONG ? 1 + rng_below(r, 2) : groups[rng_below(r, 7)];
    c.q = row_types[rng_below(r, 3)];
    c.out = row_types[rng_below(r, 3)];
    c.batch = 1 + rng_below(r, 2);
    c.n_head_kv = 1 + rng_below(r, 3);
    c.n_kv = 1 + rng_below(r, 150);
    c.n_q = 1;
    c.d_k = is_block(k) ? block_sizes[rng_below(r, 5)] : rng_chance(r, 80) ? 1 + rng_below(r, 40) : 128;
    c.d_v = is_block(v) ? block_sizes[rng_below(r, 5)] : rng_chance(r, 80) ? 1 + rng_below(r, 40) : 144;
    if (kind == DECODE && rng_chance(r, 20)) c.n_kv = 2030 + rng_below(r, 80);
    if (kind == FEW) c.n_q = 1 + rng_below(r, 8 / group + 1);
    if (kind == LANES) c.n_q = 9 / group + rng_below(r, 32 / group) + 1;
    if (kind == PREFILL) c.n_q = 33 + rng_below(r, 60), c.n_kv = 1 + rng_below(r, 600);
    if (kind == BLOCKS) { /* so many that a task takes several */
        c.batch = 8;
        c.n_head_kv = 4;
        c.n_q = 150 / group + rng_below(r, 200 / group);
        c.n_kv = 30 + rng_below(r, 270);
        c.d_k = is_block(k) ? 32 : 1 + rng_below(r, 20);
        c.d_v = is_block(v) ? 32 : 1 + rng_below(r, 20);
    }
    if (kind == LONG) c.n_q = 40 + rng_below(r, 40), c.n_kv = 2000 + rng_below(r, 200);
    if (kind == SPLIT) { /* several blocks of several chunks each, the last one of any height */
        c.batch = 1;
        c.n_head_kv = 4;
        c.n_q = (150 + rng_below(r, 300)) / group;
        c.n_kv = 2040 + rng_below(r, 60);
        c.d_k = is_block(k) ? 32 : 1 + rng_below(r, 6);
        c.d_v = is_block(v) ? 32 : 1 + rng_below(r, 6);
    }
    c.n_head = group * c.n_head_kv;
    c.order = (int)rng_below(r, N_ORDERS);
    c.causal = (int)rng_below(r, 3);
    c.window = rng_chance(r, 25);
    c.mask = rng_chance(r, 25);
    c.documents = rng_chance(r, kind == BLOCKS ? 50 : 20);
    c.sinks = rng_chance(r, 20);
    c.lengths = rng_chance(r, 40);
    c.prefix = rng_chance(r, 20);
    c.cap = rng_chance(r, 10);
    c.spoiled = rng_chance(r, 20) ? 1 + (int)rng_below(r, 3) : 0;
    c.weights = rng_chance(r, 10) && kind != SPLIT && kind != LONG;
    c.threads = rng_chance(r, 95) ? 1 : threads[rng_below(r, 2)];
    return c;
}

/* Every pair of types of keys and values in every kind of call. */
START_TEST(pairs) {
    /* of the larger kinds some pairs only: one in so many, and how often */
    static const size_t every[N_KINDS] = {1, 1, 1, 1, 2, 3, 6}, times[N_KINDS] = {5, 5, 4, 3, 1, 1, 1};
    const struct attn_backend *b = backends[_i];
    for (size_t i = 0; i < 25 * N_KINDS * 5; i++) {
        const size_t pair = i % 25, kind = i / 25 % N_KINDS;
        if (i / 25 / N_KINDS >= times[kind] || pair % every[kind]) continue;
        if (b == &attn_backend_scalar && (i % 8 || kind >= PREFILL)) continue;
        const struct type_case c = draw(i, (int)kind, kv_types[pair % 5], kv_types[pair / 5]);
        if (harness_takes(i, 13)) check(b->name, &c);
    }
}
END_TEST

/* Every number of columns up to two vectors and one, of types that have any number. */
START_TEST(columns) {
    const struct attn_backend *b = backends[_i];
    for (size_t d = 1; d <= 33; d++)
        for (size_t i = d % 3; i < 9 * 3; i += 3) {
            struct type_case c = draw(100000 + d * 100 + i,
                                      i / 9 == 2 ? PREFILL
                                      : i / 9    ? LANES
                                                 : DECODE,
                                      row_types[i % 3], row_types[i / 3 % 3]);
            c.d_k = d;
            c.d_v = 34 - d;
            c.n_kv = c.n_kv % 100 + 1;
            if (b == &attn_backend_scalar && (d + i) % 8) continue;
            if (harness_takes(d + i, 13)) check(b->name, &c);
        }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("exact: types");
    TCase *cases = tcase_create("types");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, pairs, 0, n);
    tcase_add_loop_test(cases, columns, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
