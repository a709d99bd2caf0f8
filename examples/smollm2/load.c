/* From the file to packed weights. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "model.h"

enum { SIZE_LIMIT = 1 << 20 }; /* of every size in the metadata, so that no product overflows */

static size_t take_size(const struct gguf *gguf, const char *key, size_t otherwise) {
    size_t size = otherwise;

    if (gguf_value(gguf, key) && !gguf_count(gguf, key, &size)) {
        die("%s is not a number of something; the file is damaged", key);
    }
    if (size < 1 || size > SIZE_LIMIT) {
        die("%s is missing or not from 1 to %d; use SmolLM2's GGUF file", key, SIZE_LIMIT);
    }
    return size;
}

/* What this example does not compute must not be in the file. */
static void refuse_others(const struct gguf *gguf) {
    static const char *const tensors[] = {"rope_freqs.weight", "blk.0.attn_q_norm.weight",
                                          "blk.0.ffn_gate_inp.weight"};
    struct gguf_text text = {"", 0};

    if (!gguf_text(gguf, "general.architecture", &text) || text.bytes != 5 ||
        memcmp(text.text, "llama", 5) != 0) {
        die("the file's architecture is '%.*s', this example has only llama; use SmolLM2's GGUF file",
            (int)(text.bytes < 100 ? text.bytes : 100), text.text);
    }
    if (gguf_text(gguf, "llama.rope.scaling.type", &text) &&
        (text.bytes != 4 || memcmp(text.text, "none", 4) != 0)) {
        die("the model scales its rotary embedding, this example does not; use SmolLM2's GGUF file");
    }
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        if (gguf_tensor(gguf, tensors[i])) {
            die("the model has a tensor %s, which this example does not know; use SmolLM2's GGUF file",
                tensors[i]);
        }
    }
}

void model_describe(struct model *m, const struct gguf *gguf) {
    double base = 10000, epsilon = 0;

    memset(m, 0, sizeof *m);
    refuse_others(gguf);
    m->n_layer = take_size(gguf, "llama.block_count", 0);
    m->d_model = take_size(gguf, "llama.embedding_length", 0);
    m->d_mlp = take_size(gguf, "llama.feed_forward_length", 0);
    m->n_head = take_size(gguf, "llama.attention.head_count", 0);
    m->n_head_kv = take_size(gguf, "llama.attention.head_count_kv", m->n_head);
    m->d_head = take_size(gguf, "llama.attention.key_length", m->d_model / m->n_head);
    m->d_rotary = take_size(gguf, "llama.rope.dimension_count", m->d_head);
    m->n_trained = take_size(gguf, "llama.context_length", 0);
    gguf_number(gguf, "llama.rope.freq_base", &base);
    gguf_number(gguf, "llama.attention.layer_norm_rms_epsilon", &epsilon);
    if (m->n_head % m->n_head_kv != 0 || m->d_rotary > m->d_head || m->d_rotary % 2 != 0 || !(base > 1) ||
        !isfinite(base) || !(epsilon > 0) || !isfinite(epsilon) ||
        take_size(gguf, "llama.attention.value_length", m->d_head) != m->d_head) {
        die("the sizes in the file's metadata do not fit each other; use SmolLM2's GGUF file");
    }
    m->rotary_base = (float)base;
    m->epsilon = (float)epsilon;
}

__attribute__((format(printf, 4, 5))) static const struct gguf_tensor *find_tensor(const struct gguf *gguf,
                                                                                   size_t rows,
                                                                                   size_t columns,
                                                                                   const char *format, ...) {
    const struct gguf_tensor *tensor;
    va_list args;
    char name[64];

    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    tensor = gguf_tensor(gguf, name);
    if (!tensor) {
        die("the file has no tensor %s; use a whole model's GGUF file", name);
    }
    if (tensor->size[0] != columns || (rows && tensor->rows != rows)) {
        die("tensor %s is %zu x %zu, the metadata says %zu x %zu; the file is damaged", name, tensor->rows,
            tensor->size[0], rows, columns);
    }
    if (!gguf_has_floats(tensor->type)) {
        die("tensor %s is of type %s, which this example does not convert; use a file with q8_0 or q4_K, say",
            name, gguf_type_name(tensor->type));
    }
    return tensor;
}

static float *load_floats(const struct model *m, const struct gguf_tensor *tensor) {
    float *floats = get_array(tensor->rows * tensor->size[0], sizeof *floats);

    check(m, gguf_floats(m->context, tensor, 0, tensor->rows, floats), "gguf_floats");
    return floats;
}

