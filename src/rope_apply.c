/* attn_rope_apply(): checks, tasks of a block of rows with all its heads. */
#include "rope.h"

#include "size.h"

struct problem {
    attn_rope_args a;
    struct attn_rope_plan plan;
    size_t rows, row_blocks; /* of a task; in a sequence */
    size_t sequences;        /* of a task: where a sequence is shorter than a task's rows it takes several */
    size_t n_tasks;
    size_t memory_bytes, table_bytes; /* of the frequencies; of a worker's table */
};

struct job {
    attn_context *context;
    const struct problem *problem;
    char *tables;
};

static void run_block(const struct job *j, size_t batch, size_t row, float *table) {
    const struct problem *p = j->problem;
    const attn_tensor *x = p->a.x, *y = p->a.y;
    const size_t n = attn_min(p->rows, x->size[ROW] - row);
    const ptrdiff_t b = (ptrdiff_t)batch, r = (ptrdiff_t)row;
    const int64_t *positions = p->a.positions;
    const int64_t offset = p->a.offsets ? p->a.offsets[batch] : 0;
    if (positions) positions += batch * p->a.positions_stride + row;
    attn_rope_table(j->context, &p->plan, positions, positions ? offset : offset + (int64_t)row, n, table);
    const struct attn_rope_rows rows = {
        .table = table,
        .n_rows = n,
        .n_head = x->size[HEAD],
        .x = (const float *)x->data + b * attn_stride(x, BATCH) + r * attn_stride(x, ROW),
        .x_row = attn_stride(x, ROW),
        .x_head = attn_stride(x, HEAD),
        .y = (float *)y->data + b * attn_stride(y, BATCH) + r * attn_stride(y, ROW),
        .y_row = attn_stride(y, ROW),
        .y_head = attn_stride(y, HEAD)};
    attn_rope_rotate(j->context, &p->plan, &rows);
}

static void run_task(void *arg, size_t task, size_t worker) {
    const struct job *j = arg;
    const struct problem *p = j->problem;
    float *table = (float *)(void *)(j->tables + worker * p->table_bytes);
    const size_t first = task / p->row_blocks * p->sequences, row = task % p->row_blocks * p->rows;
    const size_t end = attn_min(first + p->sequences, p->a.x->size[BATCH]);
    for (size_t b = first; b < end; b++) run_block(j, b, row, table);
}

static int same_tensor(const attn_tensor *a, const attn_tensor *b) {
    int same = a->data == b->data;
    for (int i = 0; i < 4; i++) same &= attn_stride(a, i) == attn_stride(b, i);
    return same;
}

/* Span of an array of n int64_t; STRIDE, OVERFLOW. */
static attn_status array_span(attn_context *c, const char *name, const int64_t *p, size_t n,
                              struct attn_span *span) {
    if ((uintptr_t)p % sizeof *p)
        return attn_fail(c, ATTN_ERROR_STRIDE, "%s is not aligned to its elements", name);
    if (n > PTRDIFF_MAX / sizeof *p || (uintptr_t)p > UINTPTR_MAX - n * sizeof *p)
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "%s: its size does not fit the address space", name);
    *span = attn_span_of(name, p, n * sizeof *p);
    return ATTN_OK;
}

static attn_status position_spans(attn_context *c, const attn_rope_args *a, struct attn_span spans[2]) {
    const size_t batch = a->x->size[BATCH], rows = a->x->size[ROW];
    size_t n = 0;
    spans[0] = attn_span_of("args.offsets", NULL, 0);
    spans[1] = attn_span_of("args.positions", NULL, 0);
    if (!batch || !rows) return ATTN_OK;
    if (a->offsets) ATTN_TRY(array_span(c, "args.offsets", a->offsets, batch, &spans[0]));
    if (!a->positions) return ATTN_OK;
    if (__builtin_mul_overflow(batch - 1, a->positions_stride, &n) || __builtin_add_overflow(n, rows, &n))
        n = SIZE_MAX;
    return array_span(c, "args.positions", a->positions, n, &spans[1]);
}

