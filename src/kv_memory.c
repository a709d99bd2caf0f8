/* A cache in one piece of memory: its format, made, and opened again. */
#include <string.h>

#include "kv.h"
#include "size.h"

/* "attn-kv" and a zero read as a little-endian word: a file from a machine of the other byte order does
 * not match. */
#define KV_MAGIC UINT64_C(0x00766b2d6e747461)
#define KV_VERSION 2u

/*
 * The header, then lengths and firsts (ring only) [n_sequences] of machine words, blocks [n_sequences]
 * [blocks_per_sequence] int32_t, references [n_blocks] uint32_t, k and v. Every part starts at a multiple of
 * 64 bytes. Version 2: k and v may be of other types than f32.
 */
struct header {
    uint64_t magic;
    uint32_t version;
    uint32_t word; /* sizeof(size_t) */
    uint32_t layout;
    uint32_t ring;
    uint32_t k_dtype, v_dtype; /* attn_dtype */
    uint64_t n_sequences, n_blocks, blocks_per_sequence, block_rows, n_head_kv, p_k, p_v;
    uint64_t bytes; /* of everything */
    uint64_t check; /* a hash of what stands before */
    uint64_t reserved[3];
};

_Static_assert(sizeof(struct header) == 2 * ATTN_ALIGN, "the parts start 64-byte aligned");

/* Where the parts start. */
struct parts {
    size_t lengths, firsts, blocks, references, k, v, bytes;
};

/* FNV-1a: no change of a single byte goes unnoticed. */
static uint64_t hash(const struct header *h) {
    const unsigned char *p = (const unsigned char *)h;
    uint64_t x = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < offsetof(struct header, check); i++) x = (x ^ p[i]) * UINT64_C(0x100000001b3);
    return x;
}

/* ---- Shapes -------------------------------------------------------------------------------------------- */

/* The type of k or v, whose rows have `columns` values. */
static attn_status check_type(attn_context *c, char which, attn_dtype type, size_t columns) {
    if (!attn_dtype_exists(type))
        return attn_fail(c, ATTN_ERROR_DTYPE, "shape.%c_dtype: element type %d does not exist", which,
                         (int)type);
    if (!(TENSOR_KV & 1u << type))
        return attn_fail(c, ATTN_ERROR_DTYPE, "shape.%c_dtype: element type %s is not taken here", which,
                         attn_dtype_name(type));
    if (columns % attn_dtype_block(type))
        return attn_fail(c, ATTN_ERROR_SHAPE, "shape.p_%c is %zu, no multiple of %zu, a block of %s", which,
                         columns, attn_dtype_block(type), attn_dtype_name(type));
    return ATTN_OK;
}

static attn_status check_shape(attn_context *c, const attn_kv_shape *s) {
    const struct {
        const char *name;
        size_t size;
    } sizes[] = {{"n_sequences", s->n_sequences},
                 {"blocks_per_sequence", s->blocks_per_sequence},
                 {"block_rows", s->block_rows},
                 {"n_head_kv", s->n_head_kv},
                 {"p_k", s->p_k},
                 {"p_v", s->p_v}};
    if (s->layout != ATTN_KV_ROWS && s->layout != ATTN_KV_PANELS)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "shape.layout has no value %d", (int)s->layout);
    if (s->ring != 0 && s->ring != 1)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "shape.ring is %d; it must be 0 or 1", s->ring);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (!sizes[i].size) return attn_fail(c, ATTN_ERROR_SHAPE, "shape.%s is 0", sizes[i].name);
    if (s->layout == ATTN_KV_PANELS && s->block_rows % ATTN_KV_PANEL)
        return attn_fail(c, ATTN_ERROR_SHAPE, "shape.block_rows is %zu, no multiple of %d, which panels need",
                         s->block_rows, ATTN_KV_PANEL);
    ATTN_TRY(check_type(c, 'k', s->k_dtype, s->p_k));
    ATTN_TRY(check_type(c, 'v', s->v_dtype, s->p_v));
    return s->layout == ATTN_KV_PANELS ? attn_kv_panels_check(c, "shape.k_dtype", s->k_dtype) : ATTN_OK;
}

