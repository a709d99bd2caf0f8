/*
 * AVX-512 micro-kernels; src/common/ukernel_contract.h says what each computes. Their int parameters are
 * constants at each call, so that each combination is a variant of its own.
 *
 * All three hold a tile of accumulators and step along one dimension: load the vectors of one operand, then for
 * each row broadcast one float of the other and multiply-add. Loads and broadcasts are 7 to 10 a step against 12 to
 * 24 multiply-adds, so two load ports feed two FMA ports with room to spare. Edges in columns are masks (free).
 */
#ifndef ATTN_UKERNEL_H
#define ATTN_UKERNEL_H

#include "fields.h"
#include "common/load_weights.h"
#include "tile.h"
#include "vec.h"

/* The products of one k: number j of the step whose weights begin at panel. */
ATTN_INLINE void uk_linear_products(int type, int mr, int nv, int j, const float *x, ptrdiff_t x_row,
                                    const char *panel, __m512 c[LINEAR_MR][LINEAR_NV]) {
    __m512 w[LINEAR_NV];
    ATTN_UNROLL for (int v = 0; v < nv; v++) w[v] = v_load_weights(type, panel, nv, v, j);
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        const __m512 a = _mm512_set1_ps(x[i * x_row]);
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = _mm512_fmadd_ps(a, w[v], c[i][v]);
    }
}

ATTN_INLINE void uk_linear(int type, int mr, int nv, int lines, size_t k, const float *x, ptrdiff_t x_row,
                           const void *weights, const char *ahead, const float *bias, float *y,
                           ptrdiff_t y_row, size_t n, int accumulate) {
    __m512 c[LINEAR_MR][LINEAR_NV];
    const char *panel = weights;
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        const __m512 b = bias ? _mm512_loadu_ps(bias + v * 16) : _mm512_setzero_ps();
        ATTN_UNROLL for (int i = 0; i < mr; i++) {
            c[i][v] = b;
            ATTN_PREFETCH_WRITE(y + i * y_row + v * 16);
        }
    }
    const int step = v_weights_step(type);
    ATTN_NO_UNROLL for (size_t left = k / (size_t)step; left; left--, x += step, panel += nv * 64) {
        ATTN_UNROLL for (int f = 0; f < lines; f++) ATTN_PREFETCH_L2(ahead + f * 64);
        ahead += lines * 64;
        if (lines) { /* beside what comes from memory L2's own prefetcher is late: 16 steps ahead, into L1 */
            ATTN_UNROLL for (int v = 0; v < nv; v++) ATTN_PREFETCH_L1(panel + (16 * nv + v) * 64);
        }
        ATTN_UNROLL for (int j = 0; j < step; j++)
            uk_linear_products(type, mr, nv, j, x + j, x_row, panel, c);
    }
    if (k % (size_t)step) uk_linear_products(type, mr, nv, 0, x, x_row, panel, c);
    const __mmask16 edge = (__mmask16)(0xffffu >> ((size_t)nv * 16 - n)); /* of the last vector */
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) {
            float *at = y + i * y_row + v * 16;
            const __mmask16 m = v < nv - 1 ? (__mmask16)0xffff : edge;
            if (accumulate) c[i][v] = _mm512_add_ps(c[i][v], _mm512_maskz_loadu_ps(m, at));
            _mm512_mask_storeu_ps(at, m, c[i][v]);
        }
    }
}

ATTN_INLINE void uk_qk(int keys, int nv, size_t lanes, const float *k, ptrdiff_t k_row, size_t d,
                       const float *q, vf32 c[QK_KEYS][POOL_NV]) {
    ATTN_UNROLL_4 for (size_t kk = 0; kk < d; kk++, k++, q += lanes) {
        __m512 b[POOL_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] = _mm512_loadu_ps(q + v * 16);
        ATTN_UNROLL for (int i = 0; i < keys; i++) {
            const __m512 a = _mm512_set1_ps(k[i * k_row]);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = _mm512_fmadd_ps(a, b[v], c[i][v]);
        }
    }
}

ATTN_INLINE void uk_pv(int cols, int nv, size_t lanes, size_t keys, const float *x, ptrdiff_t x_row,
                       const float *p, float *o) {
    __m512 c[PV_COLS][POOL_NV];
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = _mm512_loadu_ps(o + (size_t)i * lanes + v * 16);
    }
    ATTN_UNROLL_4 for (size_t j = 0; j < keys; j++, x += x_row, p += lanes) {
        __m512 b[POOL_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] = _mm512_loadu_ps(p + v * 16);
        ATTN_UNROLL for (int i = 0; i < cols; i++) {
            const __m512 a = _mm512_set1_ps(x[i]);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = _mm512_fmadd_ps(b[v], a, c[i][v]);
        }
    }
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) _mm512_storeu_ps(o + (size_t)i * lanes + v * 16, c[i][v]);
    }
}

ATTN_INLINE void uk_pv_hiding(int cols, int nv, size_t lanes, size_t keys, const float *x, ptrdiff_t x_row,
                              const float *p, float *o) {
    __m512 c[PV_COLS][POOL_NV];
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = _mm512_loadu_ps(o + (size_t)i * lanes + v * 16);
    }
    ATTN_NO_UNROLL for (size_t j = 0; j < keys; j++, x += x_row, p += lanes) {
        __m512 b[POOL_NV];
        __mmask16 sees[POOL_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) {
            b[v] = _mm512_loadu_ps(p + v * 16);
            sees[v] = _knot_mask16(v_sign(b[v]));
        }
        ATTN_UNROLL for (int i = 0; i < cols; i++) {
            const __m512 a = _mm512_set1_ps(x[i]);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] =
                _mm512_mask3_fmadd_ps(b[v], a, c[i][v], sees[v]);
        }
    }
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) _mm512_storeu_ps(o + (size_t)i * lanes + v * 16, c[i][v]);
    }
}

#endif
