#include <math.h>

#include "scalar/scalar.h"

void attn_norm_scalar(const struct attn_norm_task *t) {
    for (size_t r = 0; r < t->n_rows; r++)
        for (size_t h = 0; h < t->n_head; h++) {
            float *x = t->x + (ptrdiff_t)r * t->x_row + (ptrdiff_t)h * t->x_head;
            double sum = 0.0;
            for (size_t j = 0; j < t->columns; j++) sum += (double)x[j] * (double)x[j];
            const double root = sqrt(sum / (double)t->columns + (double)t->epsilon);
            for (size_t j = 0; j < t->columns; j++)
                x[j] = (float)((double)x[j] / root * (double)t->weight[j]);
        }
}
