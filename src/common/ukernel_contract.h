/*
 * The micro-kernels that every ISA folder writes by hand in its ukernel.h, and
 * the constants of its tile.h. Included after them: the declarations below
 * check the signatures.
 *
 * uk_linear: one register tile of y = x W^T. mr in [1, LINEAR_MR] rows, nv in
 * [1, LINEAR_NV] vectors. y[i][o] = bias[o] + sum_k x[i][k] panel[k][o], one
 * chain of fused multiply-adds in ascending k. panel: ATTN_F32 or ATTN_F16 (type)
 * [k][nv * VF32_N], ATTN_BF16 [k / 2][nv * VF32_N][2]. ahead: `lines` cache lines
 * to ask for at each step of one k, of f16 and bf16 two. bias: nv * VF32_N floats, or NULL for 0. n: outputs to write, in [1, nv * VF32_N];
 * nothing beyond y[i][n-1] is touched. accumulate: the chain's end is added to
 * what y holds (bias is then NULL).
 *
 * Pooling: q, p and o are rows of `lanes` floats, of which the nv in [1, POOL_NV] vectors at the pointers are used; k_row and
 * v_row are strides in floats.
 *
 * uk_qk: goes on with the chains of the scores of `keys` in [1, QK_KEYS] keys, in registers: for ascending d
 *   c[i][v] = fma(k[i][d], q[d][v], c[i][v]). c is an array of the caller's that both unroll away.
 *
 * uk_pv: o[c][lane] = fma(p[j][lane], v[j][c], o[c][lane]) for ascending j in [0, keys), for `cols` in [1, PV_COLS]
 *   columns of v.
 *
 * uk_pv_hiding: the same, but where p[j][lane] is -0 o[c][lane] stays as it is, whatever v holds. No other p has
 *   its sign bit set, but a NaN may.
 *
 * All read exactly what they name; pointers need no alignment beyond a float's;
 * nothing overlaps. QK_KEYS and PV_COLS are powers of two: the bodies take
 * tails as 4, 2, 1.
 */
#ifndef ATTN_UKERNEL_CONTRACT_H
#define ATTN_UKERNEL_CONTRACT_H

#include <stddef.h>

#include "order.h"

ATTN_INLINE void uk_linear(int type, int mr, int nv, int lines, size_t k, const float *x, ptrdiff_t x_row,
                           const void *panel, const char *ahead, const float *bias, float *y, ptrdiff_t y_row,
                           size_t n, int accumulate);
ATTN_INLINE void uk_qk(int keys, int nv, size_t lanes, const float *k, ptrdiff_t k_row, size_t d,
                       const float *q, vf32 c[QK_KEYS][POOL_NV]);
ATTN_INLINE void uk_pv(int cols, int nv, size_t lanes, size_t keys, const float *v, ptrdiff_t v_row,
                       const float *p, float *o);
ATTN_INLINE void uk_pv_hiding(int cols, int nv, size_t lanes, size_t keys, const float *v, ptrdiff_t v_row,
                              const float *p, float *o);

_Static_assert((int)LINEAR_NR == (int)LINEAR_NV * (int)VF32_N, "a panel is LINEAR_NV vectors wide");
_Static_assert(QK_KEYS == 4 || QK_KEYS == 8, "tails of keys are taken as 4, 2, 1");
_Static_assert(PV_COLS == 4 || PV_COLS == 8, "tails of columns are taken as 4, 2, 1");
_Static_assert(POOL_KEYS % ATTN_KEY_TILE == 0 && ATTN_CHUNK % ATTN_KEY_TILE == 0, "tiles divide blocks");
_Static_assert(POOL_NV <= 4 && LINEAR_MR <= 8 && LINEAR_NV <= 4, "variants that the bodies make");

#endif
