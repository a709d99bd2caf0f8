/*
 * AVX-512 dot products: int8 (AVX512_VNNI) and, where the compiler's flags have it, bf16 (AVX512_BF16). What the tiers of
 * src/avx512 add to vec.h, load.h and fields.h.
 */
#ifndef ATTN_DOTS_H
#define ATTN_DOTS_H

#if !defined(__AVX512VNNI__)
#error "compile the tiers of src/avx512 with the flags of their rows in src/meson.build"
#endif

#include <string.h>

#include "fields.h"

/* Sums of 32 bits. */
typedef __m512i vint;

enum {
    DOTS_MR = 6,   /* by DOTS_NV vectors: 12 sums, 12 results, 2 of weights, 2 scales, 1 of x: 29 registers */
    DOTS_NV = 2,   /* two outputs' bytes feed six rows: 8 loads for 12 dot products */
    DOTS_FEW = 18, /* rows that take all types from where they lie: three strips */
    DOTS_WIDE = 2, /* rows that take a whole panel at once */
    /* Products are of unsigned weights: of q8_0; of q4_0 and Q6_K. */
    DOTS_SIGNED_8 = 0,
    DOTS_SIGNED_LESS = 0,
    DOTS_HALVES_8 = 0 /* x has 8 bits for all of them */
};
/* F(X, mr) for the heights of a strip. */
#define DOTS_ROWS(F, X) F(X, 1) F(X, 2) F(X, 3) F(X, 4) F(X, 5) F(X, 6)

/* After a row's products of a quad: not needed here. */
#define DOTS_FENCE ((void)0)

/* The four bytes, or the number, at p in every lane; p may have any alignment. */
ATTN_INLINE vint v_int_at(const void *p) {
    int x;
    memcpy(&x, p, sizeof x);
    return _mm512_set1_epi32(x);
}
ATTN_INLINE vint v_int_zero(void) { return _mm512_setzero_si512(); }

/* The sums of a unit, from integers on; plus, in each lane, the four products of a byte of w and one at x. w has `bits` bits
 * where it is not signed; it is the unit's quad number `quad`, and all of them come, in order. */
typedef vint vsum;
ATTN_INLINE vsum v_sum(vint from) { return from; }
ATTN_INLINE vsum v_sum_dot(int bits, int quad, vsum sum, vbytes w, const char *x) {
    (void)bits;
    (void)quad;
    return _mm512_dpbusd_epi32(sum, w, v_int_at(x));
}
ATTN_INLINE vf32 v_sum_f32(int bits, vsum sum) {
    (void)bits;
    return _mm512_cvtepi32_ps(sum);
}
ATTN_INLINE void v_bytes_store(void *p, vbytes x) { _mm512_storeu_si512(p, x); }

/* x * by to 16 signed bytes, to nearest even; their sum. |x * by| < 128. */
ATTN_INLINE int v_store_i8(int8_t *to, vf32 x, float by) {
    const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(x, v_set1(by)));
    _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(q));
    return _mm512_reduce_add_epi32(q);
}
/* The largest magnitude of 32 values, or NaN where one is not finite. */
ATTN_INLINE float v_most_of_32(const float *x) {
    const vf32 a = v_abs(v_load(x)), b = v_abs(v_load(x + 16)), most = v_set1(__FLT_MAX__);
    const __mmask16 bad = _mm512_cmp_ps_mask(a, most, _CMP_NLE_UQ) | _mm512_cmp_ps_mask(b, most, _CMP_NLE_UQ);
    return bad ? __builtin_nanf("") : _mm512_reduce_max_ps(_mm512_max_ps(a, b));
}

/* Of four vectors one, in whose 128-bit lane u all numbers are the result of vector u's: the largest, or the sum. */
#define V_FOUR(name, op)                                                                          \
    ATTN_INLINE __m512i name(const __m512i x[4]) {                                                \
        const __m512i a =                                                                         \
            op(_mm512_shuffle_i32x4(x[0], x[1], 0x44), _mm512_shuffle_i32x4(x[0], x[1], 0xee));   \
        const __m512i b =                                                                         \
            op(_mm512_shuffle_i32x4(x[2], x[3], 0x44), _mm512_shuffle_i32x4(x[2], x[3], 0xee));   \
        const __m512i c = op(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd)); \
        const __m512i d = op(c, _mm512_shuffle_epi32(c, _MM_PERM_CDAB));                          \
        return op(d, _mm512_shuffle_epi32(d, _MM_PERM_BADC));                                     \
    }
V_FOUR(v_most_of_four, _mm512_max_epu32)
V_FOUR(v_sum_of_four, _mm512_add_epi32)

/* What dots_prepare_row() does with 32 values, four times: d; q, 16 bytes at each address; their sums, of 32 in the first of
 * two where `whole`. Returns 0, and writes nothing, where a value is not finite. */
