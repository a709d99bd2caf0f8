/*
 * NEON micro-kernels. Their contracts stand in src/common/ukernel_contract.h; the int parameters are
 * constants at each call, so that each combination is a variant of its own.
 *
 * The broadcast operand is a scalar or a lane of a vector (fmla by element). Read with llvm-mca (19), the
 * 24 products of a step of each full tile take 6.1 cycles on Neoverse V1 and 12.1 on N1 and N2 (ideal: 6
 * and 12), compiled by gcc 12 or clang, without a spill.
 */
#ifndef ATTN_UKERNEL_H
#define ATTN_UKERNEL_H

#include "fields.h"
#include "common/load_weights.h"
#include "tile.h"
#include "vec.h"

/*
 * Loads do not move across it. gcc (12) moves all of a step's scalar loads to its start, which takes more
 * registers than the accumulators leave, and then spills two of those: their chains go through memory.
 */
#define UKERNEL_FENCE __asm__ volatile("" ::: "memory")

/*
 * Keeps a loaded scalar a scalar. Both compilers, clang always, make a broadcasting load (ld1r) of it, which
 * takes a vector unit's slot beside the load's: 7.8 cycles a step instead of 6.1.
 */
#define UKERNEL_SCALAR(x) __asm__("" : "+w"(x))

/* a[lane] * b + c. lane is a constant at each call. */
ATTN_INLINE vf32 uk_fma_lane(vf32 a, int lane, vf32 b, vf32 c) {
    switch (lane) {
    case 0: return vfmaq_laneq_f32(c, b, a, 0);
    case 1: return vfmaq_laneq_f32(c, b, a, 1);
    case 2: return vfmaq_laneq_f32(c, b, a, 2);
    default: return vfmaq_laneq_f32(c, b, a, 3);
    }
}

/* The products of one k: number j of the step whose weights begin at panel. */
ATTN_INLINE void uk_linear_products(int type, int mr, int nv, int j, const float *x, ptrdiff_t x_row,
                                    const char *panel, vf32 c[LINEAR_MR][LINEAR_NV]) {
    vf32 w[LINEAR_NV];
    ATTN_UNROLL for (int v = 0; v < nv; v++) w[v] = v_load_weights(type, panel, nv, v, j);
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        float a = x[i * x_row];
        UKERNEL_SCALAR(a);
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = vfmaq_n_f32(c[i][v], w[v], a);
        if (i % LINEAR_AHEAD == LINEAR_AHEAD - 1 && i < mr - 1) UKERNEL_FENCE;
    }
}

ATTN_INLINE void uk_linear(int type, int mr, int nv, int lines, size_t k, const float *x, ptrdiff_t x_row,
                           const void *weights, const char *ahead, const float *bias, float *y,
                           ptrdiff_t y_row, size_t n, int accumulate) {
    vf32 c[LINEAR_MR][LINEAR_NV];
    const char *panel = weights;
    ATTN_UNROLL for (int v = 0; v < nv; v++) {
        const vf32 b = bias ? v_load(bias + v * VF32_N) : v_zero();
        ATTN_UNROLL for (int i = 0; i < mr; i++) c[i][v] = b;
    }
    const int step = v_weights_step(type);
    ATTN_NO_UNROLL for (size_t left = k / (size_t)step; left; left--) {
        ATTN_UNROLL for (int f = 0; f < lines; f++) ATTN_PREFETCH_L2(ahead + f * 64);
        ahead += lines * 64;
        ATTN_UNROLL for (int j = 0; j < step; j++)
            uk_linear_products(type, mr, nv, j, x + j, x_row, panel, c);
        x += step;
        panel += nv * 16;
    }
    if (k % (size_t)step) uk_linear_products(type, mr, nv, 0, x, x_row, panel, c);
    ATTN_UNROLL for (int i = 0; i < mr; i++) {
        float *yi = y + i * y_row;
        ATTN_UNROLL for (int v = 0; v < nv; v++) {
            const size_t from = (size_t)v * VF32_N; /* a panel may have a vector without outputs */
            if (n >= from + VF32_N) {
                if (accumulate) c[i][v] = v_add(c[i][v], v_load(yi + from));
                v_store(yi + from, c[i][v]);
            } else if (n > from) {
                if (accumulate) c[i][v] = v_add(c[i][v], v_load_tail(yi + from, n - from));
                v_store_tail(yi + from, c[i][v], n - from);
            }
        }
    }
}

