#include "kv/subject.h"

#include <stdlib.h>
#include <string.h>

/* ---- Making -------------------------------------------------------------------------------------------- */

static unsigned place(struct rng *r, size_t align) {
    if (rng_chance(r, 60)) return 0;
    return 1 + (unsigned)(rng_below(r, GUARD_SHIFTS) * align / 4 % GUARD_SHIFTS);
}

static void create(struct subject *s, attn_context *context, struct rng *r) {
    const struct kv_sizes *z = &s->z;
    const attn_kv_shape shape = {.size = sizeof shape,
                                 .layout = z->layout,
                                 .ring = z->ring,
                                 .n_sequences = z->n_sequences,
                                 .n_blocks = z->n_blocks,
                                 .blocks_per_sequence = z->slots,
                                 .block_rows = z->block_rows,
                                 .n_head_kv = z->n_head,
                                 .p_k = z->p_k,
                                 .p_v = z->p_v,
                                 .k_dtype = z->k_type,
                                 .v_dtype = z->v_type};
    size_t bytes = 0;
    ck_assert_msg(attn_kv_bytes(context, &shape, &bytes) == ATTN_OK, "%s", attn_context_error(context));
    s->memory = guard_alloc(bytes, place(r, 64));
    ck_assert_msg(attn_kv_create(context, &shape, s->memory.data, bytes, &s->kv) == ATTN_OK, "%s",
                  attn_context_error(context));
    ck_assert_msg(guard_is_canary((unsigned char *)s->kv.k.data,
                                  (size_t)(s->memory.data + bytes - (unsigned char *)s->kv.k.data)),
                  "attn_kv_create() wrote to keys or values");
}

/* k's and v's tensors in one piece of memory, as different hosts do it. */
static void host_rows(struct subject *s, struct rng *r) {
    const struct kv_sizes *z = &s->z;
    const size_t panels = z->layout == ATTN_KV_PANELS, rows = panels ? z->block_rows / 16 : z->block_rows;
    const size_t p_k = panels ? 16 * z->p_k : z->p_k;
    const size_t k_row = model_row(z->k_type, p_k), v_row = model_row(z->v_type, z->p_v);
    /* 2 bytes between them, or 4 where there are floats */
    const size_t gap = z->k_type == ATTN_F32 || z->v_type == ATTN_F32 ? 4 : 2;
    const size_t k_block = (rows * z->n_head * k_row + gap - 1) / gap * gap,
                 v_block = (z->block_rows * z->n_head * v_row + gap - 1) / gap * gap;
    const ptrdiff_t step = (ptrdiff_t)(k_block + v_block + gap);
    s->memory = guard_alloc(z->n_blocks * (k_block + v_block + gap) - gap, place(r, 4));
    unsigned char *k = s->memory.data, *v = k + k_block;
    s->kv.k = attn_tensor_contiguous(k, z->k_type, z->n_blocks, z->n_head, rows, p_k);
    s->kv.v = attn_tensor_contiguous(v, z->v_type, z->n_blocks, z->n_head, z->block_rows, z->p_v);
    s->kv.k.stride[0] = s->kv.v.stride[0] = step;
    if (s->kind == SUBJECT_TABLE) { /* [row][head] */
        s->kv.k.stride[1] = (ptrdiff_t)k_row;
        s->kv.v.stride[1] = (ptrdiff_t)v_row;
        s->kv.k.stride[2] = s->kv.k.stride[1] * (ptrdiff_t)z->n_head;
        s->kv.v.stride[2] = s->kv.v.stride[1] * (ptrdiff_t)z->n_head;
    } else {
        s->kv.k.data = k + (ptrdiff_t)(z->n_blocks - 1) * step;
        s->kv.v.data = v + (ptrdiff_t)(z->n_blocks - 1) * step;
        s->kv.k.stride[0] = s->kv.v.stride[0] = -step;
    }
}