#define DOTS_PREPARE_FOUR
ATTN_INLINE int v_prepare_four(int whole, const float *x, int8_t *const q[8], float d[4], int sum[8]) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i most[4], n[8], even[4], odd[4];
    int s[2][16];
    float each[16];
    ATTN_UNROLL for (int u = 0; u < 4; u++) most[u] =
        _mm512_max_epu32(_mm512_and_si512(_mm512_loadu_si512(x + 32 * u), magnitude),
                         _mm512_and_si512(_mm512_loadu_si512(x + 32 * u + 16), magnitude));
    const __m512i all = v_most_of_four(most);
    if (_mm512_cmpgt_epu32_mask(all, _mm512_set1_epi32(0x7f7fffff))) return 0;
    const vf32 scale = _mm512_div_ps(_mm512_castsi512_ps(all), v_set1(127.0f));
    vf32 by = _mm512_div_ps(v_set1(1.0f), scale);
    by = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(by, v_set1(__FLT_MAX__), _CMP_LE_OQ), by);
    _mm512_storeu_ps(each, scale);
    for (int u = 0; u < 4; u++) d[u] = each[4 * u];
    ATTN_UNROLL for (int i = 0; i < 8; i++) {
        const vf32 lane = i / 2 == 0   ? _mm512_shuffle_f32x4(by, by, 0x00)
                          : i / 2 == 1 ? _mm512_shuffle_f32x4(by, by, 0x55)
                          : i / 2 == 2 ? _mm512_shuffle_f32x4(by, by, 0xaa)
                                       : _mm512_shuffle_f32x4(by, by, 0xff);
        n[i] = _mm512_cvtps_epi32(_mm512_mul_ps(v_load(x + 16 * i), lane));
        _mm_storeu_si128((__m128i *)(void *)q[i], _mm512_cvtepi32_epi8(n[i]));
    }
    ATTN_UNROLL for (int u = 0; u < 4; u++) {
        even[u] = whole ? _mm512_add_epi32(n[2 * u], n[2 * u + 1]) : n[2 * u];
        odd[u] = n[2 * u + 1];
    }
    _mm512_storeu_si512(s[0], v_sum_of_four(even));
    if (!whole) _mm512_storeu_si512(s[1], v_sum_of_four(odd));
    for (int i = 0; i < 8; i++) sum[i] = whole && i % 2 ? 0 : s[i % 2][i / 2 * 4];
    return 1;
}

#if defined(__AVX512BF16__)
/* v_bf16_store() rounds as v_bf16_store_two() does: rows can be rounded beside products (dots_bf16.h). */
#define DOTS_ROUNDS
/* Each lane plus its two products of bf16: the second ones' first (Intel's manual), each rounded to nearest even; subnormal
 * numbers count as zero and become it. */
ATTN_INLINE vf32 v_bf16_dot(vf32 sum, vint x, vbytes w) {
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w);
}
/* The same in the lanes of m; the others keep their sum. By a select: with the masked instruction gcc 12's sanitizer build
 * (-O0) gave other sums. */
ATTN_INLINE vf32 v_bf16_dot_where(vmask m, vf32 sum, vint a, vint b) {
    return v_select(m, v_bf16_dot(sum, a, b), sum);
}

/* Rounded to nearest even, subnormal numbers to zero: pairs (a, b) of lanes; a's lanes, then b's. */
ATTN_INLINE vint v_bf16_both(vf32 a, vf32 b) { return (__m512i)_mm512_cvtne2ps_pbh(b, a); }
ATTN_INLINE vint v_bf16_pairs(vf32 a, vf32 b) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, v_bf16_both(a, b));
}
/* 2^x within 2^-20.6 of itself, 1 at 0, for x <= 64 and NaN: for what becomes bf16. A polynomial for each sixteenth, minimax
 * but for its first coefficient: two multiply-adds, where one for all takes three for 2^-13 and four for 2^-18. */