/* *sum += count * rows of `columns` values, aligned; gives where they start. 0 on overflow. */
static int add_rows(size_t *sum, const attn_kv_shape *s, attn_dtype type, size_t columns, size_t *at) {
    size_t n;
    *at = *sum;
    return !__builtin_mul_overflow(s->n_blocks, s->n_head_kv, &n) &&
           !__builtin_mul_overflow(n, s->block_rows, &n) &&
           !__builtin_mul_overflow(n, columns / attn_dtype_block(type), &n) &&
           attn_size_add(sum, n, attn_dtype_bytes(type));
}

static int add_array(size_t *sum, size_t n, size_t element, size_t *at) {
    *at = *sum;
    return attn_size_add(sum, n, element);
}

/* Where everything lies in memory, and the default number of blocks; 0 where it does not fit. */
static int lay_out(attn_kv_shape *s, struct parts *p) {
    size_t entries, keys;
    p->bytes = sizeof(struct header);
    if (__builtin_mul_overflow(s->n_sequences, s->blocks_per_sequence, &entries) ||
        __builtin_mul_overflow(s->blocks_per_sequence, s->block_rows, &keys) || keys > PTRDIFF_MAX / 2)
        return 0;
    if (!s->n_blocks) s->n_blocks = entries;
    return s->n_blocks <= INT32_MAX && add_array(&p->bytes, s->n_sequences, sizeof(size_t), &p->lengths) &&
           add_array(&p->bytes, s->ring ? s->n_sequences : 0, sizeof(size_t), &p->firsts) &&
           add_array(&p->bytes, entries, sizeof(int32_t), &p->blocks) &&
           add_array(&p->bytes, s->n_blocks, sizeof(uint32_t), &p->references) &&
           add_rows(&p->bytes, s, s->k_dtype, s->p_k, &p->k) &&
           add_rows(&p->bytes, s, s->v_dtype, s->p_v, &p->v);
}

static attn_status read_shape(attn_context *c, const attn_kv_shape *from, attn_kv_shape *s, struct parts *p) {
    ATTN_TRY(attn_struct_read(c, "shape", s, sizeof *s, from));
    ATTN_TRY(check_shape(c, s));
    if (!lay_out(s, p))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "shape: such a cache does not fit the address space%s",
                         s->n_blocks > INT32_MAX ? ", or its blocks no int32_t" : "");
    return ATTN_OK;
}

attn_status attn_kv_bytes(attn_context *c, const attn_kv_shape *shape, size_t *bytes) {
    attn_kv_shape s;
    struct parts p;
    ATTN_TRY(attn_enter(c));
    if (!bytes) return attn_fail(c, ATTN_ERROR_ARGUMENT, "bytes is null");
    ATTN_TRY(read_shape(c, shape, &s, &p));
    *bytes = p.bytes;
    return ATTN_OK;
}

/* ---- The struct that describes it ---------------------------------------------------------------------- */

/* The caller's struct is to be written: its size is set, and has room for what is known. */
static attn_status check_target(attn_context *c, const attn_kv *kv) {
    if (!kv) return attn_fail(c, ATTN_ERROR_ARGUMENT, "kv is null");
    if (kv->size < sizeof *kv || kv->size > 4096)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "kv: size is %zu; set it to sizeof the struct", kv->size);
    return ATTN_OK;
}

static attn_status check_memory(attn_context *c, const void *memory) {
    if (!memory) return attn_fail(c, ATTN_ERROR_ARGUMENT, "memory is null");
    if ((uintptr_t)memory % ATTN_ALIGN)
        return attn_fail(c, ATTN_ERROR_STRIDE, "memory is not 64-byte aligned");
    return ATTN_OK;
}

