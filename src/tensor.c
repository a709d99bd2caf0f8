#include "tensor.h"

attn_tensor attn_tensor_contiguous(void *data, attn_dtype dtype, size_t batch, size_t head, size_t row,
                                   size_t column) {
    /* Unsigned, so that sizes too large wrap; every function that takes the tensor refuses them. */
    const int exists = attn_dtype_exists(dtype);
    const size_t e = exists ? attn_dtype_bytes(dtype) : 1,
                 r = exists ? attn_dtype_row(dtype, column) : column, h = row * r, b = head * h;
    const attn_tensor t = {
        data, dtype, {batch, head, row, column}, {(ptrdiff_t)b, (ptrdiff_t)h, (ptrdiff_t)r, (ptrdiff_t)e}};
    return t;
}

ptrdiff_t attn_stride(const attn_tensor *t, int dim) {
    return t->size[dim] <= 1 ? 0 : t->stride[dim] / (ptrdiff_t)attn_dtype_bytes(t->dtype);
}

struct attn_span attn_span_of(const char *name, const void *p, size_t bytes) {
    const uintptr_t at = (uintptr_t)p;
    const struct attn_span s = {name, at, p && bytes ? at + bytes : at};
    return s;
}

static int is_empty(const attn_tensor *t) {
    return !t->size[BATCH] || !t->size[HEAD] || !t->size[ROW] || !t->size[COLUMN];
}

static const char *const dim_name[] = {"batch", "head", "row", "column"};

/* Blocks of values, or values, of a row. */
static size_t columns_of(const attn_tensor *t) { return t->size[COLUMN] / attn_dtype_block(t->dtype); }

static attn_status check_strides(attn_context *c, const char *name, const attn_tensor *t) {
    const ptrdiff_t e = (ptrdiff_t)attn_dtype_bytes(t->dtype),
                    align = (ptrdiff_t)attn_dtype_table[t->dtype].align;
    const size_t block = attn_dtype_block(t->dtype);
    if (t->size[COLUMN] % block)
        return attn_fail(c, ATTN_ERROR_SHAPE, "%s: its column size %zu is no multiple of %zu, a block of %s",
                         name, t->size[COLUMN], block, attn_dtype_name(t->dtype));
    for (int i = 0; i < 4; i++) {
        if (t->size[i] > 1 && t->stride[i] % align)
            return attn_fail(c, ATTN_ERROR_STRIDE,
                             "%s: its %s stride of %td bytes is no multiple of the element (%td)", name,
                             dim_name[i], t->stride[i], align);
    }
    if (columns_of(t) > 1 && t->stride[COLUMN] != e)
        return attn_fail(c, ATTN_ERROR_STRIDE,
                         "%s: its column stride is %td bytes; columns must be contiguous (%td)", name,
                         t->stride[COLUMN], e);
    return ATTN_OK;
}

/* Lowest and highest byte offset of any element; OVERFLOW where one does not fit. */
static attn_status extent(attn_context *c, const char *name, const attn_tensor *t, ptrdiff_t *lo,
                          ptrdiff_t *hi) {
    const ptrdiff_t e = (ptrdiff_t)attn_dtype_bytes(t->dtype);
    *lo = 0;
    *hi = e;
    for (int i = 0; i < 4; i++) {
        ptrdiff_t reach;
        const size_t n = i == COLUMN ? columns_of(t) : t->size[i];
        if (n <= 1) continue;
        ptrdiff_t *end = t->stride[i] < 0 ? lo : hi;
        if (n - 1 > (size_t)PTRDIFF_MAX || __builtin_mul_overflow((ptrdiff_t)(n - 1), t->stride[i], &reach) ||
            __builtin_add_overflow(*end, reach, end))
            return attn_fail(c, ATTN_ERROR_OVERFLOW,
                             "%s: its %s size %zu times its stride does not fit the address space", name,
                             dim_name[i], t->size[i]);
    }
    ptrdiff_t whole;
    if (__builtin_sub_overflow(*hi, *lo, &whole))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "%s: its sizes do not fit the address space", name);
    return ATTN_OK;
}

