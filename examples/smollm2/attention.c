/* The attention of one layer. The only part of the model that knows how keys and values are kept. */
#include <string.h>

#include "model.h"

/* Rows [n][n_head_kv][d_head] to their places in the cache. */
static void append(const struct model *m, const float *rows, size_t n, float *cache) {
    for (size_t row = 0; row < n; row++) {
        for (size_t head = 0; head < m->n_head_kv; head++, rows += m->d_head) {
            memcpy(cache + (head * m->capacity + m->length + row) * m->d_head, rows,
                   m->d_head * sizeof *rows);
        }
    }
}

/* [1, n_head, n, d_head] over memory whose heads and rows lie that many floats apart. */
static attn_tensor view(const struct model *m, float *data, size_t n_head, size_t n, size_t head,
                        size_t row) {
    attn_tensor tensor = attn_tensor_contiguous(data, ATTN_F32, 1, n_head, n, m->d_head);

    tensor.stride[1] = (ptrdiff_t)(head * sizeof *data);
    tensor.stride[2] = (ptrdiff_t)(row * sizeof *data);
    return tensor;
}

/* Rotates rows x of the next n positions into y, which may be x. GGUF files of this family have their W_q and W_k permuted
 * so that the columns of a pair are neighbours. */
static void rotate(const struct model *m, const attn_tensor *x, const attn_tensor *y) {
    const int64_t first = (int64_t)m->length;
    const attn_rope rope = {
        .size = sizeof rope, .style = ATTN_ROPE_INTERLEAVED, .dims = m->d_rotary, .base = m->rotary_base};
    const attn_rope_args args = {.size = sizeof args, .rope = &rope, .x = x, .y = y, .offsets = &first};

    check(m, attn_rope_apply(m->context, &args), "attn_rope_apply");
}

void attend(struct model *m, const struct layer *layer, float *x, size_t n, float *out) {
    size_t d = m->d_head, n_kv = m->length + n;
    attn_tensor q = view(m, m->q, m->n_head, n, d, m->n_head * d);
    attn_tensor new_k = view(m, m->k, m->n_head_kv, n, d, m->n_head_kv * d);
    attn_tensor to_k = view(m, layer->keys + m->length * d, m->n_head_kv, n, m->capacity * d, d);
    attn_tensor k = view(m, layer->keys, m->n_head_kv, n_kv, m->capacity * d, d);
    attn_tensor v = view(m, layer->values, m->n_head_kv, n_kv, m->capacity * d, d);
    attn_tensor pooled = view(m, m->pooled, m->n_head, n, d, m->n_head * d);
    attn_scoring scoring = {.size = sizeof scoring, .causal = ATTN_CAUSAL_BOTTOM_RIGHT};
    attn_sdpa_args args = {
        .size = sizeof args, .q = &q, .k = &k, .v = &v, .out = &pooled, .scoring = &scoring};
    double start = seconds(), pooling;

    linear(m, x, n, layer->w_q, m->q);
    linear(m, x, n, layer->w_k, m->k);
    linear(m, x, n, layer->w_v, m->v);
    rotate(m, &q, &q);
    rotate(m, &new_k, &to_k);
    append(m, m->v, n, layer->values);
    pooling = seconds();
    check(m, attn_sdpa(m->context, &args), "attn_sdpa");
    m->pooling_seconds += seconds() - pooling;
    linear(m, m->pooled, n, layer->w_o, out);
    m->attention_seconds += seconds() - start;
}
