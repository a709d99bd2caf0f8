/* Rows on their way into a cache. */
#include "kv_rows.h"

#include <string.h>

#include "convert.h"
#include "size.h"

/* ---- Rows ---------------------------------------------------------------------------------------------- */

/* A row of one head. */
static void put(const attn_context *c, const struct attn_kv_rows *r, const void *from, attn_dtype from_type,
                void *to) {
    if (from_type == r->to_type)
        memcpy(to, from, attn_dtype_row(r->to_type, r->columns));
    else
        attn_convert_row(c->backend, from_type, from, r->to_type, to, r->columns);
}

/* What is read lies along memory: the loop with the smaller stride is the inner one. */
static int heads_inside(const struct attn_kv_rows *r) {
    const size_t by_head = (size_t)(r->from_head < 0 ? -r->from_head : r->from_head),
                 by_row = (size_t)(r->from_row < 0 ? -r->from_row : r->from_row);
    return by_head < by_row;
}

void attn_kv_rows_move(const attn_context *c, const struct attn_kv_rows *r) {
    const int inside = heads_inside(r);
    const size_t outer = inside ? r->n : r->n_head, inner = inside ? r->n_head : r->n;
    for (size_t i = 0; i < outer; i++)
        for (size_t j = 0; j < inner; j++) {
            const ptrdiff_t row = (ptrdiff_t)(inside ? i : j), head = (ptrdiff_t)(inside ? j : i);
            put(c, r, r->from + row * r->from_row + head * r->from_head, r->from_type,
                r->to + row * r->to_row + head * r->to_head);
        }
}

/* ---- Turning ------------------------------------------------------------------------------------------- */

size_t attn_kv_stage_rows(attn_kv_layout layout, attn_dtype from, attn_dtype to, int rotated) {
    if (from == to && (!rotated || (to == ATTN_F32 && layout == ATTN_KV_ROWS))) return 0;
    if (layout == ATTN_KV_ROWS && !rotated) return 0;
    return ATTN_KV_PANEL + 1;
}

static const float *floats(const char *p) { return (const float *)(const void *)p; }

/* Rows [row, row + n) of one head, or heads [head, head + n) of one row, turned into the lines of `to`, one
 * behind the other, and before that, where they are no floats, made floats there. */
static void turn_lines(const attn_context *c, const struct attn_kv_rows *r, const struct attn_kv_turn *turn,
                       int inside, size_t row, size_t head, size_t n, float *to) {
    const ptrdiff_t columns = (ptrdiff_t)r->columns, step = inside ? r->from_head : r->from_row;
    const char *from = r->from + (ptrdiff_t)row * r->from_row + (ptrdiff_t)head * r->from_head;
    const size_t table_row = attn_rope_row_bytes(turn->rope) / sizeof(float);
    struct attn_rope_rows lines = {.table = turn->table + row * table_row,
                                   .n_rows = inside ? 1 : n,
                                   .n_head = inside ? n : 1,
                                   .x = to,
                                   .x_row = columns,
                                   .x_head = columns,
                                   .y = to,
                                   .y_row = columns,
                                   .y_head = columns};
    if (r->from_type == ATTN_F32) {
        lines.x = floats(from);
        lines.x_row = lines.x_head = step / (ptrdiff_t)sizeof(float);
    } else {
        for (size_t i = 0; i < n; i++)
            c->backend->to_f32(r->from_type, from + (ptrdiff_t)i * step, r->columns, to + i * r->columns);
    }
    attn_rope_rotate(c, turn->rope, &lines);
}

void attn_kv_rows_turn(const attn_context *c, const struct attn_kv_rows *r, const struct attn_kv_turn *turn) {
    const ptrdiff_t e = sizeof(float);
    if (r->from_type == ATTN_F32 && r->to_type == ATTN_F32) {
        const struct attn_rope_rows rows = {.table = turn->table,
                                            .n_rows = r->n,
                                            .n_head = r->n_head,
                                            .x = floats(r->from),
                                            .x_row = r->from_row / e,
                                            .x_head = r->from_head / e,
                                            .y = (float *)(void *)r->to,
                                            .y_row = r->to_row / e,
                                            .y_head = r->to_head / e};
        attn_rope_rotate(c, turn->rope, &rows);
        return;
    }
    const int inside = heads_inside(r);
    const size_t outer = inside ? r->n : r->n_head, inner = inside ? r->n_head : r->n;
    for (size_t i = 0; i < outer; i++)
        for (size_t j = 0, n; j < inner; j += n) {
            const size_t row = inside ? i : j, head = inside ? j : i;
            char *to = r->to + (ptrdiff_t)row * r->to_row + (ptrdiff_t)head * r->to_head;
            n = attn_min(ATTN_KV_PANEL, inner - j);
            turn_lines(c, r, turn, inside, row, head, n, turn->stage);
            for (size_t k = 0; k < n; k++)
                put(c, r, turn->stage + k * r->columns, ATTN_F32,
                    to + (ptrdiff_t)k * (inside ? r->to_head : r->to_row));
        }
}

/* ---- Panels -------------------------------------------------------------------------------------------- */

/* 16 keys into a panel, 4 at a time: a panel's line is written in four vectors, and only 4 lines of keys
 * are wanted at once (rows a multiple of 4096 bytes apart share the ways of a cache). Twice as fast as key
 * by key. Of 2 bytes 8 at a time: 9 % faster than 4. */
