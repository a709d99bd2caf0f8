#include <math.h>
#include <string.h>

#include "scalar/scalar.h"

static const double two_pi = 0x1.921fb54442d18p+2; /* check: 2 pi */

/* Turns of a whole revolution, in [-1/2, 1/2]: the product with turns_hi is kept whole in two parts. */
static double fraction(double position, double hi, double lo) {
    const double p = position * hi, rest = fma(position, hi, -p);
    return (p - rint(p)) + fma(position, lo, rest);
}

/* A row: n_padded pairs of cos and sin, as doubles. */
void attn_rope_table_scalar(const struct attn_rope_table_task *t) {
    for (size_t r = 0; r < t->n_rows; r++) {
        const int64_t position = t->first + (t->positions ? t->positions[r] : (int64_t)r);
        double *row = (double *)(void *)(t->table + r * 4 * t->n_padded);
        for (size_t i = 0; i < t->n_padded; i++) {
            const double angle = two_pi * fraction((double)position, t->turns_hi[i], t->turns_lo[i]);
            row[2 * i] = t->magnitude * cos(angle);
            row[2 * i + 1] = t->magnitude * sin(angle);
        }
    }
}

void attn_rope_scalar(const struct attn_rope_task *t) {
    const size_t step = t->interleaved ? 2 : 1, other = t->interleaved ? 1 : t->n;
    for (size_t r = 0; r < t->n_rows; r++) {
        const double *table = (const double *)(const void *)(t->table + r * 4 * t->n_padded);
        for (size_t h = 0; h < t->n_head; h++) {
            const float *x = t->x + (ptrdiff_t)r * t->x_row + (ptrdiff_t)h * t->x_head;
            float *y = t->y + (ptrdiff_t)r * t->y_row + (ptrdiff_t)h * t->y_head;
            for (size_t i = 0; i < t->n; i++) {
                const double x0 = (double)x[step * i], x1 = (double)x[step * i + other];
                const double c = table[2 * i], s = table[2 * i + 1];
                y[step * i] = (float)(x0 * c - x1 * s);
                y[step * i + other] = (float)(x0 * s + x1 * c);
            }
            if (y != x) memcpy(y + 2 * t->n, x + 2 * t->n, (t->columns - 2 * t->n) * sizeof *y);
        }
    }
}
