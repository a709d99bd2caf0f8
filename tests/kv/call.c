#include "kv/call.h"

#include <stdlib.h>
#include <string.h>

/* How many rows: none, one, a few, or more than fit. */
static size_t draw_count(const struct model *m, size_t sequence, struct rng *r) {
    const size_t capacity = model_capacity(&m->z), left = m->z.most - m->sequences[sequence].length;
    size_t n = rng_below(r, 4);
    if (rng_chance(r, 25)) n = rng_below(r, capacity + 1);
    if (rng_chance(r, 10)) n = capacity + rng_below(r, capacity + 1);
    if (m->z.ring || !rng_chance(r, 30)) n = n < left ? n : left;
    return n;
}

static void draw_sequences(struct call *c, const struct model *m, struct rng *r) {
    const size_t n = m->z.n_sequences;
    size_t all[CALL_MOST];
    ck_assert_uint_le(n, CALL_MOST);
    for (size_t i = 0; i < n; i++) all[i] = i;
    c->n = 1 + rng_below(r, n);
    if (rng_chance(r, 30)) { /* by their number */
        memcpy(c->sequences, all, sizeof all);
        return;
    }
    for (size_t i = 0; i < c->n; i++) {
        const size_t j = i + rng_below(r, n - i), s = all[j];
        all[j] = all[i];
        c->sequences[i] = s;
    }
    c->args.sequences = c->sequences;
}

/* Ragged, side by side with counts, or all of one length; gives the tensors' batch and rows. */
static void draw_form(struct call *c, const struct model *m, struct rng *r, size_t *batch, size_t *rows) {
    const size_t form = rng_below(r, 3);
    size_t most = 0, sum = rng_below(r, 3);
    for (size_t i = 0; i < c->n; i++) {
        c->starts[i] = sum;
        sum += c->counts[i];
        most = c->counts[i] > most ? c->counts[i] : most;
    }
    c->starts[c->n] = sum;
    *batch = c->n;
    *rows = most;
    if (form == 0) {
        *batch = 1;
        *rows = sum + rng_below(r, 3);
        c->args.starts = c->starts;
        c->args.n_starts = c->n;
    } else if (form == 1) {
        *rows += rng_below(r, 3);
        c->args.counts = c->counts;
    } else {
        *rows = c->counts[0];
        for (size_t i = 0; i < c->n && m->z.ring; i++) { /* all have room for it */
            const size_t left = m->z.most - m->sequences[c->sequences[i]].length;
            *rows = *rows < left ? *rows : left;
        }
        for (size_t i = 0; i < c->n; i++) c->counts[i] = *rows;
    }
}

static void draw_positions(struct call *c, struct rng *r, size_t n) {
    c->positions = malloc((n ? n : 1) * sizeof *c->positions);
    ck_assert_ptr_nonnull(c->positions);
    for (size_t i = 0; i < n; i++) c->positions[i] = (int64_t)rng_below(r, 2000000) - 1000000;
    if (rng_chance(r, 50)) c->args.positions = c->positions;
}

/* The rows of one tensor that belong to sequence i of the call, [count][head][column]. */
static float *gather(const struct call *c, size_t i, const struct grid *g) {
    const size_t head = g->size[1], column = g->size[3];
    float *to = malloc((c->counts[i] * head * column + 1) * sizeof *to);
    ck_assert_ptr_nonnull(to);
    for (size_t row = 0; row < c->counts[i]; row++)
        for (size_t h = 0; h < head; h++)
            memcpy(to + (row * head + h) * column,
                   c->args.starts ? grid_f32(g, 0, h, c->starts[i] + row) : grid_f32(g, i, h, row),
                   column * sizeof *to);
    return to;
}

static void rotate(const struct call *c, const struct model *m, size_t i, float *k, attn_context *context) {
    const size_t head = c->k.size[1], column = c->k.size[3], n = c->counts[i];
    const ptrdiff_t at = (ptrdiff_t)(c->args.starts ? c->starts[i] : i * c->k.size[2]);
    const int64_t length = (int64_t)m->sequences[c->sequences[i]].length;
    attn_tensor x = attn_tensor_contiguous(k, ATTN_F32, 1, n, head, column);
    const ptrdiff_t row = x.stride[1];
    x.size[1] = head;
    x.size[2] = n;
    x.stride[1] = x.stride[2];
    x.stride[2] = row;
    const attn_rope_args args = {.size = sizeof args,
                                 .rope = c->rope,
                                 .x = &x,
                                 .y = &x,
                                 .offsets = c->args.positions ? NULL : &length,
                                 .positions = c->args.positions ? c->positions + at : NULL};
    ck_assert_msg(attn_rope_apply(context, &args) == ATTN_OK, "%s", attn_context_error(context));
}

void call_open(struct call *c, const struct model *m, const attn_rope *rope, attn_context *context,
               struct rng *r) {
    size_t batch, rows;
    *c = (struct call){.rope = rope};
    c->args = (attn_kv_append_args){.size = sizeof c->args, .rope = rope};
    draw_sequences(c, m, r);
    for (size_t i = 0; i < c->n; i++) c->counts[i] = draw_count(m, c->sequences[i], r);
    draw_form(c, m, r, &batch, &rows);
    draw_positions(c, r, batch * rows);
    c->k = grid_make(r, sizeof(float), (size_t[]){batch, m->z.n_head, rows, m->z.p_k},
                     (unsigned)rng_below(r, LAYOUT_FAR));
    c->v = grid_make(r, sizeof(float), (size_t[]){batch, m->z.n_head, rows, m->z.p_v},
                     (unsigned)rng_below(r, LAYOUT_FAR));
    grid_fill(&c->k, r, FILL_NORMAL);
    grid_fill(&c->v, r, FILL_NORMAL);
    c->k_tensor = grid_tensor(&c->k);
    c->v_tensor = grid_tensor(&c->v);
    c->args.k = &c->k_tensor;
    c->args.v = &c->v_tensor;
    for (size_t i = 0; i < c->n; i++) {
        float *k = gather(c, i, &c->k);
        if (rope) rotate(c, m, i, k, context);
        c->rows[i] = (struct model_rows){c->sequences[i], c->counts[i], k, gather(c, i, &c->v)};
    }
}

void call_close(struct call *c) {
    for (size_t i = 0; i < c->n; i++) {
        union {
            const float *read;
            void *given;
        } k = {c->rows[i].k}, v = {c->rows[i].v};
        free(k.given);
        free(v.given);
    }
    free(c->positions);
    grid_free(&c->k);
    grid_free(&c->v);
}

size_t call_scratch(const struct call *c, const attn_kv *kv, attn_context *context) {
    attn_kv bare = *kv;
    attn_tensor k = c->k_tensor, v = c->v_tensor;
    attn_kv_append_args args = c->args;
    size_t bytes = 0;
    bare.lengths = bare.firsts = NULL;
    bare.blocks = NULL;
    bare.references = NULL;
    bare.k.data = bare.v.data = k.data = v.data = NULL;
    args.kv = &bare;
    args.k = &k;
    args.v = &v;
    args.sequences = args.counts = NULL;
    args.positions = NULL;
    ck_assert_msg(attn_kv_append_scratch(context, &args, &bytes) == ATTN_OK, "%s",
                  attn_context_error(context));
    return bytes;
}

attn_status call_run(struct call *c, const attn_kv *kv, attn_context *context) {
    c->args.kv = kv;
    return attn_kv_append(context, &c->args);
}