static void to_whole_panel32(uint32_t *restrict to, const uint32_t *restrict from, ptrdiff_t row,
                             size_t columns) {
    for (size_t c = 0; c < columns; c += ATTN_KV_PANEL) {
        const size_t end = attn_min(c + ATTN_KV_PANEL, columns);
        for (size_t i = 0; i < ATTN_KV_PANEL; i += 4) {
            const uint32_t *k0 = from + (ptrdiff_t)i * row, *k1 = k0 + row, *k2 = k1 + row, *k3 = k2 + row;
            for (size_t k = c; k < end; k++) {
                const uint32_t four[4] = {k0[k], k1[k], k2[k], k3[k]};
                memcpy(to + k * ATTN_KV_PANEL + i, four, sizeof four);
            }
        }
    }
}

static void to_whole_panel16(uint16_t *restrict to, const uint16_t *restrict from, ptrdiff_t row,
                             size_t columns) {
    for (size_t c = 0; c < columns; c += 2 * ATTN_KV_PANEL) {
        const size_t end = attn_min(c + 2 * ATTN_KV_PANEL, columns);
        for (size_t i = 0; i < ATTN_KV_PANEL; i += 8) {
            const uint16_t *k0 = from + (ptrdiff_t)i * row, *k1 = k0 + row, *k2 = k1 + row, *k3 = k2 + row,
                           *k4 = k3 + row, *k5 = k4 + row, *k6 = k5 + row, *k7 = k6 + row;
            for (size_t k = c; k < end; k++) {
                const uint16_t eight[8] = {k0[k], k1[k], k2[k], k3[k], k4[k], k5[k], k6[k], k7[k]};
                memcpy(to + k * ATTN_KV_PANEL + i, eight, sizeof eight);
            }
        }
    }
}

/* n keys into columns of a panel, 16 features at a time, whose lines stay in the cache. */
static void to_panel32(uint32_t *restrict to, const uint32_t *restrict from, ptrdiff_t row, size_t n,
                       size_t columns) {
    for (size_t c = 0; c < columns; c += ATTN_KV_PANEL) {
        const size_t end = attn_min(c + ATTN_KV_PANEL, columns);
        for (size_t i = 0; i < n; i++)
            for (size_t k = c; k < end; k++)
                to[k * ATTN_KV_PANEL + i] = from[(ptrdiff_t)i * row + (ptrdiff_t)k];
    }
}

static void to_panel16(uint16_t *restrict to, const uint16_t *restrict from, ptrdiff_t row, size_t n,
                       size_t columns) {
    for (size_t c = 0; c < columns; c += ATTN_KV_PANEL) {
        const size_t end = attn_min(c + ATTN_KV_PANEL, columns);
        for (size_t i = 0; i < n; i++)
            for (size_t k = c; k < end; k++)
                to[k * ATTN_KV_PANEL + i] = from[(ptrdiff_t)i * row + (ptrdiff_t)k];
    }
}

/* n keys of the panel's own type, `row` bytes apart. */
static void to_panel(const struct attn_kv_rows *r, const char *from, ptrdiff_t row) {
    const int whole = r->n == ATTN_KV_PANEL;
    const void *x = from;
    void *to = r->to;
    if (attn_dtype_bytes(r->to_type) == sizeof(uint32_t)) {
        row /= (ptrdiff_t)sizeof(uint32_t);
        whole ? to_whole_panel32(to, x, row, r->columns) : to_panel32(to, x, row, r->n, r->columns);
    } else {
        row /= (ptrdiff_t)sizeof(uint16_t);
        whole ? to_whole_panel16(to, x, row, r->columns) : to_panel16(to, x, row, r->n, r->columns);
    }
}

void attn_kv_rows_panel(const attn_context *c, const struct attn_kv_rows *r,
                        const struct attn_kv_turn *turn) {
    const ptrdiff_t line = (ptrdiff_t)(r->columns * sizeof(float));
    if (!turn->rope && r->from_type == r->to_type) {
        to_panel(r, r->from, r->from_row);
        return;
    }
    float *stage = turn->stage, *turned = stage + r->columns;
    if (turn->rope) turn_lines(c, r, turn, 0, 0, 0, r->n, turned);
    if (turn->rope && r->to_type == ATTN_F32) {
        to_panel(r, (const char *)turned, line);
        return;
    }
    /* Rounded rows stand where the turned one before has been read. */
    for (size_t i = 0; i < r->n; i++)
        put(c, r, turn->rope ? (const char *)(turned + i * r->columns) : r->from + (ptrdiff_t)i * r->from_row,
            turn->rope ? ATTN_F32 : r->from_type, stage + i * r->columns);
    to_panel(r, (const char *)stage, line);
}

void attn_kv_panel_copy(char *to, const char *from, attn_dtype type, size_t n, size_t columns) {
    const size_t e = attn_dtype_bytes(type);
    if (n == ATTN_KV_PANEL) {
        memcpy(to, from, columns * ATTN_KV_PANEL * e);
        return;
    }
    for (size_t c = 0; c < columns; c++)
        memcpy(to + c * ATTN_KV_PANEL * e, from + c * ATTN_KV_PANEL * e, n * e);
}
