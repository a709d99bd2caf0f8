#include "pack.h"

#include <string.h>

#include "tensor.h"

/* Columns of all panels together. */
static size_t padded(size_t n) { return (n + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT; }

/* Bytes of packed n x k weights with room for a bias; 0 where they overflow. */
static size_t packed_bytes(size_t n, size_t k, int has_bias) {
    size_t floats, bytes = sizeof(struct attn_packed);
    if (n > PTRDIFF_MAX / 2) return 0;
    if (__builtin_mul_overflow(padded(n), k, &floats)) return 0;
    if (!attn_size_add(&bytes, floats, sizeof(float))) return 0;
    if (has_bias && !attn_size_add(&bytes, padded(n), sizeof(float))) return 0;
    return bytes;
}

static attn_status check_weights(attn_context *c, const attn_tensor *w, unsigned flags,
                                 struct attn_span *span) {
    ATTN_TRY(attn_tensor_check(c, "w", w, TENSOR_F32 | flags, span));
    ATTN_TRY(attn_tensor_expect(c, "w", w, 1, 1, SIZE_MAX, SIZE_MAX));
    if (!w->size[ROW] || !w->size[COLUMN])
        return attn_fail(c, ATTN_ERROR_SHAPE, "w: it has no rows or no columns");
    if (!packed_bytes(w->size[ROW], w->size[COLUMN], 1))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "w: %zu x %zu floats do not fit the address space",
                         w->size[ROW], w->size[COLUMN]);
    return ATTN_OK;
}

attn_status attn_pack_linear_bytes(attn_context *c, const attn_tensor *w, size_t *bytes) {
    ATTN_TRY(attn_enter(c));
    if (!bytes) return attn_fail(c, ATTN_ERROR_ARGUMENT, "bytes is null");
    ATTN_TRY(check_weights(c, w, TENSOR_NO_DATA, NULL));
    *bytes = packed_bytes(w->size[ROW], w->size[COLUMN], 1);
    return ATTN_OK;
}

/* Panels of `nr` outputs: [k][width]. Blocks of k keep the lines of all rows of a panel in cache. */
static void pack_panels(const attn_tensor *w, size_t nr, float *to) {
    enum { BLOCK = 16 };
    const size_t n = w->size[ROW], k = w->size[COLUMN];
    const ptrdiff_t row = attn_stride(w, ROW);
    for (size_t o = 0; o < n; o += nr) {
        const float *from = (const float *)w->data + (ptrdiff_t)o * row;
        const size_t rows = n - o < nr ? n - o : nr, width = padded(rows);
        for (size_t k0 = 0; k0 < k; k0 += BLOCK) {
            const size_t end = k - k0 < BLOCK ? k : k0 + BLOCK;
            for (size_t i = 0; i < width; i++) {
                for (size_t kk = k0; kk < end; kk++)
                    to[kk * width + i] = i < rows ? from[(ptrdiff_t)i * row + (ptrdiff_t)kk] : 0.0f;
            }
        }
        to += width * k;
    }
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
    const size_t n = w->size[ROW], k = w->size[COLUMN], need = packed_bytes(n, k, 1);
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
                              .dtype = ATTN_F32,
                              .has_bias = bias != NULL,
                              .n = n,
                              .k = k,
                              .bytes = packed_bytes(n, k, bias != NULL)};
    pack_panels(w, c->backend->layout, (float *)(void *)(p + 1));
    if (bias) memcpy((float *)(void *)(p + 1) + padded(n) * k, bias, n * sizeof(float));
    *packed = p;
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
    return ATTN_OK;
}

attn_status attn_packed_open(attn_context *c, const void *memory, size_t bytes, const attn_packed **packed) {
    ATTN_TRY(attn_enter(c));
    if (!packed) return attn_fail(c, ATTN_ERROR_ARGUMENT, "packed is null");
    if (memory && bytes < sizeof(struct attn_packed))
        return attn_fail(c, ATTN_ERROR_PACKED, "memory: %zu bytes are less than a header", bytes);
    ATTN_TRY(attn_packed_check(c, "memory", memory));
    const struct attn_packed *w = memory;
    if (w->dtype != ATTN_F32 || w->has_bias > 1 || !w->n || !w->k ||
        w->bytes != packed_bytes((size_t)w->n, (size_t)w->k, (int)w->has_bias))
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

const float *attn_packed_panels(const attn_packed *w) { return (const float *)(const void *)(w + 1); }
const float *attn_packed_bias(const attn_packed *w) {
    return w->has_bias ? attn_packed_panels(w) + padded((size_t)w->n) * (size_t)w->k : NULL;
}
