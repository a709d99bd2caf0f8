/* attn_kv_append(): its arguments, checked, and its scratch. */
#include "kv.h"
#include "kv_rows.h"
#include "size.h"

/* ---- Rows of each sequence ----------------------------------------------------------------------------- */

static size_t count_of(const struct attn_kv_append *a, size_t b) {
    if (a->starts) return a->starts[b + 1] - a->starts[b];
    return a->counts ? a->counts[b] : a->k.size[ROW];
}

static size_t sequence_of(const struct attn_kv_append *a, size_t b) {
    return a->sequences ? a->sequences[b] : b;
}

/* ---- Checks -------------------------------------------------------------------------------------------- */

static attn_status check_sizes(attn_context *c, const struct attn_kv_append *a) {
    const struct attn_kv_view *v = &a->view;
    ATTN_TRY(attn_tensor_expect(c, "k", &a->k, SIZE_MAX, v->n_head, SIZE_MAX, v->p_k));
    ATTN_TRY(attn_tensor_expect(c, "v", &a->v, a->k.size[BATCH], v->n_head, a->k.size[ROW], v->p_v));
    if (a->starts && a->k.size[BATCH] != 1)
        return attn_fail(c, ATTN_ERROR_SHAPE, "k: its batch size is %zu, but with args.starts it is 1",
                         a->k.size[BATCH]);
    if (a->starts && a->counts)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "args.counts is given beside args.starts");
    return ATTN_OK;
}

static attn_status check_arrays(attn_context *c, struct attn_kv_append *a) {
    const size_t n = a->n_pieces;
    size_t rows;
    if (__builtin_mul_overflow(a->k.size[BATCH], a->k.size[ROW], &rows)) rows = SIZE_MAX;
    ATTN_TRY(attn_kv_array(c, "args.sequences", a->sequences, n, sizeof *a->sequences, &a->spans[0]));
    ATTN_TRY(attn_kv_array(c, "args.counts", a->counts, n, sizeof *a->counts, &a->spans[1]));
    ATTN_TRY(attn_kv_array(c, "args.starts", a->starts, n == SIZE_MAX ? n : n + 1, sizeof *a->starts,
                           &a->spans[2]));
    return attn_kv_array(c, "args.positions", a->positions, rows, sizeof *a->positions, &a->spans[3]);
}

static attn_status check_rows(attn_context *c, const struct attn_kv_append *a) {
    const size_t rows = a->k.size[ROW];
    for (size_t b = 0; a->starts && b < a->n_pieces; b++)
        if (a->starts[b] > a->starts[b + 1])
            return attn_fail(c, ATTN_ERROR_SHAPE, "args.starts[%zu] is %zu, less than the %zu before it",
                             b + 1, a->starts[b + 1], a->starts[b]);
    if (a->starts && a->starts[a->n_pieces] > rows)
        return attn_fail(c, ATTN_ERROR_SHAPE, "args.starts[%zu] is %zu, more than the %zu rows there are",
                         a->n_pieces, a->starts[a->n_pieces], rows);
    for (size_t b = 0; a->counts && b < a->n_pieces; b++)
        if (a->counts[b] > rows)
            return attn_fail(c, ATTN_ERROR_SHAPE, "args.counts[%zu] is %zu, more than the %zu rows there are",
                             b, a->counts[b], rows);
    return ATTN_OK;
}

/* A sequence of the cache, the length that it will have, and the positions of its rows. */
static attn_status check_piece(attn_context *c, const struct attn_kv_append *a, size_t b) {
    const struct attn_kv_view *v = &a->view;
    const size_t s = sequence_of(a, b), count = count_of(a, b);
    const int64_t *positions = attn_kv_positions(a, a->starts ? 0 : b, a->starts ? a->starts[b] : 0);
    size_t length = 0, after;
    if (s >= v->kv.n_sequences)
        return attn_fail(c, ATTN_ERROR_SHAPE, "args.sequences[%zu] is %zu, but kv has %zu sequences", b, s,
                         v->kv.n_sequences);
    if (v->kv.lengths) length = v->kv.lengths[s];
    if (__builtin_add_overflow(length, count, &after) || after > PTRDIFF_MAX)
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "kv.lengths[%zu]: %zu keys and %zu more are too many", s,
                         length, count);
    if (!a->rotated) return ATTN_OK;
    return attn_rope_positions_check(c, positions ? "args.positions" : "kv.lengths", positions,
                                     positions                    ? 0
                                     : length > (size_t)INT64_MAX ? INT64_MAX
                                                                  : (int64_t)length,
                                     count);
}

/* ---- Scratch ------------------------------------------------------------------------------------------- */

