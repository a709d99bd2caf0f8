#include "cases.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS_MAX = 8 };

attn_context *context_on(const char *backend) {
    char text[200] = "";
    attn_context *context = NULL;
    attn_options options = {.size = sizeof options,
                            .backend = backend,
                            .n_threads = 1,
                            .error = text,
                            .error_bytes = sizeof text};
    ck_assert_msg(attn_context_create(&options, &context) == ATTN_OK, "%s: %s", backend, text);
    return context;
}

void succeeded(attn_context *context, attn_status status) {
    ck_assert_msg(status == ATTN_OK, "%s: %s", attn_status_name(status), attn_context_error(context));
}

attn_packed *pack_matrix(attn_context *context, const float *w, const float *bias, size_t n, size_t k) {
    attn_tensor t = attn_tensor_contiguous((void *)(uintptr_t)w, ATTN_F32, 1, 1, n, k);
    const attn_packed *packed = NULL;
    size_t bytes = 0;
    succeeded(context, attn_pack_linear_bytes(context, &t, &bytes));
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    ck_assert_ptr_nonnull(memory);
    succeeded(context, attn_pack_linear(context, &t, bias, memory, bytes, &packed));
    ck_assert_ptr_eq(packed, memory);
    return memory;
}

/* ---- Arguments from a case ------------------------------------------------------------------------ */

/* Tensors, lengths, mask and outputs of a case, in the form that every call takes. */
struct arguments {
    attn_tensor q, k, v, w_a, mask, out, lse, weights;
    attn_scoring scoring;
    size_t q_lengths[8], kv_lengths[8];
    unsigned char *mask_bytes;
};

static attn_tensor tensor_of(const struct vector_array *a) {
    return attn_tensor_contiguous(a->f, ATTN_F32, a->size[0], a->size[1], a->size[2], a->size[3]);
}

static const size_t *lengths(const struct vector_case *c, const char *name, size_t *to) {
    const struct vector_array *a = vectors_find(c, name);
    for (size_t i = 0; a && i < a->n; i++) to[i] = (size_t)a->x[i];
    return a ? to : NULL;
}

static void read_scoring(const struct vector_case *c, struct arguments *a) {
    const struct vector_array *f32 = vectors_find(c, "mask_f32"), *bits = vectors_find(c, "mask_bool");
    a->scoring = (attn_scoring){.size = sizeof a->scoring,
                                .scale = (float)vectors_number(c, "scale"),
                                .causal = (attn_causal)vectors_number(c, "causal"),
                                .q_lengths = lengths(c, "q_lengths", a->q_lengths),
                                .kv_lengths = lengths(c, "kv_lengths", a->kv_lengths),
                                .mask = f32 || bits ? &a->mask : NULL};
    if (f32) a->mask = tensor_of(f32);
    if (bits) {
        a->mask_bytes = calloc(bits->n, 1);
        ck_assert_ptr_nonnull(a->mask_bytes);
        for (size_t i = 0; i < bits->n; i++)
            a->mask_bytes[i] =
                bits->x[i] != 0 ? (unsigned char)(1 + i % 255) : 0; /* anything but 0 is true */
        a->mask = attn_tensor_contiguous(a->mask_bytes, ATTN_BOOL, bits->size[0], bits->size[1],
                                         bits->size[2], bits->size[3]);
    }
}

static attn_tensor add_output(struct case_run *run, const struct vector_case *c, const char *name) {
    char key[24];
    snprintf(key, sizeof key, "want_%s", name);
    const struct vector_array *want = vectors_get(c, key);
    struct case_output *o = &run->output[run->n_outputs++];
    *o = (struct case_output){.name = name, .n = want->n, .want = want->x};
    o->got = calloc(o->n, sizeof *o->got);
    o->oracle = calloc(o->n, sizeof *o->oracle);
    o->err = calloc(o->n, sizeof *o->err);
    ck_assert(o->got && o->oracle && o->err);
    for (size_t i = 0; i < o->n; i++) o->got[i] = NAN;
    return attn_tensor_contiguous(o->got, ATTN_F32, want->size[0], want->size[1], want->size[2],
                                  want->size[3]);
}

