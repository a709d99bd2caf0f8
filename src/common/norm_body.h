/* The norm slot: rows divided by their root mean square, columns in the lanes. */
#ifndef ATTN_NORM_BODY_H
#define ATTN_NORM_BODY_H

#include <math.h>

#include "backend.h"
#include "order.h"
#include "size.h"

/* Sum of squares: column j in chain j % ATTN_NORM_CHAINS. */
ATTN_INLINE float norm_sum(const float *x, size_t n) {
    enum { NV = ATTN_NORM_CHAINS / VF32_N };
    vf32 acc[NV];
    float sum[ATTN_NORM_CHAINS];
    size_t j = 0;
    ATTN_UNROLL for (int v = 0; v < NV; v++) acc[v] = v_zero();
    for (; j + ATTN_NORM_CHAINS <= n; j += ATTN_NORM_CHAINS) ATTN_UNROLL for (int v = 0; v < NV; v++) {
            const vf32 a = v_load(x + j + v * VF32_N);
            acc[v] = v_fma(a, a, acc[v]);
        }
    for (int v = 0; v < NV && j < n; v++, j += VF32_N) { /* beyond the row: 0, which changes no sum */
        const vf32 a = v_load_tail(x + j, attn_min(n - j, VF32_N));
        acc[v] = v_fma(a, a, acc[v]);
    }
    ATTN_UNROLL for (int v = 0; v < NV; v++) v_store(sum + v * VF32_N, acc[v]);
    for (size_t m = ATTN_NORM_CHAINS / 2; m; m /= 2)
        for (size_t i = 0; i < m; i++) sum[i] = sum[2 * i] + sum[2 * i + 1];
    return sum[0];
}

static void norm_body(const struct attn_norm_task *task) {
    const struct attn_norm_task t = *task;
    const size_t whole = t.columns - t.columns % VF32_N;
    for (size_t r = 0; r < t.n_rows; r++)
        for (size_t h = 0; h < t.n_head; h++) {
            float *x = t.x + (ptrdiff_t)r * t.x_row + (ptrdiff_t)h * t.x_head;
            const float mean = norm_sum(x, t.columns) / (float)t.columns;
            const vf32 factor = v_set1(1.0f / sqrtf(mean + t.epsilon));
            for (size_t j = 0; j < whole; j += VF32_N)
                v_store(x + j, v_mul(v_mul(v_load(x + j), factor), v_load(t.weight + j)));
            const size_t left = t.columns - whole;
            if (!left) continue;
            const vf32 y = v_mul(v_load_tail(x + whole, left), factor);
            v_store_tail(x + whole, v_mul(y, v_load_tail(t.weight + whole, left)), left);
        }
}

#endif
