/* The tasks of attention pooling. */
#include <float.h>
#include <math.h>
#include <stddef.h>

#include "order.h"
#include "pool_plan.h"
#include "size.h"

attn_status attn_pool_scratch_bytes(attn_context *c, const struct attn_pooling_problem *p, int filled,
                                    size_t *bytes) {
    struct attn_pool_plan plan;
    return attn_pool_plan_make(c, p, &plan, filled, bytes);
}

/* Address of element (b, h, i, 0) in elements. */
static ptrdiff_t element(const attn_tensor *t, size_t b, size_t h, size_t i) {
    return (ptrdiff_t)b * attn_stride(t, BATCH) + (ptrdiff_t)h * attn_stride(t, HEAD) +
           (ptrdiff_t)i * attn_stride(t, ROW);
}

/* Where a task's rows begin: key/value head h_kv of sequence `of`, from row `row` of its blocks on. */
struct place {
    struct attn_sequence of;
    size_t h_kv, block, row;
    size_t h, i; /* its first head of queries, and the query, within the sequence */
};

static struct place place_of(const struct attn_pool_plan *plan, size_t b, size_t h_kv, size_t block) {
    struct place at = {.of = attn_pool_plan_sequence(plan, b), .h_kv = h_kv, .block = block};
    at.row = block * plan->block_rows;
    at.h = h_kv * plan->group;
    at.i = at.row / plan->group;
    return at;
}

static void set_mask(struct attn_pool_task *t, const struct attn_pooling_problem *p, const struct place *at) {
    const attn_tensor *mask = p->scoring.mask;
    if (!mask || !at->of.n_kv) return;
    const size_t head = mask->size[HEAD] > 1 ? at->h + p->head : 0;
    const ptrdiff_t first =
        element(mask, at->of.mask, head, at->i) * (ptrdiff_t)attn_dtype_bytes(mask->dtype);
    t->mask_kind = mask->dtype == ATTN_BOOL  ? ATTN_MASK_BOOL
                   : mask->dtype == ATTN_F16 ? ATTN_MASK_F16
                                             : ATTN_MASK_F32;
    t->mask = (const char *)mask->data + first;
    t->mask_row = attn_stride(mask, ROW);
    t->mask_head = attn_stride(mask, HEAD);
    t->mask_key = mask->size[COLUMN] > 1;
}

static ptrdiff_t bytes_of(attn_dtype type) { return (ptrdiff_t)attn_dtype_bytes(type); }

/* The outputs of `blocks` blocks, and what the merge needs. */
static void set_block(struct attn_pool_task *t, const struct attn_pool_plan *plan, const struct place *at,
                      size_t blocks) {
    const struct attn_pooling_problem *p = plan->p;
    const size_t b = at->of.batch, i = at->of.q_row + at->i;
    t->score = p->score;
    t->k_type = p->k->dtype;
    t->v_type = p->v->dtype;
    t->n_rows = attn_min(blocks * plan->block_rows, at->of.rows * plan->group - at->row);
    t->group = plan->group;
    t->heads = plan->together;
    t->first = at->row % plan->group;
    t->d_k = p->q->size[COLUMN];
    t->d_v = p->v->size[COLUMN];
    t->out_type = p->out->dtype;
    t->out = (char *)p->out->data + element(p->out, b, at->h, i) * bytes_of(t->out_type);
    t->out_row = attn_stride(p->out, ROW);
    t->out_head = attn_stride(p->out, HEAD);
    if (p->scoring.sinks) t->sinks = p->scoring.sinks + p->head + at->h;
    if (p->lse) {
        t->lse = (float *)p->lse->data + element(p->lse, b, at->h, i);
        t->lse_row = attn_stride(p->lse, ROW);
        t->lse_head = attn_stride(p->lse, HEAD);
    }
    if (p->lse_sinks) {
        t->lse_sinks = (float *)p->lse_sinks->data + element(p->lse_sinks, b, at->h, i);
        t->lse_sinks_row = attn_stride(p->lse_sinks, ROW);
        t->lse_sinks_head = attn_stride(p->lse_sinks, HEAD);
    }
}

/* What each row of a task sees. */
enum { MOST_ROWS = ATTN_ROWS_MAX * ATTN_BLOCKS_MAX };
struct rows {
    size_t lo[MOST_ROWS], hi[MOST_ROWS], also[MOST_ROWS];
};

