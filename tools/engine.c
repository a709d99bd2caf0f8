/* The library at work. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

#include "tool.h"

static void check(const struct engine *e, attn_status status, const char *what) {
    if (status != ATTN_OK) {
        die("%s: %s (%s)", what, attn_context_error(e->context), attn_status_name(status));
    }
}

static attn_tensor matrix_tensor(float *data, size_t rows, size_t columns) {
    return attn_tensor_contiguous(data, ATTN_F32, 1, 1, rows, columns);
}

struct job job_make(const struct inputs *inputs, const struct request *r) {
    struct job job = {.inputs = inputs};

    job.scoring.size = sizeof job.scoring;
    job.scoring.causal = parse_causal(r->causal);
    job.scoring.scale = r->scale ? parse_number(r->scale, "--scale") : 0;
    return job;
}

static const attn_packed *pack(struct engine *e, const struct matrix *m, const char *what) {
    const attn_packed *packed = NULL;
    size_t bytes = 0;
    void *memory;

    if (!m->data) {
        return NULL;
    }
    check(e, attn_pack_linear_bytes(e->context, &m->stored, &bytes), what);
    memory = get_memory(bytes, what);
    check(e, attn_pack_linear(e->context, &m->stored, m->bias, memory, bytes, &packed), what);
    return packed;
}

static const attn_packed **pack_list(struct engine *e, const struct matrix *list, size_t n,
                                     const char *what) {
    const attn_packed **packed;

    if (!list) {
        return NULL;
    }
    packed = get_array(n, sizeof *packed, what);
    for (size_t i = 0; i < n; i++) {
        packed[i] = pack(e, &list[i], what);
    }
    return packed;
}

void engine_open(struct engine *e, const struct model *m, const char *backend, size_t threads) {
    char error[512] = "";
    attn_options options = {.size = sizeof options,
                            .backend = backend,
                            .n_threads = threads,
                            .strict = !backend, /* the bounds are for f32's own rounding */
                            .error = error,
                            .error_bytes = sizeof error};

    memset(e, 0, sizeof *e);
    e->model = m;
    if (attn_context_create(&options, &e->context) != ATTN_OK) {
        die("%s: %s", backend ? "--backend" : "attn_context_create", error);
    }
    e->weights = (attn_weights){.size = sizeof e->weights,
                                .n_head = m->n_head,
                                .n_head_kv = m->n_head_kv,
                                .w_q = pack(e, &m->w_q, "W_q"),
                                .w_k = pack(e, &m->w_k, "W_k"),
                                .w_v = pack(e, &m->w_v, "W_v"),
                                .w_o = pack(e, &m->w_o, "W_o"),
                                .pooling = m->additive ? ATTN_POOLING_ADDITIVE : ATTN_POOLING_DOT,
                                .a_q = pack_list(e, m->a_q, m->n_head, "A_q"),
                                .a_k = pack_list(e, m->a_k, m->n_head_kv, "A_k")};
    if (m->additive) {
        e->w_a = attn_tensor_contiguous(m->w_a, ATTN_F32, 1, m->w_a_heads, 1, m->c);
        e->weights.w_a = &e->w_a;
    }
}

attn_head_args job_args(const struct job *job, size_t head, float *out, size_t columns, float *attention,
                        struct job_tensors *t) {
    const struct inputs *in = job->inputs;
    attn_head_args args = {.size = sizeof args,
                           .head = head,
                           .q = &t->q,
                           .k = &t->k,
                           .v = &t->v,
                           .out = &t->out,
                           .scoring = &job->scoring};

    t->q = matrix_tensor(in->q.data, in->q.rows, in->q.columns);
    t->k = matrix_tensor(in->k.data, in->k.rows, in->k.columns);
    t->v = matrix_tensor(in->v.data, in->v.rows, in->v.columns);
    t->out = matrix_tensor(out, in->q.rows, columns);
    if (attention) {
        t->attention = matrix_tensor(attention, in->q.rows, in->k.rows);
        args.attention = &t->attention;
    }
    return args;
}

void engine_head(struct engine *e, const struct job *job, size_t head, float *out, float *attention) {
    struct job_tensors tensors;
    attn_head_args args = job_args(job, head, out, e->model->p_v, attention, &tensors);

    args.weights = &e->weights;
    check(e, attn_head(e->context, &args), "attn_head");
}

void engine_multihead(struct engine *e, const struct job *job, float *out) {
    struct job_tensors tensors;
    attn_head_args args = job_args(job, 0, out, e->model->w_o.n, NULL, &tensors);

    args.weights = &e->weights;
    check(e, attn_multihead(e->context, &args), "attn_multihead");
}

void engine_heads(struct engine *e, const struct job *job, float *out) {
    const struct model *m = e->model;
    size_t n_q = job->inputs->q.rows, columns = m->n_head * m->p_v;
    float *rows = get_array(n_q * columns, sizeof *rows, "heads");
    struct job_tensors tensors;
    attn_head_args args = job_args(job, 0, rows, columns, NULL, &tensors);
    attn_weights without_w_o = e->weights;

    without_w_o.w_o = NULL;
    args.weights = &without_w_o;
    check(e, attn_multihead(e->context, &args), "attn_multihead");
    for (size_t head = 0; head < m->n_head; head++) {
        for (size_t row = 0; row < n_q; row++) {
            memcpy(out + (head * n_q + row) * m->p_v, rows + row * columns + head * m->p_v,
                   m->p_v * sizeof *out);
        }
    }
    release(rows);
}

void engine_close(struct engine *e) {
    attn_context_destroy(e->context);
    e->context = NULL;
}
