/* attn_convert(): rows of one element type to another. */
#include "convert.h"

#include "context.h"
#include "size.h"
#include "tensor.h"

/* Rows of all heads and batch elements one after the other, cut into tasks of so many. */
struct job {
    const struct attn_backend *backend;
    const attn_tensor *from, *to;
    size_t rows, each;
};

static char *row_of(const attn_tensor *t, size_t at) {
    const size_t n = t->size[ROW], heads = t->size[HEAD];
    return (char *)t->data + (ptrdiff_t)(at / n / heads) * attn_stride_bytes(t, BATCH) +
           (ptrdiff_t)(at / n % heads) * attn_stride_bytes(t, HEAD) +
           (ptrdiff_t)(at % n) * attn_stride_bytes(t, ROW);
}

void attn_convert_row(const struct attn_backend *backend, attn_dtype a, const void *from, attn_dtype b,
                      void *to, size_t n) {
    enum { PIECE = 2 * ATTN_BLOCK_MAX }; /* which every block divides */
    float piece[PIECE];
    if (b == ATTN_F32) {
        backend->to_f32(a, from, n, to);
        return;
    }
    if (a == ATTN_F32) {
        backend->from_f32(b, from, n, to);
        return;
    }
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t some = attn_min(n - i, PIECE);
        backend->to_f32(a, (const char *)from + attn_dtype_row(a, i), some, piece);
        backend->from_f32(b, piece, some, (char *)to + attn_dtype_row(b, i));
    }
}

static void run_task(void *arg, size_t index, size_t worker) {
    const struct job *j = arg;
    const size_t end = attn_min(j->rows, (index + 1) * j->each);
    (void)worker;
    for (size_t at = index * j->each; at < end; at++)
        attn_convert_row(j->backend, j->from->dtype, row_of(j->from, at), j->to->dtype, row_of(j->to, at),
                         j->from->size[COLUMN]);
}

attn_status attn_convert(attn_context *c, const attn_tensor *from, const attn_tensor *to) {
    enum { WORK = 1 << 16 }; /* values of a task */
    struct attn_span spans[2];
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(attn_tensor_check(c, "from", from, TENSOR_WEIGHTS, &spans[1]));
    ATTN_TRY(attn_tensor_check(c, "to", to, TENSOR_KV | TENSOR_OUTPUT, &spans[0]));
    ATTN_TRY(attn_tensor_expect(c, "to", to, from->size[BATCH], from->size[HEAD], from->size[ROW],
                                from->size[COLUMN]));
    ATTN_TRY(attn_spans_check(c, spans, 2, 1));
    struct job j = {c->backend, from, to, from->size[BATCH] * from->size[HEAD] * from->size[ROW], 1};
    if (!from->size[COLUMN]) return ATTN_OK;
    j.each = attn_max(1, WORK / from->size[COLUMN]);
    attn_executor_run(&c->executor, attn_ceil_div(j.rows, j.each), run_task, &j);
    return ATTN_OK;
}
