#include "support/rng.h"

#include <math.h>
#include <stdlib.h>

static int fixed;
static uint64_t fixed_seed;

void test_seed_fix(uint64_t seed) {
    fixed = 1;
    fixed_seed = seed;
}

uint64_t test_seed(void) {
    if (fixed) return fixed_seed;
    const char *text = getenv("ATTN_TEST_SEED");
    return text && *text ? strtoull(text, NULL, 0) : 20260801u;
}

/* splitmix64: any state is good, and consecutive states give unrelated numbers. */
uint64_t rng_next(struct rng *r) {
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

struct rng rng_make(uint64_t seed, uint64_t stream) {
    struct rng r = {seed};
    r.state = rng_next(&r) ^ (stream * 0xd1342543de82ef95u);
    r.state = rng_next(&r);
    return r;
}

size_t rng_below(struct rng *r, size_t n) { return (size_t)((rng_next(r) >> 32) * n >> 32); }

int rng_chance(struct rng *r, unsigned percent) { return rng_below(r, 100) < percent; }

/* Sum of eight 16-bit uniforms (variance 8/12 * 2^32), scaled to variance 1: exact but for the scaling. */
float rng_normal(struct rng *r) {
    const uint64_t a = rng_next(r), b = rng_next(r);
    int32_t sum = -4 * 65535;
    for (unsigned i = 0; i < 4; i++) sum += (int32_t)(a >> 16 * i & 0xffff) + (int32_t)(b >> 16 * i & 0xffff);
    return (float)sum * 0x1.3988e2p-16f; /* sqrt(12 / 8) / 65536 */
}

float rng_float(struct rng *r, enum fill fill) {
    switch (fill) {
    case FILL_INTEGER: return (float)rng_below(r, 9) - 4.0f;
    case FILL_LARGE: return rng_normal(r) * 0x1p12f;
    case FILL_DENORMAL: return rng_normal(r) * (rng_chance(r, 50) ? 0x1p-126f : 0x1p-140f);
    case FILL_WIDE: {
        const float mantissa = 1.0f + (float)rng_below(r, 1u << 20) * 0x1p-20f;
        const float x = ldexpf(mantissa, (int)rng_below(r, 17) - 12);
        return rng_chance(r, 50) ? x : -x;
    }
    case FILL_NORMAL:
    case N_FILLS: break;
    }
    return rng_normal(r);
}

void rng_floats(struct rng *r, enum fill fill, float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = rng_float(r, fill);
}
