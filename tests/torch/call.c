#include "call.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>

enum { SEQUENCES_MAX = 32, OUTPUTS = 4 };

/* The arguments of a call, and the arrays that they point to. */
struct call {
    attn_tensor q, k, v, mask, to[OUTPUTS];
    attn_scoring scoring;
    size_t q_lengths[SEQUENCES_MAX], kv_lengths[SEQUENCES_MAX], prefixes[SEQUENCES_MAX], window[2];
    size_t q_starts[SEQUENCES_MAX + 1], kv_starts[SEQUENCES_MAX + 1];
    ptrdiff_t offsets[SEQUENCES_MAX];
    int32_t *q_documents, *kv_documents;
    void *mask_data;
};

static attn_tensor tensor_of(void *data, attn_dtype dtype, const struct vector_array *a) {
    return attn_tensor_contiguous(data, dtype, a->size[0], a->size[1], a->size[2], a->size[3]);
}

static void *memory(size_t n, size_t bytes) {
    void *p = calloc(n + 1, bytes);
    ck_assert_ptr_nonnull(p);
    return p;
}

/* An array of the case as sizes, where -1 is SIZE_MAX; NULL where the case has none. */
static const size_t *sizes(const struct vector_case *c, const char *name, size_t *to, size_t most) {
    const struct vector_array *a = vectors_find(c, name);
    if (!a) return NULL;
    ck_assert_msg(a->n <= most, "%s: %zu numbers of %s", c->name, a->n, name);
    for (size_t i = 0; i < a->n; i++) to[i] = a->x[i] < 0 ? SIZE_MAX : (size_t)a->x[i];
    return to;
}

static const ptrdiff_t *offsets(const struct vector_case *c, ptrdiff_t *to) {
    const struct vector_array *a = vectors_find(c, "offsets");
    for (size_t i = 0; a && i < a->n && i < SEQUENCES_MAX; i++) to[i] = (ptrdiff_t)a->x[i];
    return a ? to : NULL;
}

static int32_t *documents(const struct vector_case *c, const char *name) {
    const struct vector_array *a = vectors_find(c, name);
    int32_t *to = a ? memory(a->n, sizeof *to) : NULL;
    for (size_t i = 0; a && i < a->n; i++) to[i] = (int32_t)a->x[i];
    return to;
}

static const float *floats(const struct vector_case *c, const char *name) {
    const struct vector_array *a = vectors_find(c, name);
    return a ? a->f : NULL;
}

static void read_mask(const struct vector_case *c, struct call *l) {
    const struct vector_array *f32 = vectors_find(c, "mask_f32"), *f16 = vectors_find(c, "mask_f16");
    const struct vector_array *bits = vectors_find(c, "mask_bool");
    if (f32) l->mask = tensor_of(f32->f, ATTN_F32, f32);
    if (f16) {
        uint16_t *to = l->mask_data = memory(f16->n, sizeof *to);
        for (size_t i = 0; i < f16->n; i++) to[i] = (uint16_t)f16->x[i];
        l->mask = tensor_of(to, ATTN_F16, f16);
    }
    if (bits) { /* anything but 0 is true */
        unsigned char *to = l->mask_data = memory(bits->n, 1);
        for (size_t i = 0; i < bits->n; i++) to[i] = bits->x[i] != 0 ? (unsigned char)(1 + i % 255) : 0;
        l->mask = tensor_of(to, ATTN_BOOL, bits);
    }
    if (f32 || f16 || bits) l->scoring.mask = &l->mask;
}

static void read_call(const struct vector_case *c, struct call *l) {
    const struct vector_array *q = vectors_get(c, "q"), *k = vectors_get(c, "k"), *v = vectors_get(c, "v");
    const struct vector_array *starts = vectors_find(c, "q_starts");
    *l = (struct call){.q = tensor_of(q->f, ATTN_F32, q),
                       .k = tensor_of(k->f, ATTN_F32, k),
                       .v = tensor_of(v->f, ATTN_F32, v),
                       .q_documents = documents(c, "q_documents"),
                       .kv_documents = documents(c, "kv_documents")};
    ck_assert_uint_le(starts ? starts->n - 1 : q->size[0], SEQUENCES_MAX);
    l->scoring = (attn_scoring){.size = sizeof l->scoring,
                                .scale = (float)vectors_number(c, "scale"),
                                .causal = (attn_causal)vectors_number(c, "causal"),
                                .q_lengths = sizes(c, "q_lengths", l->q_lengths, SEQUENCES_MAX),
                                .kv_lengths = sizes(c, "kv_lengths", l->kv_lengths, SEQUENCES_MAX),
                                .offsets = offsets(c, l->offsets),
                                .window = sizes(c, "window", l->window, 2),
                                .prefixes = sizes(c, "prefixes", l->prefixes, SEQUENCES_MAX),
                                .q_documents = l->q_documents,
                                .kv_documents = l->kv_documents,
                                .alibi_slopes = floats(c, "slopes"),
                                .soft_cap = (float)vectors_number(c, "cap"),
                                .sinks = floats(c, "sinks"),
                                .n_sequences = starts ? starts->n - 1 : 0,
                                .q_starts = sizes(c, "q_starts", l->q_starts, SEQUENCES_MAX + 1),
                                .kv_starts = sizes(c, "kv_starts", l->kv_starts, SEQUENCES_MAX + 1)};
    read_mask(c, l);
}

/* The output and its tensor, or NULL where the case does not ask for it. */
static const attn_tensor *add_output(struct sdpa_run *run, const struct vector_case *c, const char *name,
                                     attn_tensor *to, double **oracle, double **err) {
    char key[24];
    snprintf(key, sizeof key, "want_%s", name);
    const struct vector_array *want = vectors_find(c, key);
    if (!want) return NULL;
    struct case_output *o = &run->output[run->n_outputs++];
    *o = (struct case_output){.name = name,
                              .n = want->n,
                              .got = memory(want->n, sizeof(float)),
                              .want = want->x,
                              .oracle = memory(want->n, sizeof(double)),
                              .err = memory(want->n, sizeof(double))};
    for (size_t i = 0; i < o->n; i++) o->got[i] = NAN;
    *oracle = o->oracle;
    *err = o->err;
    *to = tensor_of(o->got, ATTN_F32, want);
    return to;
}

struct sdpa_run sdpa_execute(attn_context *context, const struct vector_case *c) {
    struct call l;
    struct sdpa_run run = {.n_outputs = 0};
    struct attn_bound_result r = {.out = NULL};
    read_call(c, &l);
    const attn_sdpa_args args = {
        .size = sizeof args,
        .q = &l.q,
        .k = &l.k,
        .v = &l.v,
        .out = add_output(&run, c, "out", &l.to[0], &r.out, &r.out_err),
        .scoring = &l.scoring,
        .lse = add_output(&run, c, "lse", &l.to[1], &r.lse, &r.lse_err),
        .weights = add_output(&run, c, "weights", &l.to[2], &r.weights, &r.weights_err),
        .lse_sinks = add_output(&run, c, "lse_sinks", &l.to[3], &r.lse_sinks, &r.lse_sinks_err)};
    succeeded(context, attn_sdpa(context, &args));
    ck_assert_int_eq(attn_bound_sdpa(attn_bound_arith_of(attn_context_backend(context)), &args, &r), 0);
    free(l.q_documents);
    free(l.kv_documents);
    free(l.mask_data);
    return run;
}

void sdpa_free(struct sdpa_run *run) {
    for (size_t i = 0; i < run->n_outputs; i++) {
        free(run->output[i].got);
        free(run->output[i].oracle);
        free(run->output[i].err);
    }
}
