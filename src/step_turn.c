/* Between projection and pooling: norms, and RoPE of the queries, in tasks of some rows with all their heads. */
#include "size.h"
#include "step.h"

struct job {
    attn_context *context;
    const struct attn_turn *turn;
};

int attn_turn_plan(struct attn_turn *t) {
    enum { WORK = 1 << 17 }; /* floats of a task: enough to be worth the hand-over */
    const size_t columns = t->q->y.size[COLUMN] + t->k->y.size[COLUMN];
    t->task_rows = attn_max(1, WORK / attn_max(1, columns));
    if (t->rope) t->task_rows = attn_rope_rows_of_task(t->rope, columns);
    t->task_rows = attn_max(1, attn_min(t->task_rows, t->rows));
    t->worker_bytes = 0;
    return !t->rope || attn_size_add(&t->worker_bytes, t->task_rows, attn_rope_row_bytes(t->rope));
}

static void norm(const struct job *j, const struct attn_projection *x, size_t row, size_t n,
                 const float *weight) {
    if (!weight) return;
    const struct attn_norm_task task = {.n_rows = n,
                                        .n_head = x->view.size[HEAD],
                                        .columns = x->view.size[COLUMN],
                                        .x = (float *)x->y.data + row * x->y.size[COLUMN],
                                        .x_row = (ptrdiff_t)x->y.size[COLUMN],
                                        .x_head = (ptrdiff_t)x->view.size[COLUMN],
                                        .weight = weight,
                                        .epsilon = j->turn->epsilon};
    j->context->backend->norm(&task);
}

static void run_task(void *arg, size_t index, size_t worker) {
    const struct job *j = arg;
    const struct attn_turn *t = j->turn;
    const size_t row = index * t->task_rows, n = attn_min(t->task_rows, t->rows - row);
    norm(j, t->q, row, n, t->q_norm);
    norm(j, t->k, row, n, t->k_norm);
    if (!t->rope) return;
    float *table = (float *)(void *)(t->workers + worker * t->worker_bytes);
    float *q = (float *)t->q->y.data + row * t->q->y.size[COLUMN];
    const ptrdiff_t q_row = (ptrdiff_t)t->q->y.size[COLUMN], q_head = (ptrdiff_t)t->q->view.size[COLUMN];
    const struct attn_rope_rows rows = {.table = table,
                                        .n_rows = n,
                                        .n_head = t->q->view.size[HEAD],
                                        .x = q,
                                        .x_row = q_row,
                                        .x_head = q_head,
                                        .y = q,
                                        .y_row = q_row,
                                        .y_head = q_head};
    attn_rope_table(j->context, t->rope, t->positions + row, 0, n, table);
    attn_rope_rotate(j->context, t->rope, &rows);
}

void attn_turn_run(attn_context *c, const struct attn_turn *t) {
    struct job job = {c, t};
    if (!t->q_norm && !t->k_norm && !t->rope) return;
    attn_executor_run(&c->executor, attn_ceil_div(t->rows, t->task_rows), run_task, &job);
}
