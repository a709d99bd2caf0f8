/* The public calls that attn_multihead_step() stands for. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "step/step_case.h"

/* As src/order.h says; scalar: in double. */
static void norm_row(float *x, size_t n, const float *w, float epsilon, int scalar) {
    float sum[16] = {0};
    double whole = 0.0;
    for (size_t j = 0; j < n; j++) {
        sum[j % 16] = fmaf(x[j], x[j], sum[j % 16]);
        whole += (double)x[j] * (double)x[j];
    }
    for (size_t m = 8; m; m /= 2)
        for (size_t i = 0; i < m; i++) sum[i] = sum[2 * i] + sum[2 * i + 1];
    const float factor = 1.0f / sqrtf(sum[0] / (float)n + epsilon);
    const double root = sqrt(whole / (double)n + (double)epsilon);
    for (size_t j = 0; j < n; j++)
        x[j] = scalar ? (float)((double)x[j] / root * (double)w[j]) : x[j] * factor * w[j];
}

static void norm_rows(const struct step_case *c, float *x, size_t rows, const float *w, int scalar) {
    const float epsilon = c->epsilon == 0.0f ? 1e-6f : c->epsilon;
    for (size_t i = 0; i < rows; i++) norm_row(x + i * c->p_k, c->p_k, w, epsilon, scalar);
}

/* x W^T of n tokens as [1, heads, n, p] of memory that the caller frees. */
static attn_tensor project(attn_context *context, const attn_packed *w, const float *x, size_t n, size_t d,
                           size_t heads, size_t p) {
    float *y = malloc(n * heads * p * sizeof *y), *in = malloc(n * d * sizeof *in);
    ck_assert(y && in);
    memcpy(in, x, n * d * sizeof *in);
    const attn_tensor t_x = attn_tensor_contiguous(in, ATTN_F32, 1, 1, n, d),
                      t_y = attn_tensor_contiguous(y, ATTN_F32, 1, 1, n, heads * p);
    attn_tensor view = t_y;
    ck_assert_msg(attn_linear(context, &t_x, w, &t_y) == ATTN_OK, "%s", attn_context_error(context));
    view.size[1] = heads;
    view.size[3] = p;
    view.stride[1] = (ptrdiff_t)(p * sizeof *y);
    free(in);
    return view;
}

/* Rows [0, n) of the sequence's block as an f32 tensor, in memory that the caller frees. */
static attn_tensor dequantised(attn_context *context, const struct step_cache *cache, size_t s, int values,
                               size_t n) {
    attn_tensor from = values ? cache->kv.v : cache->kv.k;
    float *x = malloc(from.size[1] * n * from.size[3] * sizeof *x);
    ck_assert(x && cache->kv.layout == ATTN_KV_ROWS && n <= from.size[2]);
    const attn_tensor to = attn_tensor_contiguous(x, ATTN_F32, 1, from.size[1], n, from.size[3]);
    const size_t sequence = cache->sequences[s];
    const ptrdiff_t block = cache->kv.blocks ? cache->kv.blocks[sequence] : (ptrdiff_t)sequence;
    from.data = (char *)from.data + block * from.stride[0];
    from.size[0] = 1;
    from.size[2] = n;
    ck_assert_msg(attn_convert(context, &from, &to) == ATTN_OK, "%s", attn_context_error(context));
    return to;
}

void step_compose(attn_context *context, const struct step_case *c, const struct step_data *d,
                  const struct step_layer *l, const struct step_cache *cache, size_t s, size_t first,
                  int from_tensors, struct step_outputs *o) {
    const size_t n = c->lengths[s], width = step_case_width(c);
    const int scalar = strcmp(attn_context_backend(context), "scalar") == 0;
    const float *x = d->x + first * c->d;
    struct step_scoring_memory m = {.offsets = {0}};
    attn_tensor q = project(context, l->weights.w_q, x, n, c->d, c->n_head, c->p_k),
                k = project(context, l->weights.w_k, x, n, c->d, c->n_head_kv, c->p_k),
                v = project(context, l->weights.w_v, x, n, c->d, c->n_head_kv, c->p_v);
    if (c->q_norm) norm_rows(c, q.data, n * c->n_head, d->q_norm, scalar);
    if (c->k_norm) norm_rows(c, k.data, n * c->n_head_kv, d->k_norm, scalar);
    const int64_t *positions = c->positions ? d->positions + first : NULL;
    const attn_rope_args turn = {
        .size = sizeof turn, .rope = &d->rope, .x = &q, .y = &q, .positions = positions};
    if (c->rope) ck_assert_int_eq(attn_rope_apply(context, &turn), ATTN_OK);
    const attn_kv_append_args append = {.size = sizeof append,
                                        .kv = &cache->kv,
                                        .k = &k,
                                        .v = &v,
                                        .sequences = &cache->sequences[s],
                                        .rope = c->rope ? &d->rope : NULL,
                                        .positions = positions};
    ck_assert_msg(attn_kv_append(context, &append) == ATTN_OK, "%s", attn_context_error(context));
    float *heads = malloc(n * c->n_head * c->p_v * sizeof *heads), *lse = malloc(n * c->n_head * sizeof *lse);
    ck_assert(heads && lse);
    attn_tensor pooled = attn_tensor_contiguous(heads, ATTN_F32, 1, 1, n, c->n_head * c->p_v), out = pooled;
    const attn_tensor t_lse = attn_tensor_contiguous(lse, ATTN_F32, 1, c->n_head, n, 1);
    out.size[1] = c->n_head;
    out.size[3] = c->p_v;
    out.stride[1] = (ptrdiff_t)(c->p_v * sizeof *heads);
    const attn_scoring causal = {.size = sizeof causal, .causal = ATTN_CAUSAL_BOTTOM_RIGHT};
    const attn_scoring *scoring = step_scoring_make(c, d, n, &m);
    attn_tensor rows[2] = {{.data = NULL}};
    for (int i = 0; i < 2 && from_tensors; i++) rows[i] = dequantised(context, cache, s, i, n);
    const attn_sdpa_args pool = {.size = sizeof pool,
                                 .q = &q,
                                 .k = from_tensors ? &rows[0] : NULL,
                                 .v = from_tensors ? &rows[1] : NULL,
                                 .kv = from_tensors ? NULL : &cache->kv,
                                 .kv_sequences = from_tensors ? NULL : &cache->sequences[s],
                                 .out = &out,
                                 .lse = &t_lse,
                                 .scoring = scoring ? scoring : &causal};
    ck_assert_msg(attn_sdpa(context, &pool) == ATTN_OK, "%s", attn_context_error(context));
    attn_tensor y = attn_tensor_contiguous(o->out + first * width, ATTN_F32, 1, 1, n, width);
    if (c->p_o)
        ck_assert_int_eq(attn_linear(context, &pooled, l->weights.w_o, &y), ATTN_OK);
    else
        memcpy(y.data, heads, n * width * sizeof *heads);
    for (size_t i = 0; i < n; i++)
        for (size_t h = 0; h < c->n_head; h++) o->lse[(first + i) * c->n_head + h] = lse[h * n + i];
    step_scoring_free(&m);
    free(q.data);
    free(k.data);
    free(v.data);
    free(heads);
    free(lse);
    free(rows[0].data);
    free(rows[1].data);
}
