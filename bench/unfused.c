#include "unfused.h"

#include <math.h>
#include <string.h>

#include "config.h"
#include "context.h"
#include "order.h"
#include "pack.h"
#include "size.h"
#include "softmax.h"

enum {
    LINE = 16,
    SCORES_UNIT = 64,
    SCORES_PAD = 16
}; /* rows apart by no power of two, so that they share L1 */

static const char no_room[] = "needs more memory than the benchmark reserves";

/* A tier's is that of the backend that it belongs to. */
static const struct softmax *softmax_of(const struct attn_backend *backend) {
    if (backend->exact) backend = backend->exact;
#if HAVE_AVX512
    if (strcmp(backend->name, "avx512") == 0) return &softmax_avx512;
#endif
#if HAVE_AVX2
    if (strcmp(backend->name, "avx2") == 0) return &softmax_avx2;
#endif
#if HAVE_NEON
    if (strcmp(backend->name, "neon") == 0) return &softmax_neon;
#endif
    (void)backend;
    return NULL;
}

size_t unfused_scratch(const struct unfused *u) { return UNFUSED_ROWS * u->scores_row * sizeof(float); }

const char *unfused_prepare(struct unfused *u, struct arena *work) {
    if (!softmax_of(u->context->backend)) {
        return "there is no unfused softmax for this backend";
    }
    u->scores_row = (u->n_kv + SCORES_UNIT - 1) / SCORES_UNIT * SCORES_UNIT + SCORES_PAD;
    u->scores = arena_take(work, unfused_scratch(u));
    return u->scores ? NULL : no_room;
}

static const char *pack(attn_context *context, const attn_tensor *w, void *memory, size_t bytes,
                        const attn_packed **packed) {
    return attn_pack_linear(context, w, NULL, memory, bytes, packed) == ATTN_OK ? NULL
                                                                                : attn_context_error(context);
}

static float *row_of(const attn_tensor *t, size_t head, size_t row) {
    return (float *)(void *)((char *)t->data + (ptrdiff_t)head * t->stride[1] +
                             (ptrdiff_t)row * t->stride[2]);
}

const char *unfused_pack(struct unfused *u, const attn_tensor *k, const attn_tensor *v, size_t head,
                         struct arena *work, struct unfused_head *packed) {
    const size_t n_kv = u->n_kv, p = v->size[3];
    attn_tensor one = *k, transposed = attn_tensor_contiguous(NULL, ATTN_F32, 1, 1, p, n_kv);
    size_t k_bytes, v_bytes;

    one.data = row_of(k, head, 0);
    one.size[1] = 1;
    if (attn_pack_linear_bytes(u->context, &one, &k_bytes) != ATTN_OK ||
        attn_pack_linear_bytes(u->context, &transposed, &v_bytes) != ATTN_OK) {
        return attn_context_error(u->context);
    }
    void *k_memory = arena_take(work, k_bytes), *v_memory = arena_take(work, v_bytes);
    const size_t used = work->used;
    float *to = arena_take(work, p * n_kv * sizeof(float));
    work->used = used; /* the transposed values are needed only until they are packed */
    if (!k_memory || !v_memory || !to) {
        return no_room;
    }
    for (size_t j0 = 0; j0 < n_kv; j0 += LINE) { /* whole lines are written */
        for (size_t c = 0; c < p; c++) {
            for (size_t j = j0; j < attn_min(j0 + LINE, n_kv); j++) to[c * n_kv + j] = row_of(v, head, j)[c];
        }
    }
    transposed.data = to;
    const char *error = pack(u->context, &one, k_memory, k_bytes, &packed->k);
    return error ? error : pack(u->context, &transposed, v_memory, v_bytes, &packed->v);
}

/* y = x W^T over the first k inputs and (up to a panel's width more) the first n outputs of w: what
 * attn_linear runs for such a strip of rows. */
static void multiply(const struct attn_backend *backend, const float *x, ptrdiff_t x_row, size_t m,
                     const attn_packed *w, size_t n, size_t k, float *y, ptrdiff_t y_row) {
    const size_t nr = backend->layout, all = (size_t)w->n;
    const size_t end = attn_min(attn_ceil_div(n, nr) * nr, all);
    /* a panel of fewer inputs than were packed is a matrix of its own */
    const size_t step = k == w->k ? end : nr;

    for (size_t o = 0; o < end; o += step) {
        const size_t left = k == w->k ? all : attn_min(nr, all - o);
        const struct attn_linear_task task = {.x = x,
                                              .x_row = x_row,
                                              .y = y + o,
                                              .y_row = y_row,
                                              .m = m,
                                              .k = k,
                                              .panels =
                                                  (const float *)attn_packed_panels(w) + o * (size_t)w->k,
                                              .row_bytes = k * sizeof(float),
                                              .n = left,
                                              .o1 = attn_min(end - o, left),
                                              .o_next = SIZE_MAX};
        backend->linear(&task);
    }
}

/* m rows of q from `row` on, which see keys of one head. */
static void run_strip(const struct unfused *u, const struct unfused_head *kv, size_t head, size_t row,
                      size_t m) {
    const struct attn_backend *backend = u->context->backend;
    const struct softmax *softmax = softmax_of(backend);
    const ptrdiff_t q_row = u->q.stride[2] / (ptrdiff_t)sizeof(float);
    const ptrdiff_t out_row = u->out.stride[2] / (ptrdiff_t)sizeof(float);
    const size_t d = u->q.size[3], p = u->out.size[3];
    size_t visible[UNFUSED_ROWS];
    float inverse[UNFUSED_ROWS], *out = row_of(&u->out, head, row);

    for (size_t i = 0; i < m; i++) {
        visible[i] = u->causal ? attn_min(row + i + 1, u->n_kv) : u->n_kv;
    }
    const size_t seen = visible[m - 1];
    multiply(backend, row_of(&u->q, head, row), q_row, m, kv->k, seen, d, u->scores,
             (ptrdiff_t)u->scores_row);
    softmax->rows(u->scores, u->scores_row, m, visible, seen, u->scale * ATTN_LOG2E, inverse);
    multiply(backend, u->scores, (ptrdiff_t)u->scores_row, m, kv->v, p, seen, out, out_row);
    softmax->scale(out, out_row, m, p, inverse);
}

void unfused_run(const struct unfused *u, const struct unfused_head *heads) {
    const size_t group = u->q.size[1] / u->n_head_kv, n_q = u->q.size[2];
    /* all rows that share a key are one matrix where they see the same keys */
    const size_t together = u->causal ? 1 : group, rows = n_q * together;

    for (size_t head = 0; head < u->q.size[1]; head += together) {
        const size_t strips = attn_ceil_div(rows, UNFUSED_ROWS);
        for (size_t i = 0, row = 0, m; i < strips; i++, row += m) {
            m = attn_ceil_div(rows - row, strips - i); /* spread evenly */
            run_strip(u, &heads[head / group], head, row, m);
        }
    }
}
