/* Who has which block: blocks taken for rows that come, shared by a fork, given back. */
#include "kv.h"
#include "size.h"

/* ---- Taking -------------------------------------------------------------------------------------------- */

/* The next free block; blocks taken lie below it, so nothing is written before all are found. */
static size_t next_free(const struct attn_kv_view *v, size_t from) {
    while (from < v->n_blocks && v->kv.references[from]) from++;
    return from;
}

/* The block of a slot that rows go to, below 0 where one is to be taken. */
static attn_status check_slot(attn_context *c, const struct attn_kv_view *v, const struct attn_kv_piece *p,
                              size_t slot, ptrdiff_t *block) {
    const size_t s = p->sequence, entry = s * v->slots + slot;
    *block = attn_kv_entry(v, s, slot);
    const int holds = attn_kv_slot_holds(v, slot, attn_kv_first(v, s), attn_kv_length(v, s));
    if (*block < 0 && (holds || !v->kv.references))
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "kv.blocks[%zu] is %td: sequence %zu %s", entry, *block, s,
                         holds ? "has keys there, but no block" : "has no block for its rows");
    if (*block >= 0 && (size_t)*block >= v->n_blocks)
        return attn_fail(c, ATTN_ERROR_SHAPE, "kv.blocks[%zu] is %td, but there are %zu blocks", entry,
                         *block, v->n_blocks);
    if (*block >= 0 && v->kv.references && !v->kv.references[*block])
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "kv.references[%td] is 0, but kv.blocks[%zu] names it",
                         *block, entry);
    return ATTN_OK;
}

static void add_copy(struct attn_kv_append *a, size_t from, size_t to, size_t row, size_t n) {
    a->copies[a->n_copies] = (struct attn_kv_copy){from, to, row, n};
    a->copy_rows[a->n_copies + 1] = a->copy_rows[a->n_copies] + n;
    a->n_copies++;
}

/* What a copy of the slot's block keeps: those of the old keys that the sequence still has afterwards. In
 * a ring they may be a block's end and, from a turn later, its beginning. Only the first and the last slot
 * of the piece have such rows, which makes no more than two runs. */
static void keep(struct attn_kv_append *a, const struct attn_kv_piece *p, size_t slot, size_t from,
                 size_t to) {
    const struct attn_kv_view *v = &a->view;
    const size_t length = attn_kv_length(v, p->sequence), rows = v->block_rows;
    if (p->first >= length) return;
    const size_t turn = p->first / rows / v->slots;
    for (size_t i = 0; i < 2; i++) {
        const size_t begin = ((turn + i) * v->slots + slot) * rows; /* the slot's first key, turn by turn */
        const size_t lo = attn_max(begin, p->first), hi = attn_min(begin + rows, length);
        if (begin < length && lo < hi) add_copy(a, from, to, lo - begin, hi - lo);
    }
}

/* Blocks for one piece. A shared one is left to the others: the last sequence that has it writes to it. */
static attn_status take(attn_context *c, struct attn_kv_append *a, const struct attn_kv_piece *p,
                        size_t *free_block) {
    const struct attn_kv_view *v = &a->view;
    if (!p->n || !v->kv.blocks) return ATTN_OK;
    const size_t from = p->key / v->block_rows;
    const size_t n = attn_min((p->key + p->n - 1) / v->block_rows - from + 1, v->slots);
    for (size_t i = 0; i < n; i++) {
        const size_t slot = (from + i) % v->slots;
        ptrdiff_t block;
        ATTN_TRY(check_slot(c, v, p, slot, &block));
        if (!v->kv.references || (block >= 0 && v->kv.references[block] == 1)) continue;
        *free_block = next_free(v, *free_block);
        if (*free_block == v->n_blocks)
            return attn_fail(c, ATTN_ERROR_CAPACITY, "kv: no block is free for sequence %zu, key %zu",
                             p->sequence, (from + i) * v->block_rows);
        a->taken[a->n_taken++] = (struct attn_kv_taken){p->sequence * v->slots + slot, *free_block};
        if (block >= 0) {
            v->kv.references[block]--; /* at least 1 is left, so it is not free */
            keep(a, p, slot, (size_t)block, *free_block);
        }
        ++*free_block;
    }
    return ATTN_OK;
}

