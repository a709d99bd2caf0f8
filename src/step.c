/* One layer with a cache (attn_multihead_step): projections, norms, RoPE, append, pooling, W_o. */
#include "step.h"

#include <string.h>

/* Positions of all rows of q: those given, or places in the cache before the new keys are counted. */
static void set_positions(struct attn_step *s) {
    int64_t *to = s->turn.positions;
    const int64_t *given = s->append.positions;
    memset(to, 0, s->turn.rows * sizeof *to); /* of rows that do not count */
    for (size_t b = 0; b < s->append.n_pieces; b++) {
        const size_t row = attn_step_row(s, b), n = attn_step_count(s, b);
        const size_t length = attn_kv_length(&s->append.view, attn_step_sequence(s, b));
        for (size_t i = 0; i < n; i++) to[row + i] = given ? given[row + i] : (int64_t)(length + i);
    }
}

static void clear_rows(const attn_tensor *out, size_t b, size_t row, size_t end) {
    for (; row < end; row++)
        memset((float *)out->data + (ptrdiff_t)b * attn_stride(out, BATCH) +
                   (ptrdiff_t)row * attn_stride(out, ROW),
               0, out->size[COLUMN] * sizeof(float));
}

/* W_o, whose bias would show in rows that do not count. */
static void run_output(attn_context *c, const struct attn_step *s) {
    const attn_tensor *out = s->a.out;
    const size_t n = out->size[ROW];
    attn_layer_output(c, &s->layer, &s->heads, out);
    if (s->a.starts) clear_rows(out, 0, s->a.starts[s->a.n_starts], n);
    for (size_t b = 0; s->a.counts && b < out->size[BATCH]; b++) clear_rows(out, b, s->a.counts[b], n);
}

static void run(attn_context *c, struct attn_step *s, char *scratch) {
    attn_projections_run(c, (struct attn_projection *const[]){&s->q, &s->k, &s->v});
    if (s->turn.rope) {
        attn_rope_prepare(c, &s->append.rope, s->append.rope_memory);
        set_positions(s);
    }
    attn_turn_run(c, &s->turn);
    attn_kv_append_run(c, &s->append);
    s->p.kv = &s->append.view;
    s->p.kv_sequences = s->a.sequences;
    attn_pool_run(c, &s->p, scratch + s->at[STEP_POOL]);
    if (s->layer.w.w_o) run_output(c, s);
}

attn_status attn_multihead_step(attn_context *c, const attn_step_args *args) {
    struct attn_step s;
    void *scratch;
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(attn_step_read(c, args, 0, &s));
    ATTN_TRY(attn_scratch_take(c, s.bytes, &scratch));
    attn_step_place(&s, scratch);
    ATTN_TRY(attn_step_check(c, 0, &s));
    ATTN_TRY(attn_scratch_take(c, s.bytes, &scratch));
    attn_step_place(&s, scratch); /* it may have moved */
    ATTN_TRY(attn_kv_append_reserve(c, &s.append, (char *)scratch + s.at[STEP_APPEND]));
    run(c, &s, scratch);
    return ATTN_OK;
}

attn_status attn_multihead_step_scratch(attn_context *c, const attn_step_args *args, size_t *bytes) {
    struct attn_step s;
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(attn_step_read(c, args, 1, &s));
    ATTN_TRY(attn_step_check(c, 1, &s));
    if (!bytes) return attn_fail(c, ATTN_ERROR_ARGUMENT, "bytes is null");
    *bytes = s.bytes + ATTN_ALIGN;
    return ATTN_OK;
}
