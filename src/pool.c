#include "pool.h"

#include <math.h>

#include "order.h"
#include "size.h"

attn_status attn_scoring_read(attn_context *c, attn_scoring *to, const attn_scoring *from) {
    *to = (attn_scoring){0};
    if (!from) return ATTN_OK;
    ATTN_TRY(attn_struct_read(c, "scoring", to, sizeof *to, from));
    if (!isfinite(to->scale)) return attn_fail(c, ATTN_ERROR_ARGUMENT, "scoring.scale is not finite");
    if ((unsigned)to->causal > ATTN_CAUSAL_BOTTOM_RIGHT)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "scoring.causal has no value %d", (int)to->causal);
    return ATTN_OK;
}

void attn_scoring_spans(const attn_scoring *s, size_t batch, struct attn_span spans[2]) {
    spans[0] = attn_span_of("scoring.q_lengths", s->q_lengths, batch * sizeof(size_t));
    spans[1] = attn_span_of("scoring.kv_lengths", s->kv_lengths, batch * sizeof(size_t));
}

/* ---- Checks ------------------------------------------------------------------------------------------ */

static attn_status check_lengths(attn_context *c, const char *name, const size_t *lengths, size_t batch,
                                 size_t most) {
    for (size_t b = 0; lengths && b < batch; b++) {
        if (lengths[b] > most)
            return attn_fail(c, ATTN_ERROR_SHAPE, "%s[%zu] is %zu, more than the %zu rows there are", name, b,
                             lengths[b], most);
    }
    return ATTN_OK;
}

static attn_status check_scoring(attn_context *c, const struct attn_pooling_problem *p, unsigned flags,
                                 struct attn_span *span) {
    const attn_tensor *q = p->q, *mask = p->scoring.mask;
    const size_t heads = p->mask_heads ? p->mask_heads : q->size[HEAD];
    ATTN_TRY(check_lengths(c, "scoring.q_lengths", p->scoring.q_lengths, q->size[BATCH], q->size[ROW]));
    ATTN_TRY(check_lengths(c, "scoring.kv_lengths", p->scoring.kv_lengths, q->size[BATCH], p->k->size[ROW]));
    *span = attn_span_of("scoring.mask", NULL, 0);
    if (!mask) return ATTN_OK;
    ATTN_TRY(attn_tensor_check(c, "scoring.mask", mask, TENSOR_F32 | TENSOR_BOOL | flags, span));
    return attn_tensor_expect(c, "scoring.mask", mask, mask->size[BATCH] == 1 ? 1 : q->size[BATCH],
                              mask->size[HEAD] == 1 ? 1 : heads, mask->size[ROW] == 1 ? 1 : q->size[ROW],
                              mask->size[COLUMN] == 1 ? 1 : p->k->size[ROW]);
}

/* An optional output [batch, n_head, n_q, columns]. */
static attn_status check_extra(attn_context *c, const char *name, const attn_tensor *t, const attn_tensor *q,
                               size_t columns, unsigned flags, struct attn_span *span) {
    *span = attn_span_of(name, NULL, 0);
    if (!t) return ATTN_OK;
    ATTN_TRY(attn_tensor_check(c, name, t, TENSOR_F32 | TENSOR_OUTPUT | flags, span));
    return attn_tensor_expect(c, name, t, q->size[BATCH], q->size[HEAD], q->size[ROW], columns);
}

static attn_status check_inputs(attn_context *c, const struct attn_pooling_problem *p, unsigned flags,
                                struct attn_span *spans) {
    const attn_tensor *q = p->q, *k = p->k, *v = p->v;
    ATTN_TRY(attn_tensor_check(c, "q", q, TENSOR_F32 | flags, &spans[0]));
    ATTN_TRY(attn_tensor_check(c, "k", k, TENSOR_F32 | flags, &spans[1]));
    ATTN_TRY(attn_tensor_check(c, "v", v, TENSOR_F32 | flags, &spans[2]));
    if (!q->size[COLUMN]) return attn_fail(c, ATTN_ERROR_SHAPE, "q: it has no columns");
    if (!v->size[COLUMN]) return attn_fail(c, ATTN_ERROR_SHAPE, "v: it has no columns");
    ATTN_TRY(attn_tensor_expect(c, "k", k, q->size[BATCH], SIZE_MAX, SIZE_MAX, q->size[COLUMN]));
    ATTN_TRY(attn_tensor_expect(c, "v", v, q->size[BATCH], k->size[HEAD], k->size[ROW], SIZE_MAX));
    if (!k->size[HEAD] || !q->size[HEAD] || q->size[HEAD] % k->size[HEAD])
        return attn_fail(c, ATTN_ERROR_SHAPE, "q: its head size %zu is no multiple of k's %zu", q->size[HEAD],
                         k->size[HEAD]);
    return ATTN_OK;
}

