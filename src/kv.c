/* A caller's cache, read and checked. */
#include "kv.h"

#include "size.h"

attn_status attn_kv_array(attn_context *c, const char *name, const void *p, size_t n, size_t element,
                          struct attn_span *span) {
    *span = attn_span_of(name, NULL, 0);
    if (!p) return ATTN_OK;
    if ((uintptr_t)p % element)
        return attn_fail(c, ATTN_ERROR_STRIDE, "%s is not aligned to its elements", name);
    if (n > PTRDIFF_MAX / element || (uintptr_t)p > UINTPTR_MAX - n * element)
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "%s: its size does not fit the address space", name);
    *span = attn_span_of(name, p, n * element);
    return ATTN_OK;
}

/* ---- Sizes --------------------------------------------------------------------------------------------- */

attn_status attn_kv_panels_check(attn_context *c, const char *name, attn_dtype type) {
    if (attn_dtype_block(type) == 1) return ATTN_OK;
    return attn_fail(c, ATTN_ERROR_DTYPE, "%s: its element type is %s, but panels hold f32, f16 or bf16",
                     name, attn_dtype_name(type));
}

static attn_status read_sizes(attn_context *c, struct attn_kv_view *v) {
    static const char *const what[] = {NULL, "heads", "rows", "columns"};
    const attn_tensor *t = &v->kv.v, *k = &v->kv.k;
    const int panels = v->kv.layout == ATTN_KV_PANELS;
    if (panels) ATTN_TRY(attn_kv_panels_check(c, "kv.k", k->dtype));
    for (int i = HEAD; i <= COLUMN; i++)
        if (!t->size[i]) return attn_fail(c, ATTN_ERROR_SHAPE, "kv.v: it has no %s", what[i]);
    v->n_blocks = t->size[BATCH];
    v->n_head = t->size[HEAD];
    v->block_rows = t->size[ROW];
    v->p_v = t->size[COLUMN];
    if (panels && v->block_rows % ATTN_KV_PANEL)
        return attn_fail(c, ATTN_ERROR_SHAPE,
                         "kv.v: its row size %zu is no multiple of %d, which panels need", v->block_rows,
                         ATTN_KV_PANEL);
    ATTN_TRY(attn_tensor_expect(c, "kv.k", k, v->n_blocks, v->n_head,
                                panels ? v->block_rows / ATTN_KV_PANEL : v->block_rows, SIZE_MAX));
    v->p_k = panels ? k->size[COLUMN] / ATTN_KV_PANEL : k->size[COLUMN];
    if (!v->p_k || (panels && k->size[COLUMN] % ATTN_KV_PANEL))
        return attn_fail(c, ATTN_ERROR_SHAPE, "kv.k: its column size %zu is no multiple of %d above 0",
                         k->size[COLUMN], panels ? ATTN_KV_PANEL : 1);
    return ATTN_OK;
}

/* Slots and capacity. Where the table may be missing because only sizes are asked for, nothing depends on
 * it. */
static attn_status read_table(attn_context *c, struct attn_kv_view *v, int query) {
    const attn_kv *kv = &v->kv;
    v->slots = kv->blocks ? kv->blocks_per_sequence : 1;
    if (!v->slots) return attn_fail(c, ATTN_ERROR_SHAPE, "kv.blocks_per_sequence is 0");
    if (!query && !kv->blocks && kv->references)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "kv.references is given, but kv.blocks is null");
    if (!query && !kv->blocks && v->n_blocks < kv->n_sequences)
        return attn_fail(
            c, ATTN_ERROR_SHAPE,
            "kv.v: its batch size is %zu, but without kv.blocks it is at least the %zu sequences",
            v->n_blocks, kv->n_sequences);
    if (kv->blocks && v->n_blocks > INT32_MAX)
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "kv.v: its batch size %zu is more than kv.blocks can name",
                         v->n_blocks);
    if (__builtin_mul_overflow(v->slots, v->block_rows, &v->capacity) || v->capacity > PTRDIFF_MAX / 2)
        return attn_fail(c, ATTN_ERROR_OVERFLOW,
                         "kv.blocks_per_sequence: %zu blocks of %zu rows do not fit the address space",
                         v->slots, v->block_rows);
    return ATTN_OK;
}

