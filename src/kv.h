/*
 * Key/value caches inside the library: the caller's struct, checked, and where its keys lie. Blocks of rows,
 * which a table names for each sequence (slot by slot); key j of a sequence lies in slot j / block_rows, in a
 * ring modulo the slots.
 */
#ifndef ATTN_KV_H
#define ATTN_KV_H

#include "context.h"
#include "order.h"
#include "rope.h"
#include "tensor.h"

enum { ATTN_KV_PANEL = 16 }; /* keys of a panel (ATTN_KV_PANELS) */
_Static_assert(ATTN_KV_PANEL == ATTN_KEY_TILE, "a panel is a tile of keys");

/* The spans of k, v, lengths, firsts, blocks and references, in that order; empty where there is none. */
enum { ATTN_KV_SPANS = 6 };

struct attn_kv_view {
    attn_kv kv; /* a copy; sizes and strides of k and v are read from the members below */
    size_t n_blocks, n_head, block_rows, p_k, p_v;
    size_t slots;    /* of a sequence: blocks that it can have */
    size_t capacity; /* slots * block_rows: keys of a sequence that there is room for */
    attn_dtype k_type, v_type;
    char *k, *v; /* strides in bytes; k_row: from panel to panel where the keys lie in panels */
    ptrdiff_t k_block, k_head, k_row, v_block, v_head, v_row;
    struct attn_span spans[ATTN_KV_SPANS];
};

/* What attn_kv_read() lets pass. */
enum {
    ATTN_KV_WRITTEN = 1u << 0, /* k, v and the arrays are written: they must not share memory */
    ATTN_KV_QUERY = 1u << 1 /* a size query: data and arrays may be null (those that are not are checked) */
};

/*
 * Copies and checks a caller's cache, called "kv" in messages: everything but its table. Errors: ARGUMENT,
 * SHAPE, STRIDE, DTYPE, OVERFLOW and, where it is written, OVERLAP.
 */
attn_status attn_kv_read(attn_context *c, const attn_kv *from, unsigned flags, struct attn_kv_view *to);

/* The table names a block for every slot of sequence s (below n_sequences) that holds keys. ARGUMENT,
 * SHAPE. */
attn_status attn_kv_check_sequence(attn_context *c, const struct attn_kv_view *v, size_t s);

/* ---- Keys of a checked view: attn_kv_check_sequence() was asked about the sequence --------------------- */

/* Keys [attn_kv_first(), attn_kv_length()) are there. */
static inline size_t attn_kv_length(const struct attn_kv_view *v, size_t s) { return v->kv.lengths[s]; }
static inline size_t attn_kv_first(const struct attn_kv_view *v, size_t s) {
    return v->kv.firsts ? v->kv.firsts[s] : 0;
}

static inline size_t attn_kv_slot(const struct attn_kv_view *v, size_t key) {
    const size_t at = key / v->block_rows;
    return v->kv.firsts ? at % v->slots : at;
}

/* Keys of a sequence with as many chunks as any that there is room for: those of a ring (and without arrays it may be one)
 * begin and end within a chunk, however long the sequence is. */
static inline size_t attn_kv_filled(const struct attn_kv_view *v) {
    const size_t more = v->kv.firsts || !v->kv.lengths ? ATTN_CHUNK : 0;
    return v->capacity > SIZE_MAX - more ? SIZE_MAX : v->capacity + more;
}

/* The table's entry for a slot of sequence s; below 0: none. */
static inline ptrdiff_t attn_kv_entry(const struct attn_kv_view *v, size_t s, size_t slot) {
    return v->kv.blocks ? (ptrdiff_t)v->kv.blocks[s * v->slots + slot] : (ptrdiff_t)s;
}

/* The block of a key, whose row there is key % block_rows. */
static inline size_t attn_kv_block(const struct attn_kv_view *v, size_t s, size_t key) {
    return (size_t)attn_kv_entry(v, s, attn_kv_slot(v, key));
}

/* Row `row` of a block's head. In panels: its column 0, the next columns are ATTN_KV_PANEL elements on. */
static inline char *attn_kv_k_at(const struct attn_kv_view *v, size_t block, size_t head, size_t row) {
    char *at = v->k + (ptrdiff_t)block * v->k_block + (ptrdiff_t)head * v->k_head;
    if (v->kv.layout == ATTN_KV_PANELS)
        return at + (ptrdiff_t)(row / ATTN_KV_PANEL) * v->k_row +
               row % ATTN_KV_PANEL * attn_dtype_bytes(v->k_type);
    return at + (ptrdiff_t)row * v->k_row;
}