/* How scores are shaped, and what the rows see. */
static void set_scoring(struct attn_pool_task *t, const struct attn_pool_plan *plan, const struct place *at,
                        struct rows *rows) {
    const attn_scoring *s = &plan->p->scoring;
    t->scale = s->scale;
    if (t->scale == 0.0f) t->scale = t->score == ATTN_SCORE_DOT ? 1.0f / sqrtf((float)t->d_k) : 1.0f;
    if (s->soft_cap > 0.0f) {
        /* within what has an inverse: beyond, a cap is as good as none, or as all scores equal */
        t->cap = fminf(fmaxf(s->soft_cap * ATTN_LOG2E, FLT_MIN), FLT_MAX);
        t->cap_inverse = 1.0f / t->cap;
    }
    if (s->alibi_slopes) t->slopes = s->alibi_slopes + plan->p->head + at->h;
    /* far enough from the ends of the type for what a row and a key add to it, and beyond what a float tells apart */
    const ptrdiff_t most = PTRDIFF_MAX / 4, offset = at->of.offset;
    t->position = (offset > most ? most : offset < -most ? -most : offset) + (ptrdiff_t)at->i;
    if (s->q_documents) {
        t->q_documents = s->q_documents + at->of.batch * plan->sizes.n_q + at->of.q_row + at->i;
        t->kv_documents =
            s->kv_documents + (plan->p->kv ? at->of.mask : at->of.batch) * plan->sizes.n_kv + at->of.kv_row;
    }
    set_mask(t, plan->p, at);
    for (size_t r = 0; r < t->n_rows; r++) {
        const struct attn_sight see = attn_sight_of(s, &at->of, (at->row + r) / plan->group);
        rows->lo[r] = see.lo;
        rows->hi[r] = see.hi;
        rows->also[r] = see.also;
    }
    t->lo = rows->lo;
    t->hi = rows->hi;
    t->also = rows->also;
}

/* Keys and values of a cache: a sequence of one block needs no pages but in a ring. */
static void set_pages(struct attn_pool_task *t, const struct attn_kv_view *kv, const struct place *at) {
    static const int32_t only = 0;
    size_t block = 0;
    t->panels = kv->kv.layout == ATTN_KV_PANELS;
    if (kv->slots > 1) {
        t->pages = kv->kv.blocks + at->of.cached * kv->slots;
    } else {
        block = attn_kv_block(kv, at->of.cached, 0);
        if (kv->kv.firsts) t->pages = &only;
    }
    t->page_rows = kv->block_rows;
    t->n_pages = kv->slots;
    t->k_page = kv->k_block;
    t->v_page = kv->v_block;
    t->k = kv->k + (ptrdiff_t)at->h_kv * kv->k_head + (ptrdiff_t)block * kv->k_block;
    t->v = kv->v + (ptrdiff_t)at->h_kv * kv->v_head + (ptrdiff_t)block * kv->v_block;
}

/* In bytes: of element (b, h, i, 0) from the first on. */
static const char *row_of(const attn_tensor *t, size_t b, size_t h, size_t i) {
    return (const char *)t->data + (ptrdiff_t)b * attn_stride_bytes(t, BATCH) +
           (ptrdiff_t)h * attn_stride_bytes(t, HEAD) + (ptrdiff_t)i * attn_stride_bytes(t, ROW);
}

static void set_inputs(struct attn_pool_task *t, const struct attn_pool_plan *plan, const struct place *at,
                       struct rows *rows) {
    const struct attn_pooling_problem *p = plan->p;
    const size_t b = at->of.batch;
    t->q_type = p->q->dtype;
    t->q = row_of(p->q, b, at->h, at->of.q_row + at->i);
    t->q_row = attn_stride(p->q, ROW);
    t->q_head = attn_stride(p->q, HEAD);
    t->n_kv = at->of.n_kv;
    if (t->n_kv && p->kv) {
        set_pages(t, p->kv, at);
    } else if (t->n_kv) {
        t->k = row_of(p->k, b, at->h_kv, at->of.kv_row);
        t->v = row_of(p->v, b, at->h_kv, at->of.kv_row);
    }
    t->k_row = attn_stride_bytes(p->k, ROW);
    t->v_row = attn_stride_bytes(p->v, ROW);
    t->k_head = attn_stride_bytes(p->k, HEAD);
    t->v_head = attn_stride_bytes(p->v, HEAD);
    if (p->w) {
        t->w_head = attn_stride(p->w, HEAD);
        t->w = (const float *)p->w->data + (ptrdiff_t)at->h * t->w_head;
    }
    if (p->weights) {
        t->weights = (float *)p->weights->data + element(p->weights, b, at->h, at->of.q_row + at->i);
        t->weights_row = attn_stride(p->weights, ROW);
        t->weights_head = attn_stride(p->weights, HEAD);
        t->n_weights = p->weights->size[COLUMN];
    }
    if (p->scores) {
        t->scores = (float *)p->scores->data + element(p->scores, b, at->h, at->of.q_row + at->i);
        t->scores_row = attn_stride(p->scores, ROW);
        t->scores_head = attn_stride(p->scores, HEAD);
        t->n_weights = p->scores->size[COLUMN];
    }
    set_scoring(t, plan, at, rows);
}

