#include "pack.h"

#include <string.h>

#include "size.h"
#include "tensor.h"
#include "weights.h"

/* Columns of all panels together. */
static size_t padded(size_t n) { return (n + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT; }

/* Bytes of packed n x k weights with room for a bias; 0 where they overflow. */
static size_t packed_bytes(attn_dtype type, size_t n, size_t k, int has_bias) {
    size_t bytes = sizeof(struct attn_packed);
    if (n > PTRDIFF_MAX / 2 || k > PTRDIFF_MAX / 8) return 0; /* a value has 4 bytes at most */
    if (!attn_size_add(&bytes, padded(n), attn_weights_row(type, k))) return 0;
    if (has_bias && !attn_size_add(&bytes, padded(n), sizeof(float))) return 0;
    return bytes;
}

static attn_status check_weights(attn_context *c, const attn_tensor *w, unsigned flags,
                                 struct attn_span *span) {
    ATTN_TRY(attn_tensor_check(c, "w", w, TENSOR_WEIGHTS | flags, span));
    ATTN_TRY(attn_tensor_expect(c, "w", w, 1, 1, SIZE_MAX, SIZE_MAX));
    if (!w->size[ROW] || !w->size[COLUMN])
        return attn_fail(c, ATTN_ERROR_SHAPE, "w: it has no rows or no columns");
    if (!packed_bytes(w->dtype, w->size[ROW], w->size[COLUMN], 1))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "w: %zu x %zu weights do not fit the address space",
                         w->size[ROW], w->size[COLUMN]);
    return ATTN_OK;
}

attn_status attn_pack_linear_bytes(attn_context *c, const attn_tensor *w, size_t *bytes) {
    ATTN_TRY(attn_enter(c));
    if (!bytes) return attn_fail(c, ATTN_ERROR_ARGUMENT, "bytes is null");
    ATTN_TRY(check_weights(c, w, TENSOR_NO_DATA, NULL));
    *bytes = packed_bytes(w->dtype, w->size[ROW], w->size[COLUMN], 1);
    return ATTN_OK;
}

static const char *row_of(const attn_tensor *w, size_t o) {
    return (const char *)w->data + (ptrdiff_t)o * attn_stride_bytes(w, ROW);
}

/* Pieces of k keep the lines of all rows of a panel in cache; a piece is whole blocks of every type. */
static size_t piece_of(attn_dtype type) { return attn_dtype_block(type) > 1 ? ATTN_BLOCK_MAX : 16; }

static void pack_panels(const attn_tensor *w, size_t nr, char *panel) {
    const size_t n = w->size[ROW], k = w->size[COLUMN], piece = piece_of(w->dtype);
    for (size_t o = 0; o < n; o += nr) {
        const size_t rows = attn_min(n - o, nr), width = padded(rows);
        for (size_t k0 = 0; k0 < k; k0 += piece) {
            const size_t at = attn_dtype_row(w->dtype, k0);
            for (size_t i = 0; i < rows; i++)
                attn_weights_pack_row(w->dtype, row_of(w, o + i) + at, attn_min(k - k0, piece),
                                      panel + at * width, width, i);
        }
        panel += width * attn_weights_row(w->dtype, k);
    }
}

static void unpack_panels(const attn_tensor *w, size_t nr, const char *panel) {
    const size_t n = w->size[ROW], k = w->size[COLUMN], piece = piece_of(w->dtype);
    for (size_t o = 0; o < n; o += nr) {
        const size_t rows = attn_min(n - o, nr), width = padded(rows);
        for (size_t k0 = 0; k0 < k; k0 += piece)
            for (size_t i = 0; i < rows; i++)
                attn_weights_unpack_row(w->dtype, panel, width, i, k0, attn_min(k - k0, piece),
                                        (char *)(uintptr_t)row_of(w, o + i) + attn_dtype_row(w->dtype, k0));
        panel += width * attn_weights_row(w->dtype, k);
    }
}

/* Of the bias, from the panels on. */
static size_t bias_offset(const struct attn_packed *p) {
    size_t bytes = 0;
    attn_size_add(&bytes, padded((size_t)p->n), attn_packed_row(p)); /* it fits: packed_bytes() */
    return bytes;
}

attn_status attn_pack_linear(attn_context *c, const attn_tensor *w, const float *bias, void *memory,
                             size_t bytes, const attn_packed **packed) {
    struct attn_span spans[3];
    ATTN_TRY(attn_enter(c));
    if (!packed) return attn_fail(c, ATTN_ERROR_ARGUMENT, "packed is null");
    ATTN_TRY(check_weights(c, w, 0, &spans[1]));
    if (!memory) return attn_fail(c, ATTN_ERROR_ARGUMENT, "memory is null");
    if ((uintptr_t)memory % ATTN_ALIGN)
        return attn_fail(c, ATTN_ERROR_STRIDE, "memory is not 64-byte aligned");
    if ((uintptr_t)bias % sizeof(float))
        return attn_fail(c, ATTN_ERROR_STRIDE, "bias is not aligned to a float");
    const size_t n = w->size[ROW], k = w->size[COLUMN], need = packed_bytes(w->dtype, n, k, 1);
    if (bytes < need)
        return attn_fail(c, ATTN_ERROR_SCRATCH, "memory: %zu bytes are needed, not %zu", need, bytes);
    spans[0] = attn_span_of("memory", memory, need);
    spans[2] = attn_span_of("bias", bias, n * sizeof(float));
    ATTN_TRY(attn_spans_check(c, spans, 3, 1));

    struct attn_packed *p = memory;
    memset(memory, 0, need);
    *p = (struct attn_packed){.magic = ATTN_PACK_MAGIC,
                              .version = ATTN_PACK_VERSION,
                              .layout = c->backend->layout,
                              .dtype = w->dtype,
                              .has_bias = bias != NULL,
                              .n = n,
                              .k = k,
                              .bytes = packed_bytes(w->dtype, n, k, bias != NULL)};
    pack_panels(w, c->backend->layout, (char *)(p + 1));
    if (bias) memcpy((char *)(p + 1) + bias_offset(p), bias, n * sizeof(float));
    *packed = p;
    return ATTN_OK;
}

