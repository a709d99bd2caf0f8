#include "support/cache_case.h"

#include <stdlib.h>
#include <string.h>

enum { PANEL = 16, SPARE = 2 /* sequences and blocks that nobody uses */ };

const struct cache_shape cache_shapes[CACHE_SHAPES] = {
    {.layout = ATTN_KV_ROWS, .block_rows = 0},
    {.layout = ATTN_KV_ROWS, .block_rows = 1, .pages = 1},
    {.layout = ATTN_KV_ROWS, .block_rows = 16, .pages = 1},
    {.layout = ATTN_KV_ROWS, .block_rows = 17, .pages = 1, .rows_outside = 1},
    {.layout = ATTN_KV_ROWS, .block_rows = 256, .pages = 1},
    {.layout = ATTN_KV_ROWS, .block_rows = 16, .pages = 1, .rows_outside = 1},
    {.layout = ATTN_KV_ROWS, .block_rows = 0, .rows_outside = 1},
    {.layout = ATTN_KV_PANELS, .block_rows = 0},
    {.layout = ATTN_KV_PANELS, .block_rows = 16, .pages = 1},
    {.layout = ATTN_KV_PANELS, .block_rows = 256, .pages = 1},
    {.layout = ATTN_KV_ROWS, .block_rows = 1, .pages = 1, .ring = 1},
    {.layout = ATTN_KV_ROWS, .block_rows = 24, .pages = 1, .ring = 1, .rows_outside = 1},
    {.layout = ATTN_KV_PANELS, .block_rows = 48, .pages = 1, .ring = 1},
    {.layout = ATTN_KV_ROWS, .block_rows = 32, .pages = 1},
};

/* ---- Sizes ------------------------------------------------------------------------------------------------ */

static size_t own_keys(const struct api_case *c, const struct api_data *d, size_t s) {
    return c->ragged ? d->starts[1][s + 1] - d->starts[1][s] : c->n_kv;
}

static size_t up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

/* The first key that some row of the sequence sees, or its length. */
static size_t first_seen(const struct api_case *c, const struct api_data *d, size_t s) {
    size_t first = own_keys(c, d, s);
    for (size_t b = 0; b < c->batch; b++)
        for (size_t i = 0; i < c->n_q; i++) {
            const struct api_place p = api_case_place(c, d, b, i);
            if (!p.inside || p.sequence != s) continue;
            for (size_t j = 0; j < first && j < p.n_kv; j++)
                if (api_case_in_sight(c, d, &p, j)) first = j;
        }
    return first;
}

/* Lengths, first keys and blocks of a sequence. Documents hide keys that a ring must have all the same. */
static int make_lengths(const struct api_case *c, const struct api_data *d, const struct cache_shape *shape,
                        struct rng *r, struct cache_case *x) {
    const size_t n = api_case_sequences(c), rows = x->kv.v.size[2];
    size_t most = 1, held = 0, all = 0;
    for (size_t s = 0; s < n; s++) {
        const size_t to = x->sequences[s], length = own_keys(c, d, s);
        x->lengths[to] = length;
        x->firsts[to] = shape->ring ? first_seen(c, d, s) : 0;
        held = length - x->firsts[to] > held ? length - x->firsts[to] : held;
        all = length > all ? length : all;
    }
    if (shape->ring && (held == all || c->documents)) return 0;
    if (shape->pages) most = up(held, rows) / rows + rng_below(r, 3);
    x->kv.blocks_per_sequence = most ? most : 1;
    for (size_t s = 0; shape->ring && s < n; s++) {
        const size_t to = x->sequences[s], room = x->kv.blocks_per_sequence * rows;
        x->firsts[to] = x->lengths[to] > room ? x->lengths[to] - room : 0;
    }
    return 1;
}

/* ---- Memory ----------------------------------------------------------------------------------------------- */

static void make_blocks(const struct cache_shape *shape, struct rng *r, struct cache_case *x) {
    const size_t slots = x->kv.blocks_per_sequence, n = x->kv.n_sequences * slots, blocks = n + SPARE;
    x->kv.k.size[0] = x->kv.v.size[0] = shape->pages ? blocks : x->kv.n_sequences;
    if (!shape->pages) return;
    int32_t *order = malloc(blocks * sizeof *order);
    if (!order) abort();
    for (size_t i = 0; i < blocks; i++) order[i] = (int32_t)i;
    for (size_t i = blocks; i-- > 1;) {
        const size_t j = rng_below(r, i + 1);
        const int32_t t = order[i];
        order[i] = order[j], order[j] = t;
    }
    x->blocks = guard_alloc(n * sizeof(int32_t), 0);
    x->kv.blocks = (int32_t *)(void *)x->blocks.data;
    for (size_t i = 0; i < n; i++) x->kv.blocks[i] = -1;
    for (size_t s = 0; s < x->kv.n_sequences; s++)
        for (size_t j = x->firsts[s] / x->kv.v.size[2]; j * x->kv.v.size[2] < x->lengths[s]; j++) {
            int32_t *at = &x->kv.blocks[s * slots + j % slots];
            if (*at < 0) *at = order[s * slots + j % slots];
        }
    free(order);
}

