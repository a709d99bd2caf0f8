/* Rows into blocks: copies of shared blocks first, then the rows, each in tasks of a number of rows. */
#include "kv_rows.h"
#include "size.h"

struct job {
    attn_context *context;
    const struct attn_kv_append *a;
};

/* ---- What a task takes --------------------------------------------------------------------------------- */

/* The last i with before[i] <= row, of n parts whose rows add up in before[1 .. n]; row < before[n]. */
static size_t find(const size_t *before, size_t n, size_t row) {
    size_t lo = 0, hi = n;
    while (hi - lo > 1) {
        const size_t middle = lo + (hi - lo) / 2;
        if (before[middle] <= row)
            lo = middle;
        else
            hi = middle;
    }
    return lo;
}

/* Where a part of n rows whose first one is `origin` is cut at `row` of all: panels stay whole. */
static size_t cut(const struct attn_kv_view *v, size_t before, size_t n, size_t origin, size_t row) {
    const size_t unit = v->kv.layout == ATTN_KV_PANELS ? ATTN_KV_PANEL : 1;
    if (row <= before) return 0;
    if (row - before >= n) return n;
    const size_t at = (origin + row - before) / unit * unit;
    return at > origin ? at - origin : 0;
}

/* ---- Copies -------------------------------------------------------------------------------------------- */

static void copy_part(const struct job *j, const struct attn_kv_copy *copy, size_t row, size_t end) {
    const struct attn_kv_view *v = &j->a->view;
    struct attn_kv_rows r = {.to = attn_kv_v_at(v, copy->to, 0, row),
                             .to_type = v->v_type,
                             .to_row = v->v_row,
                             .to_head = v->v_head,
                             .from = attn_kv_v_at(v, copy->from, 0, row),
                             .from_type = v->v_type,
                             .from_row = v->v_row,
                             .from_head = v->v_head,
                             .n = end - row,
                             .n_head = v->n_head,
                             .columns = v->p_v};
    attn_kv_rows_move(j->context, &r);
    if (v->kv.layout == ATTN_KV_ROWS) {
        r.to = attn_kv_k_at(v, copy->to, 0, row);
        r.from = attn_kv_k_at(v, copy->from, 0, row);
        r.to_type = r.from_type = v->k_type;
        r.to_row = r.from_row = v->k_row;
        r.to_head = r.from_head = v->k_head;
        r.columns = v->p_k;
        attn_kv_rows_move(j->context, &r);
        return;
    }
    for (size_t n; row < end; row += n) {
        n = attn_min(ATTN_KV_PANEL - row % ATTN_KV_PANEL, end - row);
        for (size_t h = 0; h < v->n_head; h++)
            attn_kv_panel_copy(attn_kv_k_at(v, copy->to, h, row), attn_kv_k_at(v, copy->from, h, row),
                               v->k_type, n, v->p_k);
    }
}

static void copy_task(void *arg, size_t task, size_t worker) {
    const struct job *j = arg;
    const struct attn_kv_append *a = j->a;
    const size_t from = task * a->task_rows, to = from + a->task_rows;
    (void)worker;
    for (size_t i = find(a->copy_rows, a->n_copies, from); i < a->n_copies && a->copy_rows[i] < to; i++) {
        const struct attn_kv_copy *copy = &a->copies[i];
        const size_t begin = cut(&a->view, a->copy_rows[i], copy->n, copy->row, from),
                     end = cut(&a->view, a->copy_rows[i], copy->n, copy->row, to);
        if (begin < end) copy_part(j, copy, copy->row + begin, copy->row + end);
    }
}

/* ---- Rows ---------------------------------------------------------------------------------------------- */

static const char *input(const attn_tensor *t, size_t batch, size_t row) {
    return (const char *)t->data + (ptrdiff_t)batch * attn_stride_bytes(t, BATCH) +
           (ptrdiff_t)row * attn_stride_bytes(t, ROW);
}

/* Panel by panel and head by head. */
static void store_panels(const struct job *j, const struct attn_kv_rows *keys, size_t block, size_t row,
                         struct attn_kv_turn turn) {
    const struct attn_kv_view *v = &j->a->view;
    const size_t table_row = turn.rope ? attn_rope_row_bytes(turn.rope) / sizeof(float) : 0;
    struct attn_kv_rows r = *keys;
    for (size_t i = 0; i < keys->n; i += r.n) {
        r.n = attn_min(ATTN_KV_PANEL - (row + i) % ATTN_KV_PANEL, keys->n - i);
        for (size_t h = 0; h < v->n_head; h++) {
            r.to = attn_kv_k_at(v, block, h, row + i);
            r.from = keys->from + (ptrdiff_t)i * keys->from_row + (ptrdiff_t)h * keys->from_head;
            attn_kv_rows_panel(j->context, &r, &turn);
        }
        if (turn.rope) turn.table += r.n * table_row;
    }
}