/* Rows of a task: enough to be worth the hand-over; whole panels, where keys lie in panels. */
static void plan_tasks(struct attn_kv_append *a, size_t rows) {
    enum { WORK = 1 << 17 }; /* floats that are moved */
    const struct attn_kv_view *v = &a->view;
    const int panels = v->kv.layout == ATTN_KV_PANELS;
    size_t columns;
    if (__builtin_add_overflow(v->p_k, v->p_v, &columns) ||
        __builtin_mul_overflow(columns, v->n_head, &columns))
        columns = SIZE_MAX;
    a->task_rows = attn_max(1, WORK / columns);
    if (a->rotated) a->task_rows = attn_min(a->task_rows, attn_rope_rows_of_task(&a->rope, columns));
    a->task_rows = attn_max(1, attn_min(a->task_rows, rows));
    if (panels) a->task_rows = attn_ceil_div(a->task_rows, ATTN_KV_PANEL) * ATTN_KV_PANEL;
    a->table_rows = a->task_rows + (panels ? ATTN_KV_PANEL - 1 : 0); /* its begin moves to that of a panel */
}

static int add_part(size_t *sum, size_t n, size_t each, size_t *at) {
    *at = *sum;
    return attn_size_add(sum, n, each);
}

/* Sizes by shape alone, and where everything lies. */
static attn_status plan(attn_context *c, struct attn_kv_append *a, char *scratch) {
    const struct attn_kv_view *v = &a->view;
    const size_t n = a->n_pieces;
    const size_t stage = attn_kv_stage_rows(v->kv.layout, a->k.dtype, v->k_type, a->rotated);
    size_t rows, taken, sum = 0, worker = 0, unused, at[8];
    int fits = n < PTRDIFF_MAX / 2 && !__builtin_mul_overflow(a->k.size[BATCH], a->k.size[ROW], &rows);
    if (fits) {
        /* Of the blocks that n rows go to two may be begun or shared, and each has one of the rows. */
        taken = attn_min(v->n_blocks, attn_min(rows, rows / v->block_rows + 2 * n));
        plan_tasks(a, rows);
        fits = add_part(&sum, attn_ceil_div(v->kv.n_sequences, 64), sizeof *a->seen, &at[0]) &&
               add_part(&sum, n, sizeof *a->pieces, &at[1]) &&
               add_part(&sum, 2 * n, sizeof *a->copies, &at[2]) &&
               add_part(&sum, n + 1, sizeof *a->piece_rows, &at[3]) &&
               add_part(&sum, 2 * n + 1, sizeof *a->copy_rows, &at[4]) &&
               add_part(&sum, taken, sizeof *a->taken, &at[5]) &&
               add_part(&sum, 1, a->rotated ? attn_rope_memory_bytes(&a->rope) : 0, &at[6]) &&
               (!a->rotated || add_part(&worker, a->table_rows, attn_rope_row_bytes(&a->rope), &unused)) &&
               add_part(&worker, v->p_k, stage * sizeof(float), &unused) &&
               add_part(&sum, c->executor.n_workers, worker, &at[7]);
    }
    if (!fits)
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "k: the scratch for it does not fit the address space");
    a->worker_bytes = worker;
    a->bytes = sum;
    if (!scratch) return ATTN_OK;
    a->seen = (uint64_t *)(void *)(scratch + at[0]);
    a->pieces = (struct attn_kv_piece *)(void *)(scratch + at[1]);
    a->copies = (struct attn_kv_copy *)(void *)(scratch + at[2]);
    a->piece_rows = (size_t *)(void *)(scratch + at[3]);
    a->copy_rows = (size_t *)(void *)(scratch + at[4]);
    a->taken = (struct attn_kv_taken *)(void *)(scratch + at[5]);
    a->rope_memory = scratch + at[6];
    a->workers = scratch + at[7];
    return ATTN_OK;
}

attn_status attn_kv_append_check(attn_context *c, struct attn_kv_append *a, int query) {
    ATTN_TRY(check_sizes(c, a));
    if (!a->rotated) a->positions = NULL; /* not read */
    a->n_pieces = a->starts ? a->n_starts : a->k.size[BATCH];
    ATTN_TRY(check_arrays(c, a));
    if (!query && !a->sequences && a->n_pieces > a->view.kv.n_sequences)
        return attn_fail(c, ATTN_ERROR_SHAPE, "%s: %zu sequences, but kv has %zu",
                         a->starts ? "args.n_starts" : "k", a->n_pieces, a->view.kv.n_sequences);
    ATTN_TRY(check_rows(c, a));
    for (size_t b = 0; b < a->n_pieces && (a->sequences || !query); b++) ATTN_TRY(check_piece(c, a, b));
    return plan(c, a, NULL);
}

/* ---- Blocks -------------------------------------------------------------------------------------------- */