attn_status attn_pool_check(attn_context *c, const struct attn_pooling_problem *p, int query,
                            struct attn_span *spans, size_t *n_spans, size_t *n_outputs) {
    const unsigned flags = query ? TENSOR_NO_DATA : 0;
    const attn_tensor *q = p->q;
    ATTN_TRY(check_inputs(c, p, flags, spans + 3));
    ATTN_TRY(attn_tensor_check(c, "out", p->out, TENSOR_F32 | TENSOR_OUTPUT | flags, &spans[0]));
    ATTN_TRY(attn_tensor_expect(c, "out", p->out, q->size[BATCH], q->size[HEAD], q->size[ROW],
                                p->v->size[COLUMN]));
    ATTN_TRY(check_extra(c, "lse", p->lse, q, 1, flags, &spans[1]));
    ATTN_TRY(check_extra(c, p->weights_name, p->weights, q, p->k->size[ROW], flags, &spans[2]));
    ATTN_TRY(check_scoring(c, p, flags, &spans[6]));
    spans[7] = attn_span_of(p->w_name, NULL, 0);
    if (p->w) {
        ATTN_TRY(attn_tensor_check(c, p->w_name, p->w, TENSOR_F32 | flags, &spans[7]));
        ATTN_TRY(attn_tensor_expect(c, p->w_name, p->w, 1, p->w->size[HEAD] == 1 ? 1 : q->size[HEAD], 1,
                                    q->size[COLUMN]));
    }
    attn_scoring_spans(&p->scoring, q->size[BATCH], &spans[8]);
    *n_spans = ATTN_POOL_SPANS;
    *n_outputs = 3;
    return ATTN_OK;
}

/* ---- Plan --------------------------------------------------------------------------------------------- */

/*
 * Rows of one key/value head: query-major, the heads of its group inside. They are cut in blocks of the
 * backend's height. Where the blocks alone are too few to occupy many cores, each chunk of keys of a block is
 * a task of its own and a second round merges them: by shape alone, and with the same bits either way.
 */
struct plan {
    const struct attn_backend *backend;
    const struct attn_pooling_problem *p;
    size_t group, rows, block_rows, blocks; /* rows and blocks of one key/value head of one sequence */
    size_t heads;                           /* batch * n_head_kv */
    size_t together;                        /* key/value heads of a task; divides n_head_kv */
    size_t chunks;                          /* of keys */
    int split;
    size_t part; /* floats of a partial result */
    size_t worker_bytes;
    char *scratch, *parts;
};

enum { ENOUGH_TASKS = 256, FEWEST_TASKS = 16, PAGE_FLOATS = 1024 };

/*
 * How many key/value heads a task of few rows takes. Where a host keeps the heads of a key side by side, one head's rows
 * are pieces of different pages, which processors do not fetch ahead: all heads together are one linear read. Only as many
 * as make a page, and only where enough tasks are left.
 */
static size_t heads_together(const struct plan *plan) {
    const struct attn_pooling_problem *p = plan->p;
    const attn_tensor *k = p->k, *v = p->v;
    const size_t d_k = k->size[COLUMN], d_v = v->size[COLUMN], n = k->size[HEAD];
    size_t together = 1;
    if (plan->rows > plan->backend->pool_heads_rows || p->weights || p->score != ATTN_SCORE_DOT) return 1;
    if (attn_stride(k, HEAD) != (ptrdiff_t)d_k || attn_stride(v, HEAD) != (ptrdiff_t)d_v) return 1;
    while (together < n && together < ATTN_HEADS_MAX && together * attn_min(d_k, d_v) < PAGE_FLOATS) {
        do together++;
        while (n % together);
    }
    return together <= ATTN_HEADS_MAX && plan->heads / together * plan->chunks >= FEWEST_TASKS ? together : 1;
}