static size_t row_bytes(attn_dtype type, size_t columns) {
    size_t block;
    const size_t bytes = attn_dtype_size(type, &block);
    return columns / block * bytes;
}

/* Canaries are NaN in every type: f32, and in pairs of bytes 0xdead 0x7fc0; a block has one for its scale, or the other,
 * which is finite in f16: so what rows do not use is made NaN value by value. */
static void spoil(const struct guard *g, attn_dtype type) {
    static const uint16_t nan = 0x7fff; /* of f16 and bf16 alike */
    const size_t step = attn_dtype_size(type, NULL);
    if (type == ATTN_F32) return;
    for (size_t i = 0; i + step <= g->bytes; i += step) memcpy(g->data + i, &nan, sizeof nan);
}

static struct guard make_memory(attn_tensor *t, attn_dtype type, int rows_outside) {
    const size_t row = row_bytes(type, t->size[3]);
    const struct guard g = guard_alloc(t->size[0] * t->size[1] * t->size[2] * row, 0);
    spoil(&g, type);
    *t = attn_tensor_contiguous(g.data, type, t->size[0], t->size[1], t->size[2], t->size[3]);
    if (rows_outside) {
        t->stride[1] = (ptrdiff_t)row;
        t->stride[2] = (ptrdiff_t)t->size[1] * t->stride[1];
    }
    return g;
}

static unsigned char *at(const attn_tensor *t, size_t b, size_t h, size_t row) {
    return (unsigned char *)t->data + (ptrdiff_t)b * t->stride[0] + (ptrdiff_t)h * t->stride[1] +
           (ptrdiff_t)row * t->stride[2];
}

/* ---- Types ------------------------------------------------------------------------------------------------ */

static unsigned char *round_rows(const attn_tensor *t, attn_dtype type) {
    const size_t heads = t->size[1], rows = t->size[2], columns = t->size[3], row = row_bytes(type, columns);
    unsigned char *to = malloc(t->size[0] * heads * rows * row + 1);
    if (!to) abort();
    for (size_t b = 0; b < t->size[0]; b++)
        for (size_t h = 0; h < heads; h++)
            for (size_t i = 0; i < rows; i++) {
                float *x = (float *)(void *)at(t, b, h, i);
                unsigned char *y = to + ((b * heads + h) * rows + i) * row;
                attn_backend_scalar.from_f32(type, x, columns, y);
                attn_backend_scalar.to_f32(type, y, columns, x);
            }
    return to;
}

int cache_case_round(const struct api_case *c, struct api_data *d, attn_dtype k_type, attn_dtype v_type,
                     struct cache_rounded *to) {
    size_t k_block, v_block;
    attn_dtype_size(k_type, &k_block);
    attn_dtype_size(v_type, &v_block);
    if (c->p_k % k_block || c->p_v % v_block) return 0;
    *to = (struct cache_rounded){k_type, v_type, round_rows(&d->t_k, k_type), round_rows(&d->t_v, v_type)};
    return 1;
}

void cache_rounded_free(struct cache_rounded *x) {
    free(x->k);
    free(x->v);
}

/* Row `row` of one of d's tensors as the cache has it. */
static const unsigned char *source(const attn_tensor *t, const unsigned char *rounded, attn_dtype type,
                                   size_t b, size_t h, size_t row) {
    if (!rounded) return at(t, b, h, row);
    return rounded + ((b * t->size[1] + h) * t->size[2] + row) * row_bytes(type, t->size[3]);
}