static attn_kv describe(const attn_kv_shape *s, const struct parts *p, void *memory, size_t size) {
    char *at = memory;
    const int panels = s->layout == ATTN_KV_PANELS;
    return (attn_kv){
        .size = size,
        .layout = s->layout,
        .k = attn_tensor_contiguous(at + p->k, s->k_dtype, s->n_blocks, s->n_head_kv,
                                    panels ? s->block_rows / ATTN_KV_PANEL : s->block_rows,
                                    panels ? s->p_k * ATTN_KV_PANEL : s->p_k),
        .v = attn_tensor_contiguous(at + p->v, s->v_dtype, s->n_blocks, s->n_head_kv, s->block_rows, s->p_v),
        .n_sequences = s->n_sequences,
        .lengths = (size_t *)(void *)(at + p->lengths),
        .firsts = s->ring ? (size_t *)(void *)(at + p->firsts) : NULL,
        .blocks = (int32_t *)(void *)(at + p->blocks),
        .blocks_per_sequence = s->blocks_per_sequence,
        .references = (uint32_t *)(void *)(at + p->references)};
}

/* Members that this version does not know are 0. */
static void give(attn_kv *to, const attn_kv *kv) {
    memset(to, 0, kv->size);
    *to = *kv;
}

attn_status attn_kv_create(attn_context *c, const attn_kv_shape *shape, void *memory, size_t bytes,
                           attn_kv *kv) {
    attn_kv_shape s;
    struct parts p;
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(check_target(c, kv));
    ATTN_TRY(read_shape(c, shape, &s, &p));
    ATTN_TRY(check_memory(c, memory));
    if (bytes < p.bytes)
        return attn_fail(c, ATTN_ERROR_SCRATCH, "memory: %zu bytes are needed, not %zu", p.bytes, bytes);
    const attn_kv made = describe(&s, &p, memory, kv->size);
    const size_t entries = s.n_sequences * s.blocks_per_sequence;
    memset(memory, 0, p.k); /* keys and values may be a hole of a file */
    memset(made.blocks, -1, entries * sizeof *made.blocks);
    struct header *h = memory;
    *h = (struct header){.magic = KV_MAGIC,
                         .version = KV_VERSION,
                         .word = sizeof(size_t),
                         .layout = s.layout,
                         .ring = (uint32_t)s.ring,
                         .k_dtype = s.k_dtype,
                         .v_dtype = s.v_dtype,
                         .n_sequences = s.n_sequences,
                         .n_blocks = s.n_blocks,
                         .blocks_per_sequence = s.blocks_per_sequence,
                         .block_rows = s.block_rows,
                         .n_head_kv = s.n_head_kv,
                         .p_k = s.p_k,
                         .p_v = s.p_v,
                         .bytes = p.bytes};
    h->check = hash(h);
    give(kv, &made);
    return ATTN_OK;
}

/* ---- Opening it again ---------------------------------------------------------------------------------- */