static attn_status make_plan(attn_context *c, const struct attn_pooling_problem *p, struct plan *plan,
                             size_t *bytes) {
    const struct attn_backend *b = c->backend;
    const size_t n_kv = p->k->size[ROW], d_v = p->v->size[COLUMN];
    *plan = (struct plan){.backend = b, .p = p};
    plan->group = p->q->size[HEAD] / p->k->size[HEAD];
    size_t tasks;
    if (__builtin_mul_overflow(p->q->size[ROW], plan->group, &plan->rows) ||
        __builtin_mul_overflow(p->q->size[BATCH], p->k->size[HEAD], &plan->heads))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "q: its rows and heads are more than fit a size");
    plan->block_rows = attn_min(b->pool_rows, attn_max(plan->rows, 1));
    plan->blocks = attn_ceil_div(plan->rows, plan->block_rows);
    plan->chunks = attn_max(1, attn_ceil_div(n_kv, ATTN_CHUNK));
    if (__builtin_mul_overflow(plan->blocks, plan->heads, &tasks) ||
        __builtin_mul_overflow(tasks, plan->chunks, &tasks))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "q: its tasks are more than fit a size");
    plan->together = heads_together(plan);
    plan->split = b->splits && !p->weights && plan->chunks > 1 &&
                  plan->blocks * plan->heads / plan->together < ENOUGH_TASKS;

    const size_t lanes = (plan->block_rows + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
    size_t total = 0, each = 0;
    int fits = d_v < SIZE_MAX / 65536 && p->q->size[COLUMN] < SIZE_MAX / 65536;
    plan->part = (d_v + 2) * lanes;
    plan->worker_bytes = fits ? b->pool_scratch(p->score, p->q->size[COLUMN], d_v, plan->together) : 0;
    fits = fits && attn_size_add(&each, plan->worker_bytes, 1) &&
           attn_size_add(&total, each, c->executor.n_workers);
    if (plan->split)
        fits = fits && plan->part <= SIZE_MAX / 4 && attn_size_add(&total, tasks, plan->part * sizeof(float));
    if (!fits)
        return attn_fail(c, ATTN_ERROR_OVERFLOW,
                         "q: the scratch for its sizes does not fit the address space");
    plan->worker_bytes = each;
    *bytes = total;
    return ATTN_OK;
}

attn_status attn_pool_scratch_bytes(attn_context *c, const struct attn_pooling_problem *p, size_t *bytes) {
    struct plan plan;
    return make_plan(c, p, &plan, bytes);
}

/* The keys [lo, hi) that query row i of sequence b may see. */
static void visible_range(const struct attn_pooling_problem *p, size_t b, size_t i, size_t *lo, size_t *hi) {
    const attn_scoring *s = &p->scoring;
    const size_t n_q = s->q_lengths ? s->q_lengths[b] : p->q->size[ROW];
    const size_t n_kv = s->kv_lengths ? s->kv_lengths[b] : p->k->size[ROW];
    *lo = 0;
    *hi = i < n_q ? n_kv : 0;
    if (*hi == 0 || s->causal == ATTN_CAUSAL_NONE) return;
    if (s->causal == ATTN_CAUSAL_TOP_LEFT)
        *hi = attn_min(n_kv, i + 1);
    else /* j <= i + n_kv - n_q */
        *hi = i + 1 + n_kv > n_q ? attn_min(n_kv, i + 1 + n_kv - n_q) : 0;
}

/* Address of element (b, h, i, 0) in elements. */
static ptrdiff_t element(const attn_tensor *t, size_t b, size_t h, size_t i) {
    return (ptrdiff_t)b * attn_stride(t, BATCH) + (ptrdiff_t)h * attn_stride(t, HEAD) +
           (ptrdiff_t)i * attn_stride(t, ROW);
}

static void set_mask(struct attn_pool_task *t, const struct attn_pooling_problem *p, size_t b, size_t h,
                     size_t i) {
    const attn_tensor *mask = p->scoring.mask;
    if (!mask || !p->k->size[ROW]) return;
    const ptrdiff_t at = element(mask, b, h + p->mask_head, i);
    t->mask_kind = mask->dtype == ATTN_BOOL ? ATTN_MASK_BOOL : ATTN_MASK_F32;
    t->mask = mask->dtype == ATTN_BOOL ? (const void *)((const uint8_t *)mask->data + at)
                                       : (const void *)((const float *)mask->data + at);
    t->mask_row = attn_stride(mask, ROW);
    t->mask_head = attn_stride(mask, HEAD);
    t->mask_key = mask->size[COLUMN] > 1;
}

/* The outputs of block `block` of key/value head `head`; what the merge needs. */
static void set_block(struct attn_pool_task *t, const struct plan *plan, size_t head, size_t block) {
    const struct attn_pooling_problem *p = plan->p;
    const size_t n_head_kv = p->k->size[HEAD], b = head / n_head_kv, h = head % n_head_kv * plan->group;
    const size_t row = block * plan->block_rows, i = row / plan->group;
    t->score = p->score;
    t->n_rows = attn_min(plan->block_rows, plan->rows - row);
    t->group = plan->group;
    t->heads = plan->together;
    t->first = row % plan->group;
    t->d_k = p->q->size[COLUMN];
    t->d_v = p->v->size[COLUMN];
    t->out = (float *)p->out->data + element(p->out, b, h, i);
    t->out_row = attn_stride(p->out, ROW);
    t->out_head = attn_stride(p->out, HEAD);
    if (p->lse) {
        t->lse = (float *)p->lse->data + element(p->lse, b, h, i);
        t->lse_row = attn_stride(p->lse, ROW);
        t->lse_head = attn_stride(p->lse, HEAD);
    }
}