/* n rows to one block: row `from` of k and v on, row `row` of the block on. */
static void store_run(const struct job *j, size_t batch, size_t from, size_t block, size_t row, size_t n,
                      const struct attn_kv_turn *turn) {
    const struct attn_kv_append *a = j->a;
    const struct attn_kv_view *v = &a->view;
    const struct attn_kv_rows keys = {.to = attn_kv_k_at(v, block, 0, row),
                                      .to_type = v->k_type,
                                      .to_row = v->k_row,
                                      .to_head = v->k_head,
                                      .from = input(&a->k, batch, from),
                                      .from_type = a->k.dtype,
                                      .from_row = attn_stride_bytes(&a->k, ROW),
                                      .from_head = attn_stride_bytes(&a->k, HEAD),
                                      .n = n,
                                      .n_head = v->n_head,
                                      .columns = v->p_k};
    const struct attn_kv_rows values = {.to = attn_kv_v_at(v, block, 0, row),
                                        .to_type = v->v_type,
                                        .to_row = v->v_row,
                                        .to_head = v->v_head,
                                        .from = input(&a->v, batch, from),
                                        .from_type = a->v.dtype,
                                        .from_row = attn_stride_bytes(&a->v, ROW),
                                        .from_head = attn_stride_bytes(&a->v, HEAD),
                                        .n = n,
                                        .n_head = v->n_head,
                                        .columns = v->p_v};
    if (v->kv.layout == ATTN_KV_PANELS)
        store_panels(j, &keys, block, row, *turn);
    else if (turn->rope)
        attn_kv_rows_turn(j->context, &keys, turn);
    else
        attn_kv_rows_move(j->context, &keys);
    attn_kv_rows_move(j->context, &values);
}

/* Rows [begin, end) of a piece, block by block. */
static void store_part(const struct job *j, const struct attn_kv_piece *p, size_t begin, size_t end,
                       char *memory) {
    const struct attn_kv_append *a = j->a;
    const struct attn_kv_view *v = &a->view;
    float *table = (float *)(void *)memory;
    const size_t table_row = a->rotated ? attn_rope_row_bytes(&a->rope) / sizeof(float) : 0;
    const int64_t *positions = attn_kv_positions(a, p->batch, p->row + begin);
    if (a->rotated)
        attn_rope_table(j->context, &a->rope, positions, positions ? 0 : (int64_t)(p->key + begin),
                        end - begin, table);
    for (size_t i = begin, n; i < end; i += n) {
        const size_t key = p->key + i, row = key % v->block_rows;
        const struct attn_kv_turn turn = {.rope = a->rotated ? &a->rope : NULL,
                                          .table = table + (i - begin) * table_row,
                                          .stage = table + a->table_rows * table_row};
        n = attn_min(v->block_rows - row, end - i);
        store_run(j, p->batch, p->row + i, attn_kv_block(v, p->sequence, key), row, n, &turn);
    }
}

static void store_task(void *arg, size_t task, size_t worker) {
    const struct job *j = arg;
    const struct attn_kv_append *a = j->a;
    char *memory = a->workers + worker * a->worker_bytes;
    const size_t from = task * a->task_rows, to = from + a->task_rows;
    for (size_t i = find(a->piece_rows, a->n_pieces, from); i < a->n_pieces && a->piece_rows[i] < to; i++) {
        const struct attn_kv_piece *p = &a->pieces[i];
        const size_t begin = cut(&a->view, a->piece_rows[i], p->n, p->key, from),
                     end = cut(&a->view, a->piece_rows[i], p->n, p->key, to);
        if (begin < end) store_part(j, p, begin, end, memory);
    }
}

void attn_kv_append_run(attn_context *c, struct attn_kv_append *a) {
    const attn_kv *kv = &a->view.kv;
    struct job job = {c, a};
    if (a->rotated) attn_rope_prepare(c, &a->rope, a->rope_memory);
    /* All copies first: the last sequence that shares a block writes to it. */
    if (a->n_copies)
        attn_executor_run(&c->executor, attn_ceil_div(a->copy_rows[a->n_copies], a->task_rows), copy_task,
                          &job);
    attn_executor_run(&c->executor, attn_ceil_div(a->piece_rows[a->n_pieces], a->task_rows), store_task,
                      &job);
    for (size_t i = 0; i < a->n_pieces; i++) {
        const struct attn_kv_piece *p = &a->pieces[i];
        kv->lengths[p->sequence] = p->length;
        if (kv->firsts) kv->firsts[p->sequence] = p->first;
    }
}
