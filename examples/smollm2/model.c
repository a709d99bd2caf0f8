/* Running the model: everything but attention is a product with packed weights or a plain loop. */
#include "model.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "common.h"

double seconds(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void check(const struct model *m, attn_status status, const char *what) {
    if (status != ATTN_OK) {
        die("%s: %s", what, attn_context_error(m->context));
    }
}

void linear(struct model *m, float *x, size_t n, const attn_packed *w, float *y) {
    size_t outputs, inputs;
    attn_tensor from, to;

    attn_packed_shape(w, &outputs, &inputs);
    from = attn_tensor_contiguous(x, ATTN_F32, 1, 1, n, inputs);
    to = attn_tensor_contiguous(y, ATTN_F32, 1, 1, n, outputs);
    check(m, attn_linear(m->context, &from, w, &to), "attn_linear");
}

/* y = x / sqrt(mean(x^2) + epsilon) * weights, row by row. */
static void rms_norm(const struct model *m, const float *x, size_t n, const float *weights, float *y) {
    for (size_t row = 0; row < n; row++, x += m->d_model, y += m->d_model) {
        double sum = 0;
        float scale;

        for (size_t i = 0; i < m->d_model; i++) {
            sum += (double)(x[i] * x[i]);
        }
        scale = 1 / sqrtf((float)(sum / (double)m->d_model) + m->epsilon);
        for (size_t i = 0; i < m->d_model; i++) {
            y[i] = x[i] * scale * weights[i];
        }
    }
}

static void add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
}

/* out = W_down (silu(W_gate x) * W_up x) with silu(a) = a / (1 + e^-a). Works in place: the products take
 * the place of what they were made of, d_mlp floats a row. */
static void run_mlp(struct model *m, const struct layer *layer, float *x, size_t n, float *out) {
    linear(m, x, n, layer->w_gate_up, m->mlp);
    for (size_t row = 0; row < n; row++) {
        const float *gate = m->mlp + row * 2 * m->d_mlp, *up = gate + m->d_mlp;
        float *product = m->mlp + row * m->d_mlp; /* never behind what is still to be read */

        for (size_t i = 0; i < m->d_mlp; i++) {
            product[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
        }
    }
    linear(m, m->mlp, n, layer->w_down, out);
}

static void run_chunk(struct model *m, const uint32_t *ids, size_t n) {
    for (size_t row = 0; row < n; row++) {
        check(m, gguf_floats(m->context, m->embedding, ids[row], 1, m->x + row * m->d_model), "gguf_floats");
    }
    for (size_t i = 0; i < m->n_layer; i++) {
        struct layer *layer = &m->layers[i];

        rms_norm(m, m->x, n, layer->attention_norm, m->normed);
        attend(m, layer, m->normed, n, m->update);
        add(m->x, m->update, n * m->d_model);
        rms_norm(m, m->x, n, layer->mlp_norm, m->normed);
        run_mlp(m, layer, m->normed, n, m->update);
        add(m->x, m->update, n * m->d_model);
    }
}

const float *model_run(struct model *m, const uint32_t *ids, size_t n) {
    size_t rows = 0;

    for (size_t done = 0; done < n; done += rows) {
        rows = n - done < CHUNK ? n - done : CHUNK;
        run_chunk(m, ids + done, rows);
    }
    rms_norm(m, m->x + (rows - 1) * m->d_model, 1, m->output_norm, m->normed);
    linear(m, m->normed, 1, m->w_output, m->logits);
    return m->logits;
}
