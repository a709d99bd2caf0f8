#include "stage.h"

#include <math.h>
#include <time.h>

#include "team.h"
#include "typed.h"

static const char no_room[] = "needs more memory than the benchmark reserves";

/* [batch, head, row, column] over a piece of the arena; key_major: stored [batch, row, head, column].
 * data is NULL when there is no room. */
static attn_tensor take(struct arena *arena, size_t batch, size_t head, size_t row, size_t column,
                        bool key_major) {
    void *data = arena_take(arena, batch * head * row * column * sizeof(float));
    attn_tensor t = attn_tensor_contiguous(data, ATTN_F32, batch, head, row, column);

    if (key_major) {
        t.stride[1] = (ptrdiff_t)(column * sizeof(float));
        t.stride[2] = (ptrdiff_t)(head * column * sizeof(float));
    }
    return t;
}

/* Packs an n x k matrix of the source. */
static const char *take_packed(struct stage *s, struct arena *source, struct arena *work, size_t n, size_t k,
                               const attn_packed **packed) {
    const attn_tensor w =
        typed_take(s->context, s->row->type, source, work, (const size_t[]){1, 1, n, k}, false);
    size_t bytes = 0;
    void *memory;

    if (!w.data) {
        return no_room;
    }
    if (attn_pack_linear_bytes(s->context, &w, &bytes) != ATTN_OK) {
        return attn_context_error(s->context);
    }
    memory = arena_take(work, bytes);
    if (!memory) {
        return no_room;
    }
    return attn_pack_linear(s->context, &w, NULL, memory, bytes, packed) == ATTN_OK
               ? NULL
               : attn_context_error(s->context);
}

/* Keys or values of the row's type. */
static attn_tensor take_keys(const struct stage *s, struct arena *source, struct arena *work, size_t batch,
                             size_t rows, size_t columns) {
    const struct row *r = s->row;
    const size_t size[4] = {batch, r->n_head_kv, rows, columns};

    return typed_take(s->context, r->type, source, work, size, r->key_major);
}

static size_t copies(const struct row *row) {
    const double bytes = row_bytes(row);
    size_t n = 1;

    if (row_read_bound(row) && !row->warm) {
        n = (size_t)((double)STAGE_COLD_BYTES / bytes) + 1;
    }
    return n < STAGE_MAX_COPIES ? n : STAGE_MAX_COPIES;
}

/* One sequence's cache: its blocks in the order of a walk through all of them, which nothing fetches ahead. */
static const char *set_cache(const struct stage *s, struct stage_copy *copy, struct arena *source,
                             struct arena *work) {
    const struct row *r = s->row;
    const bool panels = r->cache == CACHE_PANELS;
    const size_t rows = panels ? r->n_kv : ROW_BLOCK, n = r->n_kv / rows, unit = panels ? ROW_BLOCK : 1;

    copy->length = r->n_kv;
    copy->kv = (attn_kv){.size = sizeof copy->kv,
                         .layout = panels ? ATTN_KV_PANELS : ATTN_KV_ROWS,
                         .k = take_keys(s, source, work, n, rows / unit, r->d * unit),
                         .v = take_keys(s, source, work, n, rows, r->p),
                         .n_sequences = 1,
                         .lengths = &copy->length,
                         .blocks_per_sequence = n};
    copy->kv.blocks = copy->blocks = arena_take(work, n * sizeof *copy->blocks);
    if (!copy->kv.k.data || !copy->kv.v.data || !copy->blocks) {
        return no_room;
    }
    for (size_t i = 0; i < n; i++) {
        copy->blocks[i] = (int32_t)(i * 1031 % n); /* a prime beside the powers of two that n is */
    }
    return NULL;
}

