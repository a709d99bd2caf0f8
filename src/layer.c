#include "layer.h"

#include "linear.h"

static attn_status check_stack(attn_context *c, const char *name, const attn_packed *w, size_t heads,
                               size_t *p) {
    ATTN_TRY(attn_packed_check(c, name, w));
    if (!heads || w->n % heads)
        return attn_fail(c, ATTN_ERROR_SHAPE, "%s: its %zu outputs are no multiple of %zu heads", name,
                         (size_t)w->n, heads);
    *p = (size_t)w->n / heads;
    return ATTN_OK;
}

attn_status attn_layer_check(attn_context *c, struct attn_layer *l, int w_o) {
    const attn_weights *w = &l->w;
    if (!w->n_head || !w->n_head_kv || w->n_head % w->n_head_kv)
        return attn_fail(c, ATTN_ERROR_SHAPE, "weights.n_head: %zu is no multiple of n_head_kv = %zu",
                         w->n_head, w->n_head_kv);
    if ((unsigned)w->pooling > ATTN_POOLING_ADDITIVE)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "weights.pooling has no value %d", (int)w->pooling);
    ATTN_TRY(check_stack(c, "weights.w_q", w->w_q, w->n_head, &l->p_q));
    ATTN_TRY(check_stack(c, "weights.w_k", w->w_k, w->n_head_kv, &l->p_k));
    ATTN_TRY(check_stack(c, "weights.w_v", w->w_v, w->n_head_kv, &l->p_v));
    if (w->pooling == ATTN_POOLING_DOT && l->p_q != l->p_k)
        return attn_fail(c, ATTN_ERROR_SHAPE,
                         "weights.w_k: p_k is %zu, but dot-product pooling needs p_q = %zu", l->p_k, l->p_q);
    if (w->pooling == ATTN_POOLING_ADDITIVE && !w->w_a)
        return attn_fail(c, ATTN_ERROR_ARGUMENT, "weights.w_a is null");
    if (w_o && w->w_o) {
        ATTN_TRY(attn_packed_check(c, "weights.w_o", w->w_o));
        if (w->w_o->k != w->n_head * l->p_v)
            return attn_fail(c, ATTN_ERROR_SHAPE, "weights.w_o: it takes %zu inputs, but the heads give %zu",
                             (size_t)w->w_o->k, w->n_head * l->p_v);
    }
    return ATTN_OK;
}

/* ---- Projections --------------------------------------------------------------------------------------- */

attn_status attn_projection_plan(attn_context *c, const char *name, struct attn_projection *j,
                                 const attn_tensor *x, const attn_packed *w, size_t first, size_t heads,
                                 size_t p) {
    const size_t nr = c->backend->layout, n = (size_t)w->n;
    const size_t begin = first * p, end = begin + heads * p;
    ATTN_TRY(attn_tensor_expect(c, name, x, SIZE_MAX, 1, SIZE_MAX, (size_t)w->k));
    j->w = w;
    j->x = x;
    j->o0 = begin - begin % nr;
    j->o1 = end % nr ? (end / nr + 1) * nr : end;
    if (j->o1 > n) j->o1 = n;
    j->skip = begin - j->o0;
    const size_t width = j->o1 - j->o0;
    size_t rows, floats;
    j->bytes = 0;
    if (__builtin_mul_overflow(x->size[BATCH], x->size[ROW], &rows) ||
        __builtin_mul_overflow(rows, width, &floats) || !attn_size_add(&j->bytes, floats, sizeof(float)))
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "%s: its projection does not fit the address space", name);
    j->y = attn_tensor_contiguous(NULL, ATTN_F32, x->size[BATCH], 1, x->size[ROW], width);
    j->view = j->y;
    j->view.size[HEAD] = heads;
    j->view.size[COLUMN] = p;
    j->view.stride[HEAD] = (ptrdiff_t)(p * sizeof(float));
    return ATTN_OK;
}

char *attn_projections_place(struct attn_projection *const j[3], char *at) {
    for (size_t i = 0; i < 3; i++) {
        j[i]->y.data = at;
        j[i]->view.data = (float *)(void *)at + j[i]->skip;
        at += j[i]->bytes;
    }
    return at;
}

void attn_projections_run(attn_context *c, struct attn_projection *const j[3]) {
    struct attn_linear_call calls[3];
    for (size_t i = 0; i < 3; i++)
        calls[i] = (struct attn_linear_call){j[i]->x, j[i]->w, j[i]->o0, j[i]->o1, &j[i]->y};
    attn_linear_run(c, calls, 3);
}

/* ---- Outputs ------------------------------------------------------------------------------------------- */

attn_status attn_layer_heads(attn_context *c, const struct attn_layer *l, int w_o, const char *name,
                             const attn_tensor *x, const attn_tensor *out, size_t heads, unsigned flags,
                             attn_tensor *to, size_t *bytes, struct attn_span *span) {
    const size_t width = heads * l->p_v;
    const int projects = w_o && l->w.w_o;
    ATTN_TRY(attn_tensor_check(c, "out", out, flags | TENSOR_OUTPUT, span));
    ATTN_TRY(attn_tensor_expect(c, "out", out, x->size[BATCH], 1, x->size[ROW],
                                projects ? (size_t)l->w.w_o->n : width));
    *to = *out;
    *bytes = 0;
    if (projects) {
        size_t rows, floats;
        if (__builtin_mul_overflow(x->size[BATCH], x->size[ROW], &rows) ||
            __builtin_mul_overflow(rows, width, &floats) || !attn_size_add(bytes, floats, sizeof(float)))
            return attn_fail(c, ATTN_ERROR_OVERFLOW, "%s: the heads' outputs do not fit the address space",
                             name);
        *to = attn_tensor_contiguous(NULL, ATTN_F32, x->size[BATCH], 1, x->size[ROW], width);
    }
    to->size[HEAD] = heads;
    to->size[COLUMN] = l->p_v;
    to->stride[HEAD] = (ptrdiff_t)(l->p_v * sizeof(float));
    to->stride[COLUMN] = sizeof(float);
    return ATTN_OK;
}

void attn_layer_output(attn_context *c, const struct attn_layer *l, const attn_tensor *heads,
                       const attn_tensor *out) {
    const attn_tensor concatenated = attn_tensor_contiguous(heads->data, ATTN_F32, heads->size[BATCH], 1,
                                                            heads->size[ROW], l->w.n_head * l->p_v);
    attn_linear_run(c, &(struct attn_linear_call){&concatenated, l->w.w_o, 0, (size_t)l->w.w_o->n, out}, 1);
}
