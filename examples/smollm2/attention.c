/* The attention of one layer, and its cache. */
#include "common.h"
#include "model.h"

void attend(struct model *m, struct layer *layer, float *x, size_t n, float *out) {
    /* GGUF files of this family have their W_q and W_k permuted so that the columns of a pair are neighbours. */
    const attn_rope rope = {
        .size = sizeof rope, .style = ATTN_ROPE_INTERLEAVED, .dims = m->d_rotary, .base = m->rotary_base};
    const attn_weights weights = {.size = sizeof weights,
                                  .n_head = m->n_head,
                                  .n_head_kv = m->n_head_kv,
                                  .w_q = layer->w_q,
                                  .w_k = layer->w_k,
                                  .w_v = layer->w_v,
                                  .w_o = layer->w_o};
    const attn_tensor from = attn_tensor_contiguous(x, ATTN_F32, 1, 1, n, m->d_model);
    const attn_tensor to = attn_tensor_contiguous(out, ATTN_F32, 1, 1, n, m->d_model);
    const attn_step_args args = {
        .size = sizeof args, .weights = &weights, .x = &from, .out = &to, .kv = &layer->cache, .rope = &rope};
    double start = seconds();

    check(m, attn_multihead_step(m->context, &args), "attn_multihead_step");
    m->attention_seconds += seconds() - start;
}

void make_cache(struct model *m, struct layer *layer) {
    int panels = m->k_dtype == ATTN_F32 || m->k_dtype == ATTN_F16 || m->k_dtype == ATTN_BF16;
    const attn_kv_shape shape = {.size = sizeof shape,
                                 .layout = panels ? ATTN_KV_PANELS : ATTN_KV_ROWS,
                                 .n_sequences = 1,
                                 .blocks_per_sequence = (m->capacity + CACHE_BLOCK - 1) / CACHE_BLOCK,
                                 .block_rows = CACHE_BLOCK,
                                 .n_head_kv = m->n_head_kv,
                                 .p_k = m->d_head,
                                 .p_v = m->d_head,
                                 .k_dtype = m->k_dtype,
                                 .v_dtype = m->v_dtype};
    size_t bytes;

    check(m, attn_kv_bytes(m->context, &shape, &bytes), "attn_kv_bytes");
    m->cache_bytes += bytes;
    layer->cache_memory = get_array(bytes, 1);
    layer->cache.size = sizeof layer->cache;
    check(m, attn_kv_create(m->context, &shape, layer->cache_memory, bytes, &layer->cache), "attn_kv_create");
}