/* Taken by ascending stride, each dimension must step over all that the smaller ones reach. (Layouts that
 * interleave without aliasing are refused too: an output of a host never is one.) */
static attn_status check_aliasing(attn_context *c, const char *name, const attn_tensor *t) {
    size_t reach = attn_dtype_bytes(t->dtype);
    int done[4] = {0};
    for (int n = 0; n < 4; n++) {
        int next = -1;
        size_t step = 0;
        for (int i = 0; i < 4; i++) {
            const size_t s = t->stride[i] < 0 ? 0 - (size_t)t->stride[i] : (size_t)t->stride[i];
            if (!done[i] && (i == COLUMN ? columns_of(t) : t->size[i]) > 1 && (next < 0 || s < step)) {
                next = i;
                step = s;
            }
        }
        if (next < 0) break;
        done[next] = 1;
        if (step < reach)
            return attn_fail(c, ATTN_ERROR_STRIDE,
                             "%s: its %s stride of %td bytes makes elements share memory", name,
                             dim_name[next], t->stride[next]);
        reach += ((next == COLUMN ? columns_of(t) : t->size[next]) - 1) * step;
    }
    return ATTN_OK;
}

attn_status attn_tensor_check(attn_context *c, const char *name, const attn_tensor *t, unsigned flags,
                              struct attn_span *span) {
    if (span) *span = attn_span_of(name, NULL, 0);
    if (!t) return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s is null", name);
    if (!attn_dtype_exists(t->dtype))
        return attn_fail(c, ATTN_ERROR_DTYPE, "%s: its element type %d does not exist", name, (int)t->dtype);
    if (!(flags & 1u << t->dtype))
        return attn_fail(c, ATTN_ERROR_DTYPE, "%s: its element type %s is not taken here", name,
                         attn_dtype_name(t->dtype));
    ptrdiff_t lo, hi;
    ATTN_TRY(check_strides(c, name, t));
    if (is_empty(t)) return ATTN_OK;
    ATTN_TRY(extent(c, name, t, &lo, &hi));
    if (flags & TENSOR_OUTPUT) ATTN_TRY(check_aliasing(c, name, t));
    if (flags & TENSOR_NO_DATA) return ATTN_OK;
    if (!t->data) return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s: its data is null", name);
    const uintptr_t at = (uintptr_t)t->data;
    if (at % attn_dtype_table[t->dtype].align)
        return attn_fail(c, ATTN_ERROR_STRIDE, "%s: its data is not aligned to its elements", name);
    if ((uintptr_t)-lo > at || (uintptr_t)hi > UINTPTR_MAX - at)
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "%s: its elements lie outside the address space", name);
    if (span) {
        span->lo = at - (uintptr_t)-lo;
        span->hi = at + (uintptr_t)hi;
    }
    return ATTN_OK;
}

attn_status attn_tensor_expect(attn_context *c, const char *name, const attn_tensor *t, size_t batch,
                               size_t head, size_t row, size_t column) {
    const size_t want[4] = {batch, head, row, column};
    for (int i = 0; i < 4; i++) {
        if (want[i] != SIZE_MAX && t->size[i] != want[i])
            return attn_fail(c, ATTN_ERROR_SHAPE, "%s: its %s size is %zu, not %zu", name, dim_name[i],
                             t->size[i], want[i]);
    }
    return ATTN_OK;
}

attn_status attn_spans_check(attn_context *c, const struct attn_span *spans, size_t n, size_t n_outputs) {
    for (size_t i = 0; i < n_outputs; i++) {
        for (size_t j = i + 1; j < n; j++) {
            const struct attn_span *a = &spans[i], *b = &spans[j];
            if (a->lo < a->hi && b->lo < b->hi && a->lo < b->hi && b->lo < a->hi)
                return attn_fail(c, ATTN_ERROR_OVERLAP, "%s overlaps %s", a->name, b->name);
        }
    }
    return ATTN_OK;
}
