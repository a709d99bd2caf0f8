#include "scalar/scalar.h"
#include "size.h"
#include "weights.h"

static size_t panel_width(size_t n, size_t first, size_t nr) {
    const size_t left = n - first;
    return left >= nr ? nr : (left + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
}

enum {
    PIECE = ATTN_BLOCK_MAX, /* values at a time: whole blocks of every type */
    ROWS = 8                /* that share them */
};

/* Output o for n <= ROWS rows from row i on. */
static void output(const struct attn_linear_task *t, size_t i, size_t n, size_t o) {
    const size_t nr = attn_backend_scalar.layout, first = o / nr * nr;
    const char *panel = (const char *)t->panels + first * t->row_bytes;
    double sum[ROWS];
    float blocks[PIECE], w[PIECE]; /* as they lie in a tensor, and their values */
    for (size_t r = 0; r < n; r++) sum[r] = t->bias ? (double)t->bias[o] : 0.0;
    for (size_t k = 0; k < t->k; k += PIECE) {
        const size_t some = attn_min(t->k - k, PIECE);
        attn_weights_unpack_row(t->dtype, panel, panel_width(t->n, first, nr), o - first, k, some, blocks);
        attn_to_f32_scalar(t->dtype, blocks, some, w);
        for (size_t r = 0; r < n; r++) {
            const float *x = t->x + (ptrdiff_t)(i + r) * t->x_row + k;
            for (size_t kk = 0; kk < some; kk++) sum[r] += (double)x[kk] * (double)w[kk];
        }
    }
    for (size_t r = 0; r < n; r++)
        t->y[(ptrdiff_t)(i + r) * t->y_row + (ptrdiff_t)(o - t->o0)] = (float)sum[r];
}

void attn_linear_scalar(const struct attn_linear_task *t) {
    for (size_t i = 0; i < t->m; i += ROWS)
        for (size_t o = t->o0; o < t->o1; o++) output(t, i, attn_min(t->m - i, ROWS), o);
}