/* Row j of sequence s of the case, all heads, to a block's row. */
static void put(const struct api_case *c, const struct api_data *d, const struct cache_rounded *rounded,
                const struct cache_case *x, size_t s, size_t j, size_t block, size_t row) {
    const size_t b = c->ragged ? 0 : s, from = c->ragged ? d->starts[1][s] + j : j;
    const attn_dtype k_type = x->kv.k.dtype, v_type = x->kv.v.dtype;
    const size_t e = attn_dtype_size(k_type, NULL);
    for (size_t h = 0; h < c->n_head_kv; h++) {
        const unsigned char *k = source(&d->t_k, rounded ? rounded->k : NULL, k_type, b, h, from),
                            *v = source(&d->t_v, rounded ? rounded->v : NULL, v_type, b, h, from);
        memcpy(at(&x->kv.v, block, h, row), v, row_bytes(v_type, c->p_v));
        if (x->kv.layout == ATTN_KV_ROWS) {
            memcpy(at(&x->kv.k, block, h, row), k, row_bytes(k_type, c->p_k));
            continue;
        }
        for (size_t i = 0; i < c->p_k; i++)
            memcpy(at(&x->kv.k, block, h, row / PANEL) + (i * PANEL + row % PANEL) * e, k + i * e, e);
    }
}

static void fill(const struct api_case *c, const struct api_data *d, const struct cache_rounded *rounded,
                 const struct cache_case *x) {
    const size_t rows = x->kv.v.size[2], slots = x->kv.blocks_per_sequence;
    for (size_t s = 0; s < api_case_sequences(c); s++) {
        const size_t to = x->sequences[s];
        for (size_t j = x->kv.firsts ? x->firsts[to] : 0; j < x->lengths[to]; j++) {
            const size_t slot = j / rows % slots;
            put(c, d, rounded, x, s, j, x->kv.blocks ? (size_t)x->kv.blocks[to * slots + slot] : to,
                j % rows);
        }
    }
}

/* ---- The call --------------------------------------------------------------------------------------------- */

/* A row of documents a sequence, as long as the longest one. */
static void make_documents(const struct api_case *c, const struct api_data *d, struct cache_case *x) {
    const size_t n = api_case_sequences(c), n_kv = api_case_longest(c, d, 1);
    const int32_t *from = d->scoring.kv_documents;
    x->documents = guard_alloc(n * n_kv * sizeof *from, 0);
    int32_t *to = (int32_t *)(void *)x->documents.data;
    for (size_t s = 0; s < n; s++)
        memcpy(to + s * n_kv, from + (c->ragged ? d->starts[1][s] : s * n_kv),
               own_keys(c, d, s) * sizeof *from);
    x->data.scoring.kv_documents = to;
}

int cache_case_make(const struct api_case *c, const struct api_data *d, const struct cache_shape *shape,
                    struct cache_case *x) {
    struct rng r = rng_make(test_seed(), shape->stream ^ 0xcac4e);
    const size_t n = api_case_sequences(c), unit = shape->layout == ATTN_KV_PANELS ? PANEL : 1;
    const size_t most = api_case_longest(c, d, 1);
    const size_t rows = up(shape->block_rows ? shape->block_rows : most ? most : 1, unit);
    *x = (struct cache_case){.data = *d};
    x->kv = (attn_kv){.size = sizeof x->kv,
                      .layout = shape->layout,
                      .n_sequences = n + SPARE,
                      .lengths = x->lengths,
                      .firsts = shape->ring ? x->firsts : NULL};
    const size_t swap = rng_below(&r, n + SPARE);
    for (size_t s = 0; s < n; s++) x->sequences[s] = (s + swap) % (n + SPARE);
    const size_t k_size[4] = {0, c->n_head_kv, rows / unit, c->p_k * unit},
                 v_size[4] = {0, c->n_head_kv, rows, c->p_v};
    memcpy(x->kv.k.size, k_size, sizeof k_size);
    memcpy(x->kv.v.size, v_size, sizeof v_size);
    if (!make_lengths(c, d, shape, &r, x)) return 0;
    make_blocks(shape, &r, x);
    const struct cache_rounded *rounded = shape->rounded;
    x->k = make_memory(&x->kv.k, rounded ? rounded->k_type : ATTN_F32, shape->rows_outside && unit == 1);
    x->v = make_memory(&x->kv.v, rounded ? rounded->v_type : ATTN_F32, shape->rows_outside);
    fill(c, d, rounded, x);
    if (c->documents) make_documents(c, d, x);
    x->data.scoring.kv_starts = NULL;
    x->data.kv = &x->kv;
    x->data.kv_sequences = x->sequences;
    return 1;
}

void cache_case_free(struct cache_case *x) {
    guard_free(&x->k);
    guard_free(&x->v);
    guard_free(&x->blocks);
    guard_free(&x->documents);
}