ATTN_INLINE void uk_qk(int keys, int nv, size_t lanes, const float *k, ptrdiff_t k_row, size_t d,
                       const float *q, vf32 c[QK_KEYS][POOL_NV]) {
    ATTN_NO_UNROLL for (size_t kk = 0; kk < d; kk++) {
        vf32 b[POOL_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] = v_load(q + v * VF32_N);
        ATTN_UNROLL for (int i = 0; i < keys; i++) {
            float a = k[i * k_row];
            UKERNEL_SCALAR(a);
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = vfmaq_n_f32(c[i][v], b[v], a);
            if (i % QK_AHEAD == QK_AHEAD - 1 && i < keys - 1) UKERNEL_FENCE;
        }
        k++;
        q += lanes;
    }
}

ATTN_INLINE void uk_pv(int cols, int nv, size_t lanes, size_t keys, const float *x, ptrdiff_t x_row,
                       const float *p, float *o) {
    vf32 c[PV_COLS][POOL_NV];
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_load(o + (size_t)i * lanes + v * VF32_N);
    }
    ATTN_NO_UNROLL for (size_t j = 0; j < keys; j++) {
        vf32 b[POOL_NV], a[PV_COLS / VF32_N];
        ATTN_UNROLL for (int v = 0; v < nv; v++) b[v] = v_load(p + v * VF32_N);
        ATTN_UNROLL for (int i = 0; i < cols; i += VF32_N) a[i / VF32_N] =
            v_load_tail(x + i, (size_t)(cols - i < VF32_N ? cols - i : VF32_N));
        ATTN_UNROLL for (int i = 0; i < cols; i++) {
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] =
                uk_fma_lane(a[i / VF32_N], i % VF32_N, b[v], c[i][v]);
        }
        p += lanes;
        x += x_row;
    }
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) v_store(o + (size_t)i * lanes + v * VF32_N, c[i][v]);
    }
}

/*
 * A hidden probability is -0: with x made +0 there the product is -0, and adding that changes no o (adding +0
 * would change a -0). A choice between old and new o takes a copy and a select for each product instead of one
 * `and`, and gcc then spills: 25.3 cycles a step on Neoverse V1 instead of 15.0.
 */
ATTN_INLINE void uk_pv_hiding(int cols, int nv, size_t lanes, size_t keys, const float *x, ptrdiff_t x_row,
                              const float *p, float *o) {
    vf32 c[PV_COLS][POOL_NV];
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] = v_load(o + (size_t)i * lanes + v * VF32_N);
    }
    ATTN_NO_UNROLL for (size_t j = 0; j < keys; j++, x += x_row, p += lanes) {
        vf32 b[POOL_NV];
        vmask seen[POOL_NV];
        ATTN_UNROLL for (int v = 0; v < nv; v++) {
            b[v] = v_load(p + v * VF32_N);
            seen[v] = vcgezq_s32(vreinterpretq_s32_f32(b[v]));
        }
        ATTN_UNROLL for (int i = 0; i < cols; i++) {
            const uint32x4_t a = vreinterpretq_u32_f32(vld1q_dup_f32(x + i));
            ATTN_UNROLL for (int v = 0; v < nv; v++) c[i][v] =
                v_fma(b[v], vreinterpretq_f32_u32(vandq_u32(a, seen[v])), c[i][v]);
            if (i < cols - 1) UKERNEL_FENCE;
        }
    }
    ATTN_UNROLL for (int i = 0; i < cols; i++) {
        ATTN_UNROLL for (int v = 0; v < nv; v++) v_store(o + (size_t)i * lanes + v * VF32_N, c[i][v]);
    }
}

#endif
