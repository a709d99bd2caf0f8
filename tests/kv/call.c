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

/* An input of the type, with values that it has exactly. */
static void draw_rows(const struct model *m, struct rng *r, size_t batch, size_t rows, size_t columns,
                      struct grid *g, attn_tensor *t) {
    static const attn_dtype types[] = {ATTN_F32, ATTN_F32, ATTN_F16, ATTN_BF16};
    static const enum fill fills[] = {FILL_NORMAL, FILL_NORMAL, FILL_WIDE, FILL_INTEGER};
    const attn_dtype type = types[rng_below(r, 4)];
    const enum fill fill = fills[rng_below(r, 4)];
    float *x = malloc(columns * sizeof *x);
    ck_assert_ptr_nonnull(x);
    *g = grid_make(r, attn_dtype_size(type, NULL), (size_t[]){batch, m->z.n_head, rows, columns},
                   (unsigned)rng_below(r, LAYOUT_FAR));
    for (size_t b = 0; b < batch; b++)
        for (size_t h = 0; h < m->z.n_head; h++)
            for (size_t i = 0; i < rows; i++) {
                rng_floats(r, fill, x, columns);
                attn_backend_scalar.from_f32(type, x, columns, grid_u8(g, b, h, i));
            }
    *t = grid_tensor(g);
    t->dtype = type;
    free(x);
}

/* The rows of one tensor that belong to sequence i of the call, [count][head][column]. */
static float *gather(const struct call *c, size_t i, const struct grid *g, attn_dtype type) {
    const size_t head = g->size[1], column = g->size[3];
    float *to = malloc((c->counts[i] * head * column + 1) * sizeof *to);
    ck_assert_ptr_nonnull(to);
    for (size_t row = 0; row < c->counts[i]; row++)
        for (size_t h = 0; h < head; h++)
            attn_backend_scalar.to_f32(
                type, c->args.starts ? grid_u8(g, 0, h, c->starts[i] + row) : grid_u8(g, i, h, row), column,
                to + (row * head + h) * column);
    return to;
}

/* The rows as a cache of the type has them; frees x. */
static unsigned char *stored(float *x, size_t rows, size_t columns, attn_dtype type) {
    const size_t row = model_row(type, columns);
    unsigned char *to = malloc(rows * row + 1);
    ck_assert_ptr_nonnull(to);
    for (size_t i = 0; i < rows; i++)
        attn_backend_scalar.from_f32(type, x + i * columns, columns, to + i * row);
    free(x);
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
    draw_rows(m, r, batch, rows, m->z.p_k, &c->k, &c->k_tensor);
    draw_rows(m, r, batch, rows, m->z.p_v, &c->v, &c->v_tensor);
    c->args.k = &c->k_tensor;
    c->args.v = &c->v_tensor;
    for (size_t i = 0; i < c->n; i++) {
        const size_t n = c->counts[i] * m->z.n_head;
        float *k = gather(c, i, &c->k, c->k_tensor.dtype), *v = gather(c, i, &c->v, c->v_tensor.dtype);
        if (rope) rotate(c, m, i, k, context);
        c->rows[i] = (struct model_rows){c->sequences[i], c->counts[i], stored(k, n, m->z.p_k, m->z.k_type),
                                         stored(v, n, m->z.p_v, m->z.v_type)};
    }
}

void call_close(struct call *c) {
    for (size_t i = 0; i < c->n; i++) {
        union {
            const unsigned char *read;
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