static void host(struct subject *s, struct rng *r) {
    const struct kv_sizes *z = &s->z;
    const size_t n = z->n_sequences, entries = s->kind == SUBJECT_TABLE ? n * z->slots : 0;
    s->kv = (attn_kv){.size = sizeof s->kv, .layout = z->layout, .n_sequences = n};
    host_rows(s, r);
    s->table = guard_alloc(2 * n * sizeof(size_t) + (entries + entries % 2) * sizeof(int32_t), 0);
    memset(s->table.data, 0, 2 * n * sizeof(size_t));
    s->kv.lengths = (size_t *)(void *)s->table.data;
    s->kv.firsts = z->ring ? s->kv.lengths + n : NULL;
    if (!entries) return;
    s->kv.blocks = (int32_t *)(void *)(s->table.data + 2 * n * sizeof(size_t));
    s->kv.blocks_per_sequence = z->slots;
    for (size_t i = 0; i < entries; i++) { /* any order; there are as many blocks or more */
        const size_t j = rng_below(r, i + 1);
        s->kv.blocks[i] = s->kv.blocks[j];
        s->kv.blocks[j] = (int32_t)i;
    }
}

void subject_open(struct subject *s, enum subject_kind kind, const struct kv_sizes *z, attn_context *context,
                  struct rng *r) {
    *s = (struct subject){.kind = kind, .z = *z, .kv = {.size = sizeof s->kv}};
    if (kind == SUBJECT_CREATED)
        create(s, context, r);
    else
        host(s, r);
}

void subject_close(struct subject *s) {
    guard_free(&s->memory);
    guard_free(&s->table);
}

void subject_move(struct subject *s, attn_context *context, struct rng *r) {
    struct guard to = guard_alloc(s->memory.bytes, place(r, 64));
    attn_kv kv = {.size = sizeof kv};
    memcpy(to.data, s->memory.data, to.bytes);
    guard_seal(&to); /* opening writes nothing */
    ck_assert_msg(attn_kv_open(context, to.data, to.bytes, &kv) == ATTN_OK, "%s",
                  attn_context_error(context));
    guard_unseal(&to);
    ck_assert_ptr_eq((unsigned char *)kv.k.data, to.data + ((unsigned char *)s->kv.k.data - s->memory.data));
    ck_assert_ptr_eq((unsigned char *)kv.v.data, to.data + ((unsigned char *)s->kv.v.data - s->memory.data));
    guard_free(&s->memory);
    s->memory = to;
    s->kv = kv;
}

static uint64_t hash(uint64_t h, const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = 0;
        memcpy(&word, p + i, n - i < 8 ? n - i : 8);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    return h;
}

uint64_t subject_hash(const struct subject *s) {
    const uint64_t h = hash(0xcbf29ce484222325u, s->memory.data, s->memory.bytes);
    return s->table.pages ? hash(h, s->table.data, s->table.bytes) : h;
}

/* ---- Checking ------------------------------------------------------------------------------------------ */

/* As the header says it. */
static ptrdiff_t block_of(const struct subject *s, size_t sequence, size_t key) {
    size_t slot = key / s->z.block_rows;
    if (s->kv.firsts) slot %= s->z.slots;
    return s->kv.blocks ? s->kv.blocks[sequence * s->z.slots + slot] : (ptrdiff_t)sequence;
}

static const unsigned char *at(const attn_tensor *t, size_t block, size_t head, size_t row) {
    return (const unsigned char *)t->data + (ptrdiff_t)block * t->stride[0] + (ptrdiff_t)head * t->stride[1] +
           (ptrdiff_t)row * t->stride[2];
}

static int same_key(const struct subject *s, size_t block, size_t head, size_t row,
                    const unsigned char *want) {
    if (s->z.layout == ATTN_KV_ROWS)
        return memcmp(at(&s->kv.k, block, head, row), want, model_row(s->z.k_type, s->z.p_k)) == 0;
    const unsigned char *panel = at(&s->kv.k, block, head, row / 16);
    const size_t e = attn_dtype_size(s->z.k_type, NULL);
    for (size_t c = 0; c < s->z.p_k; c++)
        if (memcmp(panel + (c * 16 + row % 16) * e, want + c * e, e) != 0) return 0;
    return 1;
}

