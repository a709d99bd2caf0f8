/* Attention pooling: rows of a task, their addresses, and a block of them as a task of its own. */
#ifndef ATTN_POOL_ROWS_H
#define ATTN_POOL_ROWS_H

#include "backend.h"
#include "keys.h"
#include "size.h"
#include "typed.h"

/* Lanes beyond the last row repeat it, so that they never need a rule of their
 * own. */
ATTN_INLINE size_t pool_row(const struct attn_pool_task *t, size_t lane) {
    return attn_min(lane, t->n_rows - 1);
}
ATTN_INLINE ptrdiff_t pool_offset(const struct attn_pool_task *t, size_t row, ptrdiff_t per_query,
                                  ptrdiff_t per_head) {
    const size_t i = t->first + row;
    return (ptrdiff_t)(i / t->group) * per_query + (ptrdiff_t)(i % t->group) * per_head;
}

/* An address `elements` on. */
ATTN_INLINE const void *pool_from(attn_dtype type, const void *p, ptrdiff_t elements) {
    return (const char *)p + elements * (type == ATTN_F32 ? 4 : 2);
}
ATTN_INLINE void *pool_to(const struct attn_pool_task *t, ptrdiff_t elements) {
    return (char *)t->out + elements * (t->out_type == ATTN_F32 ? 4 : 2);
}

/* Asks for n elements of each row, from base on. */
static void pool_ask_rows(const struct attn_pool_task *t, attn_dtype type, const void *base,
                          ptrdiff_t per_query, ptrdiff_t per_head, size_t n) {
    const size_t bytes = n * (type == ATTN_F32 ? 4 : 2);
    for (size_t row = 0; row < t->n_rows; row++) {
        const char *p = pool_from(type, base, pool_offset(t, row, per_query, per_head));
        for (size_t at = 0; at < bytes; at += 64) ATTN_PREFETCH_L1(p + at);
    }
}

/* Block `block` of `rows` rows each as a task of its own. */
static struct attn_pool_task pool_block_task(const struct attn_pool_task *t, size_t block, size_t rows) {
    static const ptrdiff_t mask_bytes[] = {
        [ATTN_MASK_NONE] = 0, [ATTN_MASK_BOOL] = 1, [ATTN_MASK_F32] = 4, [ATTN_MASK_F16] = 2};
    struct attn_pool_task s = *t;
    const size_t row = block * rows;
    const ptrdiff_t queries = (ptrdiff_t)((t->first + row) / t->group);
    s.n_rows = attn_min(t->n_rows - row, rows);
    s.first = (t->first + row) % t->group;
    s.lo += row;
    s.hi += row;
    s.also += row;
    s.position += queries;
    s.q = pool_from(t->q_type, t->q, queries * t->q_row);
    if (t->out) s.out = pool_to(t, queries * t->out_row);
    if (t->q_documents) s.q_documents += queries;
    if (t->mask) s.mask = (const char *)t->mask + queries * t->mask_row * mask_bytes[t->mask_kind];
    if (t->lse) s.lse += queries * t->lse_row;
    if (t->lse_sinks) s.lse_sinks += queries * t->lse_sinks_row;
    if (t->weights) s.weights += queries * t->weights_row;
    if (t->scores) s.scores += queries * t->scores_row;
    if (t->part) s.part += block * t->part_block;
    return s;
}

#endif
