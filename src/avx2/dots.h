/*
 * AVX2: int8 dot products out of vpmaddubsw, which adds two products of an unsigned and a signed byte to 16 bits, and
 * saturates, and of vpmaddwd, which adds two products of 16 bits. What the tier of src/avx2 adds to vec.h, load.h and fields.h.
 */
#ifndef ATTN_DOTS_H
#define ATTN_DOTS_H

#include <string.h>

#include "fields.h"

/* Sums of 32 bits. */
typedef __m256i vint;

enum {
    /* 8 sums, 4 of weights, 1 of x, 1 product, 1 mask; results come from memory, once a unit. */
    DOTS_MR = 4,
    DOTS_NV = 2,   /* a whole panel: four loads of weights and eight of x for eight dot products of q8_0 */
    DOTS_FEW = 8,  /* rows that take all types from where they lie: two strips */
    DOTS_WIDE = 2, /* rows that take a whole panel at once */
    /* Products are of unsigned weights: of q8_0, against x in 16 bits; of q4_0 and Q6_K. */
    DOTS_SIGNED_8 = 0,
    DOTS_SIGNED_LESS = 0,
    DOTS_HALVES_8 = 1
};
/* F(X, mr) for the heights of a strip. */
#define DOTS_ROWS(F, X) F(X, 1) F(X, 2) F(X, 3) F(X, 4)

/* After a row's products of a quad: not needed here. */
#define DOTS_FENCE ((void)0)

/* The four bytes, or the number, at p in every lane; p may have any alignment. */
ATTN_INLINE vint v_int_at(const void *p) {
    int x;
    memcpy(&x, p, sizeof x);
    return _mm256_set1_epi32(x);
}
ATTN_INLINE vint v_int_zero(void) { return _mm256_setzero_si256(); }

/* Here x is computed: otherwise gcc computes all products of a unit first, and spills them. */
#define DOTS_NOW(x) __asm__("" : "+x"(x))

/*
 * The sums of a unit, from integers on; plus, in each lane, the four products of a byte of w and a value at x, |value| <= 127.
 * w has `bits` bits, unsigned; it is the unit's quad number `quad`, and all of them come, in order.
 *
 * Nothing saturates: 4 bits, eight quads (a whole unit) add up to 8 * 2 * 15 * 127 = 30480 in 16 bits; 6 bits, two to
 * 2 * 2 * 63 * 127 = 32004. Two products of 8 bits need more than 16: bytes become 16 bits, as x has. (vpsignb and vpabsb, which would make vpmaddubsw do, cost a multiplication's slot.)
 */
typedef struct {
    vint all, part; /* of 32 bits; of 16 */
} vsum;
ATTN_INLINE vsum v_sum(vint from) { return (vsum){from, v_int_zero()}; }
ATTN_INLINE vsum v_sum_dot(int bits, int quad, vsum sum, vbytes w, const char *x) {
    const __m256i one = _mm256_set1_epi16(1);
    if (bits == 8) {
        const vint even = _mm256_and_si256(w, _mm256_set1_epi16(0xff)), odd = _mm256_srli_epi16(w, 8);
        sum.all = _mm256_add_epi32(sum.all, _mm256_madd_epi16(even, v_int_at(x)));
        DOTS_NOW(sum.all);
        sum.all = _mm256_add_epi32(sum.all, _mm256_madd_epi16(odd, v_int_at(x + 4)));
        DOTS_NOW(sum.all);
    } else {
        const int quads = bits == 4 ? 8 : 2;
        const vint two = _mm256_maddubs_epi16(w, v_int_at(x));
        sum.part = quad % quads ? _mm256_add_epi16(sum.part, two) : two;
        DOTS_NOW(sum.part);
        if (quad % quads == quads - 1) sum.all = _mm256_add_epi32(sum.all, _mm256_madd_epi16(sum.part, one));
    }
    return sum;
}
ATTN_INLINE vf32 v_sum_f32(int bits, vsum sum) {
    (void)bits;
    return _mm256_cvtepi32_ps(sum.all);
}
ATTN_INLINE void v_bytes_store(void *p, vbytes x) { _mm256_storeu_si256((__m256i *)p, x); }

/* x * by to 8 signed bytes, to nearest even; their sum. |x * by| < 128. */
ATTN_INLINE int v_store_i8(int8_t *to, vf32 x, float by) {
    const __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(x, v_set1(by)));
    const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64((__m128i *)(void *)to, _mm_packs_epi16(half, half));
    const __m128i two = _mm_madd_epi16(half, _mm_set1_epi16(1));
    const __m128i one = _mm_hadd_epi32(two, two);
    return _mm_cvtsi128_si32(_mm_hadd_epi32(one, one));
}
/* The largest magnitude of 32 values, or NaN where one is not finite. */
ATTN_INLINE float v_most_of_32(const float *x) {
    const vf32 finite = v_set1(__FLT_MAX__);
    vf32 most = v_zero(), fine = _mm256_cmp_ps(most, most, _CMP_EQ_OQ);
    ATTN_UNROLL for (int i = 0; i < 4; i++) {
        const vf32 a = v_abs(v_load(x + 8 * i));
        fine = _mm256_and_ps(fine, _mm256_cmp_ps(a, finite, _CMP_LE_OQ));
        most = v_max(most, a);
    }
    if (_mm256_movemask_ps(fine) != 255) return __builtin_nanf("");
    ATTN_UNROLL for (int step = 1; step < VF32_N; step *= 2) most = v_max(most, v_swap(most, step));
    return v_lane0(most);
}

#endif
