#include "support/covering.h"

#include <stdlib.h>
#include <string.h>

#include "support/rng.h"

enum { TRIES = 12, FREE = 255 };

struct builder {
    size_t n;
    const unsigned *levels;
    covering_allows *allows;
    unsigned char *open;                    /* [f][a][g][b], f < g: allowed and in no row yet */
    size_t first[COVERING_FACTORS_MAX + 1]; /* of the factors' levels among all */
};

static unsigned char *pair_at(const struct builder *b, size_t f, unsigned a, size_t g, unsigned c) {
    return b->open + (b->first[f] + a) * b->first[b->n] + b->first[g] + c;
}

/* Pairs that level a of factor f would cover in the row, or -1 where something there forbids it. */
static int gain(const struct builder *b, const unsigned char *row, size_t f, unsigned a) {
    int sum = 0;
    for (size_t g = 0; g < b->n; g++) {
        if (g == f || row[g] == FREE) continue;
        const size_t lo = f < g ? f : g, hi = f < g ? g : f;
        const unsigned at_lo = f < g ? a : row[g], at_hi = f < g ? row[g] : a;
        if (b->allows && !b->allows(lo, at_lo, hi, at_hi)) return -1;
        sum += *pair_at(b, lo, at_lo, hi, at_hi);
    }
    return sum;
}

/* Fills what is free in a random order, each with a best level. Returns 0 where it came to a dead end. */
static int fill_row(const struct builder *b, struct rng *r, unsigned char *row) {
    size_t order[COVERING_FACTORS_MAX];
    for (size_t i = 0; i < b->n; i++) {
        const size_t at = rng_below(r, i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    for (size_t i = 0; i < b->n; i++) {
        const size_t f = order[i], turn = rng_below(r, b->levels[f]);
        int best = -1;
        if (row[f] != FREE) continue;
        for (unsigned l = 0; l < b->levels[f]; l++) {
            const unsigned a = (unsigned)((l + turn) % b->levels[f]);
            const int g = gain(b, row, f, a);
            if (g <= best) continue;
            best = g;
            row[f] = (unsigned char)a;
        }
        if (best < 0) return 0;
    }
    return 1;
}

static size_t count_or_close(const struct builder *b, const unsigned char *row, int close) {
    size_t sum = 0;
    for (size_t f = 0; f < b->n; f++)
        for (size_t g = f + 1; g < b->n; g++) {
            unsigned char *open = pair_at(b, f, row[f], g, row[g]);
            sum += *open;
            if (close) *open = 0;
        }
    return sum;
}

/* Any open pair, from a random place on, into an empty row; 0 where there is none. */
static int start_row(const struct builder *b, struct rng *r, unsigned char *row) {
    const size_t turn = rng_below(r, b->n);
    memset(row, FREE, b->n);
    for (size_t i = 0; i < b->n; i++) {
        const size_t f = (i + turn) % b->n;
        for (size_t g = f + 1; g < b->n; g++)
            for (unsigned a = 0; a < b->levels[f]; a++)
                for (unsigned c = 0; c < b->levels[g]; c++)
                    if (*pair_at(b, f, a, g, c)) {
                        row[f] = (unsigned char)a;
                        row[g] = (unsigned char)c;
                        return 1;
                    }
    }
    return 0;
}

static void open_pairs(const struct builder *b) {
    for (size_t f = 0; f < b->n; f++)
        for (size_t g = f + 1; g < b->n; g++)
            for (unsigned a = 0; a < b->levels[f]; a++)
                for (unsigned c = 0; c < b->levels[g]; c++)
                    *pair_at(b, f, a, g, c) = !b->allows || b->allows(f, a, g, c);
}

static struct builder builder_make(size_t n, const unsigned *levels, covering_allows *allows) {
    struct builder b = {.n = n, .levels = levels, .allows = allows};
    if (n > COVERING_FACTORS_MAX) abort();
    for (size_t f = 0; f < n; f++) b.first[f + 1] = b.first[f] + levels[f];
    b.open = calloc(b.first[n] * b.first[n] + 1, 1);
    if (!b.open) abort();
    open_pairs(&b);
    return b;
}

/* The best of several rows around one open pair. A pair that no row can have (the rules forbid it by way of a third
 * factor) is given up: covering_missing() counts it. */
static int best_row(const struct builder *b, struct rng *r, unsigned char *row) {
    unsigned char seed[COVERING_FACTORS_MAX], other[COVERING_FACTORS_MAX];
    size_t most = 0;
    if (!start_row(b, r, seed)) return 0;
    for (int i = 0; i < TRIES; i++) {
        memcpy(other, seed, b->n);
        if (!fill_row(b, r, other)) continue;
        const size_t sum = count_or_close(b, other, 0);
        if (sum <= most) continue;
        most = sum;
        memcpy(row, other, b->n);
    }
    if (most == 0) { /* close the pair by itself */
        size_t f = 0, g;
        while (seed[f] == FREE) f++;
        for (g = f + 1; seed[g] == FREE;) g++;
        *pair_at(b, f, seed[f], g, seed[g]) = 0;
    }
    return most ? 1 : best_row(b, r, row);
}

struct covering covering_make(size_t n_factors, const unsigned *levels, covering_allows *allows,
                              uint64_t stream) {
    struct builder b = builder_make(n_factors, levels, allows);
    struct rng r = rng_make(test_seed(), stream);
    struct covering c = {.n_factors = n_factors};
    unsigned char row[COVERING_FACTORS_MAX];
    while (best_row(&b, &r, row)) {
        unsigned char *rows = realloc(c.rows, (c.n_rows + 1) * n_factors);
        if (!rows) abort();
        c.rows = rows;
        memcpy(rows + c.n_rows++ * n_factors, row, n_factors);
        count_or_close(&b, row, 1);
    }
    free(b.open);
    return c;
}

void covering_free(struct covering *c) { free(c->rows); }

size_t covering_missing(const struct covering *c, const unsigned *levels, covering_allows *allows,
                        size_t *all) {
    struct builder b = builder_make(c->n_factors, levels, allows);
    const size_t n = b.first[b.n] * b.first[b.n];
    size_t missing = 0;
    *all = 0;
    for (size_t i = 0; i < n; i++) *all += b.open[i];
    for (size_t i = 0; i < c->n_rows; i++) count_or_close(&b, c->rows + i * c->n_factors, 1);
    for (size_t i = 0; i < n; i++) missing += b.open[i];
    free(b.open);
    return missing;
}