/* What sequence b of the call stores. A ring that is given more rows than it holds keeps the last ones. */
static attn_status read_piece(attn_context *c, struct attn_kv_append *a, size_t b) {
    const struct attn_kv_view *v = &a->view;
    const size_t s = sequence_of(a, b), count = count_of(a, b);
    const size_t old = attn_kv_length(v, s), length = old + count;
    const uint64_t bit = UINT64_C(1) << s % 64;
    if (a->seen[s / 64] & bit)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "args.sequences[%zu] is %zu, which is there before", b, s);
    a->seen[s / 64] |= bit;
    if (!v->kv.firsts && length > v->capacity)
        return attn_fail(c, ATTN_ERROR_CAPACITY,
                         "kv: sequence %zu has %zu keys and room for %zu, not for %zu more", s, old,
                         v->capacity, count);
    const size_t kept = attn_min(count, v->capacity), left = length > v->capacity ? length - v->capacity : 0;
    a->pieces[b] = (struct attn_kv_piece){.sequence = s,
                                          .batch = a->starts ? 0 : b,
                                          .row = (a->starts ? a->starts[b] : 0) + count - kept,
                                          .key = length - kept,
                                          .n = kept,
                                          .first = attn_max(attn_kv_first(v, s), left),
                                          .length = length};
    return ATTN_OK;
}

attn_status attn_kv_append_reserve(attn_context *c, struct attn_kv_append *a, void *scratch) {
    ATTN_TRY(plan(c, a, scratch));
    for (size_t i = 0; i < attn_ceil_div(a->view.kv.n_sequences, 64); i++) a->seen[i] = 0;
    a->piece_rows[0] = 0;
    for (size_t b = 0; b < a->n_pieces; b++) {
        ATTN_TRY(read_piece(c, a, b));
        a->piece_rows[b + 1] = a->piece_rows[b] + a->pieces[b].n;
    }
    return attn_kv_take_blocks(c, a);
}

/* ---- The call ------------------------------------------------------------------------------------------ */

static attn_status check(attn_context *c, const attn_kv_append_args *from, int query,
                         struct attn_kv_append *a) {
    const unsigned tensor = TENSOR_FLOATS | (query ? TENSOR_NO_DATA : 0);
    struct attn_span spans[1 + 3 + ATTN_KV_APPEND_SPANS]; /* one of what is written; what is read */
    attn_kv_append_args args;
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(attn_struct_read(c, "args", &args, sizeof args, from));
    ATTN_TRY(attn_kv_read(c, args.kv, ATTN_KV_WRITTEN | (query ? ATTN_KV_QUERY : 0), &a->view));
    ATTN_TRY(attn_tensor_check(c, "k", args.k, tensor, &spans[1]));
    ATTN_TRY(attn_tensor_check(c, "v", args.v, tensor, &spans[2]));
    a->k = *args.k;
    a->v = *args.v;
    a->sequences = args.sequences;
    a->counts = args.counts;
    a->starts = args.starts;
    a->n_starts = args.n_starts;
    a->positions = args.positions;
    a->rotated = args.rope != NULL;
    spans[3] = attn_span_of("rope", NULL, 0);
    if (args.rope) {
        ATTN_TRY(attn_rope_read(c, "rope", args.rope, a->view.p_k, &a->rope));
        spans[3] = attn_rope_span(&a->rope);
    }
    ATTN_TRY(attn_kv_append_check(c, a, query));
    if (query) return ATTN_OK;
    for (int i = 0; i < ATTN_KV_APPEND_SPANS; i++) spans[4 + i] = a->spans[i];
    for (int i = 0; i < ATTN_KV_SPANS; i++) {
        spans[0] = a->view.spans[i];
        ATTN_TRY(attn_spans_check(c, spans, sizeof spans / sizeof *spans, 1));
    }
    return ATTN_OK;
}

attn_status attn_kv_append_scratch(attn_context *c, const attn_kv_append_args *args, size_t *bytes) {
    struct attn_kv_append a;
    ATTN_TRY(check(c, args, 1, &a));
    if (!bytes) return attn_fail(c, ATTN_ERROR_ARGUMENT, "bytes is null");
    *bytes = a.bytes + ATTN_ALIGN;
    return ATTN_OK;
}

attn_status attn_kv_append(attn_context *c, const attn_kv_append_args *args) {
    struct attn_kv_append a;
    void *scratch;
    ATTN_TRY(check(c, args, 0, &a));
    ATTN_TRY(attn_scratch_take(c, a.bytes, &scratch));
    ATTN_TRY(attn_kv_append_reserve(c, &a, scratch));
    attn_kv_append_run(c, &a);
    return ATTN_OK;
}
