#include "support/grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct grid grid_make(struct rng *values, size_t element, const size_t size[4], unsigned layout) {
    struct grid g = {.element = element};
    memcpy(g.size, size, sizeof g.size);
    /* one number for the whole layout, so that it does not move the values drawn after it */
    struct rng own = rng_make(rng_next(values), 0), *const r = &own;
    /* From the innermost dimension outwards. */
    static const int orders[2][4] = {{3, 2, 1, 0}, {3, 1, 2, 0}};
    const int *order = orders[(layout & LAYOUT_BNHD) != 0];
    size_t step = 1, span = 1;
    int empty = 0;
    for (int i = 0; i < 4; i++) {
        const int d = order[i];
        if (d == 2 && layout & LAYOUT_FAR)
            step += (2048 / element - step % (2048 / element)) % (2048 / element);
        g.stride[d] = (ptrdiff_t)step;
        empty |= size[d] == 0;
        span += size[d] ? (size[d] - 1) * step : 0;
        step *= size[d] ? size[d] : 1;
        if ((i == 0 && layout & (LAYOUT_PAD_ROW | LAYOUT_PAD_ALL)) || (i > 0 && layout & LAYOUT_PAD_ALL))
            step += 1 + 2 * rng_below(r, 3);
    }
    const size_t bytes = empty ? 0 : span * element;
    /* half flush to the end, a quarter to the start, the others at any misalignment */
    const unsigned shift = rng_chance(r, 50) ? 0 : (unsigned)rng_below(r, GUARD_SHIFTS);
    g.guard = guard_alloc(bytes, rng_chance(r, 50) ? 0 : 1 + shift);
    g.origin = g.guard.data;
    if (layout & LAYOUT_NEGATIVE && !empty) {
        g.origin += (size_t)g.stride[2] * (size[2] - 1) * element;
        g.stride[2] = -g.stride[2];
    }
    return g;
}

void grid_free(struct grid *g) { guard_free(&g->guard); }

static unsigned char *row_at(const struct grid *g, size_t b, size_t h, size_t row) {
    const ptrdiff_t at =
        (ptrdiff_t)b * g->stride[0] + (ptrdiff_t)h * g->stride[1] + (ptrdiff_t)row * g->stride[2];
    return g->origin + at * (ptrdiff_t)g->element;
}

float *grid_f32(const struct grid *g, size_t b, size_t h, size_t row) {
    return (float *)(void *)row_at(g, b, h, row);
}

unsigned char *grid_u8(const struct grid *g, size_t b, size_t h, size_t row) { return row_at(g, b, h, row); }

attn_tensor grid_tensor(const struct grid *g) {
    attn_tensor t = {.data = g->origin,
                     .dtype = g->element == 1   ? ATTN_BOOL
                              : g->element == 2 ? ATTN_F16
                                                : ATTN_F32};
    for (int d = 0; d < 4; d++) {
        t.size[d] = g->size[d];
        t.stride[d] = g->stride[d] * (ptrdiff_t)g->element;
    }
    if (t.size[3] == 1) t.stride[3] = 12; /* is not to be looked at */
    return t;
}

void grid_fill(struct grid *g, struct rng *r, enum fill fill) {
    for (size_t b = 0; b < g->size[0]; b++)
        for (size_t h = 0; h < g->size[1]; h++)
            for (size_t i = 0; i < g->size[2]; i++) rng_floats(r, fill, grid_f32(g, b, h, i), g->size[3]);
}

void grid_spoil(struct grid *g, struct rng *r, int infinite) {
    const size_t n = g->size[0] * g->size[1] * g->size[2] * g->size[3];
    for (size_t left = n ? 1 + rng_below(r, 3) : 0; left > 0; left--) {
        const size_t b = rng_below(r, g->size[0]), h = rng_below(r, g->size[1]), i = rng_below(r, g->size[2]);
        grid_f32(g, b, h, i)[rng_below(r, g->size[3])] = infinite && rng_chance(r, 50) ? INFINITY : NAN;
    }
}

int grid_gaps_intact(const struct grid *g) {
    const size_t bytes = g->guard.bytes;
    if (!guard_intact(&g->guard)) return 0;
    if (bytes == g->size[0] * g->size[1] * g->size[2] * g->size[3] * g->element) return 1; /* no gaps */
    unsigned char *used = calloc(bytes ? bytes : 1, 1);
    if (!used) abort();
    for (size_t b = 0; b < g->size[0]; b++)
        for (size_t h = 0; h < g->size[1]; h++)
            for (size_t i = 0; i < g->size[2]; i++)
                memset(used + (row_at(g, b, h, i) - g->guard.data), 1, g->size[3] * g->element);
    int intact = 1;
    for (size_t i = 0; i < bytes; i++) intact &= used[i] || guard_is_canary(g->guard.data + i, 1);
    free(used);
    return intact;
}

static size_t count_canaries(const float *row, size_t n) {
    uint32_t bits;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(&bits, row + i, sizeof bits);
        count += bits == CANARY_BITS;
    }
    return count;
}

int grid_written(const float *row, size_t n) { return count_canaries(row, n) == 0; }

int grid_untouched(const float *row, size_t n) { return count_canaries(row, n) == n; }

int grid_all_written(const struct grid *g) {
    for (size_t b = 0; b < g->size[0]; b++)
        for (size_t h = 0; h < g->size[1]; h++)
            for (size_t i = 0; i < g->size[2]; i++)
                if (!grid_written(grid_f32(g, b, h, i), g->size[3])) return 0;
    return 1;
}