static float *part_of(const struct attn_pool_plan *plan, size_t index) {
    return (float *)(void *)(plan->parts + index * plan->part * sizeof(float));
}

/* A task of the first round: one or several blocks of rows over all their keys, or over one chunk of them. */
static void run_block(void *arg, size_t index, size_t worker) {
    const struct attn_pool_plan *plan = arg;
    struct attn_pool_task t = {0};
    struct rows rows;
    struct attn_pool_share before;
    const size_t b = attn_pool_plan_locate(plan, index, offsetof(struct attn_pool_share, tasks), &before);
    const struct attn_sequence shape = attn_pool_plan_shape(plan, b);
    const size_t blocks = attn_pool_plan_blocks(plan, &shape), chunks = attn_pool_plan_chunks(plan, &shape);
    const size_t groups = attn_ceil_div(blocks, plan->each);
    const size_t rest = index - before.tasks, head = rest / chunks / groups * plan->together;
    /* descending: with a causal mask the last blocks are the longest, and tasks start in this order */
    const struct place at = place_of(plan, b, head, (groups - 1 - rest / chunks % groups) * plan->each);
    set_block(&t, plan, &at, plan->each);
    set_inputs(&t, plan, &at, &rows);
    if (plan->split) {
        t.first_chunk = at.of.first / ATTN_CHUNK;
        t.chunk = t.first_chunk + rest % chunks;
        t.part = part_of(plan, before.parts + (head * blocks + at.block) * chunks + rest % chunks);
        t.part_head = blocks * chunks * plan->part;
        t.part_block = chunks * plan->part;
    }
    t.scratch = plan->scratch + worker * plan->worker_bytes;
    plan->backend->pool(&t);
}

static void run_merge(void *arg, size_t index, size_t worker) {
    const struct attn_pool_plan *plan = arg;
    struct attn_pool_task t = {0};
    struct attn_pool_share before;
    (void)worker;
    const size_t b = attn_pool_plan_locate(plan, index, offsetof(struct attn_pool_share, merges), &before);
    const struct attn_sequence shape = attn_pool_plan_shape(plan, b);
    const size_t blocks = attn_pool_plan_blocks(plan, &shape), chunks = attn_pool_plan_chunks(plan, &shape),
                 rest = index - before.merges;
    const struct place at = place_of(plan, b, rest / blocks, rest % blocks);
    set_block(&t, plan, &at, 1);
    t.part = part_of(plan, before.parts + rest * chunks);
    plan->backend->merge(&t, chunks, plan->part);
}

void attn_pool_run(attn_context *c, const struct attn_pooling_problem *p, void *scratch) {
    struct attn_pool_plan plan;
    size_t bytes, used = 0;
    if (attn_pool_plan_make(c, p, &plan, 0, &bytes) != ATTN_OK || plan.total.tasks == 0) return;
    plan.scratch = scratch;
    plan.parts = plan.scratch + plan.worker_bytes * c->executor.n_workers;
    if (attn_pool_plan_differs(&plan)) {
        plan.before = (struct attn_pool_share *)(void *)plan.parts;
        if (!attn_size_add(&used, plan.sequences, sizeof(struct attn_pool_share)) ||
            !attn_pool_plan_count(&plan, plan.before))
            return;
        plan.parts += used;
    }
    attn_executor_run(&c->executor, plan.total.tasks, run_block, &plan);
    if (plan.split) attn_executor_run(&c->executor, plan.total.merges, run_merge, &plan);
}
