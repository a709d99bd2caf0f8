/*
 * AVX2 micro-kernels; src/common/ukernel_contract.h says what each computes. Their int parameters are constants at
 * each call, so that each combination is a variant of its own.
 *
 * Sixteen registers hold 12 accumulators, the vectors of one operand and a single broadcast that is reloaded for
 * each row: 12 chains just cover the latency of two FMAs a cycle. Rows are addressed from two base pointers, since
 * an x86 address has room for only one multiple (0, 1 or 2) of the row stride.
 */
#ifndef ATTN_UKERNEL_H
#define ATTN_UKERNEL_H

#include "fields.h"
#include "common/load_weights.h"
#include "tile.h"
#include "vec.h"

/* Float 0 of row i, in all lanes; low points at row 0, high at row 3. */
ATTN_INLINE __m256 uk_broadcast(const float *low, const float *high, ptrdiff_t row, int i) {
    return _mm256_broadcast_ss(i < 3 ? low + i * row : high + (i - 3) * row);
}

/* The products of one k: number j of the step whose weights begin at panel. */
ATTN_INLINE void uk_linear_products(int type, int mr, int nv, int j, const float *x, const float *high,
                                    ptrdiff_t x_row, const char *panel, __m256 c[LINEAR_MR][LINEAR_NV]) {
    __m256 w[LINEAR_NV];
    ATTN_UNROLL for (int v = 0; v < nv; v++) w[v] = v_load_weights(type, panel, nv, v, j);
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        const __m256 a = uk_broadcast(x, high, x_row, i);
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = _mm256_fmadd_ps(a, w[v], c[i][v]);
    }
}

ATTN_INLINE void uk_linear(int type, int mr, int nv, int lines, size_t k, const float *x, ptrdiff_t x_row,
                           const void *weights, const char *ahead, const float *bias, float *y,
                           ptrdiff_t y_row, size_t n, int accumulate) {
    __m256 c[LINEAR_MR][LINEAR_NV];
    const float *high = mr > 3 ? x + 3 * x_row : x;
    const char *panel = weights;
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        const __m256 b = bias ? _mm256_loadu_ps(bias + v * 8) : _mm256_setzero_ps();
        ATTN_UNROLL for (int i = 0; i < mr; i++) c[i][v] = b;
    }
    const int step = v_weights_step(type);
    ATTN_NO_UNROLL for (size_t left = k / (size_t)step; left;
                        left--, x += step, high += step, panel += nv * 32) {
        ATTN_UNROLL for (int f = 0; f < lines; f++) ATTN_PREFETCH_L2(ahead + f * 64);
        ahead += lines * 64;
        ATTN_UNROLL for (int j = 0; j < step; j++)
            uk_linear_products(type, mr, nv, j, x + j, high + j, x_row, panel, c);
    }
    if (k % (size_t)step) uk_linear_products(type, mr, nv, 0, x, high, x_row, panel, c);
    if (n == (size_t)nv * 8) { /* masked stores are slow: whole vectors take the plain ones */
        ATTN_UNROLL for (int i = 0; i < mr; i++) {
            ATTN_UNROLL for (int v = 0; v < nv; v++) {
                float *at = y + i * y_row + v * 8;
                if (accumulate) c[i][v] = _mm256_add_ps(c[i][v], _mm256_loadu_ps(at));
                _mm256_storeu_ps(at, c[i][v]);
            }
        }
        return;
    }
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        const size_t left = n > (size_t)v * 8 ? n - (size_t)v * 8 : 0;
        const __m256i m = v_first(left < 8 ? left : 8);
        ATTN_UNROLL for (int i = 0; i < mr; i++) {
            float *at = y + i * y_row + v * 8;
            if (accumulate) c[i][v] = _mm256_add_ps(c[i][v], _mm256_maskload_ps(at, m));
            _mm256_maskstore_ps(at, m, c[i][v]);
        }
    }
}

ATTN_INLINE void uk_qk(int keys, int nv, size_t lanes, const float *k, ptrdiff_t k_row, size_t d,
                       const float *q, vf32 c[QK_KEYS][POOL_NV]) {
    const float *high = keys > 3 ? k + 3 * k_row : k;
    ATTN_NO_UNROLL for (size_t kk = 0; kk < d; kk++, k++, high++, q += lanes) {
        __m256 b[POOL_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] = _mm256_loadu_ps(q + v * 8);
        ATTN_UNROLL for (int i = 0; i < keys; i++) {
            const __m256 a = uk_broadcast(k, high, k_row, i);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = _mm256_fmadd_ps(a, b[v], c[i][v]);
        }
    }
}

ATTN_INLINE void uk_pv(int cols, int nv, size_t lanes, size_t keys, const float *x, ptrdiff_t x_row,
                       const float *p, float *o) {
    __m256 c[PV_COLS][POOL_NV];
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = _mm256_loadu_ps(o + (size_t)i * lanes + v * 8);
    }
    ATTN_NO_UNROLL for (size_t j = 0; j < keys; j++, x += x_row, p += lanes) {
        __m256 b[POOL_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] = _mm256_loadu_ps(p + v * 8);
        ATTN_UNROLL for (int i = 0; i < cols; i++) {
            const __m256 a = _mm256_broadcast_ss(x + i);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = _mm256_fmadd_ps(b[v], a, c[i][v]);
        }
    }
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) _mm256_storeu_ps(o + (size_t)i * lanes + v * 8, c[i][v]);
    }
}

/*
 * A hidden probability is -0: with x made +0 there the product is -0, and adding that changes no o (adding +0
 * would change a -0). A choice between old and new o (blendv) takes twice the slots of the `andnot`.
 */
ATTN_INLINE void uk_pv_hiding(int cols, int nv, size_t lanes, size_t keys, const float *x, ptrdiff_t x_row,
                              const float *p, float *o) {
    __m256 c[PV_COLS][POOL_NV];
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = _mm256_loadu_ps(o + (size_t)i * lanes + v * 8);
    }
    ATTN_NO_UNROLL for (size_t j = 0; j < keys; j++, x += x_row, p += lanes) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) {
            const __m256 b = _mm256_loadu_ps(p + v * 8);
            const __m256 hidden = _mm256_castsi256_ps(_mm256_srai_epi32(_mm256_castps_si256(b), 31));
            ATTN_UNROLL for (int i = 0; i < cols; i++) c[i][v] =
                _mm256_fmadd_ps(b, _mm256_andnot_ps(hidden, _mm256_broadcast_ss(x + i)), c[i][v]);
            if (v < nv - 1) __asm__ volatile("" ::: "memory"); /* x anew, or gcc keeps it and spills sums */
        }
    }
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) _mm256_storeu_ps(o + (size_t)i * lanes + v * 8, c[i][v]);
    }
}

#endif