static void check_rows(const struct subject *s, const struct model_sequence *m, size_t sequence,
                       struct verdict *v) {
    const struct kv_sizes *z = &s->z;
    const size_t k_row = model_row(z->k_type, z->p_k), v_row = model_row(z->v_type, z->p_v);
    for (size_t key = m->first; key < m->length; key++) {
        const ptrdiff_t block = block_of(s, sequence, key);
        if (block < 0 || (size_t)block >= z->n_blocks) {
            verdict_fail(v, "sequence %zu, key %zu is in block %td", sequence, key, block);
            return;
        }
        for (size_t h = 0; h < z->n_head; h++) {
            const size_t i = key * z->n_head + h, row = key % z->block_rows;
            if (!same_key(s, (size_t)block, h, row, m->k + i * k_row))
                verdict_fail(v, "sequence %zu, head %zu: key %zu has other bits", sequence, h, key);
            if (memcmp(at(&s->kv.v, (size_t)block, h, row), m->v + i * v_row, v_row) != 0)
                verdict_fail(v, "sequence %zu, head %zu: value %zu has other bits", sequence, h, key);
        }
    }
}

/* Each of the model's numbers is one block, with as many references as holders. */
static void check_blocks(const struct subject *s, const struct model *m, struct verdict *v) {
    const size_t n = s->z.n_blocks;
    size_t *number = calloc(n, sizeof *number), free_blocks = 0;
    ptrdiff_t *block = malloc(m->n_numbers * sizeof *block);
    ck_assert(number && block);
    for (size_t i = 0; i < m->n_numbers; i++) block[i] = -1;
    for (size_t i = 0; i < s->z.n_sequences * s->z.slots; i++) {
        const size_t want = m->sequences[i / s->z.slots].owned[i % s->z.slots];
        const int32_t got = s->kv.blocks[i];
        if ((want == 0) != (got < 0)) {
            verdict_fail(v, "entry %zu is %d, but should%s be a block", i, got, want ? "" : " not");
            continue;
        }
        if (!want) continue;
        if (block[want] >= 0 ? block[want] != got : number[got] != 0)
            verdict_fail(v, "entry %zu is %d: shared with the wrong ones", i, got);
        block[want] = got;
        number[got] = want;
    }
    for (size_t b = 0; b < n; b++) {
        const unsigned want = number[b] ? m->holders[number[b]] : 0;
        free_blocks += !want;
        if (s->kv.references[b] != want)
            verdict_fail(v, "block %zu has %u references, not %u", b, s->kv.references[b], want);
    }
    if (free_blocks != model_free_blocks(m) || attn_kv_free_blocks(&s->kv) != free_blocks)
        verdict_fail(v, "%zu blocks are free, the library says %zu, the model %zu", free_blocks,
                     attn_kv_free_blocks(&s->kv), model_free_blocks(m));
    free(number);
    free(block);
}

void subject_check(const struct subject *s, const struct model *m, struct verdict *v) {
    for (size_t i = 0; i < s->z.n_sequences; i++) {
        const struct model_sequence *q = &m->sequences[i];
        const size_t first = s->kv.firsts ? s->kv.firsts[i] : 0;
        if (s->kv.lengths[i] != q->length || first != q->first)
            verdict_fail(v, "sequence %zu has keys [%zu, %zu), not [%zu, %zu)", i, first, s->kv.lengths[i],
                         q->first, q->length);
        check_rows(s, q, i, v);
    }
    if (s->kv.references)
        check_blocks(s, m, v);
    else if (attn_kv_free_blocks(&s->kv) != 0)
        verdict_fail(v, "a host's cache has free blocks");
    if (!guard_intact(&s->memory) || (s->table.pages && !guard_intact(&s->table)))
        verdict_fail(v, "memory beside the cache was written");
}
