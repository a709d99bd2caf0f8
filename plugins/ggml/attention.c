/* GGML_OP_FLASH_ATTN_EXT: softmax(soft_cap(scale q K^T) + slope mask) V, with attention sinks. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "plugin.h"

enum { SEQUENCES = 256 }; /* more at once are left to ggml */

struct parameters {
    float scale, max_bias, soft_cap;
};

static struct parameters parameters_of(const struct gg_tensor *node) {
    struct parameters p;
    memcpy(&p, node->op_params, sizeof p);
    return p;
}

/* Of a type that libattn pools, columns side by side. */
static int has_keys(const struct gg_tensor *t) {
    attn_dtype type;
    return type_of(t->type, &type) && type <= ATTN_Q4_0 && t->nb[0] == attn_dtype_size(type, NULL);
}

static int same_heads(const struct gg_tensor *k, const struct gg_tensor *v) {
    return k->ne[1] == v->ne[1] && k->ne[2] == v->ne[2] && k->ne[3] == v->ne[3];
}

const char *attention_declined(const struct gg_tensor *node) {
    const struct gg_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2];
    const struct gg_tensor *mask = node->src[3], *sinks = node->src[4];
    if (q->type != GG_F32 || node->type != GG_F32) return "queries or results are not f32";
    if (!has_keys(k) || !has_keys(v)) return "keys or values of a type that libattn does not pool";
    if (q->nb[0] != 4 || node->nb[0] != 4) return "columns are not side by side";
    if (!same_heads(k, v)) return "keys and values have other heads or sequences";
    if (q->ne[3] != k->ne[3] || q->ne[2] % k->ne[2]) return "heads do not divide";
    if (q->ne[3] > SEQUENCES) return "too many sequences at once";
    if (mask) {
        if (mask->type != GG_F16) return "the mask is not f16";
        if (mask->nb[0] != 2 || mask->ne[0] != k->ne[1] || mask->ne[1] < q->ne[1])
            return "the mask does not fit";
        if (mask->ne[2] != 1 && mask->ne[2] != q->ne[2]) return "the mask's heads do not fit";
        if (mask->ne[3] != 1 && mask->ne[3] != q->ne[3]) return "the mask's sequences do not fit";
    }
    if (sinks && (sinks->type != GG_F32 || sinks->ne[0] != q->ne[2] || sinks->nb[0] != 4))
        return "the sinks do not fit";
    return NULL;
}

/* What a call is made of. */
struct call {
    attn_tensor q, k, v, out, mask;
    attn_scoring scoring;
    ptrdiff_t offsets[SEQUENCES];
    size_t kv_lengths[SEQUENCES], window[2];
};

static attn_status run(struct backend *b, struct call *c) {
    const attn_sdpa_args args = {
        .size = sizeof args, .q = &c->q, .k = &c->k, .v = &c->v, .out = &c->out, .scoring = &c->scoring};
    return attn_sdpa(b->context, &args);
}

/* Says the mask as a pattern where it is one. */
static void use_mask(struct call *c, int per_head) {
    const size_t n_seq = c->mask.size[0];
    c->scoring.mask = &c->mask;
    if (per_head) return;
    const struct mask_shape shape = mask_look(&c->mask, c->offsets, c->kv_lengths);
    if (shape.dense) return;
    for (size_t i = n_seq; i < c->q.size[0]; i++) { /* one mask for all sequences */
        c->offsets[i] = c->offsets[0];
        c->kv_lengths[i] = c->kv_lengths[0];
    }
    c->scoring.mask = NULL;
    c->scoring.kv_lengths = c->kv_lengths;
    c->k.data = (char *)c->k.data + (ptrdiff_t)shape.first * c->k.stride[2];
    c->v.data = (char *)c->v.data + (ptrdiff_t)shape.first * c->v.stride[2];
    c->k.size[2] -= shape.first;
    c->v.size[2] -= shape.first;
    if (!shape.causal) return;
    c->scoring.causal = ATTN_CAUSAL_OFFSET;
    c->scoring.offsets = c->offsets;
    if (shape.left == SIZE_MAX) return;
    c->window[0] = shape.left;
    c->window[1] = SIZE_MAX;
    c->scoring.window = c->window;
}