struct exp2_short {
    float p[3][VF32_N]; /* highest power first */
    float up;           /* brings sixteenths to the lowest bits */
    float lowest;       /* the least visible score */
};
static const struct exp2_short exp2_short __attribute__((aligned(64))) = {
    .p = {{0x1.f5f7cp-3f, 0x1.06188cp-2f, 0x1.11b32ap-2f, 0x1.1dd14ep-2f, 0x1.2a78cap-2f, 0x1.37afbp-2f,
           0x1.457c5ep-2f, 0x1.53e574p-2f, 0x1.62f1dep-2f, 0x1.72a8d8p-2f, 0x1.8311fp-2f, 0x1.943506p-2f,
           0x1.a61a58p-2f, 0x1.b8ca7ep-2f, 0x1.cc4e74p-2f, 0x1.e0af9cp-2f},
          {0x1.62d7d8p-1f, 0x1.728daap-1f, 0x1.82f58cp-1f, 0x1.94176p-1f, 0x1.a5fb62p-1f, 0x1.b8aa2ap-1f,
           0x1.cc2cb2p-1f, 0x1.e08c5cp-1f, 0x1.f5d2fp-1f, 0x1.060554p+0f, 0x1.119f18p+0f, 0x1.1dbc58p+0f,
           0x1.2a62e6p+0f, 0x1.3798d6p+0f, 0x1.45648p+0f, 0x1.53cc88p+0f},
          {0x1p+0f, 0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fep+0f, 0x1.3dea64p+0f,
           0x1.4bfdaep+0f, 0x1.5ab07ep+0f, 0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
           0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f}},
    .up = 0x1.8p19f,
    .lowest = -FLT_MAX,
};
ATTN_INLINE vf32 v_exp2_short_with(const struct exp2_short *c, vf32 x) {
    const vf32 f = _mm512_reduce_ps(x, 4 << 4 | _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    const __m512i i =
        _mm512_castps_si512(v_add(v_sub(x, f), v_set1(c->up))); /* sixteenths in the lowest bits */
    vf32 u = v_fma(_mm512_permutexvar_ps(i, v_load(c->p[0])), f, _mm512_permutexvar_ps(i, v_load(c->p[1])));
    u = v_fma(u, f, _mm512_permutexvar_ps(i, v_load(c->p[2])));
    return _mm512_scalef_ps(u, x);
}
ATTN_INLINE void v_bf16_store_two(void *p, vf32 a, vf32 b) { _mm512_storeu_si512(p, v_bf16_both(a, b)); }
ATTN_INLINE vf32 v_exp2_short(vf32 x) { return v_exp2_short_with(&exp2_short, x); }
ATTN_INLINE void v_bf16_store(void *p, vf32 x) {
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(x));
}
/* Pairs (a, b) of 32 values each, in an order of columns of their own; vectors of columns into that order, and back. */
ATTN_INLINE void v_zip(vint a, vint b, vint *x, vint *y) {
    *x = _mm512_unpacklo_epi16(a, b);
    *y = _mm512_unpackhi_epi16(a, b);
}
ATTN_INLINE void v_zip_order(vf32 a, vf32 b, vf32 *x, vf32 *y) {
    *x = _mm512_permutex2var_ps(
        a, _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27), b);
    *y = _mm512_permutex2var_ps(
        a, _mm512_setr_epi32(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31), b);
}
ATTN_INLINE void v_unzip_order(vf32 x, vf32 y, vf32 *a, vf32 *b) {
    *a = _mm512_permutex2var_ps(x, _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23),
                                y);
    *b = _mm512_permutex2var_ps(
        x, _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31), y);
}
/* Pairs as they lie: exactly n <= 32 values, then zeros. */
ATTN_INLINE vint v_pairs_load(const void *p, size_t n) {
    return n == 32 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16((__mmask32)(((uint64_t)1 << n) - 1), p);
}
/* Pairs of VF32_N values at a, and those at b; exactly n of each, then zeros. Either may be NULL: zeros. */
ATTN_INLINE __m256i v_values16(const void *p, size_t n) {
    if (!p) return _mm256_setzero_si256();
    return n == 16 ? _mm256_loadu_si256((const __m256i *)p)
                   : _mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1u), p);
}
ATTN_INLINE vint v_pairs_of(const void *a, const void *b, size_t n) {
    const __m512i second = _mm512_slli_epi32(_mm512_cvtepu16_epi32(v_values16(b, n)), 16);
    return _mm512_or_si512(_mm512_cvtepu16_epi32(v_values16(a, n)), second);
}
ATTN_INLINE void v_pairs_store(void *p, vint x) { _mm512_storeu_si512(p, x); }
ATTN_INLINE vf32 v_pairs_as_f32(vint x) { return _mm512_castsi512_ps(x); }
ATTN_INLINE vint v_pairs_from_f32(vf32 x) { return _mm512_castps_si512(x); }
/* Each first or second one alone, the other zero. */
ATTN_INLINE vint v_pairs_first(vint x) { return _mm512_and_si512(x, _mm512_set1_epi32(0xffff)); }
ATTN_INLINE vint v_pairs_second(vint x) { return _mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000)); }
/* Where the first or the second one's sign bit is set. */
ATTN_INLINE vmask v_pairs_sign_first(vint x) { return _mm512_movepi32_mask(_mm512_slli_epi32(x, 16)); }
ATTN_INLINE vmask v_pairs_sign_second(vint x) { return _mm512_movepi32_mask(x); }
ATTN_INLINE vmask v_and_not(vmask a, vmask b) { return (vmask)(a & ~b); } /* a and not b */
/* The larger magnitudes' bits of both; whether one of them is infinite or NaN. */
ATTN_INLINE vint v_pairs_most(vint most, vint x) {
    return _mm512_max_epu16(most, _mm512_and_si512(x, _mm512_set1_epi32(0x7fff7fff)));
}
ATTN_INLINE int v_pairs_odd(vint most) {
    return _mm512_cmpge_epu16_mask(most, _mm512_set1_epi16(0x7f80)) != 0;
}
#endif

#endif
