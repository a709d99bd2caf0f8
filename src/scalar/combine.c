/* Partial results merged, in double. */
#include <math.h>

#include "scalar/scalar.h"
#include "size.h"

enum { BLOCK = 64 }; /* columns whose sums stand on the stack */

static void combine_row(const struct attn_combine_task *t, size_t row) {
    const size_t columns = t->out->size[3];
    float *out = attn_combine_row(t, t->out, row);
    double max = -INFINITY, total = 0.0;
    for (size_t i = 0; i < t->n_parts; i++) {
        const double lse = *attn_combine_row(t, &t->lses[i], row);
        if (lse > max || isnan(lse)) max = lse;
    }
    for (size_t c = 0; c < columns; c += BLOCK) {
        const size_t n = attn_min(columns - c, BLOCK);
        double sum[BLOCK];
        total = 0.0;
        for (size_t k = 0; k < n; k++) sum[k] = -0.0; /* a single part keeps the signs of its zeros */
        for (size_t i = 0; i < t->n_parts; i++) {
            const double lse = *attn_combine_row(t, &t->lses[i], row);
            const float *o = attn_combine_row(t, &t->outs[i], row) + c;
            if (lse == -INFINITY) continue;
            const double w = exp(lse - max);
            total += w;
            for (size_t k = 0; k < n; k++) sum[k] += w * (double)o[k];
        }
        for (size_t k = 0; k < n; k++) out[c + k] = max == -INFINITY ? 0.0f : (float)(sum[k] / total);
    }
    if (t->lse) *attn_combine_row(t, t->lse, row) = max == -INFINITY ? -INFINITY : (float)(max + log(total));
}

void attn_combine_scalar(const struct attn_combine_task *t) {
    for (size_t row = 0; row < t->n_rows; row++) combine_row(t, row);
}
