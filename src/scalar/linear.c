#include "scalar/scalar.h"

static size_t panel_width(size_t n, size_t first, size_t nr) {
    const size_t left = n - first;
    return left >= nr ? nr : (left + ATTN_PANEL_UNIT - 1) / ATTN_PANEL_UNIT * ATTN_PANEL_UNIT;
}

void attn_linear_scalar(const struct attn_linear_task *t) {
    const size_t nr = attn_backend_scalar.layout;
    for (size_t i = 0; i < t->m; i++) {
        const float *x = t->x + (ptrdiff_t)i * t->x_row;
        for (size_t o = t->o0; o < t->o1; o++) {
            const size_t first = o / nr * nr, width = panel_width(t->n, first, nr);
            const float *w = t->panels + first * t->k + (o - first);
            double sum = t->bias ? (double)t->bias[o] : 0.0;
            for (size_t k = 0; k < t->k; k++) sum += (double)x[k] * (double)w[k * width];
            t->y[(ptrdiff_t)i * t->y_row + (ptrdiff_t)(o - t->o0)] = (float)sum;
        }
    }
}