/* The slope of a head, as the ALiBi paper has it for any number of heads. */
static float slope_of(size_t head, size_t n_head, float max_bias) {
    const size_t power = (size_t)1 << (unsigned)floor(log2((double)n_head));
    const float near = powf(2.0f, -max_bias / (float)power);
    const float far = powf(2.0f, -(max_bias / 2.0f) / (float)power);
    return head < power ? powf(near, (float)(head + 1)) : powf(far, (float)(2 * (head - power) + 1));
}

/* slope times the mask of a head, in f32. */
static attn_status scale_mask(struct backend *b, const attn_tensor *mask, size_t head, float slope,
                              attn_tensor *to) {
    const size_t n = mask->size[0] * mask->size[2] * mask->size[3];
    float *x = backend_memory(b, n * sizeof *x);
    if (!x) return ATTN_ERROR_MEMORY;
    attn_tensor from = *mask;
    from.size[1] = 1;
    from.data = (char *)mask->data + (ptrdiff_t)(head % mask->size[1]) * mask->stride[1];
    *to = attn_tensor_contiguous(x, ATTN_F32, mask->size[0], 1, mask->size[2], mask->size[3]);
    const attn_status status = attn_convert(b->context, &from, to);
    for (size_t i = 0; i < n; i++) x[i] *= slope;
    return status;
}

static void take_head(attn_tensor *t, size_t head) {
    t->data = (char *)t->data + (ptrdiff_t)head * t->stride[1];
    t->size[1] = 1;
}

/* With ALiBi every head has a mask of its own: head by head. */
static attn_status run_heads(struct backend *b, const struct call *all, float max_bias) {
    const size_t n_head = all->q.size[1], group = n_head / all->k.size[1];
    attn_status status = ATTN_OK;
    for (size_t h = 0; h < n_head && status == ATTN_OK; h++) {
        struct call c = *all;
        status = scale_mask(b, &all->mask, h, slope_of(h, n_head, max_bias), &c.mask);
        take_head(&c.q, h);
        take_head(&c.out, h);
        take_head(&c.k, h / group);
        take_head(&c.v, h / group);
        c.scoring.mask = &c.mask;
        if (c.scoring.sinks) c.scoring.sinks += h;
        if (status == ATTN_OK) status = run(b, &c);
    }
    return status;
}

attn_status attention_compute(struct backend *b, const struct gg_tensor *node) {
    const struct gg_tensor *mask = node->src[3], *sinks = node->src[4];
    const struct parameters p = parameters_of(node);
    attn_dtype k_type = ATTN_F32, v_type = ATTN_F32;
    if (!type_of(node->src[1]->type, &k_type) || !type_of(node->src[2]->type, &v_type))
        return ATTN_ERROR_DTYPE;
    struct call c = {.q = tensor_of(node->src[0], ATTN_F32),
                     .k = tensor_of(node->src[1], k_type),
                     .v = tensor_of(node->src[2], v_type),
                     .out = tensor_of(node, ATTN_F32),
                     .scoring = {.size = sizeof c.scoring,
                                 .scale = p.scale,
                                 .soft_cap = p.soft_cap,
                                 .sinks = sinks ? sinks->data : NULL}};
    /* ggml's results are [sequence][row][head][column] */
    c.out.size[1] = (size_t)node->ne[1];
    c.out.size[2] = (size_t)node->ne[2];
    c.out.stride[1] = (ptrdiff_t)node->nb[1];
    c.out.stride[2] = (ptrdiff_t)node->nb[2];
    if (!mask) return run(b, &c);
    c.mask = tensor_of(mask, ATTN_F16);
    c.mask.size[2] = c.q.size[2]; /* rows beyond it are padding */
    if (p.max_bias > 0.0f) return run_heads(b, &c, p.max_bias);
    use_mask(&c, mask->ne[2] != 1);
    return run(b, &c);
}
