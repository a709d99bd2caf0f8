#include <stdio.h>
#include <string.h>

#include "size.h"
#include "tensor.h"

/* ---- Checks ------------------------------------------------------------------------------------------- */

/* The same elements in the same places. Their sizes are known to be equal. */
static int is_same(const attn_tensor *a, const attn_tensor *b) {
    for (int i = 0; i < 4; i++)
        if (attn_stride(a, i) != attn_stride(b, i)) return 0;
    return a->data == b->data;
}

enum { OUT, LSE, OUTPUTS, PART_OUT = OUTPUTS, PART_LSE, SPANS };

static attn_status check_outputs(attn_context *c, const attn_merge_args *a, struct attn_span spans[OUTPUTS]) {
    ATTN_TRY(attn_tensor_check(c, "out", a->out, TENSOR_F32 | TENSOR_OUTPUT, &spans[OUT]));
    const size_t *size = a->out->size;
    if (!size[HEAD]) return attn_fail(c, ATTN_ERROR_SHAPE, "out: it has no heads");
    if (!size[COLUMN]) return attn_fail(c, ATTN_ERROR_SHAPE, "out: it has no columns");
    spans[LSE] = attn_span_of("lse", NULL, 0);
    if (!a->lse) return ATTN_OK;
    ATTN_TRY(attn_tensor_check(c, "lse", a->lse, TENSOR_F32 | TENSOR_OUTPUT, &spans[LSE]));
    return attn_tensor_expect(c, "lse", a->lse, size[BATCH], size[HEAD], size[ROW], 1);
}

/* One part against the outputs, whose spans come first. */
static attn_status check_part(attn_context *c, const attn_merge_args *a, size_t i, const char *outs,
                              const char *lses, struct attn_span spans[SPANS]) {
    const attn_tensor *o = &a->outs[i], *l = &a->lses[i];
    const size_t *size = a->out->size;
    ATTN_TRY(attn_tensor_check(c, outs, o, TENSOR_F32, &spans[PART_OUT]));
    ATTN_TRY(attn_tensor_check(c, lses, l, TENSOR_F32, &spans[PART_LSE]));
    ATTN_TRY(attn_tensor_expect(c, outs, o, size[BATCH], size[HEAD], size[ROW], size[COLUMN]));
    ATTN_TRY(attn_tensor_expect(c, lses, l, size[BATCH], size[HEAD], size[ROW], 1));
    /* what is merged in place is checked against the other output as that output's other side */
    if (i == 0 && is_same(o, a->out)) spans[PART_OUT] = attn_span_of(outs, NULL, 0);
    if (i == 0 && a->lse && is_same(l, a->lse)) spans[PART_LSE] = attn_span_of(lses, NULL, 0);
    return attn_spans_check(c, spans, SPANS, OUTPUTS);
}

static attn_status check_parts(attn_context *c, const attn_merge_args *a, struct attn_span spans[SPANS]) {
    if (!a->n_parts) return attn_spans_check(c, spans, OUTPUTS, OUTPUTS);
    if (!a->outs) return attn_fail(c, ATTN_ERROR_ARGUMENT, "outs is null");
    if (!a->lses) return attn_fail(c, ATTN_ERROR_ARGUMENT, "lses is null");
    if (a->n_parts > PTRDIFF_MAX / sizeof(attn_tensor))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "n_parts: %zu tensors do not fit the address space",
                         a->n_parts);
    spans[PART_OUT] = attn_span_of("outs", a->outs, a->n_parts * sizeof *a->outs);
    spans[PART_LSE] = attn_span_of("lses", a->lses, a->n_parts * sizeof *a->lses);
    ATTN_TRY(attn_spans_check(c, spans, SPANS, OUTPUTS));
    for (size_t i = 0; i < a->n_parts; i++) {
        char outs[32], lses[32];
        if (check_part(c, a, i, "outs", "lses", spans) == ATTN_OK) continue;
        snprintf(outs, sizeof outs, "outs[%zu]", i); /* once more, for the text */
        snprintf(lses, sizeof lses, "lses[%zu]", i);
        return check_part(c, a, i, outs, lses, spans);
    }
    return ATTN_OK;
}

/* ---- Running ------------------------------------------------------------------------------------------ */

/* Rows of all heads and batch elements one after the other, cut into tasks of so many. */
struct job {
    const struct attn_backend *backend;
    const attn_merge_args *args;
    size_t rows, each;
};

static void run_task(void *arg, size_t index, size_t worker) {
    const struct job *j = arg;
    const attn_merge_args *a = j->args;
    const size_t n_q = a->out->size[ROW], n_head = a->out->size[HEAD];
    const size_t end = attn_min(j->rows, (index + 1) * j->each);
    (void)worker;
    for (size_t at = index * j->each; at < end;) {
        const struct attn_combine_task t = {.n_parts = a->n_parts,
                                            .outs = a->outs,
                                            .lses = a->lses,
                                            .out = a->out,
                                            .lse = a->lse,
                                            .batch = at / n_q / n_head,
                                            .head = at / n_q % n_head,
                                            .row = at % n_q,
                                            .n_rows = attn_min(n_q - at % n_q, end - at)};
        j->backend->combine(&t);
        at += t.n_rows;
    }
}

/* A task reads and writes about WORK floats: enough to be worth handing out, and a prefill is many. */
static void run(attn_context *c, const attn_merge_args *a) {
    enum { WORK = 1 << 15 };
    const size_t *size = a->out->size;
    struct job j = {.backend = c->backend, .args = a, .rows = size[BATCH] * size[HEAD] * size[ROW]};
    j.each = attn_max(1, WORK / size[COLUMN] / (a->n_parts + 1));
    attn_executor_run(&c->executor, attn_ceil_div(j.rows, j.each), run_task, &j);
}

attn_status attn_merge(attn_context *c, const attn_merge_args *args) {
    attn_merge_args a;
    struct attn_span spans[SPANS];
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(attn_struct_read(c, "args", &a, sizeof a, args));
    ATTN_TRY(check_outputs(c, &a, spans));
    ATTN_TRY(check_parts(c, &a, spans));
    run(c, &a);
    return ATTN_OK;
}
