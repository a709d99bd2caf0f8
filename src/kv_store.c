/* Rows into blocks: copies of shared blocks first, then the rows, each in tasks of a number of rows. */
#include <string.h>

#include "kv.h"
#include "size.h"

struct job {
    attn_context *context;
    const struct attn_kv_append *a;
};

/* ---- Moving rows --------------------------------------------------------------------------------------- */

/* Rows of `columns` floats in all heads; strides in floats. */
struct rows {
    float *to;
    ptrdiff_t to_row, to_head;
    const float *from;
    ptrdiff_t from_row, from_head;
    size_t n, n_head, columns;
};

static void copy_rows(const struct rows *r) {
    /* What is read lies along memory: the loop with the smaller stride is the inner one. */
    const size_t by_head = (size_t)(r->from_head < 0 ? -r->from_head : r->from_head),
                 by_row = (size_t)(r->from_row < 0 ? -r->from_row : r->from_row);
    const int heads_inside = by_head < by_row;
    const size_t outer = heads_inside ? r->n : r->n_head, inner = heads_inside ? r->n_head : r->n;
    for (size_t i = 0; i < outer; i++)
        for (size_t j = 0; j < inner; j++) {
            const ptrdiff_t row = (ptrdiff_t)(heads_inside ? i : j), head = (ptrdiff_t)(heads_inside ? j : i);
            memcpy(r->to + row * r->to_row + head * r->to_head,
                   r->from + row * r->from_row + head * r->from_head, r->columns * sizeof(float));
        }
}

/* 16 keys into a panel, 4 at a time: a panel's line is written in four vectors, and only 4 lines of keys
 * are wanted at once (rows a multiple of 4096 bytes apart share the ways of a cache). Twice as fast as key
 * by key. */
static void to_whole_panel(float *restrict to, const float *restrict from, ptrdiff_t row, size_t columns) {
    for (size_t c = 0; c < columns; c += ATTN_KV_PANEL) {
        const size_t end = attn_min(c + ATTN_KV_PANEL, columns);
        for (size_t i = 0; i < ATTN_KV_PANEL; i += 4) {
            const float *k0 = from + (ptrdiff_t)i * row, *k1 = k0 + row, *k2 = k1 + row, *k3 = k2 + row;
            for (size_t k = c; k < end; k++) {
                const float four[4] = {k0[k], k1[k], k2[k], k3[k]};
                memcpy(to + k * ATTN_KV_PANEL + i, four, sizeof four);
            }
        }
    }
}

/* n keys into columns of a panel, 16 features at a time, whose lines stay in the cache. */
static void to_panel(float *restrict to, const float *restrict from, ptrdiff_t row, size_t n,
                     size_t columns) {
    if (n == ATTN_KV_PANEL) {
        to_whole_panel(to, from, row, columns);
        return;
    }
    for (size_t c = 0; c < columns; c += ATTN_KV_PANEL) {
        const size_t end = attn_min(c + ATTN_KV_PANEL, columns);
        for (size_t i = 0; i < n; i++)
            for (size_t k = c; k < end; k++)
                to[k * ATTN_KV_PANEL + i] = from[(ptrdiff_t)i * row + (ptrdiff_t)k];
    }
}

/* Keys of one panel to the same places of another. */
static void copy_panel(float *to, const float *from, size_t n, size_t columns) {
    if (n == ATTN_KV_PANEL) {
        memcpy(to, from, columns * ATTN_KV_PANEL * sizeof *to);
        return;
    }
    for (size_t c = 0; c < columns; c++)
        memcpy(to + c * ATTN_KV_PANEL, from + c * ATTN_KV_PANEL, n * sizeof *to);
}

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

static void copy_part(const struct attn_kv_view *v, const struct attn_kv_copy *copy, size_t row, size_t end) {
    struct rows r = {.to = attn_kv_v_at(v, copy->to, 0, row),
                     .to_row = v->v_row,
                     .to_head = v->v_head,
                     .from = attn_kv_v_at(v, copy->from, 0, row),
                     .from_row = v->v_row,
                     .from_head = v->v_head,
                     .n = end - row,
                     .n_head = v->n_head,
                     .columns = v->p_v};
    copy_rows(&r);
    if (v->kv.layout == ATTN_KV_ROWS) {
        r.to = attn_kv_k_at(v, copy->to, 0, row);
        r.from = attn_kv_k_at(v, copy->from, 0, row);
        r.to_row = r.from_row = v->k_row;
        r.to_head = r.from_head = v->k_head;
        r.columns = v->p_k;
        copy_rows(&r);
        return;
    }
    for (size_t n; row < end; row += n) {
        n = attn_min(ATTN_KV_PANEL - row % ATTN_KV_PANEL, end - row);
        for (size_t h = 0; h < v->n_head; h++)
            copy_panel(attn_kv_k_at(v, copy->to, h, row), attn_kv_k_at(v, copy->from, h, row), n, v->p_k);
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
        if (begin < end) copy_part(&a->view, copy, copy->row + begin, copy->row + end);
    }
}

