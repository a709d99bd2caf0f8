/*
 * AVX2 micro-kernels. Their contracts stand in src/common/ukernel_contract.h; the int parameters are
 * constants at each call, so that each combination is a variant of its own.
 */
#ifndef ATTN_UKERNEL_H
#define ATTN_UKERNEL_H

#include "tile.h"
#include "vec.h"

ATTN_INLINE void uk_linear(int mr, int nv, size_t k, const float *x, ptrdiff_t x_row, const float *panel,
                           const float *bias, float *y, ptrdiff_t y_row, size_t n, int accumulate) {
    vf32 c[LINEAR_MR][LINEAR_NV];
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        const vf32 b = bias ? v_load(bias + v * VF32_N) : v_zero();
        ATTN_UNROLL for (int i = 0; i < mr; i++) c[i][v] = b;
    }
    ATTN_NO_UNROLL for (size_t kk = 0; kk < k; kk++) {
        vf32 w[LINEAR_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) w[v] = v_load(panel + v * VF32_N);
        ATTN_UNROLL for (int i = 0; i < mr; i++) {
            const vf32 a = v_set1(x[i * x_row]);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_fma(a, w[v], c[i][v]);
        }
        x++;
        panel += nv * VF32_N;
    }
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        float *yi = y + i * y_row;
        ATTN_UNROLL for (int v = 0; v < nv; v++) {
            const size_t from = (size_t)v * VF32_N; /* a panel may have a vector without outputs */
            const size_t cols = n <= from ? 0 : n - from < VF32_N ? n - from : VF32_N;
            if (accumulate) c[i][v] = v_add(c[i][v], v_load_tail(yi + v * VF32_N, cols));
            v_store_tail(yi + v * VF32_N, c[i][v], cols);
        }
    }
}

ATTN_INLINE void uk_qk(int keys, int nv, const float *k, ptrdiff_t k_row, size_t d, const float *q, float *s) {
    vf32 c[QK_KEYS][POOL_NV];
    ATTN_UNROLL for (int i = 0; i < keys; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_zero();
    }
    ATTN_NO_UNROLL for (size_t kk = 0; kk < d; kk++) {
        vf32 b[POOL_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] = v_load(q + v * VF32_N);
        ATTN_UNROLL for (int i = 0; i < keys; i++) {
            const vf32 a = v_set1(k[i * k_row]);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_fma(a, b[v], c[i][v]);
        }
        k++;
        q += nv * VF32_N;
    }
    ATTN_UNROLL for (int i = 0; i < keys; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) v_store(s + (i * nv + v) * VF32_N, c[i][v]);
    }
}

ATTN_INLINE void uk_pv(int cols, int nv, size_t keys, const float *x, ptrdiff_t x_row, const float *p, float *o) {
    vf32 c[PV_COLS][POOL_NV];
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_load(o + (i * nv + v) * VF32_N);
    }
    ATTN_NO_UNROLL for (size_t j = 0; j < keys; j++) {
        vf32 b[POOL_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] = v_load(p + v * VF32_N);
        ATTN_UNROLL for (int i = 0; i < cols; i++) {
            const vf32 a = v_set1(x[i]);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_fma(b[v], a, c[i][v]);
        }
        p += nv * VF32_N;
        x += x_row;
    }
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) v_store(o + (i * nv + v) * VF32_N, c[i][v]);
    }
}

#endif
