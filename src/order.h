/*
 * The canonical order of arithmetic (docs/design.md, promise 1): its constants, with their reasons.
 * Every f32 path of every SIMD backend follows it, whatever its lanes are. Changing a number here
 * changes the library's bits and is a new major version of them.
 *
 *  projection  y = b + x.w over inner index k: one chain of fused multiply-adds in ascending k, started
 *              at the bias (or 0), cut at multiples of ATTN_K_BLOCK; the chain of a later block starts at
 *              0 and its end is added to the sum so far.
 *  score       s = (q * c).k with c = scale * log2(e) rounded once: one chain from 0 in ascending index.
 *              Additive: s = (w * c).tanh(a_q + a_k), one chain from 0 in ascending index; how a tanh is
 *              computed follows from its own two arguments (src/common/pool_additive.h).
 *              Then, in this order: with a soft cap c, C = c * log2(e), s = C * tanh(s * (1 / C)); with ALiBi,
 *              s = fma(-(slope * log2(e)), |position - j|, s); s = fma(mask, log2(e), s) where an additive mask is given;
 *              s = max(s, -FLT_MAX).
 *  softmax     in base 2, per row, over tiles of ATTN_KEY_TILE keys aligned to absolute positions, within
 *              a chunk. x = largest visible score of the tile. If x > m + ATTN_RESCALE: f = exp2(m - x),
 *              l *= f, o *= f, m = x (m starts at -inf, and then l and o stay 0). p_j = exp2(s_j - m);
 *              l += tree of the 16 p_j (neighbours first: ((p0+p1)+(p2+p3))+...; 0 for hidden keys).
 *  P V         o = fma(p_j, v_j, o) over visible keys in ascending j.
 *  chunks      of ATTN_CHUNK keys start anew (m = -inf, l = 0, o = 0) and are merged in ascending order:
 *              M = max(m_a, m_b), a = exp2(m_a - M), b = exp2(m_b - M), l = fma(l_b, b, l_a * a), o alike.
 *              A chunk that a row does not see changes nothing; the first one seen is taken as it is.
 *  end         out = o * (1 / l); lse = (m + log2(l)) * ln(2). With a sink, S = sink * log2(e): M = max(m, S),
 *              f = exp2(m - M), L = fma(l, f, exp2(S - M)), out = o * (f * (1 / L)), lse_sinks = (M + log2(L)) * ln(2).
 *              weights: w_j = exp2(s_j - m) * (what o is multiplied by), with the merged m and l.
 *              scores: s_j * ln(2), -inf for hidden keys.
 *  parts       (attn_merge) of a row, lse_i natural and f32, in the order given; those of -inf are left out.
 *              M = max lse_i, w_i = exp2((lse_i - M) * log2(e)), l = sum of w_i from 0 upwards, o = chain of
 *              fma(w_i, out_i, o) from -0 (so that one part is copied, with the signs of its zeros).
 *              out = o * (1 / l); lse = fma(log2(l), ln(2), M).
 *  norm        (q_norm, k_norm) of a head's p columns, before RoPE: ATTN_NORM_CHAINS chains from 0, column j in chain
 *              j mod ATTN_NORM_CHAINS: s = fma(x_j, x_j, s) in ascending j; their tree (neighbours first); m = tree / p;
 *              f = 1 / sqrt(m + epsilon); x_j = (x_j * f) * w_j.
 *  bf16        (the tier avx512bf16, keys and values both bf16): docs/numerics.md, section 11, says what differs.
 *  exp2, tanh, log2 are SLEEF's Sleef_finz_* (exp2 u10, tanh u35, log2 u10), or the same bits inlined.
 */
#ifndef ATTN_ORDER_H
#define ATTN_ORDER_H

/* Panels of 1024 x 64 floats (AVX-512) are 256 KiB: a quarter of a Zen L2; a store and reload of the
 * accumulators every 1024 steps costs at most 1.6 points against 256 on AVX2. */
#define ATTN_K_BLOCK 1024

/* One AVX-512 vector of keys when a single query decodes; the width of the denominator's tree. */
#define ATTN_KEY_TILE 16

/* Long enough that merging is noise in prefill, short enough that 32768 keys give 16 pieces of work a
 * head, and that K then V of a chunk are long linear reads. A multiple of ATTN_KEY_TILE. */
#define ATTN_CHUNK 2048

/* A stale maximum is kept until a score exceeds it by this much in log2 units: p stays below 2^8, the
 * sum of a chunk below 2^19, far from overflow; 0 instead would rescale on almost every early tile. */
#define ATTN_RESCALE 8.0f

/* Two vectors on AVX2, four on NEON: enough chains to hide some of a fused multiply-add's latency in a head of 128. */
#define ATTN_NORM_CHAINS 16

#define ATTN_LOG2E 0x1.715476p+0f /* check: f32(1 / ln 2) */
#define ATTN_LN2 0x1.62e43p-1f    /* check: f32(ln 2) */

#endif
