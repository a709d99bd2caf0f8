#include "pool.h"

#include <float.h>
#include <math.h>
#include <stddef.h>

#include "order.h"
#include "size.h"

/* ---- Plan --------------------------------------------------------------------------------------------- */

/*
 * Rows of one key/value head of a sequence: query-major, the heads of its group inside. They are cut in blocks of the
 * backend's height. Where the blocks alone are too few to occupy many cores, each chunk of keys of a block is
 * a task of its own and a second round merges them: by shape alone, and with the same bits either way.
 */
struct share {
    size_t tasks;  /* of the first round */
    size_t merges; /* blocks of one key/value head each: tasks of the second round */
    size_t parts;  /* chunks of those */
};

struct plan {
    const struct attn_backend *backend;
    const struct attn_pooling_problem *p;
    struct attn_scoring_sizes sizes;
    size_t group, block_rows;
    size_t n_head_kv, together; /* key/value heads, and those of a task; together divides n_head_kv */
    size_t sequences;
    struct share total;
    int split;
    size_t part; /* floats of a partial result */
    size_t worker_bytes;
    char *scratch, *parts;
    struct share *before; /* [sequences]: of all that come before, where their sizes differ; otherwise NULL */
};

enum { ENOUGH_TASKS = 128, FEWEST_TASKS = 16, PAGE_FLOATS = 1024, PAGE_ROWS = 32 };

/* Blocks of one key/value head, and chunks of keys, of sequence q. */
static size_t blocks_of(const struct plan *plan, const struct attn_sequence *q) {
    return attn_ceil_div(q->rows * plan->group, plan->block_rows);
}
static size_t chunks_of(const struct plan *plan, const struct attn_sequence *q) {
    return plan->split ? attn_max(1, attn_ceil_div(q->n_kv, ATTN_CHUNK) - q->first / ATTN_CHUNK) : 1;
}

static struct attn_sequence sequence_at(const struct plan *plan, size_t b) {
    return attn_sequence_at(&plan->p->scoring, &plan->sizes, b);
}

/* Whether sequences have sizes of their own. */
static int differ(const struct plan *plan) { return plan->p->scoring.q_starts || plan->p->kv; }

/* A sequence as the tasks count it: with the tensor's rows where all have the same, whatever their lengths. */
static struct attn_sequence shape_at(const struct plan *plan, size_t b) {
    struct attn_sequence q = sequence_at(plan, b);
    if (!differ(plan)) q.n_kv = plan->sizes.n_kv;
    return q;
}

/* Whether something is asked for that takes a second pass over the scores. */
static int looks(const struct attn_pooling_problem *p) { return p->weights || p->scores; }

/* Whether a block of the cache has the rows of one head after the other's, and so few that all of it is read in one turn. */
static int page_of_heads(const struct attn_kv_view *kv) {
    const ptrdiff_t rows = (ptrdiff_t)kv->block_rows, d_k = (ptrdiff_t)kv->p_k, d_v = (ptrdiff_t)kv->p_v;
    return kv->slots > 1 && rows % ATTN_KEY_TILE == 0 && rows <= PAGE_ROWS && kv->k_row == d_k &&
           kv->v_row == d_v && kv->k_head == rows * d_k && kv->v_head == rows * d_v;
}

/*
 * How many key/value heads a task of few rows takes. Where a host keeps the heads of a key side by side, one head's rows
 * are pieces of different pages, which processors do not fetch ahead: all heads together are one linear read. Only as many
 * as make a page, and only where enough tasks are left. Small blocks of a cache are such pieces too.
 */
static size_t heads_together(const struct plan *plan, size_t most_rows, size_t pieces) {
    const struct attn_pooling_problem *p = plan->p;
    const attn_tensor *k = p->k, *v = p->v;
    const size_t d_k = p->q->size[COLUMN], d_v = v->size[COLUMN], n = plan->n_head_kv;
    size_t together = 1;
    if (p->kv && p->kv->kv.layout == ATTN_KV_PANELS) return 1;
    if (most_rows > plan->backend->pool_heads_rows || looks(p) || p->score != ATTN_SCORE_DOT) return 1;
    const int side_by_side = attn_stride(k, HEAD) == (ptrdiff_t)d_k && attn_stride(v, HEAD) == (ptrdiff_t)d_v;
    if (!side_by_side && !(p->kv && page_of_heads(p->kv))) return 1;
    while (together < n && together < ATTN_HEADS_MAX && together * attn_min(d_k, d_v) < PAGE_FLOATS) {
        do together++;
        while (n % together);
    }
    return together <= ATTN_HEADS_MAX && pieces / together >= FEWEST_TASKS ? together : 1;
}

static int add_shares(struct share *to, const struct share *x) {
    return !__builtin_add_overflow(to->tasks, x->tasks, &to->tasks) &&
           !__builtin_add_overflow(to->merges, x->merges, &to->merges) &&
           !__builtin_add_overflow(to->parts, x->parts, &to->parts);
}