/* ---- Rows ---------------------------------------------------------------------------------------------- */

/* Rows that go to one block: row `from` of k and v on, row `row` of the block on. */
struct run {
    size_t batch, from, block, row, n;
    const float *table; /* where rotated */
    float *stage;       /* ATTN_KV_PANEL rows of k */
};

static const float *input(const attn_tensor *t, size_t batch, size_t head, size_t row) {
    return (const float *)t->data + (ptrdiff_t)batch * attn_stride(t, BATCH) +
           (ptrdiff_t)head * attn_stride(t, HEAD) + (ptrdiff_t)row * attn_stride(t, ROW);
}

static void store_rows(const struct job *j, const struct run *run) {
    const struct attn_kv_append *a = j->a;
    const struct attn_kv_view *v = &a->view;
    const struct rows r = {.to = attn_kv_k_at(v, run->block, 0, run->row),
                           .to_row = v->k_row,
                           .to_head = v->k_head,
                           .from = input(&a->k, run->batch, 0, run->from),
                           .from_row = attn_stride(&a->k, ROW),
                           .from_head = attn_stride(&a->k, HEAD),
                           .n = run->n,
                           .n_head = v->n_head,
                           .columns = v->p_k};
    if (!a->rotated) {
        copy_rows(&r);
        return;
    }
    const struct attn_rope_rows turned = {.table = run->table,
                                          .n_rows = r.n,
                                          .n_head = r.n_head,
                                          .x = r.from,
                                          .x_row = r.from_row,
                                          .x_head = r.from_head,
                                          .y = r.to,
                                          .y_row = r.to_row,
                                          .y_head = r.to_head};
    attn_rope_rotate(j->context, &a->rope, &turned);
}

/* Panel by panel and head by head; rotated keys go through the stage. */
static void store_panels(const struct job *j, const struct run *run) {
    const struct attn_kv_append *a = j->a;
    const struct attn_kv_view *v = &a->view;
    const size_t table_row = a->rotated ? attn_rope_row_bytes(&a->rope) / sizeof(float) : 0;
    for (size_t i = 0, n; i < run->n; i += n) {
        n = attn_min(ATTN_KV_PANEL - (run->row + i) % ATTN_KV_PANEL, run->n - i);
        for (size_t h = 0; h < v->n_head; h++) {
            const float *from = input(&a->k, run->batch, h, run->from + i);
            ptrdiff_t row = attn_stride(&a->k, ROW);
            if (a->rotated) {
                const struct attn_rope_rows turned = {.table = run->table + i * table_row,
                                                      .n_rows = n,
                                                      .n_head = 1,
                                                      .x = from,
                                                      .x_row = row,
                                                      .y = run->stage,
                                                      .y_row = (ptrdiff_t)v->p_k};
                attn_rope_rotate(j->context, &a->rope, &turned);
                from = run->stage;
                row = (ptrdiff_t)v->p_k;
            }
            to_panel(attn_kv_k_at(v, run->block, h, run->row + i), from, row, n, v->p_k);
        }
    }
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
        n = attn_min(v->block_rows - row, end - i);
        const struct run run = {.batch = p->batch,
                                .from = p->row + i,
                                .block = attn_kv_block(v, p->sequence, key),
                                .row = row,
                                .n = n,
                                .table = table + (i - begin) * table_row,
                                .stage = table + a->table_rows * table_row};
        const struct rows values = {.to = attn_kv_v_at(v, run.block, 0, row),
                                    .to_row = v->v_row,
                                    .to_head = v->v_head,
                                    .from = input(&a->v, run.batch, 0, run.from),
                                    .from_row = attn_stride(&a->v, ROW),
                                    .from_head = attn_stride(&a->v, HEAD),
                                    .n = n,
                                    .n_head = v->n_head,
                                    .columns = v->p_v};
        if (v->kv.layout == ATTN_KV_PANELS)
            store_panels(j, &run);
        else
            store_rows(j, &run);
        copy_rows(&values);
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