static attn_status read_header(attn_context *c, const struct header *h, size_t bytes, attn_kv_shape *s,
                               struct parts *p) {
    static const uint64_t none[3];
    if (bytes < sizeof *h)
        return attn_fail(c, ATTN_ERROR_PACKED, "memory: %zu bytes are less than a header", bytes);
    if (h->magic != KV_MAGIC) return attn_fail(c, ATTN_ERROR_PACKED, "memory does not hold a cache");
    if (h->version != KV_VERSION)
        return attn_fail(c, ATTN_ERROR_PACKED, "memory: its format is version %u, this library's is %u",
                         h->version, KV_VERSION);
    if (h->word != sizeof(size_t))
        return attn_fail(c, ATTN_ERROR_PACKED, "memory: it was made where a size_t has %u bytes, not %zu",
                         h->word, sizeof(size_t));
    *s = (attn_kv_shape){.size = sizeof *s,
                         .layout = (attn_kv_layout)h->layout,
                         .ring = (int)h->ring,
                         .n_sequences = (size_t)h->n_sequences,
                         .n_blocks = (size_t)h->n_blocks,
                         .blocks_per_sequence = (size_t)h->blocks_per_sequence,
                         .block_rows = (size_t)h->block_rows,
                         .n_head_kv = (size_t)h->n_head_kv,
                         .p_k = (size_t)h->p_k,
                         .p_v = (size_t)h->p_v,
                         .k_dtype = (attn_dtype)h->k_dtype,
                         .v_dtype = (attn_dtype)h->v_dtype};
    if (check_shape(c, s) != ATTN_OK || !s->n_blocks || !lay_out(s, p) || h->bytes != p->bytes ||
        h->check != hash(h) || memcmp(h->reserved, none, sizeof none) != 0)
        return attn_fail(c, ATTN_ERROR_PACKED, "memory: its header contradicts itself");
    if (h->bytes > bytes)
        return attn_fail(c, ATTN_ERROR_PACKED, "memory: %zu bytes, but its header says %zu", bytes, p->bytes);
    return ATTN_OK;
}

/* Every block has as many references as the table has entries that name it. Counted for COUNTED blocks at
 * a time: the memory may be a file that is only read, and there is no scratch. */
static attn_status check_references(attn_context *c, const attn_kv *kv, size_t n_blocks) {
    enum { COUNTED = 4096 };
    uint32_t counts[COUNTED];
    const size_t entries = kv->n_sequences * kv->blocks_per_sequence;
    for (size_t first = 0; first < n_blocks; first += COUNTED) {
        const size_t n = attn_min(COUNTED, n_blocks - first);
        memset(counts, 0, n * sizeof *counts);
        for (size_t i = 0; i < entries; i++) {
            if (kv->blocks[i] < 0) continue;
            const size_t block = (size_t)kv->blocks[i];
            if (block >= n_blocks)
                return attn_fail(c, ATTN_ERROR_PACKED, "memory: blocks[%zu] is %zu, but there are %zu blocks",
                                 i, block, n_blocks);
            if (block >= first && block - first < n) counts[block - first]++;
        }
        for (size_t i = 0; i < n; i++)
            if (counts[i] != kv->references[first + i])
                return attn_fail(c, ATTN_ERROR_PACKED,
                                 "memory: block %zu has %u references, but the table names it %u times",
                                 first + i, kv->references[first + i], counts[i]);
    }
    return ATTN_OK;
}

/* Lengths fit, and every slot with keys has a block. The texts of the checks say what, the status is one. */
static attn_status check_sequences(attn_context *c, const attn_kv *kv) {
    struct attn_kv_view v;
    if (attn_kv_read(c, kv, 0, &v) != ATTN_OK) return ATTN_ERROR_PACKED;
    for (size_t s = 0; s < v.kv.n_sequences; s++)
        if (attn_kv_check_sequence(c, &v, s) != ATTN_OK) return ATTN_ERROR_PACKED;
    return ATTN_OK;
}

attn_status attn_kv_open(attn_context *c, void *memory, size_t bytes, attn_kv *kv) {
    attn_kv_shape s;
    struct parts p;
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(check_target(c, kv));
    ATTN_TRY(check_memory(c, memory));
    ATTN_TRY(read_header(c, memory, bytes, &s, &p));
    attn_kv made = describe(&s, &p, memory, sizeof made);
    ATTN_TRY(check_references(c, &made, s.n_blocks));
    ATTN_TRY(check_sequences(c, &made));
    made.size = kv->size;
    give(kv, &made);
    return ATTN_OK;
}

size_t attn_kv_free_blocks(const attn_kv *kv) {
    size_t n = 0;
    if (!kv || kv->size < sizeof *kv || !kv->references) return 0;
    for (size_t i = 0; i < kv->v.size[BATCH]; i++) n += kv->references[i] == 0;
    return n;
}
