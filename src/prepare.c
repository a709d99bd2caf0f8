/* Projections whose backend takes rows of x in narrower numbers: they are prepared once a call, for all tasks. */
#include "linear.h"
#include "size.h"
#include "tensor.h"

int attn_linear_rounds(const attn_context *c, const struct attn_linear_call *call) {
    enum { ROWS = 32 }; /* fewer are no strips worth it */
    const attn_packed *w = call->w;
    return c->backend->rounds && attn_linear_rows(call) >= ROWS &&
           c->backend->rounds((attn_dtype)w->dtype, call->o1 - call->o0, (size_t)w->k);
}

size_t attn_linear_prepared_row(const attn_context *c, const struct attn_linear_call *call) {
    if (!c->backend->prepared_row || attn_linear_rounds(c, call)) return 0;
    const size_t bytes = c->backend->prepared_row((attn_dtype)call->w->dtype, (size_t)call->w->k);
    return bytes <= ATTN_PREPARED_BYTES ? bytes : 0;
}

/* The rows of x of one or several calls. */
struct job {
    const attn_context *context;
    const attn_tensor *x;
    attn_dtype weights;
    size_t rows, each; /* of a task */
    size_t row_bytes;
    char *to;
};

static void prepare_rows(const struct job *j, size_t from, size_t to) {
    const attn_tensor *x = j->x;
    for (size_t at = from; at < to; at++) {
        const size_t row = at % x->size[ROW], outer = at / x->size[ROW];
        const char *data = (const char *)x->data + (ptrdiff_t)row * attn_stride_bytes(x, ROW) +
                           (ptrdiff_t)(outer % x->size[HEAD]) * attn_stride_bytes(x, HEAD) +
                           (ptrdiff_t)(outer / x->size[HEAD]) * attn_stride_bytes(x, BATCH);
        j->context->backend->prepare(j->weights, (const float *)(const void *)data, x->size[COLUMN],
                                     j->to + at * j->row_bytes);
    }
}

static void run_task(void *arg, size_t index, size_t worker) {
    const struct job *j = arg;
    (void)worker;
    prepare_rows(j, index * j->each, attn_min(j->rows, (index + 1) * j->each));
}

/* A few rows are not worth waking threads for. */
static void run(attn_context *c, struct job *j) {
    enum { WORK = 1 << 15, ALONE = 1 << 16 }; /* values */
    const size_t k = j->x->size[COLUMN];
    j->each = attn_max(1, WORK / k);
    if (j->rows * k <= ALONE)
        prepare_rows(j, 0, j->rows);
    else
        attn_executor_run(&c->executor, attn_ceil_div(j->rows, j->each), run_task, j);
}

static int same_rows(const struct attn_linear_call *a, const struct attn_linear_call *b) {
    for (int i = 0; i < 4; i++)
        if (a->x->size[i] != b->x->size[i] || a->x->stride[i] != b->x->stride[i]) return 0;
    return a->x->data == b->x->data && a->w->dtype == b->w->dtype;
}

/* The call before i whose prepared rows it can have (or that, as i, has none); i: none. */
static size_t shares_with(const attn_context *c, const struct attn_linear_call *calls, size_t i) {
    const size_t row = attn_linear_prepared_row(c, &calls[i]);
    for (size_t k = 0; k < i; k++)
        if (same_rows(&calls[k], &calls[i]) && attn_linear_prepared_row(c, &calls[k]) == row) return k;
    return i;
}

/* Bytes of all prepared rows; SIZE_MAX: too many. */
static size_t bytes_of(const attn_context *c, const struct attn_linear_call *calls, size_t n) {
    size_t sum = 0, bytes;
    for (size_t i = 0; i < n; i++) {
        if (shares_with(c, calls, i) < i) continue;
        if (__builtin_mul_overflow(attn_linear_rows(&calls[i]), attn_linear_prepared_row(c, &calls[i]),
                                   &bytes) ||
            __builtin_add_overflow(sum, bytes, &sum))
            return SIZE_MAX;
    }
    return sum;
}

/* Calls whose rows fit. */
static void run_calls(attn_context *c, const struct attn_linear_call *calls, size_t n) {
    const char *prepared[ATTN_LINEAR_CALLS];
    char *at = c->prepared;
    for (size_t i = 0; i < n; i++) {
        const size_t row = attn_linear_prepared_row(c, &calls[i]), shared = shares_with(c, calls, i);
        struct job j = {.context = c,
                        .x = calls[i].x,
                        .weights = (attn_dtype)calls[i].w->dtype,
                        .rows = attn_linear_rows(&calls[i]),
                        .row_bytes = row,
                        .to = at};
        prepared[i] = shared < i ? prepared[shared] : row ? at : NULL;
        if (shared < i || !row || !j.rows) continue;
        run(c, &j);
        at += j.rows * row;
    }
    attn_linear_round(c, calls, prepared, n);
}

/* One call in pieces that fit: halves of its largest dimension. */
static void run_pieces(attn_context *c, const struct attn_linear_call *call) {
    int dim = ROW;
    if (bytes_of(c, call, 1) <= ATTN_PREPARED_BYTES) {
        run_calls(c, call, 1);
        return;
    }
    for (int i = BATCH; i < ROW; i++)
        if (call->x->size[i] > call->x->size[dim]) dim = i;
    const size_t half = call->x->size[dim] / 2;
    for (int second = 0; second < 2; second++) {
        attn_tensor x = *call->x, y = *call->y;
        const size_t n = second ? x.size[dim] - half : half;
        if (second) {
            x.data = (char *)x.data + (ptrdiff_t)half * attn_stride_bytes(&x, dim);
            y.data = (char *)y.data + (ptrdiff_t)half * attn_stride_bytes(&y, dim);
        }
        x.size[dim] = y.size[dim] = n;
        run_pieces(c, &(struct attn_linear_call){&x, call->w, call->o0, call->o1, &y});
    }
}

void attn_linear_run(attn_context *c, const struct attn_linear_call *calls, size_t n) {
    if (bytes_of(c, calls, n) <= ATTN_PREPARED_BYTES) {
        run_calls(c, calls, n);
        return;
    }
    for (size_t i = 0; i < n; i++) run_pieces(c, &calls[i]);
}
