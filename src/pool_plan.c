#include "pool_plan.h"

#include "order.h"
#include "size.h"

enum { ENOUGH_TASKS = 128, FEWEST_TASKS = 16, PAGE_BYTES = 4096, PAGE_ROWS = 32 };

size_t attn_pool_plan_blocks(const struct attn_pool_plan *plan, const struct attn_sequence *q) {
    return attn_ceil_div(q->rows * plan->group, plan->block_rows);
}

size_t attn_pool_plan_chunks(const struct attn_pool_plan *plan, const struct attn_sequence *q) {
    return plan->split ? attn_max(1, attn_ceil_div(q->n_kv, ATTN_CHUNK) - q->first / ATTN_CHUNK) : 1;
}

struct attn_sequence attn_pool_plan_shape(const struct attn_pool_plan *plan, size_t b) {
    struct attn_sequence q = attn_pool_plan_sequence(plan, b);
    if (!attn_pool_plan_differs(plan)) q.n_kv = plan->sizes.n_kv;
    return q;
}

/* Whether something is asked for that takes a second pass over the scores. */
static int looks(const struct attn_pooling_problem *p) { return p->weights || p->scores; }

/* Whether a block of the cache has the rows of one head after the other's, and so few that all of it is read in one turn. */
static int page_of_heads(const struct attn_kv_view *kv) {
    const ptrdiff_t rows = (ptrdiff_t)kv->block_rows;
    const ptrdiff_t k_row = (ptrdiff_t)attn_dtype_row(kv->k_type, kv->p_k),
                    v_row = (ptrdiff_t)attn_dtype_row(kv->v_type, kv->p_v);
    return kv->slots > 1 && rows % ATTN_KEY_TILE == 0 && rows <= PAGE_ROWS && kv->k_row == k_row &&
           kv->v_row == v_row && kv->k_head == rows * k_row && kv->v_head == rows * v_row;
}

/*
 * How many key/value heads a task of few rows takes. Where a host keeps the heads of a key side by side, one head's rows
 * are pieces of different pages, which processors do not fetch ahead: all heads together are one linear read. Only as many
 * as make a page, and only where enough tasks are left. Small blocks of a cache are such pieces too.
 */
static size_t heads_together(const struct attn_pool_plan *plan, size_t most_rows, size_t pieces) {
    const struct attn_pooling_problem *p = plan->p;
    const attn_tensor *k = p->k, *v = p->v;
    const size_t k_row = attn_dtype_row(k->dtype, p->q->size[COLUMN]), n = plan->n_head_kv;
    const size_t v_row = attn_dtype_row(v->dtype, v->size[COLUMN]);
    size_t together = 1;
    if (p->kv && p->kv->kv.layout == ATTN_KV_PANELS) return 1;
    if (most_rows > plan->backend->pool_heads_rows || looks(p) || p->score != ATTN_SCORE_DOT) return 1;
    const int side_by_side =
        attn_stride_bytes(k, HEAD) == (ptrdiff_t)k_row && attn_stride_bytes(v, HEAD) == (ptrdiff_t)v_row;
    if (!side_by_side && !(p->kv && page_of_heads(p->kv))) return 1;
    while (together < n && together < ATTN_HEADS_MAX && together * attn_min(k_row, v_row) < PAGE_BYTES) {
        do together++;
        while (n % together);
    }
    return together <= ATTN_HEADS_MAX && pieces / together >= FEWEST_TASKS ? together : 1;
}

/* Whether keys or values have to be converted or gathered, or copied because their rows lie far apart. */
static int gathers(const struct attn_pooling_problem *p) {
    const ptrdiff_t v_row = attn_stride_bytes(p->v, ROW);
    return p->kv || p->k->dtype != ATTN_F32 || p->v->dtype != ATTN_F32 ||
           (v_row != 0 && v_row % ATTN_FAR == 0);
}

static int add_shares(struct attn_pool_share *to, const struct attn_pool_share *x) {
    return !__builtin_add_overflow(to->tasks, x->tasks, &to->tasks) &&
           !__builtin_add_overflow(to->merges, x->merges, &to->merges) &&
           !__builtin_add_overflow(to->parts, x->parts, &to->parts);
}