static void set_inputs(struct attn_pool_task *t, const struct plan *plan, size_t head, size_t block) {
    const struct attn_pooling_problem *p = plan->p;
    const size_t n_head_kv = p->k->size[HEAD], b = head / n_head_kv, h_kv = head % n_head_kv,
                 h = h_kv * plan->group;
    const size_t row = block * plan->block_rows, i = row / plan->group;
    t->q = (const float *)p->q->data + element(p->q, b, h, i);
    t->q_row = attn_stride(p->q, ROW);
    t->q_head = attn_stride(p->q, HEAD);
    t->n_kv = p->k->size[ROW];
    if (t->n_kv) {
        t->k = (const float *)p->k->data + element(p->k, b, h_kv, 0);
        t->v = (const float *)p->v->data + element(p->v, b, h_kv, 0);
    }
    t->k_row = attn_stride(p->k, ROW);
    t->v_row = attn_stride(p->v, ROW);
    t->k_head = attn_stride(p->k, HEAD);
    t->v_head = attn_stride(p->v, HEAD);
    if (p->w) {
        t->w_head = attn_stride(p->w, HEAD);
        t->w = (const float *)p->w->data + (ptrdiff_t)h * t->w_head;
    }
    t->scale = p->scoring.scale;
    if (t->scale == 0.0f) t->scale = p->score == ATTN_SCORE_DOT ? 1.0f / sqrtf((float)t->d_k) : 1.0f;
    set_mask(t, p, b, h, i);
    if (p->weights) {
        t->weights = (float *)p->weights->data + element(p->weights, b, h, i);
        t->weights_row = attn_stride(p->weights, ROW);
        t->weights_head = attn_stride(p->weights, HEAD);
    }
    for (size_t r = 0; r < t->n_rows; r++) visible_range(p, b, (row + r) / plan->group, &t->lo[r], &t->hi[r]);
}

static void run_block(void *arg, size_t index, size_t worker) {
    const struct plan *plan = arg;
    struct attn_pool_task t = {0};
    /* descending: with a causal mask the last blocks are the longest, and tasks start in this order */
    const size_t block = plan->blocks - 1 - index % plan->blocks;
    set_block(&t, plan, index / plan->blocks * plan->together, block);
    set_inputs(&t, plan, index / plan->blocks * plan->together, block);
    t.scratch = plan->scratch + worker * plan->worker_bytes;
    plan->backend->pool(&t);
}

static float *part_of(const struct plan *plan, size_t index) {
    return (float *)(void *)(plan->parts + index * plan->part * sizeof(float));
}

static void run_part(void *arg, size_t index, size_t worker) {
    const struct plan *plan = arg;
    struct attn_pool_task t = {0};
    const size_t block = index / plan->chunks % plan->blocks;
    const size_t head = index / plan->chunks / plan->blocks * plan->together;
    set_block(&t, plan, head, block);
    set_inputs(&t, plan, head, block);
    t.chunk = index % plan->chunks;
    t.part = part_of(plan, (head * plan->blocks + block) * plan->chunks + t.chunk);
    t.part_head = plan->blocks * plan->chunks * plan->part;
    t.scratch = plan->scratch + worker * plan->worker_bytes;
    plan->backend->pool(&t);
}

static void run_merge(void *arg, size_t block, size_t worker) {
    const struct plan *plan = arg;
    struct attn_pool_task t = {0};
    (void)worker;
    set_block(&t, plan, block / plan->blocks, block % plan->blocks);
    t.part = part_of(plan, block * plan->chunks);
    plan->backend->merge(&t, plan->chunks, plan->part);
}

void attn_pool_run(attn_context *c, const struct attn_pooling_problem *p, void *scratch) {
    struct plan plan;
    size_t bytes;
    if (make_plan(c, p, &plan, &bytes) != ATTN_OK || plan.blocks * plan.heads == 0) return;
    const size_t blocks = plan.blocks * plan.heads;
    plan.scratch = scratch;
    plan.parts = plan.scratch + plan.worker_bytes * c->executor.n_workers;
    if (plan.split) {
        attn_executor_run(&c->executor, blocks / plan.together * plan.chunks, run_part, &plan);
        attn_executor_run(&c->executor, blocks, run_merge, &plan);
    } else {
        attn_executor_run(&c->executor, blocks / plan.together, run_block, &plan);
    }
}