/* Packs the rows of a matrix as they lie in the file; of a type that the library does not have, as floats. The packed
 * weights are their own memory. */
static const attn_packed *pack(struct model *m, const struct gguf_tensor *tensor) {
    const attn_packed *packed;
    float *floats = NULL;
    attn_tensor w;
    size_t bytes;

    if (!gguf_view(tensor, 0, tensor->rows, &w)) {
        floats = load_floats(m, tensor);
        w = attn_tensor_contiguous(floats, ATTN_F32, 1, 1, tensor->rows, tensor->size[0]);
    }
    check(m, attn_pack_linear_bytes(m->context, &w, &bytes), "attn_pack_linear_bytes");
    check(m, attn_pack_linear(m->context, &w, NULL, get_array(bytes, 1), bytes, &packed), "attn_pack_linear");
    m->weight_bytes += bytes;
    free(floats);
    return packed;
}

static void load_layer(struct model *m, const struct gguf *gguf, size_t i) {
    struct layer *layer = &m->layers[i];
    size_t q = m->n_head * m->d_head, kv = m->n_head_kv * m->d_head;

    layer->attention_norm = load_floats(m, find_tensor(gguf, 1, m->d_model, "blk.%zu.attn_norm.weight", i));
    layer->w_q = pack(m, find_tensor(gguf, q, m->d_model, "blk.%zu.attn_q.weight", i));
    layer->w_k = pack(m, find_tensor(gguf, kv, m->d_model, "blk.%zu.attn_k.weight", i));
    layer->w_v = pack(m, find_tensor(gguf, kv, m->d_model, "blk.%zu.attn_v.weight", i));
    layer->w_o = pack(m, find_tensor(gguf, m->d_model, q, "blk.%zu.attn_output.weight", i));
    layer->mlp_norm = load_floats(m, find_tensor(gguf, 1, m->d_model, "blk.%zu.ffn_norm.weight", i));
    layer->w_gate = pack(m, find_tensor(gguf, m->d_mlp, m->d_model, "blk.%zu.ffn_gate.weight", i));
    layer->w_up = pack(m, find_tensor(gguf, m->d_mlp, m->d_model, "blk.%zu.ffn_up.weight", i));
    layer->w_down = pack(m, find_tensor(gguf, m->d_model, m->d_mlp, "blk.%zu.ffn_down.weight", i));
    make_cache(m, layer);
}

void model_load(struct model *m, const struct gguf *gguf, attn_context *context, size_t capacity,
                size_t chunk) {
    size_t rows = capacity < chunk ? capacity : chunk;

    m->context = context;
    m->capacity = capacity;
    m->chunk = chunk;
    m->embedding = find_tensor(gguf, 0, m->d_model, "token_embd.weight");
    m->n_token = m->embedding->rows;
    m->layers = get_array(m->n_layer, sizeof *m->layers);
    for (size_t i = 0; i < m->n_layer; i++) {
        load_layer(m, gguf, i);
    }
    m->output_norm = load_floats(m, find_tensor(gguf, 1, m->d_model, "output_norm.weight"));
    m->w_output = pack(m, gguf_tensor(gguf, "output.weight") /* small models use one matrix for both */
                              ? find_tensor(gguf, m->n_token, m->d_model, "output.weight")
                              : m->embedding);
    m->x = get_array(rows * m->d_model, sizeof *m->x);
    m->normed = get_array(rows * m->d_model, sizeof *m->normed);
    m->update = get_array(rows * m->d_model, sizeof *m->update);
    m->mlp = get_array(rows * 2 * m->d_mlp, sizeof *m->mlp);
    m->logits = get_array(m->n_token * (rows < LOGIT_ROWS ? rows : LOGIT_ROWS), sizeof *m->logits);
}

static void drop(const attn_packed *packed) { free((void *)(uintptr_t)packed); }

void model_close(struct model *m) {
    float *const arrays[] = {m->x, m->normed, m->update, m->mlp, m->logits, m->output_norm};

    for (size_t i = 0; m->layers && i < m->n_layer; i++) {
        struct layer *layer = &m->layers[i];

        drop(layer->w_q);
        drop(layer->w_k);
        drop(layer->w_v);
        drop(layer->w_o);
        drop(layer->w_gate);
        drop(layer->w_up);
        drop(layer->w_down);
        free(layer->attention_norm);
        free(layer->mlp_norm);
        free(layer->cache_memory);
    }
    drop(m->w_output);
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        free(arrays[i]);
    }
    free(m->layers);
    memset(m, 0, sizeof *m);
}
