#include "linear.h"

#include "size.h"
#include "tensor.h"

/* A rows x outputs grid of tasks for each element of two outer loops. */
struct job {
    const struct attn_backend *backend;
    const float *x;
    float *y;
    const attn_packed *w;
    char *scratch;        /* of all workers */
    const char *prepared; /* all rows of x, where the backend prepares them; or NULL */
    size_t prepared_row;  /* bytes */
    ptrdiff_t x_stride[2], y_stride[2], x_row, y_row; /* outer, inner; row */
    size_t n_inner, m, o0, o1, n_workers;
    size_t row_blocks, rows, column_blocks, columns; /* of a task */
};

/* The tasks of several calls, one call's after the other's. */
struct round {
    struct job jobs[ATTN_LINEAR_CALLS];
    size_t n_tasks[ATTN_LINEAR_CALLS];
};

static void run_task(void *arg, size_t index, size_t worker) {
    const struct round *r = arg;
    const struct job *j = r->jobs;
    for (const size_t *n = r->n_tasks; index >= *n; n++, j++) index -= *n;
    const size_t column = index % j->column_blocks, row = index / j->column_blocks % j->row_blocks;
    const size_t outer = index / j->column_blocks / j->row_blocks;
    const ptrdiff_t b = (ptrdiff_t)(outer / j->n_inner), h = (ptrdiff_t)(outer % j->n_inner),
                    i = (ptrdiff_t)(row * j->rows);
    const size_t first = column * j->columns, next = column + j->n_workers;
    const struct attn_linear_task t = {
        .x = j->x + b * j->x_stride[0] + h * j->x_stride[1] + i * j->x_row,
        .x_row = j->x_row,
        .y = j->y + b * j->y_stride[0] + h * j->y_stride[1] + i * j->y_row + first,
        .y_row = j->y_row,
        .m = attn_min(j->m - row * j->rows, j->rows),
        .k = (size_t)j->w->k,
        .dtype = (attn_dtype)j->w->dtype,
        .row_bytes = attn_packed_row(j->w),
        .panels = attn_packed_panels(j->w),
        .bias = attn_packed_bias(j->w),
        .scratch = (float *)(void *)(j->scratch + worker * j->backend->linear_scratch),
        .prepared = j->prepared ? j->prepared + (outer * j->m + row * j->rows) * j->prepared_row : NULL,
        .prepared_row = (ptrdiff_t)j->prepared_row,
        .n = (size_t)j->w->n,
        .o0 = j->o0 + first,
        .o1 = attn_min(j->o0 + first + j->columns, j->o1),
        .o_next = next < j->column_blocks ? j->o0 + next * j->columns : SIZE_MAX,
    };
    j->backend->linear(&t);
}

/*
 * Cuts m rows x n outputs into tasks, from the shapes alone. Rows: at most ROWS, so that a task's rows of
 * one K block (192 x 1024 floats) stay in L2 beside a panel. A task does at least WORK multiply-adds (about
 * 8 us on one core at the peak; reading a panel of f32 from memory counts as STREAM
 * rows, of other types as their part of that), and where the whole is
 * large enough there are at least TASKS of them, of 4 WORK: lower strips of rows cost a few percent. A smaller one
 * becomes FEW_TASKS of WORK. Dot products of narrow numbers do `dense` times as many at once, on rows so much smaller.
 * whole: all outputs in one task, which rounds its rows.
 */
static void partition(struct job *j, size_t n, size_t k, size_t dense, int whole) {
    enum { ROWS = 192, WORK = 1 << 20, STREAM = 16, STREAM_LEAST = 4, TASKS = 64, FEW_TASKS = 4 };
    const size_t nr = j->backend->layout, mr = j->backend->linear_rows;
    const size_t panels = attn_ceil_div(n, nr), strips = attn_ceil_div(j->m, mr);
    j->row_blocks = attn_ceil_div(j->m, ROWS * attn_min(dense, 2) / mr * mr);
    const size_t stream = attn_max(STREAM_LEAST, STREAM * attn_packed_row(j->w) / (4 * k));
    const size_t panel_work = (attn_ceil_div(j->m, j->row_blocks) + stream) * attn_min(nr, n) * k;
    size_t each = attn_min(panels, attn_max(1, WORK * dense / attn_max(panel_work, 1)));
    each =
        attn_max(each, attn_ceil_div(panels * j->row_blocks, 4 * TASKS)); /* no more tasks than are of use */
    const size_t groups = whole ? 1 : attn_ceil_div(panels, each);
    if (groups * j->row_blocks < TASKS) { /* lower strips of rows, as far as WORK allows */
        const size_t work = j->m * n * k;
        const size_t want =
            attn_max(attn_min(attn_ceil_div(TASKS, groups), work / groups / (4 * WORK * dense)),
                     attn_min(attn_ceil_div(FEW_TASKS, groups), work / groups / (WORK * dense)));
        j->row_blocks = attn_max(j->row_blocks, attn_min(strips, want));
    }
    j->rows = attn_ceil_div(strips, j->row_blocks) * mr;
    j->row_blocks = attn_ceil_div(j->m, j->rows);
    j->columns = attn_ceil_div(panels, groups) * nr;
    j->column_blocks = attn_ceil_div(n, j->columns);
}