attn_status attn_kv_take_blocks(attn_context *c, struct attn_kv_append *a) {
    const attn_kv *kv = &a->view.kv;
    attn_status status = ATTN_OK;
    size_t free_block = 0;
    a->n_copies = a->n_taken = 0;
    a->copy_rows[0] = 0;
    for (size_t i = 0; i < a->n_pieces && status == ATTN_OK; i++)
        status = take(c, a, &a->pieces[i], &free_block);
    for (size_t i = 0; i < a->n_taken; i++) {
        const struct attn_kv_taken *t = &a->taken[i];
        if (status == ATTN_OK) {
            kv->references[t->block] = 1;
            kv->blocks[t->entry] = (int32_t)t->block;
        } else if (kv->blocks[t->entry] >= 0) {
            kv->references[kv->blocks[t->entry]]++; /* as it was */
        }
    }
    return status;
}

/* ---- Sharing and giving back --------------------------------------------------------------------------- */

static attn_status read_cache(attn_context *c, const attn_kv *kv, struct attn_kv_view *v) {
    ATTN_TRY(attn_enter(c));
    return attn_kv_read(c, kv, ATTN_KV_WRITTEN, v);
}

static attn_status check_number(attn_context *c, const struct attn_kv_view *v, const char *name, size_t s) {
    if (s < v->kv.n_sequences) return ATTN_OK;
    return attn_fail(c, ATTN_ERROR_SHAPE, "%s is %zu, but kv has %zu sequences", name, s, v->kv.n_sequences);
}

/* All entries of a sequence name blocks, and blocks that are referenced; a fork may add one reference. */
static attn_status check_entries(attn_context *c, const struct attn_kv_view *v, size_t s) {
    ATTN_TRY(attn_kv_check_sequence(c, v, s));
    for (size_t slot = 0; v->kv.references && slot < v->slots; slot++) {
        const ptrdiff_t block = attn_kv_entry(v, s, slot);
        if (block < 0) continue;
        if ((size_t)block >= v->n_blocks)
            return attn_fail(c, ATTN_ERROR_SHAPE, "kv.blocks[%zu] is %td, but there are %zu blocks",
                             s * v->slots + slot, block, v->n_blocks);
        if (!v->kv.references[block] || v->kv.references[block] == UINT32_MAX)
            return attn_fail(c, ATTN_ERROR_ARGUMENT, "kv.references[%td] is %u, but kv.blocks[%zu] names it",
                             block, v->kv.references[block], s * v->slots + slot);
    }
    return ATTN_OK;
}

attn_status attn_kv_fork(attn_context *c, const attn_kv *kv, size_t from, size_t to) {
    struct attn_kv_view v;
    ATTN_TRY(read_cache(c, kv, &v));
    if (!v.kv.references)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "kv.references is null, but sharing blocks needs them");
    ATTN_TRY(check_number(c, &v, "from", from));
    ATTN_TRY(check_number(c, &v, "to", to));
    if (from == to) return attn_fail(c, ATTN_ERROR_SHAPE, "to is %zu, the same as from", to);
    ATTN_TRY(check_entries(c, &v, from));
    int32_t *const mine = v.kv.blocks + from * v.slots, *const other = v.kv.blocks + to * v.slots;
    int empty = v.kv.lengths[to] == 0;
    for (size_t i = 0; i < v.slots; i++) empty &= other[i] < 0;
    if (!empty)
        return attn_fail(c, ATTN_ERROR_SHAPE, "to: sequence %zu is not empty; attn_kv_truncate() it to 0",
                         to);
    const size_t first = attn_kv_first(&v, from), length = attn_kv_length(&v, from);
    for (size_t i = 0; i < v.slots; i++) {
        if (!attn_kv_slot_holds(&v, i, first, length)) continue;
        other[i] = mine[i];
        v.kv.references[mine[i]]++;
    }
    v.kv.lengths[to] = length;
    if (v.kv.firsts) v.kv.firsts[to] = first;
    return ATTN_OK;
}

attn_status attn_kv_truncate(attn_context *c, const attn_kv *kv, size_t sequence, size_t length) {
    struct attn_kv_view v;
    ATTN_TRY(read_cache(c, kv, &v));
    ATTN_TRY(check_number(c, &v, "sequence", sequence));
    if (length > v.kv.lengths[sequence])
        return attn_fail(c, ATTN_ERROR_SHAPE, "length is %zu, but sequence %zu has %zu keys", length,
                         sequence, v.kv.lengths[sequence]);
    ATTN_TRY(check_entries(c, &v, sequence));
    const size_t first = attn_min(attn_kv_first(&v, sequence), length);
    for (size_t i = 0; v.kv.references && i < v.slots; i++) {
        int32_t *entry = &v.kv.blocks[sequence * v.slots + i];
        if (*entry < 0 || attn_kv_slot_holds(&v, i, first, length)) continue;
        v.kv.references[*entry]--;
        *entry = -1;
    }
    v.kv.lengths[sequence] = length;
    if (v.kv.firsts) v.kv.firsts[sequence] = first;
    return ATTN_OK;
}
