/* The attention of one layer. The only part of the model that knows how keys and values are kept. */
#include <string.h>

#include "model.h"

/* Turns the pairs (2i, 2i + 1) of every head's first d_rotary columns by the row's angles; GGUF files of
 * this family have their W_q and W_k permuted so that pairs are neighbours. */
static void rotate(const struct model *m, float *x, size_t n, size_t n_head) {
    size_t pairs = m->d_rotary / 2;

    for (size_t row = 0; row < n; row++) {
        const float *c = m->cosines + row * pairs, *s = m->sines + row * pairs;

        for (size_t head = 0; head < n_head; head++, x += m->d_head) {
            for (size_t i = 0; i < pairs; i++) {
                float a = x[2 * i], b = x[2 * i + 1];

                x[2 * i] = a * c[i] - b * s[i];
                x[2 * i + 1] = a * s[i] + b * c[i];
            }
        }
    }
}

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

void attend(struct model *m, const struct layer *layer, float *x, size_t n, float *out) {
    size_t d = m->d_head, n_kv = m->length + n;
    attn_tensor q = view(m, m->q, m->n_head, n, d, m->n_head * d);
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
    rotate(m, m->q, n, m->n_head);
    rotate(m, m->k, n, m->n_head_kv);
    append(m, m->k, n, layer->keys);
    append(m, m->v, n, layer->values);
    pooling = seconds();
    check(m, attn_sdpa(m->context, &args), "attn_sdpa");
    m->pooling_seconds += seconds() - pooling;
    linear(m, m->pooled, n, layer->w_o, out);
    m->attention_seconds += seconds() - start;
}
