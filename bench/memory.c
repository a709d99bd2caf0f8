#include "memory.h"

#include <stdint.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20, LINE = 64 };

bool arena_map(struct arena *arena, size_t bytes) {
    const size_t mapped = bytes + HUGE_PAGE; /* one more, so that the area can start on a huge page */
    char *map =
        mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    *arena = (struct arena){0};
    if (map == MAP_FAILED) {
        return false;
    }
    madvise(map, mapped, MADV_HUGEPAGE); /* where that fails, small pages serve too, some percent slower */
    arena->base = map + (HUGE_PAGE - (uintptr_t)map % HUGE_PAGE);
    arena->bytes = bytes;
    return true;
}

void *arena_take(struct arena *arena, size_t bytes) {
    size_t rounded = (bytes + LINE - 1) / LINE * LINE;

    if (rounded < bytes || rounded > arena->bytes - arena->used) {
        return NULL;
    }
    arena->used += rounded;
    return arena->base + (arena->used - rounded);
}

void arena_fill(struct arena *arena) {
    const float root3 = 0x1.bb67aep+0f; /* uniform in [-sqrt(3), sqrt(3)) has variance 1 */
    float *data = (float *)(void *)arena->base;
    uint64_t state = 0x9e3779b97f4a7c15u;

    for (size_t i = 0; i < arena->bytes / sizeof *data; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
        data[i] = (float)(int32_t)(state >> 32) * (root3 * 0x1p-31f);
    }
}