/* ---- Memory -------------------------------------------------------------------------------------------- */

static attn_status read_arrays(attn_context *c, struct attn_kv_view *v, int query) {
    const attn_kv *kv = &v->kv;
    const size_t n = kv->n_sequences;
    size_t entries;
    if (__builtin_mul_overflow(n, v->slots, &entries)) entries = SIZE_MAX;
    if (!kv->lengths && n && !query) return attn_fail(c, ATTN_ERROR_ARGUMENT, "kv.lengths is null");
    ATTN_TRY(attn_kv_array(c, "kv.lengths", kv->lengths, n, sizeof *kv->lengths, &v->spans[2]));
    ATTN_TRY(attn_kv_array(c, "kv.firsts", kv->firsts, n, sizeof *kv->firsts, &v->spans[3]));
    ATTN_TRY(attn_kv_array(c, "kv.blocks", kv->blocks, kv->blocks ? entries : 0, sizeof *kv->blocks,
                           &v->spans[4]));
    return attn_kv_array(c, "kv.references", kv->references, v->n_blocks, sizeof *kv->references,
                         &v->spans[5]);
}

/* Bytes from a tensor's first element on that it reaches in the dimensions which do not step by multiples of
 * `period`; *lo where they begin. */
static size_t reach(const attn_tensor *t, size_t period, uintptr_t *lo) {
    size_t bytes = attn_dtype_bytes(t->dtype);
    *lo = (uintptr_t)t->data;
    for (int i = 0; i < 4; i++) {
        const size_t step = t->stride[i] < 0 ? 0 - (size_t)t->stride[i] : (size_t)t->stride[i];
        const size_t n = i == COLUMN ? t->size[i] / attn_dtype_block(t->dtype) : t->size[i];
        if (n <= 1 || step % period == 0) continue;
        bytes += (n - 1) * step;
        if (t->stride[i] < 0) *lo -= (n - 1) * step;
    }
    return bytes;
}

/* Hosts interleave keys and values ([block][2][row][head][column], say). Modulo a stride of k, whose
 * multiples are the larger strides of both, each of the two is an interval: they share nothing where those
 * do not meet. */
static int interleaved(const attn_tensor *k, const attn_tensor *v) {
    for (int i = 0; i < 3; i++) {
        uintptr_t k_lo, v_lo;
        const size_t period = k->stride[i] < 0 ? 0 - (size_t)k->stride[i] : (size_t)k->stride[i];
        if (k->size[i] <= 1 || !period) continue;
        const size_t k_bytes = reach(k, period, &k_lo), v_bytes = reach(v, period, &v_lo);
        const size_t apart =
            v_lo >= k_lo ? (v_lo - k_lo) % period : (period - (k_lo - v_lo) % period) % period;
        if (k_bytes <= apart && v_bytes <= period - apart) return 1;
    }
    return 0;
}

/* Nothing that is written shares memory. */
static attn_status check_overlap(attn_context *c, const struct attn_kv_view *v) {
    const struct attn_span *s = v->spans;
    struct attn_span apart[ATTN_KV_SPANS];
    for (int i = 0; i < ATTN_KV_SPANS; i++) apart[i] = s[i];
    if (s[0].lo < s[1].hi && s[1].lo < s[0].hi && interleaved(&v->kv.k, &v->kv.v)) {
        ATTN_TRY(attn_spans_check(c, s + 1, ATTN_KV_SPANS - 1, ATTN_KV_SPANS - 1));
        apart[1].hi = apart[1].lo;
    }
    return attn_spans_check(c, apart, ATTN_KV_SPANS, ATTN_KV_SPANS);
}