/* Rows of the source, and an empty cache in memory that is written. */
static const char *set_append(struct stage_copy *copy, const struct row *r, struct arena *source,
                              struct arena *work) {
    const bool panels = r->cache == CACHE_PANELS;
    const size_t unit = panels ? ROW_BLOCK : 1, n = r->n_kv / ROW_BLOCK, values = r->n_head_kv * r->n_kv;
    void *k = arena_take(work, (size_t)typed_bytes(r->type, (double)(values * r->d))),
         *v = arena_take(work, (size_t)typed_bytes(r->type, (double)(values * r->p)));

    copy->k = take(source, 1, r->n_head_kv, r->n_kv, r->d, true);
    copy->v = take(source, 1, r->n_head_kv, r->n_kv, r->p, true);
    copy->blocks = arena_take(work, n * sizeof *copy->blocks);
    if (!k || !v || !copy->k.data || !copy->v.data || !copy->blocks) {
        return no_room;
    }
    for (size_t i = 0; i < n; i++) {
        copy->blocks[i] = (int32_t)(i * 1031 % n);
    }
    copy->kv =
        (attn_kv){.size = sizeof copy->kv,
                  .layout = panels ? ATTN_KV_PANELS : ATTN_KV_ROWS,
                  .k = attn_tensor_contiguous(k, r->type, n, r->n_head_kv, ROW_BLOCK / unit, r->d * unit),
                  .v = attn_tensor_contiguous(v, r->type, n, r->n_head_kv, ROW_BLOCK, r->p),
                  .n_sequences = 1,
                  .lengths = &copy->length,
                  .blocks = copy->blocks,
                  .blocks_per_sequence = n};
    return NULL;
}

static const char *set_copy(struct stage *s, struct stage_copy *copy, struct arena *source,
                            struct arena *work) {
    const struct row *r = s->row;
    const size_t used = source->used;
    const char *error = NULL;

    switch (r->kind) {
    case ROW_LINEAR:
        error = take_packed(s, source, work, r->p, r->d, &copy->w[0]);
        source->used = used; /* all copies have the same numbers */
        return error;
    case ROW_APPEND: return set_append(copy, r, source, work);
    case ROW_SDPA:
        if (r->cache) {
            return set_cache(s, copy, source, work);
        }
        /* fallthrough */
    case ROW_ADDITIVE:
        copy->k = take_keys(s, source, work, r->batch, r->n_kv, r->d);
        copy->v = take_keys(s, source, work, r->batch, r->n_kv, r->p);
        return copy->k.data && copy->v.data ? NULL : no_room;
    case ROW_HEAD:
    case ROW_MULTIHEAD:
        for (int i = 0; i < 3 && !error; i++) {
            error =
                take_packed(s, source, work, (i == 0 ? r->n_head : r->n_head_kv) * r->p, r->d, &copy->w[i]);
        }
        if (!error && r->kind == ROW_MULTIHEAD) {
            error = take_packed(s, source, work, r->d, r->n_head * r->p, &copy->w[3]);
        }
        return error;
    }
    return NULL;
}

/* Two branches of draft tokens, one after the other, behind keys that all rows see. */
static const char *set_tree(struct stage *s, struct arena *work) {
    const struct row *r = s->row;
    unsigned char *mask = arena_take(work, r->n_q * r->n_kv);

    if (!mask) {
        return no_room;
    }
    for (size_t i = 0; i < r->n_q; i++) {
        for (size_t j = 0; j < r->n_kv; j++) {
            const size_t draft = j + r->n_q - r->n_kv; /* from n_q on: not one */
            mask[i * r->n_kv + j] = draft >= r->n_q || (draft <= i && draft % 2 == i % 2);
        }
    }
    s->mask = attn_tensor_contiguous(mask, ATTN_BOOL, 1, 1, r->n_q, r->n_kv);
    s->scoring.mask = &s->mask;
    return NULL;
}

/* What all copies share: x or q, the output, the scoring. */
static const char *set_shared(struct stage *s, struct arena *source, struct arena *work) {
    const struct row *r = s->row;

    s->scoring = (attn_scoring){.size = sizeof s->scoring, .causal = r->causal};
    s->window[0] = r->window;
    s->scoring.window = r->window ? s->window : NULL;
    switch (r->kind) {
    case ROW_APPEND: return NULL;
    case ROW_LINEAR:
        s->x = take(source, 1, 1, r->n_q, r->d, false);
        s->out = take(work, 1, 1, r->n_q, r->p, false);
        break;
    case ROW_SDPA:
    case ROW_ADDITIVE:
        s->q = take(source, r->batch, r->n_head, r->n_q, r->d, r->key_major);
        s->w_a = take(source, 1, 1, 1, r->d, false);
        s->out = take(work, r->batch, r->n_head, r->n_q, r->p, r->key_major);
        if (r->kind == ROW_ADDITIVE) { /* scores of the size that trained weights give, around 1 */
            s->scoring.scale = 1 / sqrtf((float)r->d);
        }
        break;
    case ROW_HEAD: /* weights of variance 1 make q.k d times as large as trained ones: undone in the scale */
    case ROW_MULTIHEAD:
        s->x = take(source, r->batch, 1, r->n_q, r->d, false);
        s->out = take(work, r->batch, 1, r->n_q, r->kind == ROW_HEAD ? r->p : r->d, false);
        s->scoring.scale = 1 / (sqrtf((float)r->p) * (float)r->d);
        break;
    }
    if (!s->out.data || (!s->x.data && !s->q.data)) {
        return no_room;
    }
    return r->tree ? set_tree(s, work) : NULL;
}

