/* Rows of keys and values on their way into a cache: copied, converted, turned, put into panels. */
#ifndef ATTN_KV_ROWS_H
#define ATTN_KV_ROWS_H

#include "kv.h"

/* Rows of `columns` values in all heads; strides in bytes. */
struct attn_kv_rows {
    char *to;
    attn_dtype to_type;
    ptrdiff_t to_row, to_head;
    const char *from;
    attn_dtype from_type;
    ptrdiff_t from_row, from_head;
    size_t n, n_head, columns;
};

/* How keys turn: rope NULL: not. */
struct attn_kv_turn {
    const struct attn_rope_plan *rope;
    const float *table; /* of the first row on */
    float *stage;       /* attn_kv_stage_rows() rows of k's columns */
};

/* Keys stand there as f32 before they are rounded, and before they go into a panel: a panel of them and one more. 0 where
 * none do. */
size_t attn_kv_stage_rows(attn_kv_layout layout, attn_dtype from, attn_dtype to, int rotated);

/* To rows. Those of the cache's own type are copied as they are. */
void attn_kv_rows_move(const attn_context *c, const struct attn_kv_rows *r);
void attn_kv_rows_turn(const attn_context *c, const struct attn_kv_rows *r, const struct attn_kv_turn *turn);

/* At most a panel of keys of one head: to one panel, at whose key and column 0 `to` is; to_row is not used. */
void attn_kv_rows_panel(const attn_context *c, const struct attn_kv_rows *r, const struct attn_kv_turn *turn);

/* n keys of one panel to the same places of another. */
void attn_kv_panel_copy(char *to, const char *from, attn_dtype type, size_t n, size_t columns);

#endif
