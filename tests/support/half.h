/* IEEE binary16 by its definition, without any conversion instruction. */
#ifndef TEST_HALF_H
#define TEST_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "support/grid.h"

#define HALF_NAN 0x7e00
#define HALF_INFINITY 0x7c00
#define HALF_MINUS_INFINITY 0xfc00
#define HALF_LOWEST 0xfbff /* -65504 */

static inline float half_value(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float sign = bits & 0x8000 ? -1.0f : 1.0f;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    return exponent ? sign * ldexpf((float)(1024 + fraction), exponent - 25)
                    : sign * ldexpf((float)fraction, -24);
}

/* Of about N(0, 4), or hiding the key, or the most negative finite number, or a subnormal one. */
static inline uint16_t half_draw(struct rng *r) {
    if (rng_chance(r, 25)) return HALF_MINUS_INFINITY;
    if (rng_chance(r, 3)) return HALF_LOWEST;
    if (rng_chance(r, 3)) return (uint16_t)(rng_below(r, 1024) | rng_below(r, 2) << 15);
    return (uint16_t)(rng_below(r, 2) << 15 | (10 + rng_below(r, 7)) << 10 | rng_below(r, 1024));
}

/* Makes all elements of a grid of them the same. */
static inline void half_fill(struct grid *g, uint16_t value) {
    for (size_t b = 0; b < g->size[0]; b++)
        for (size_t h = 0; h < g->size[1]; h++)
            for (size_t i = 0; i < g->size[2]; i++)
                for (size_t j = 0; j < g->size[3]; j++)
                    memcpy(grid_u8(g, b, h, i) + j * sizeof value, &value, sizeof value);
}

#endif
