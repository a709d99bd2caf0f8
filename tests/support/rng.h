/* Seeded random numbers and fills. Integer arithmetic and exact scalings only: the same seed gives the
 * same floats on every machine (the golden hashes of tests/exact depend on it). */
#ifndef TEST_RNG_H
#define TEST_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

/* What random floats look like. */
enum fill {
    FILL_NORMAL,   /* about N(0, 1) */
    FILL_INTEGER,  /* integers of [-4, 4]: short sums are exact in any order */
    FILL_LARGE,    /* about N(0, 1) * 2^12 */
    FILL_DENORMAL, /* around and below FLT_MIN */
    FILL_WIDE,     /* signs and exponents of [2^-12, 2^4] at random */
    N_FILLS
};

/* The seed of this run: environment variable ATTN_TEST_SEED, otherwise a fixed one. */
uint64_t test_seed(void);

/* From now on a seed of the program's own, for results that are stored. */
void test_seed_fix(uint64_t seed);

/* Stream `stream` of seed `seed`; different streams are unrelated. */
struct rng rng_make(uint64_t seed, uint64_t stream);

uint64_t rng_next(struct rng *r);
size_t rng_below(struct rng *r, size_t n); /* uniform in [0, n), n >= 1 */
int rng_chance(struct rng *r, unsigned percent);
float rng_normal(struct rng *r);
float rng_float(struct rng *r, enum fill fill);
void rng_floats(struct rng *r, enum fill fill, float *x, size_t n);

#endif