attn_status attn_unpack_linear(attn_context *c, const attn_packed *packed, const attn_tensor *w,
                               float *bias) {
    struct attn_span spans[3];
    ATTN_TRY(attn_enter(c));
    ATTN_TRY(attn_packed_check(c, "packed", packed));
    const size_t n = (size_t)packed->n;
    ATTN_TRY(attn_tensor_check(c, "w", w, 1u << packed->dtype | TENSOR_OUTPUT, &spans[0]));
    ATTN_TRY(attn_tensor_expect(c, "w", w, 1, 1, n, (size_t)packed->k));
    if ((uintptr_t)bias % sizeof(float))
        return attn_fail(c, ATTN_ERROR_STRIDE, "bias is not aligned to a float");
    spans[1] = attn_span_of("bias", bias, n * sizeof(float));
    spans[2] = attn_span_of("packed", packed, (size_t)packed->bytes);
    ATTN_TRY(attn_spans_check(c, spans, 3, 2));
    unpack_panels(w, c->backend->layout, attn_packed_panels(packed));
    if (bias && packed->has_bias) memcpy(bias, attn_packed_bias(packed), n * sizeof(float));
    if (bias && !packed->has_bias) memset(bias, 0, n * sizeof(float));
    return ATTN_OK;
}

attn_status attn_packed_check(attn_context *c, const char *name, const attn_packed *w) {
    if (!w) return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s is null", name);
    if ((uintptr_t)w % ATTN_ALIGN) return attn_fail(c, ATTN_ERROR_STRIDE, "%s is not 64-byte aligned", name);
    if (w->magic != ATTN_PACK_MAGIC)
        return attn_fail(c, ATTN_ERROR_PACKED, "%s does not hold packed weights", name);
    if (w->version != ATTN_PACK_VERSION)
        return attn_fail(c, ATTN_ERROR_PACKED,
                         "%s: its format is version %u, this library's is %u; pack it again", name,
                         w->version, ATTN_PACK_VERSION);
    if (w->layout != c->backend->layout)
        return attn_fail(c, ATTN_ERROR_PACKED,
                         "%s: its panels are %u wide, the %s backend's are %u; pack it again", name,
                         w->layout, c->backend->name, c->backend->layout);
    if (w->dtype >= ATTN_DTYPES || !(TENSOR_WEIGHTS & 1u << w->dtype))
        return attn_fail(c, ATTN_ERROR_PACKED, "%s: its weights are of a type %u that does not exist", name,
                         w->dtype);
    return ATTN_OK;
}

attn_status attn_packed_open(attn_context *c, const void *memory, size_t bytes, const attn_packed **packed) {
    ATTN_TRY(attn_enter(c));
    if (!packed) return attn_fail(c, ATTN_ERROR_ARGUMENT, "packed is null");
    if (memory && bytes < sizeof(struct attn_packed))
        return attn_fail(c, ATTN_ERROR_PACKED, "memory: %zu bytes are less than a header", bytes);
    ATTN_TRY(attn_packed_check(c, "memory", memory));
    const struct attn_packed *w = memory;
    const attn_dtype type = (attn_dtype)w->dtype;
    if (w->has_bias > 1 || !w->n || !w->k || w->k % attn_dtype_block(type) ||
        w->bytes != packed_bytes(type, (size_t)w->n, (size_t)w->k, (int)w->has_bias))
        return attn_fail(c, ATTN_ERROR_PACKED, "memory: its header contradicts itself");
    if (w->bytes > bytes)
        return attn_fail(c, ATTN_ERROR_PACKED, "memory: %zu bytes, but its header says %llu", bytes,
                         (unsigned long long)w->bytes);
    *packed = w;
    return ATTN_OK;
}

void attn_packed_shape(const attn_packed *w, size_t *n, size_t *k) {
    if (n) *n = w ? (size_t)w->n : 0;
    if (k) *k = w ? (size_t)w->k : 0;
}

attn_dtype attn_packed_dtype(const attn_packed *w) { return w ? (attn_dtype)w->dtype : ATTN_F32; }

size_t attn_packed_row(const attn_packed *w) { return attn_weights_row((attn_dtype)w->dtype, (size_t)w->k); }
const void *attn_packed_panels(const attn_packed *w) { return w + 1; }
const float *attn_packed_bias(const attn_packed *w) {
    return w->has_bias ? (const float *)(const void *)((const char *)(w + 1) + bias_offset(w)) : NULL;
}