int attn_pool_plan_count(struct attn_pool_plan *plan, struct attn_pool_share *before) {
    const int all = attn_pool_plan_differs(plan);
    plan->total = (struct attn_pool_share){0};
    for (size_t b = 0; b < (all ? plan->sequences : attn_min(plan->sequences, 1)); b++) {
        const struct attn_sequence q = attn_pool_plan_shape(plan, b);
        const size_t blocks = attn_pool_plan_blocks(plan, &q), chunks = attn_pool_plan_chunks(plan, &q);
        struct attn_pool_share x;
        if (before) before[b] = plan->total;
        if (__builtin_mul_overflow(blocks, plan->n_head_kv, &x.merges) ||
            __builtin_mul_overflow(x.merges, chunks, &x.parts))
            return 0;
        x.tasks = attn_ceil_div(blocks, plan->each) * chunks * (plan->n_head_kv / plan->together);
        if (!add_shares(&plan->total, &x)) return 0;
    }
    return all || (!__builtin_mul_overflow(plan->total.merges, plan->sequences, &plan->total.merges) &&
                   !__builtin_mul_overflow(plan->total.tasks, plan->sequences, &plan->total.tasks) &&
                   !__builtin_mul_overflow(plan->total.parts, plan->sequences, &plan->total.parts));
}

size_t attn_pool_plan_locate(const struct attn_pool_plan *plan, size_t index, size_t member,
                             struct attn_pool_share *before) {
#define MEMBER(share) (*(const size_t *)(const void *)((const char *)(share) + member))
    if (!plan->before) {
        const size_t b = index / (MEMBER(&plan->total) / plan->sequences);
        const struct attn_pool_share *t = &plan->total;
        *before = (struct attn_pool_share){t->tasks / plan->sequences * b, t->merges / plan->sequences * b,
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

/*
 * How many blocks a task takes: as many as make the workers take at most a quarter longer than tasks of one block would (by
 * the number of blocks that one of them has to do). Returns 0 on overflow.
 */
static int share_keys(struct attn_pool_plan *plan, size_t blocks, size_t workers) {
    const size_t alone = attn_ceil_div(plan->total.tasks, workers);
    for (plan->each = attn_min(blocks, plan->backend->pool_blocks); plan->each > 1; plan->each--) {
        if (!attn_pool_plan_count(plan, NULL)) return 0;
        const size_t most = attn_ceil_div(plan->total.tasks, workers) * plan->each;
        if (most <= alone + alone / 4) return 1;
    }
    return attn_pool_plan_count(plan, NULL);
}

attn_status attn_pool_plan_make(attn_context *c, const struct attn_pooling_problem *p,
                                struct attn_pool_plan *plan, int filled, size_t *bytes) {
    const struct attn_backend *b = c->backend;
    const size_t d_k = p->q->size[COLUMN], d_v = p->v->size[COLUMN];
    size_t most_q, most_kv, most_rows, total = 0, each = 0;
    *plan =
        (struct attn_pool_plan){.backend = b, .p = p, .sizes = attn_pool_sizes(p), .together = 1, .each = 1};
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
    int fits = attn_pool_plan_count(plan, NULL);
    plan->together = heads_together(plan, most_rows, plan->total.parts);
    if (plan->split && fits) {
        plan->split = 0;
        fits = attn_pool_plan_count(plan, NULL);
        plan->split = plan->total.tasks < ENOUGH_TASKS;
    }
    fits = fits && attn_pool_plan_count(plan, NULL);
    const int gathered = gathers(p);
    const size_t blocks = gathered ? attn_max(1, attn_ceil_div(most_rows, plan->block_rows)) : 1;
    if (blocks > 1) fits = fits && share_keys(plan, blocks, c->executor.n_workers);
    if (!fits) return attn_fail(c, ATTN_ERROR_OVERFLOW, "q: its tasks are more than fit a size");

    const size_t lanes = (plan->block_rows + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
    fits = d_v < SIZE_MAX / 65536 && d_k < SIZE_MAX / 65536;
    plan->part = (d_v + 2) * lanes;
    const struct attn_pool_size size = {.score = p->score,
                                        .d_k = d_k,
                                        .d_v = d_v,
                                        .heads = plan->together,
                                        .blocks = plan->sizes.filled ? attn_min(blocks, b->pool_blocks)
                                                                     : plan->each,
                                        .gathers = gathered};
    plan->worker_bytes = fits ? b->pool_scratch(&size) : 0;
    fits = fits && attn_size_add(&each, plan->worker_bytes, 1) &&
           attn_size_add(&total, each, c->executor.n_workers);
    if (attn_pool_plan_differs(plan))
        fits = fits && attn_size_add(&total, plan->sequences, sizeof(struct attn_pool_share));
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