static attn_status check_positions(attn_context *c, const attn_rope_args *a) {
    const char *name = a->positions ? "args.positions" : "args.offsets";
    for (size_t b = 0; b < a->x->size[BATCH]; b++) {
        const int64_t *at = a->positions ? a->positions + b * a->positions_stride : NULL;
        if (b && !a->offsets && (!at || !a->positions_stride)) break; /* as the first */
        ATTN_TRY(attn_rope_positions_check(c, name, at, a->offsets ? a->offsets[b] : 0, a->x->size[ROW]));
    }
    return ATTN_OK;
}

static attn_status check(attn_context *c, const attn_rope_args *args, int query, struct problem *p) {
    const unsigned flags = TENSOR_F32 | (query ? TENSOR_NO_DATA : 0);
    struct attn_span spans[5]; /* y, x, divisors, offsets, positions */
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(attn_struct_read(c, "args", &p->a, sizeof p->a, args));
    const attn_tensor *x = p->a.x, *y = p->a.y;
    ATTN_TRY(attn_tensor_check(c, "x", x, flags, &spans[1]));
    ATTN_TRY(attn_tensor_check(c, "y", y, flags | TENSOR_OUTPUT, &spans[0]));
    ATTN_TRY(attn_tensor_expect(c, "y", y, x->size[BATCH], x->size[HEAD], x->size[ROW], x->size[COLUMN]));
    ATTN_TRY(attn_rope_read(c, "rope", p->a.rope, x->size[COLUMN], &p->plan));
    if (query) return ATTN_OK;
    spans[2] = attn_rope_span(&p->plan);
    ATTN_TRY(position_spans(c, &p->a, spans + 3));
    if (same_tensor(x, y)) spans[1].hi = spans[1].lo;
    ATTN_TRY(attn_spans_check(c, spans, 5, 1));
    return check_positions(c, &p->a);
}

/* Tasks and scratch, from the shapes alone. */
static attn_status plan(attn_context *c, struct problem *p, size_t *bytes) {
    const size_t *size = p->a.x->size;
    size_t columns, need = 0, one = 0;
    if (__builtin_mul_overflow(size[HEAD], size[COLUMN], &columns)) columns = SIZE_MAX;
    p->rows = attn_max(1, attn_min(attn_rope_rows_of_task(&p->plan, columns), size[ROW]));
    p->row_blocks = attn_ceil_div(size[ROW], p->rows);
    p->sequences = p->row_blocks == 1 ? attn_rope_rows_of_task(&p->plan, columns) / p->rows : 1;
    p->n_tasks = size[HEAD] ? attn_ceil_div(size[BATCH], p->sequences) * p->row_blocks : 0;
    p->memory_bytes = attn_rope_memory_bytes(&p->plan);
    if (!attn_size_add(&need, 1, p->memory_bytes) ||
        !attn_size_add(&one, p->rows, attn_rope_row_bytes(&p->plan)) ||
        !attn_size_add(&need, c->executor.n_workers, one))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "x: the scratch for it does not fit the address space");
    p->table_bytes = one;
    *bytes = need;
    return ATTN_OK;
}

attn_status attn_rope_apply_scratch(attn_context *c, const attn_rope_args *args, size_t *bytes) {
    struct problem p;
    size_t need;
    ATTN_TRY(check(c, args, 1, &p));
    if (!bytes) return attn_fail(c, ATTN_ERROR_ARGUMENT, "bytes is null");
    ATTN_TRY(plan(c, &p, &need));
    *bytes = need + ATTN_ALIGN;
    return ATTN_OK;
}

attn_status attn_rope_apply(attn_context *c, const attn_rope_args *args) {
    struct problem p;
    size_t need;
    void *scratch;
    ATTN_TRY(check(c, args, 0, &p));
    ATTN_TRY(plan(c, &p, &need));
    ATTN_TRY(attn_scratch_take(c, need, &scratch));
    attn_rope_prepare(c, &p.plan, scratch);
    const size_t frequencies = attn_ceil_div(p.memory_bytes, ATTN_ALIGN) * ATTN_ALIGN;
    struct job job = {c, &p, (char *)scratch + frequencies};
    attn_executor_run(&c->executor, p.n_tasks, run_task, &job);
    return ATTN_OK;
}