/* The total of all sequences; where `before` is given, fills it. Returns 0 on overflow. */
static int count(struct plan *plan, struct share *before) {
    const int all = differ(plan);
    plan->total = (struct share){0};
    for (size_t b = 0; b < (all ? plan->sequences : attn_min(plan->sequences, 1)); b++) {
        const struct attn_sequence q = shape_at(plan, b);
        const size_t blocks = blocks_of(plan, &q), chunks = chunks_of(plan, &q);
        struct share x;
        if (before) before[b] = plan->total;
        if (__builtin_mul_overflow(blocks, plan->n_head_kv, &x.merges) ||
            __builtin_mul_overflow(x.merges, chunks, &x.parts))
            return 0;
        x.tasks = x.parts / plan->together;
        if (!add_shares(&plan->total, &x)) return 0;
    }
    return all || (!__builtin_mul_overflow(plan->total.merges, plan->sequences, &plan->total.merges) &&
                   !__builtin_mul_overflow(plan->total.tasks, plan->sequences, &plan->total.tasks) &&
                   !__builtin_mul_overflow(plan->total.parts, plan->sequences, &plan->total.parts));
}

/* Sequence and what comes before it, of item `index` of one member of the shares. */
static size_t locate(const struct plan *plan, size_t index, size_t member, struct share *before) {
#define MEMBER(share) (*(const size_t *)(const void *)((const char *)(share) + member))
    if (!plan->before) {
        const size_t b = index / (MEMBER(&plan->total) / plan->sequences);
        const struct share *t = &plan->total;
        *before = (struct share){t->tasks / plan->sequences * b, t->merges / plan->sequences * b,
                                 t->parts / plan->sequences * b};
        return b;
    }
    size_t lo = 0,
           hi = plan->sequences; /* the last one that begins at or before index: empty ones come first */
    while (hi - lo > 1) {
        const size_t middle = lo + (hi - lo) / 2;
        if (MEMBER(&plan->before[middle]) <= index)
            lo = middle;
        else
            hi = middle;
    }
#undef MEMBER
    *before = plan->before[lo];
    return lo;
}

static attn_status make_plan(attn_context *c, const struct attn_pooling_problem *p, struct plan *plan,
                             int filled, size_t *bytes) {
    const struct attn_backend *b = c->backend;
    const size_t d_k = p->q->size[COLUMN], d_v = p->v->size[COLUMN];
    size_t most_q, most_kv, most_rows, total = 0, each = 0;
    *plan = (struct plan){.backend = b, .p = p, .sizes = attn_pool_sizes(p), .together = 1};
    plan->sizes.filled = filled && p->kv;
    if (plan->sizes.filled) plan->sizes.n_kv = attn_kv_filled(p->kv);
    plan->n_head_kv = p->k->size[HEAD];
    plan->group = p->q->size[HEAD] / plan->n_head_kv;
    plan->sequences = attn_sequences(&p->scoring, &plan->sizes);
    attn_sequences_most(&p->scoring, &plan->sizes, &most_q, &most_kv);
    if (__builtin_mul_overflow(attn_max(most_q, p->q->size[ROW]), plan->group, &most_rows))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "q: its rows and heads are more than fit a size");
    most_rows = most_q * plan->group;
    plan->block_rows = attn_min(b->pool_rows, attn_max(most_rows, 1));

    /* a ring has no more of its keys, however far it came */
    if (p->kv) most_kv = attn_min(most_kv, p->kv->capacity);
    plan->split = b->splits && !looks(p) && most_kv > ATTN_CHUNK;
    int fits = count(plan, NULL);
    plan->together = heads_together(plan, most_rows, plan->total.parts);
    if (plan->split && fits) {
        plan->split = 0;
        fits = count(plan, NULL);
        plan->split = plan->total.tasks < ENOUGH_TASKS;
    }
    fits = fits && count(plan, NULL);
    if (!fits) return attn_fail(c, ATTN_ERROR_OVERFLOW, "q: its tasks are more than fit a size");

    const size_t lanes = (plan->block_rows + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
    fits = d_v < SIZE_MAX / 65536 && d_k < SIZE_MAX / 65536;
    plan->part = (d_v + 2) * lanes;
    plan->worker_bytes = fits ? b->pool_scratch(p->score, d_k, d_v, plan->together) : 0;
    fits = fits && attn_size_add(&each, plan->worker_bytes, 1) &&
           attn_size_add(&total, each, c->executor.n_workers);
    if (differ(plan)) fits = fits && attn_size_add(&total, plan->sequences, sizeof(struct share));
    if (plan->split)
        fits = fits && plan->part <= SIZE_MAX / 4 &&
               attn_size_add(&total, plan->total.parts, plan->part * sizeof(float));
    if (!fits)
        return attn_fail(c, ATTN_ERROR_OVERFLOW,
                         "q: the scratch for its sizes does not fit the address space");
    plan->worker_bytes = each;
    *bytes = total;
    return ATTN_OK;
}

attn_status attn_pool_scratch_bytes(attn_context *c, const struct attn_pooling_problem *p, int filled,
                                    size_t *bytes) {
    struct plan plan;
    return make_plan(c, p, &plan, filled, bytes);
}

/* ---- Tasks -------------------------------------------------------------------------------------------- */

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

