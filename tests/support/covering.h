/* Tables of cases in which every pair of levels of every two factors occurs: a small covering array, built greedily. */
#ifndef TEST_COVERING_H
#define TEST_COVERING_H

#include <stddef.h>
#include <stdint.h>

#define COVERING_FACTORS_MAX 32

/* Whether level a of factor f may stand beside level b of factor g (asked with f < g). */
typedef int covering_allows(size_t f, unsigned a, size_t g, unsigned b);

struct covering {
    size_t n_factors, n_rows;
    unsigned char *rows; /* n_rows x n_factors levels */
};

/* levels[f]: how many factor f has, 1 to 255. allows may be NULL. The table depends on the stream. */
struct covering covering_make(size_t n_factors, const unsigned *levels, covering_allows *allows,
                              uint64_t stream);
void covering_free(struct covering *c);

/* Pairs that are allowed and that no row has; how many are allowed in *all. */
size_t covering_missing(const struct covering *c, const unsigned *levels, covering_allows *allows,
                        size_t *all);

#endif