static struct attn_bound_result result_of(const struct case_run *run) {
    const struct case_output *o = run->output;
    return (struct attn_bound_result){.out = o[0].oracle,
                                      .out_err = o[0].err,
                                      .lse = o[1].oracle,
                                      .lse_err = o[1].err,
                                      .weights = o[2].oracle,
                                      .weights_err = o[2].err};
}

static void read_arguments(const struct vector_case *c, struct case_run *run, struct arguments *a) {
    memset(a, 0, sizeof *a);
    a->q = tensor_of(vectors_get(c, "q"));
    a->k = tensor_of(vectors_get(c, "k"));
    a->v = tensor_of(vectors_get(c, "v"));
    if (vectors_find(c, "w_a")) a->w_a = tensor_of(vectors_get(c, "w_a"));
    read_scoring(c, a);
    a->out = add_output(run, c, "out");
    a->lse = add_output(run, c, "lse");
    a->weights = add_output(run, c, "weights");
}

/* ---- Matrices ------------------------------------------------------------------------------------- */

/* Array `name` as matrices, one a head of it, with the biases in array `bias` (NULL: none), plain and
 * packed. */
struct matrices {
    struct attn_bound_matrix plain[HEADS_MAX];
    attn_packed *packed[HEADS_MAX];
    const attn_packed *const_packed[HEADS_MAX];
    size_t n; /* 0: the case has none */
};

static struct matrices matrices_of(attn_context *context, const struct vector_case *c, const char *name,
                                   const char *bias) {
    struct matrices m = {.n = 0};
    const struct vector_array *a = vectors_find(c, name), *b = bias ? vectors_find(c, bias) : NULL;
    for (size_t i = 0; a && i < a->size[1]; i++, m.n++) {
        size_t rows = a->size[2], columns = a->size[3];
        ck_assert_uint_lt(i, HEADS_MAX);
        m.plain[i] = (struct attn_bound_matrix){a->f + i * rows * columns, rows, columns, b ? b->f : NULL};
        m.packed[i] = pack_matrix(context, m.plain[i].data, m.plain[i].bias, rows, columns);
        m.const_packed[i] = m.packed[i];
    }
    return m;
}

static void matrices_free(struct matrices *m) {
    for (size_t i = 0; i < m->n; i++) free(m->packed[i]);
}

/* ---- The calls ------------------------------------------------------------------------------------ */

static void run_linear(attn_context *context, const struct vector_case *c, struct case_run *run) {
    struct matrices w = matrices_of(context, c, "w", "bias");
    attn_tensor x = tensor_of(vectors_get(c, "x")), y = add_output(run, c, "out");
    succeeded(context, attn_linear(context, &x, w.packed[0], &y));
    ck_assert_int_eq(attn_bound_linear(attn_bound_arith_of(attn_context_backend(context)), &x, &w.plain[0],
                                       run->output[0].oracle, run->output[0].err),
                     0);
    matrices_free(&w);
}

static void run_sdpa(attn_context *context, const struct vector_case *c, struct case_run *run) {
    struct arguments a;
    read_arguments(c, run, &a);
    attn_sdpa_args args = {.size = sizeof args,
                           .q = &a.q,
                           .k = &a.k,
                           .v = &a.v,
                           .out = &a.out,
                           .scoring = &a.scoring,
                           .lse = &a.lse,
                           .weights = &a.weights};
    struct attn_bound_result result = result_of(run);
    succeeded(context, attn_sdpa(context, &args));
    ck_assert_int_eq(attn_bound_sdpa(attn_bound_arith_of(attn_context_backend(context)), &args, &result), 0);
    free(a.mask_bytes);
}

