/* Where the keys and values of a pooling task lie: rows one behind the other, in pages, keys perhaps in panels. In bytes. */
#ifndef ATTN_KEYS_H
#define ATTN_KEYS_H

#include "backend.h"
#include "dtype.h"
#include "order.h"

/* How many keys from j on lie one behind the other. */
static inline size_t attn_keys_left(const struct attn_pool_task *t, size_t j) {
    return t->pages ? t->page_rows - j % t->page_rows : SIZE_MAX;
}

static inline ptrdiff_t attn_page(const struct attn_pool_task *t, size_t j) {
    return t->pages[j / t->page_rows % t->n_pages];
}

/* Of column 0 of key j, from t->k on. */
static inline ptrdiff_t attn_k_offset(const struct attn_pool_task *t, size_t j) {
    ptrdiff_t page = 0;
    if (t->pages) {
        page = attn_page(t, j) * t->k_page;
        j %= t->page_rows;
    }
    if (t->panels)
        return page + (ptrdiff_t)(j / ATTN_KEY_TILE) * t->k_row +
               (ptrdiff_t)(j % ATTN_KEY_TILE * attn_dtype_bytes(t->k_type));
    return page + (ptrdiff_t)j * t->k_row;
}

/* Of value j, from t->v on. */
static inline ptrdiff_t attn_v_offset(const struct attn_pool_task *t, size_t j) {
    if (!t->pages) return (ptrdiff_t)j * t->v_row;
    return attn_page(t, j) * t->v_page + (ptrdiff_t)(j % t->page_rows) * t->v_row;
}

#endif
