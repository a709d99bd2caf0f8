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

/* out = W_down (silu(W_gate x) * W_up x) with silu(a) = a / (1 + e^-a). */
static void run_mlp(struct model *m, const struct layer *layer, float *x, size_t n, float *out) {
    float *gate = m->mlp, *up = gate + n * m->d_mlp;

    linear(m, x, n, layer->w_gate, gate);
    linear(m, x, n, layer->w_up, up);
    for (size_t i = 0; i < n * m->d_mlp; i++) {
        gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
    }
    linear(m, gate, n, layer->w_down, out);
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
        rows = n - done < m->chunk ? n - done : m->chunk;
        run_chunk(m, ids + done, rows);
    }
    rms_norm(m, m->x + (rows - 1) * m->d_model, 1, m->output_norm, m->normed);
    linear(m, m->normed, 1, m->w_output, m->logits);
    return m->logits;
}

/* -log softmax(logits)[id], in double. */
static double loss_of(const float *logits, size_t n, uint32_t id) {
    float largest = logits[0];
    double sum = 0;

    for (size_t i = 1; i < n; i++) {
        largest = logits[i] > largest ? logits[i] : largest;
    }
    for (size_t i = 0; i < n; i++) {
        sum += exp((double)(logits[i] - largest));
    }
    return log(sum) - (double)(logits[id] - largest);
}

double model_loss(struct model *m, const uint32_t *ids, const uint32_t *next, size_t n) {
    size_t rows, some;
    double loss = 0;

    for (size_t done = 0; done < n; done += rows) {
        rows = n - done < m->chunk ? n - done : m->chunk;
        run_chunk(m, ids + done, rows);
        rms_norm(m, m->x, rows, m->output_norm, m->normed);
        for (size_t first = 0; first < rows; first += some) { /* the logits of all rows would be 100 MB */
            some = rows - first < LOGIT_ROWS ? rows - first : LOGIT_ROWS;
            linear(m, m->normed + first * m->d_model, some, m->w_output, m->logits);
            for (size_t i = 0; i < some; i++) {
                loss += loss_of(m->logits + i * m->n_token, m->n_token, next[done + first + i]);
            }
        }
    }
    return loss;
}