static inline char *attn_kv_v_at(const struct attn_kv_view *v, size_t block, size_t head, size_t row) {
    return v->v + (ptrdiff_t)block * v->v_block + (ptrdiff_t)head * v->v_head + (ptrdiff_t)row * v->v_row;
}

/* Whether a slot holds one of the keys [first, length), of which there are at most `capacity`. */
static inline int attn_kv_slot_holds(const struct attn_kv_view *v, size_t slot, size_t first, size_t length) {
    if (first >= length) return 0;
    const size_t from = first / v->block_rows, n = (length - 1) / v->block_rows - from + 1;
    const size_t begin = from % v->slots;
    return n >= v->slots || (slot >= begin ? slot - begin : slot + (v->slots - begin)) < n;
}

/* ---- Appending --------------------------------------------------------------------------------------------
 *
 * attn_kv_append() in pieces; attn_multihead_step appends out of its own scratch.
 *
 *     the caller's members; k and v without data; the view by attn_kv_read(.., ATTN_KV_WRITTEN, ..)
 *     attn_kv_append_check(c, &a, query)      checks; a.bytes of scratch; a.spans, which the view's must not
 *                                             overlap: the caller compares them
 *     attn_kv_append_reserve(c, &a, scratch)  CAPACITY: the last that can fail; takes blocks
 *     a.k.data = .., a.v.data = ..
 *     attn_kv_append_run(c, &a)               rows and lengths; the cache must be as it was reserved
 */

enum { ATTN_KV_APPEND_SPANS = 4 };

/* Rows of k and v that one sequence stores: at its keys [key, key + n). */
struct attn_kv_piece {
    size_t sequence, batch, row, key, n;
    size_t first, length; /* of the sequence, afterwards */
};

/* Rows [row, row + n) of a shared block that its copy keeps. */
struct attn_kv_copy {
    size_t from, to, row, n;
};

/* A free block, and the table's entry that it is for. */
struct attn_kv_taken {
    size_t entry, block;
};

struct attn_kv_append {
    struct attn_kv_view view;
    attn_tensor k, v; /* f32, f16 or bf16, checked but for their sizes */
    const size_t *sequences, *counts, *starts;
    size_t n_starts;
    const int64_t *positions; /* as in attn_kv_append_args */
    int rotated;
    struct attn_rope_plan rope; /* where rotated: attn_rope_read() for rows of p_k */

    /* attn_kv_append_check() */
    size_t n_pieces;
    size_t task_rows, table_rows; /* of a task; of a worker's table of sines */
    size_t worker_bytes, bytes;   /* scratch of a worker; of everything, aligned to ATTN_ALIGN */
    struct attn_span spans[ATTN_KV_APPEND_SPANS]; /* sequences, counts, starts, positions */

    /* in the scratch */
    uint64_t *seen; /* a bit for each of the cache's sequences */
    struct attn_kv_piece *pieces;
    struct attn_kv_copy *copies;
    size_t *piece_rows, *copy_rows; /* rows of all pieces (copies) before each, and of all */
    struct attn_kv_taken *taken;
    char *rope_memory, *workers;
    size_t n_copies, n_taken;
};

attn_status attn_kv_append_check(attn_context *c, struct attn_kv_append *a, int query);
attn_status attn_kv_append_reserve(attn_context *c, struct attn_kv_append *a, void *scratch);
void attn_kv_append_run(attn_context *c, struct attn_kv_append *a);

/* ---- Parts --------------------------------------------------------------------------------------------- */

/* Span of an array of n elements that is read or written; NULL: none. STRIDE, OVERFLOW. */
attn_status attn_kv_array(attn_context *c, const char *name, const void *p, size_t n, size_t element,
                          struct attn_span *span);

/* DTYPE where keys of the type cannot lie in panels. */
attn_status attn_kv_panels_check(attn_context *c, const char *name, attn_dtype type);

/* Blocks for all pieces, and what has to be copied: everything, or nothing changes. ARGUMENT, SHAPE,
 * CAPACITY. */
attn_status attn_kv_take_blocks(attn_context *c, struct attn_kv_append *a);

/* Positions from that row of k on; NULL: the keys' places in their sequences. */
static inline const int64_t *attn_kv_positions(const struct attn_kv_append *a, size_t batch, size_t row) {
    return a->positions ? a->positions + batch * a->k.size[ROW] + row : NULL;
}

#endif
