/* The constants of SLEEF's exp2 (u10), which every vec.h inlines as v_exp2_with(). */
#ifndef ATTN_EXP2_H
#define ATTN_EXP2_H

#include <float.h>

struct exp2_constants {
    float p[7];     /* the polynomial, highest power first */
    float least;    /* AVX2, NEON: 2^x is 0 from here down */
    float up, down; /* AVX2, NEON: the power is applied as 2^(q + up) * down */
    float lowest;   /* the least visible score */
};
static const struct exp2_constants exp2_table = {
    .p = {0.1535920892e-3f, 0.1339262701e-2f, 0.9618384764e-2f, 0.5550347269e-1f, 0.2402264476e+0f,
          0.6931471825e+0f, 1.0f},
    .least = -151.0f,
    .up = 64.0f,
    .down = 0x1p-64f,
    .lowest = -FLT_MAX,
};

#endif