static void run_additive(attn_context *context, const struct vector_case *c, struct case_run *run) {
    struct arguments a;
    read_arguments(c, run, &a);
    struct matrices a_q = matrices_of(context, c, "a_q", NULL), a_k = matrices_of(context, c, "a_k", NULL);
    attn_additive_args args = {.size = sizeof args,
                               .q = &a.q,
                               .k = &a.k,
                               .v = &a.v,
                               .a_q = a_q.n ? a_q.const_packed : NULL,
                               .a_k = a_k.n ? a_k.const_packed : NULL,
                               .w = &a.w_a,
                               .out = &a.out,
                               .scoring = &a.scoring,
                               .lse = &a.lse,
                               .weights = &a.weights};
    struct attn_bound_result result = result_of(run);
    succeeded(context, attn_additive(context, &args));
    ck_assert_int_eq(attn_bound_additive(attn_bound_arith_of(attn_context_backend(context)), &args,
                                         a_q.n ? a_q.plain : NULL, a_k.n ? a_k.plain : NULL, &result),
                     0);
    matrices_free(&a_q);
    matrices_free(&a_k);
    free(a.mask_bytes);
}

static void run_heads(attn_context *context, const struct vector_case *c, struct case_run *run) {
    struct arguments a;
    read_arguments(c, run, &a);
    struct matrices w_q = matrices_of(context, c, "w_q", "b_q"), w_k = matrices_of(context, c, "w_k", "b_k");
    struct matrices w_v = matrices_of(context, c, "w_v", "b_v"), w_o = matrices_of(context, c, "w_o", "b_o");
    struct matrices a_q = matrices_of(context, c, "a_q", NULL), a_k = matrices_of(context, c, "a_k", NULL);
    attn_pooling pooling = vectors_find(c, "w_a") ? ATTN_POOLING_ADDITIVE : ATTN_POOLING_DOT;
    attn_weights weights = {.size = sizeof weights,
                            .n_head = (size_t)vectors_number(c, "n_head"),
                            .n_head_kv = (size_t)vectors_number(c, "n_head_kv"),
                            .w_q = w_q.packed[0],
                            .w_k = w_k.packed[0],
                            .w_v = w_v.packed[0],
                            .w_o = w_o.packed[0],
                            .pooling = pooling,
                            .a_q = a_q.n ? a_q.const_packed : NULL,
                            .a_k = a_k.n ? a_k.const_packed : NULL,
                            .w_a = &a.w_a};
    struct attn_bound_weights plain = {.n_head = weights.n_head,
                                       .n_head_kv = weights.n_head_kv,
                                       .w_q = w_q.plain[0],
                                       .w_k = w_k.plain[0],
                                       .w_v = w_v.plain[0],
                                       .w_o = w_o.plain[0],
                                       .pooling = pooling,
                                       .a_q = a_q.n ? a_q.plain : NULL,
                                       .a_k = a_k.n ? a_k.plain : NULL,
                                       .w_a = &a.w_a};
    attn_head_args args = {.size = sizeof args,
                           .weights = &weights,
                           .head = (size_t)vectors_number(c, "head"),
                           .q = &a.q,
                           .k = &a.k,
                           .v = &a.v,
                           .out = &a.out,
                           .scoring = &a.scoring,
                           .lse = &a.lse,
                           .attention = &a.weights};
    int one = strcmp(c->kind, "head") == 0;
    struct attn_bound_result result = result_of(run);
    enum attn_bound_arith arith = attn_bound_arith_of(attn_context_backend(context));
    succeeded(context, (one ? attn_head : attn_multihead)(context, &args));
    ck_assert_int_eq((one ? attn_bound_head : attn_bound_multihead)(arith, &plain, &args, &result), 0);
    struct matrices *all[] = {&w_q, &w_k, &w_v, &w_o, &a_q, &a_k};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) matrices_free(all[i]);
    free(a.mask_bytes);
}

struct case_run case_execute(attn_context *context, const struct vector_case *c) {
    static const struct {
        const char *kind;
        void (*run)(attn_context *, const struct vector_case *, struct case_run *);
    } kinds[] = {{"linear", run_linear},
                 {"sdpa", run_sdpa},
                 {"additive", run_additive},
                 {"head", run_heads},
                 {"multihead", run_heads}};
    struct case_run run = {.n_outputs = 0};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].kind, c->kind) == 0) kinds[i].run(context, c, &run);
    ck_assert_msg(run.n_outputs > 0, "unknown kind of case: %s", c->kind);
    return run;
}

void case_free(struct case_run *run) {
    for (size_t i = 0; i < run->n_outputs; i++) {
        free(run->output[i].got);
        free(run->output[i].oracle);
        free(run->output[i].err);
    }
}