/* ---- Unfused ------------------------------------------------------------------------------------------- */

/* The heads of a projection [batch, 1, row, heads * p]. */
static attn_tensor heads_of(const attn_tensor *t, size_t heads) {
    attn_tensor view = *t;

    view.size[1] = heads;
    view.size[3] /= heads;
    view.stride[1] = (ptrdiff_t)(view.size[3] * sizeof(float));
    return view;
}

static attn_status project(const struct stage *s, const struct stage_copy *copy) {
    attn_status status = ATTN_OK;

    for (int i = 0; i < 3 && status == ATTN_OK; i++) {
        status = attn_linear(s->context, &s->x, copy->w[i], &s->projected[i]);
    }
    return status;
}

/* Where the projections of a head row go, and the keys and values that they give. */
static const char *set_projected(struct stage *s, struct stage_copy *copy, struct arena *work) {
    const struct row *r = s->row;

    for (int i = 0; i < 3; i++) {
        s->projected[i] = take(work, 1, 1, r->n_q, (i == 0 ? r->n_head : r->n_head_kv) * r->p, false);
    }
    s->concatenated = r->kind == ROW_HEAD ? s->out : take(work, 1, 1, r->n_q, r->n_head * r->p, false);
    if (!s->projected[0].data || !s->projected[1].data || !s->projected[2].data || !s->concatenated.data) {
        return no_room;
    }
    copy->k = heads_of(&s->projected[1], r->n_head_kv);
    copy->v = heads_of(&s->projected[2], r->n_head_kv);
    return project(s, copy) == ATTN_OK ? NULL : attn_context_error(s->context);
}

/* Everything of a copy that is not timed: its keys and values, packed. (A head row's are packed from the same
 * projections that the call computes again.) */
static const char *set_unfused(struct stage *s, struct stage_copy *copy, struct arena *work) {
    const struct row *r = s->row;
    const bool sdpa = r->kind == ROW_SDPA;
    const char *error = sdpa ? NULL : set_projected(s, copy, work);

    if (error) {
        return error;
    }
    s->unfused.context = s->context;
    s->unfused.q = sdpa ? s->q : heads_of(&s->projected[0], r->n_head);
    s->unfused.out = sdpa ? s->out : heads_of(&s->concatenated, r->n_head);
    s->unfused.n_head_kv = r->n_head_kv;
    s->unfused.n_kv = r->n_kv;
    s->unfused.scale = sdpa ? 1 / sqrtf((float)r->d) : s->scoring.scale;
    s->unfused.causal = r->causal == ATTN_CAUSAL_TOP_LEFT;
    error = s->unfused.scores ? NULL : unfused_prepare(&s->unfused, work); /* one for all copies */
    copy->heads = arena_take(work, r->n_head_kv * sizeof *copy->heads);
    const double start = team_clock(CLOCK_MONOTONIC);
    for (size_t h = 0; h < r->n_head_kv && !error; h++) {
        error =
            copy->heads ? unfused_pack(&s->unfused, &copy->k, &copy->v, h, work, &copy->heads[h]) : no_room;
    }
    s->pack_seconds = team_clock(CLOCK_MONOTONIC) - start;
    return error;
}

static attn_status call_unfused(const struct stage *s, const struct stage_copy *copy) {
    attn_status status = s->row->kind == ROW_SDPA ? ATTN_OK : project(s, copy);

    if (status == ATTN_OK) {
        unfused_run(&s->unfused, copy->heads);
    }
    if (status == ATTN_OK && s->row->kind == ROW_MULTIHEAD) {
        status = attn_linear(s->context, &s->concatenated, copy->w[3], &s->out);
    }
    return status;
}

