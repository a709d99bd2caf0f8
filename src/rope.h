/*
 * Rotary position embedding inside the library: attn_kv_append and attn_multihead rotate through this.
 *
 *     attn_rope_read(c, "rope", rope, columns, &plan)          checks
 *     attn_rope_prepare(c, &plan, memory)                      once a call, before the tasks
 *     attn_rope_table(c, &plan, positions, first, n, table)    in a task: a table of its own for n rows
 *     attn_rope_rotate(c, &plan, &rows)                        in the same task, as often as there are tensors
 *
 * The last two allocate nothing and write nothing but the table and y.
 */
#ifndef ATTN_ROPE_H
#define ATTN_ROPE_H

#include <stdint.h>

#include "context.h"
#include "tensor.h"

struct attn_rope_plan {
    struct attn_rope_key key;
    const float *divisors; /* dims / 2, or NULL */
    size_t columns;        /* of a row */
    size_t n, n_padded;    /* pairs; rounded up to ATTN_PANEL_UNIT */
    int interleaved;
    double magnitude;
    const double *turns; /* attn_rope_prepare(): 2 n_padded */
};

/* Rows as attn_rope_task has them, strides in elements; row r uses row r of the table. */
struct attn_rope_rows {
    const float *table;
    size_t n_rows, n_head;
    const float *x;
    ptrdiff_t x_row, x_head;
    float *y; /* x with x's strides, or elsewhere */
    ptrdiff_t y_row, y_head;
};

/* Checks a caller's parameters for rows of `columns`. name: what messages call the struct. ARGUMENT, SHAPE. */
attn_status attn_rope_read(attn_context *c, const char *name, const attn_rope *rope, size_t columns,
                           struct attn_rope_plan *plan);

/* Span of the divisors, which outputs must not overlap. */
struct attn_span attn_rope_span(const struct attn_rope_plan *plan);

/* Bytes of memory that attn_rope_prepare() needs, which must live as long as the tasks: 0 for up to 1024 dims. */
size_t attn_rope_memory_bytes(const struct attn_rope_plan *plan);

/* The frequencies: those of the context's cache, computed anew where it holds others, or in memory. A context's
 * calls are one at a time; two plans of one call must not differ in their frequencies. */
void attn_rope_prepare(attn_context *c, struct attn_rope_plan *plan, void *memory);

/* Bytes of a table row, a multiple of ATTN_ALIGN; a table is aligned to ATTN_ALIGN. */
size_t attn_rope_row_bytes(const struct attn_rope_plan *plan);

/* Rows that a task takes at a time, so that their table stays in L1 and there are tasks enough: from shapes alone.
 * columns_of_all: columns of all heads that one row's sines turn. */
size_t attn_rope_rows_of_task(const struct attn_rope_plan *plan, size_t columns_of_all);

/* ARGUMENT where a position is not within [-2^53, 2^53]: n of them, positions[i] + first, or first + i if NULL. */
attn_status attn_rope_positions_check(attn_context *c, const char *name, const int64_t *positions,
                                      int64_t first, size_t n);

/* The table for rows at positions[r] + first, or first + r where positions is NULL. */
void attn_rope_table(const attn_context *c, const struct attn_rope_plan *plan, const int64_t *positions,
                     int64_t first, size_t n_rows, float *table);

void attn_rope_rotate(const attn_context *c, const struct attn_rope_plan *plan,
                      const struct attn_rope_rows *rows);

#endif