/* ---- Sequences ----------------------------------------------------------------------------------------- */

static attn_status check_lengths(attn_context *c, const struct attn_kv_view *v) {
    for (size_t s = 0; v->kv.lengths && s < v->kv.n_sequences; s++) {
        const size_t length = v->kv.lengths[s], first = attn_kv_first(v, s);
        if (first > length)
            return attn_fail(c, ATTN_ERROR_SHAPE, "kv.firsts[%zu] is %zu, more than its length %zu", s, first,
                             length);
        if (length - first > v->capacity)
            return attn_fail(c, ATTN_ERROR_SHAPE, "kv.lengths[%zu] is %zu, but there is room for %zu keys%s",
                             s, length, v->capacity, v->kv.firsts ? " from kv.firsts on" : "");
    }
    return ATTN_OK;
}

attn_status attn_kv_check_sequence(attn_context *c, const struct attn_kv_view *v, size_t s) {
    const size_t first = attn_kv_first(v, s), length = attn_kv_length(v, s);
    if (!v->kv.blocks || first == length) return ATTN_OK;
    const size_t from = first / v->block_rows;
    const size_t n = attn_min((length - 1) / v->block_rows - from + 1, v->slots);
    for (size_t i = 0; i < n; i++) {
        const size_t slot = (from + i) % v->slots;
        const ptrdiff_t block = attn_kv_entry(v, s, slot);
        if (block < 0)
            return attn_fail(c, ATTN_ERROR_ARGUMENT,
                             "kv.blocks[%zu] is %td: sequence %zu has keys there, but no block",
                             s * v->slots + slot, block, s);
        if ((size_t)block >= v->n_blocks)
            return attn_fail(c, ATTN_ERROR_SHAPE, "kv.blocks[%zu] is %td, but there are %zu blocks",
                             s * v->slots + slot, block, v->n_blocks);
    }
    return ATTN_OK;
}

attn_status attn_kv_read(attn_context *c, const attn_kv *from, unsigned flags, struct attn_kv_view *to) {
    const int query = (flags & ATTN_KV_QUERY) != 0;
    const unsigned tensor =
        TENSOR_KV | (query ? TENSOR_NO_DATA : 0) | (flags & ATTN_KV_WRITTEN ? TENSOR_OUTPUT : 0);
    attn_kv *kv = &to->kv;
    ATTN_TRY(attn_struct_read(c, "kv", kv, sizeof *kv, from));
    if (kv->layout != ATTN_KV_ROWS && kv->layout != ATTN_KV_PANELS)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "kv.layout has no value %d", (int)kv->layout);
    ATTN_TRY(attn_tensor_check(c, "kv.k", &kv->k, tensor, &to->spans[0]));
    ATTN_TRY(attn_tensor_check(c, "kv.v", &kv->v, tensor, &to->spans[1]));
    ATTN_TRY(read_sizes(c, to));
    ATTN_TRY(read_table(c, to, query));
    ATTN_TRY(read_arrays(c, to, query));
    if ((flags & ATTN_KV_WRITTEN) && !query) ATTN_TRY(check_overlap(c, to));
    to->k_type = kv->k.dtype;
    to->v_type = kv->v.dtype;
    to->k = kv->k.data;
    to->v = kv->v.data;
    to->k_block = attn_stride_bytes(&kv->k, BATCH);
    to->k_head = attn_stride_bytes(&kv->k, HEAD);
    to->k_row = attn_stride_bytes(&kv->k, ROW);
    to->v_block = attn_stride_bytes(&kv->v, BATCH);
    to->v_head = attn_stride_bytes(&kv->v, HEAD);
    to->v_row = attn_stride_bytes(&kv->v, ROW);
    return query && !kv->blocks ? ATTN_OK : check_lengths(c, to); /* then the capacity is not known */
}