/* x and y as loops: dims of one element dropped, an outer dim that continues the inner one merged with it.
 * The last of the n dims is the rows. */
struct loop {
    size_t n;
    ptrdiff_t x, y;
};

static int loops_of(const attn_tensor *x, const attn_tensor *y, struct loop loops[3]) {
    int count = 0;
    for (int dim = BATCH; dim <= ROW; dim++) {
        const struct loop l = {x->size[dim], attn_stride(x, dim), attn_stride(y, dim)};
        if (l.n == 1) continue;
        struct loop *top = count ? &loops[count - 1] : NULL;
        if (top && top->x == (ptrdiff_t)l.n * l.x && top->y == (ptrdiff_t)l.n * l.y)
            *top = (struct loop){top->n * l.n, l.x, l.y};
        else
            loops[count++] = l;
    }
    return count;
}

/* Returns the number of its tasks. prepared: its rows, or NULL. */
static size_t plan(attn_context *c, const struct attn_linear_call *call, const char *prepared,
                   struct job *j) {
    const struct loop one = {1, 0, 0};
    const attn_tensor *x = call->x, *y = call->y;
    const struct attn_backend *exact = c->backend->exact;
    const int rounds = attn_linear_rounds(c, call);
    struct loop loops[3];
    if (!attn_linear_rows(call)) return 0;
    int n = loops_of(x, y, loops);
    const struct loop rows = n > 0 ? loops[--n] : one, inner = n > 0 ? loops[--n] : one,
                      outer = n > 0 ? loops[0] : one;
    *j = (struct job){
        .backend = exact && !prepared && !rounds ? exact : c->backend,
        .x = x->data,
        .y = y->data,
        .w = call->w,
        .scratch = c->linear_scratch,
        .prepared = prepared,
        .prepared_row = prepared ? attn_linear_prepared_row(c, call) : 0,
        .x_stride = {outer.x, inner.x},
        .y_stride = {outer.y, inner.y},
        .x_row = rows.x,
        .y_row = rows.y,
        .n_inner = inner.n,
        .m = rows.n,
        .o0 = call->o0,
        .o1 = call->o1,
        .n_workers = c->executor.n_workers,
    };
    const size_t k = (size_t)call->w->k;
    partition(j, call->o1 - call->o0, k, prepared ? 4 * k / j->prepared_row + 1 : rounds ? 2 : 1, rounds);
    return outer.n * inner.n * j->row_blocks * j->column_blocks;
}

void attn_linear_round(attn_context *c, const struct attn_linear_call *calls, const char *const *prepared,
                       size_t n) {
    struct round r = {0};
    size_t tasks = 0;
    for (size_t i = 0; i < n; i++) {
        r.n_tasks[i] = plan(c, &calls[i], prepared[i], &r.jobs[i]);
        tasks += r.n_tasks[i];
    }
    attn_executor_run(&c->executor, tasks, run_task, &r);
}

/* One of the projections of x; spans of y and w. */
static attn_status check(attn_context *c, const attn_tensor *x, const attn_packed *w, const attn_tensor *y,
                         struct attn_span *y_span, struct attn_span *w_span) {
    ATTN_TRY(attn_packed_check(c, "w", w));
    ATTN_TRY(attn_tensor_check(c, "y", y, TENSOR_F32 | TENSOR_OUTPUT, y_span));
    ATTN_TRY(attn_tensor_expect(c, "x", x, SIZE_MAX, SIZE_MAX, SIZE_MAX, (size_t)w->k));
    ATTN_TRY(attn_tensor_expect(c, "y", y, x->size[BATCH], x->size[HEAD], x->size[ROW], (size_t)w->n));
    *w_span = attn_span_of("w", w, (size_t)w->bytes);
    return ATTN_OK;
}

attn_status attn_linears(attn_context *c, const attn_tensor *x, const attn_packed *const *w,
                         const attn_tensor *const *y, size_t n) {
    struct attn_linear_call calls[ATTN_LINEARS];
    struct attn_span spans[2 * ATTN_LINEARS + 1];
    ATTN_TRY(attn_enter(c));
    if (n < 1 || n > ATTN_LINEARS)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "n is %zu: 1 to %d projections", n, (int)ATTN_LINEARS);
    if (!w || !y) return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s is NULL", w ? "y" : "w");
    ATTN_TRY(attn_tensor_check(c, "x", x, TENSOR_F32, &spans[2 * n]));
    for (size_t i = 0; i < n; i++) {
        ATTN_TRY(check(c, x, w[i], y[i], &spans[i], &spans[n + i]));
        calls[i] = (struct attn_linear_call){x, w[i], 0, (size_t)w[i]->n, y[i]};
    }
    ATTN_TRY(attn_spans_check(c, spans, 2 * n + 1, n));
    for (size_t i = 0; i < n; i += ATTN_LINEAR_CALLS)
        attn_linear_run(c, &calls[i], attn_min(n - i, ATTN_LINEAR_CALLS));
    return ATTN_OK;
}

attn_status attn_linear(attn_context *c, const attn_tensor *x, const attn_packed *w, const attn_tensor *y) {
    return attn_linears(c, x, &w, &y, 1);
}