static struct place place_of(const struct plan *plan, size_t b, size_t h_kv, size_t block) {
    struct place at = {.of = sequence_at(plan, b), .h_kv = h_kv, .block = block};
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

/* The outputs of a block, and what the merge needs. */
static void set_block(struct attn_pool_task *t, const struct plan *plan, const struct place *at) {
    const struct attn_pooling_problem *p = plan->p;
    const size_t b = at->of.batch, i = at->of.q_row + at->i;
    t->score = p->score;
    t->n_rows = attn_min(plan->block_rows, at->of.rows * plan->group - at->row);
    t->group = plan->group;
    t->heads = plan->together;
    t->first = at->row % plan->group;
    t->d_k = p->q->size[COLUMN];
    t->d_v = p->v->size[COLUMN];
    t->out = (float *)p->out->data + element(p->out, b, at->h, i);
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

/* How scores are shaped, and what the rows see. */
static void set_scoring(struct attn_pool_task *t, const struct plan *plan, const struct place *at) {
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
        t->lo[r] = see.lo;
        t->hi[r] = see.hi;
        t->also[r] = see.also;
    }
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

static void set_inputs(struct attn_pool_task *t, const struct plan *plan, const struct place *at) {
    const struct attn_pooling_problem *p = plan->p;
    const size_t b = at->of.batch;
    t->q = (const float *)p->q->data + element(p->q, b, at->h, at->of.q_row + at->i);
    t->q_row = attn_stride(p->q, ROW);
    t->q_head = attn_stride(p->q, HEAD);
    t->n_kv = at->of.n_kv;
    if (t->n_kv && p->kv) {
        set_pages(t, p->kv, at);
    } else if (t->n_kv) {
        t->k = (const float *)p->k->data + element(p->k, b, at->h_kv, at->of.kv_row);
        t->v = (const float *)p->v->data + element(p->v, b, at->h_kv, at->of.kv_row);
    }
    t->k_row = attn_stride(p->k, ROW);
    t->v_row = attn_stride(p->v, ROW);
    t->k_head = attn_stride(p->k, HEAD);
    t->v_head = attn_stride(p->v, HEAD);
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
    set_scoring(t, plan, at);
}

static float *part_of(const struct plan *plan, size_t index) {
    return (float *)(void *)(plan->parts + index * plan->part * sizeof(float));
}

/* A task of the first round: a block of rows over all its keys, or over one chunk of them. */
static void run_block(void *arg, size_t index, size_t worker) {
    const struct plan *plan = arg;
    struct attn_pool_task t = {0};
    struct share before;
    const size_t b = locate(plan, index, offsetof(struct share, tasks), &before);
    const struct attn_sequence shape = shape_at(plan, b);
    const size_t blocks = blocks_of(plan, &shape), chunks = chunks_of(plan, &shape);
    const size_t rest = index - before.tasks, head = rest / chunks / blocks * plan->together;
    /* descending: with a causal mask the last blocks are the longest, and tasks start in this order */
    const struct place at = place_of(plan, b, head, blocks - 1 - rest / chunks % blocks);
    set_block(&t, plan, &at);
    set_inputs(&t, plan, &at);
    if (plan->split) {
        t.first_chunk = at.of.first / ATTN_CHUNK;
        t.chunk = t.first_chunk + rest % chunks;
        t.part = part_of(plan, before.parts + (head * blocks + at.block) * chunks + rest % chunks);
        t.part_head = blocks * chunks * plan->part;
    }
    t.scratch = plan->scratch + worker * plan->worker_bytes;
    plan->backend->pool(&t);
}

static void run_merge(void *arg, size_t index, size_t worker) {
    const struct plan *plan = arg;
    struct attn_pool_task t = {0};
    struct share before;
    (void)worker;
    const size_t b = locate(plan, index, offsetof(struct share, merges), &before);
    const struct attn_sequence shape = shape_at(plan, b);
    const size_t blocks = blocks_of(plan, &shape), chunks = chunks_of(plan, &shape),
                 rest = index - before.merges;
    const struct place at = place_of(plan, b, rest / blocks, rest % blocks);
    set_block(&t, plan, &at);
    t.part = part_of(plan, before.parts + rest * chunks);
    plan->backend->merge(&t, chunks, plan->part);
}

void attn_pool_run(attn_context *c, const struct attn_pooling_problem *p, void *scratch) {
    struct plan plan;
    size_t bytes, used = 0;
    if (make_plan(c, p, &plan, 0, &bytes) != ATTN_OK || plan.total.tasks == 0) return;
    plan.scratch = scratch;
    plan.parts = plan.scratch + plan.worker_bytes * c->executor.n_workers;
    if (differ(&plan)) {
        plan.before = (struct share *)(void *)plan.parts;
        if (!attn_size_add(&used, plan.sequences, sizeof(struct share)) || !count(&plan, plan.before)) return;
        plan.parts += used;
    }
    attn_executor_run(&c->executor, plan.total.tasks, run_block, &plan);
    if (plan.split) attn_executor_run(&c->executor, plan.total.merges, run_merge, &plan);
}
