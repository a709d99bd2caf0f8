/* Memory on huge pages, where the system gives them: inputs and outputs of the rows. */
#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* An area, mapped until the process ends, that hands out pieces from its start and is rewound as a whole. */
struct arena {
    char *base;
    size_t bytes, used;
};

/* Maps `bytes`; pages are touched when used. */
bool arena_map(struct arena *arena, size_t bytes);

/* The next `bytes`, 64-byte aligned; NULL when the arena is too small. */
void *arena_take(struct arena *arena, size_t bytes);

static inline void arena_rewind(struct arena *arena) { arena->used = 0; }

/* Fills the arena with floats of mean 0 and variance 1 (uniform; the same ones in every run). */
void arena_fill(struct arena *arena);

#endif