/* ---- The row ------------------------------------------------------------------------------------------- */

const char *stage_set(struct stage *s, const struct row *row, attn_context *context, struct arena *source,
                      struct arena *work) {
    arena_rewind(source);
    arena_rewind(work);
    *s = (struct stage){.row = row, .context = context, .n_copies = copies(row)};

    const char *error = set_shared(s, source, work);
    for (size_t i = 0; i < s->n_copies && !error; i++) {
        error = set_copy(s, &s->copy[i], source, work);
        if (!error && row->unfused) {
            error = set_unfused(s, &s->copy[i], work);
        }
    }
    return error;
}

/* The calls; scratch not NULL: only the scratch that the call needs. */

static attn_status call_head(const struct stage *s, const struct stage_copy *copy, size_t *scratch) {
    const struct row *r = s->row;
    const attn_weights weights = {.size = sizeof weights,
                                  .n_head = r->n_head,
                                  .n_head_kv = r->n_head_kv,
                                  .w_q = copy->w[0],
                                  .w_k = copy->w[1],
                                  .w_v = copy->w[2],
                                  .w_o = copy->w[3]};
    const attn_head_args args = {.size = sizeof args,
                                 .weights = &weights,
                                 .q = &s->x,
                                 .k = &s->x,
                                 .v = &s->x,
                                 .out = &s->out,
                                 .scoring = &s->scoring};

    if (r->kind == ROW_HEAD) {
        return scratch ? attn_head_scratch(s->context, &args, scratch) : attn_head(s->context, &args);
    }
    return scratch ? attn_multihead_scratch(s->context, &args, scratch) : attn_multihead(s->context, &args);
}

static attn_status call_sdpa(const struct stage *s, const struct stage_copy *copy, size_t *scratch) {
    const attn_sdpa_args args = {.size = sizeof args,
                                 .q = &s->q,
                                 .k = s->row->cache ? NULL : &copy->k,
                                 .v = s->row->cache ? NULL : &copy->v,
                                 .out = &s->out,
                                 .scoring = &s->scoring,
                                 .kv = s->row->cache ? &copy->kv : NULL};

    return scratch ? attn_sdpa_scratch(s->context, &args, scratch) : attn_sdpa(s->context, &args);
}

static attn_status call_additive(const struct stage *s, const struct stage_copy *copy, size_t *scratch) {
    const attn_additive_args args = {.size = sizeof args,
                                     .q = &s->q,
                                     .k = &copy->k,
                                     .v = &copy->v,
                                     .w = &s->w_a,
                                     .out = &s->out,
                                     .scoring = &s->scoring};

    return scratch ? attn_additive_scratch(s->context, &args, scratch) : attn_additive(s->context, &args);
}

static attn_status call_append(const struct stage *s, const struct stage_copy *copy, size_t *scratch) {
    const attn_kv_append_args args = {.size = sizeof args, .kv = &copy->kv, .k = &copy->k, .v = &copy->v};

    copy->kv.lengths[0] = 0; /* to the same place again */
    return scratch ? attn_kv_append_scratch(s->context, &args, scratch) : attn_kv_append(s->context, &args);
}

static attn_status call(const struct stage *s, const struct stage_copy *copy, size_t *scratch) {
    switch (s->row->kind) {
    case ROW_LINEAR: return scratch ? ATTN_OK : attn_linear(s->context, &s->x, copy->w[0], &s->out);
    case ROW_SDPA: return call_sdpa(s, copy, scratch);
    case ROW_ADDITIVE: return call_additive(s, copy, scratch);
    case ROW_APPEND: return call_append(s, copy, scratch);
    case ROW_HEAD:
    case ROW_MULTIHEAD: return call_head(s, copy, scratch);
    }
    return ATTN_ERROR_ARGUMENT;
}

attn_status stage_call(struct stage *s) {
    const struct stage_copy *copy = &s->copy[s->next];

    s->next = s->next + 1 < s->n_copies ? s->next + 1 : 0;
    return s->row->unfused ? call_unfused(s, copy) : call(s, copy, NULL);
}

size_t stage_scratch(const struct stage *s) {
    size_t bytes = 0;

    if (s->row->unfused) {
        return unfused_scratch(&s->unfused);
    }
    return call(s, &s->copy[0], &bytes) == ATTN_OK ? bytes : 0;
}
