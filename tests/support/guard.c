#include "support/guard.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The cache may be used from several threads. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Freed regions, by their number of pages: mapping anew for each of some 100,000 cases would take longer
 * than the cases. Larger regions than this are unmapped at once. */
enum { CACHED_PAGES = 64, CACHED_EACH = 32 };
static unsigned char *cache[CACHED_PAGES + 1][CACHED_EACH];
static unsigned n_cached[CACHED_PAGES + 1];

static void die(const char *what) {
    perror(what);
    abort();
}

static size_t page_bytes(void) {
    static size_t page;
    if (!page) page = (size_t)sysconf(_SC_PAGESIZE);
    return page;
}

/* ATTN_TEST_READ_GUARDS=0 lets the guard pages be read: qemu-x86_64 (7.2) reads all 32 bytes of a masked
 * AVX load, also those that the mask leaves out. */
static int guard_protection(void) {
    const char *text = getenv("ATTN_TEST_READ_GUARDS");
    return text && strcmp(text, "0") == 0 ? PROT_READ : PROT_NONE;
}

static unsigned char *map_region(size_t n_pages) {
    unsigned char *cached = NULL;
    pthread_mutex_lock(&lock);
    if (n_pages <= CACHED_PAGES && n_cached[n_pages]) cached = cache[n_pages][--n_cached[n_pages]];
    pthread_mutex_unlock(&lock);
    if (cached) return cached;
    const size_t page = page_bytes();
    unsigned char *all = mmap(NULL, (n_pages + 2) * page, guard_protection(),
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) die("mmap");
    if (n_pages && mprotect(all + page, n_pages * page, PROT_READ | PROT_WRITE)) die("mprotect");
    return all + page;
}

struct guard guard_alloc(size_t bytes, unsigned place) {
    const size_t page = page_bytes();
    const size_t shift = place ? (place - 1) % GUARD_SHIFTS * 4 : 0;
    const size_t n_pages = (bytes + shift + page - 1) / page;
    struct guard g = {map_region(n_pages), n_pages * page, NULL, bytes};
    g.data = place ? g.pages + (n_pages ? shift : 0) : g.pages + g.n_bytes - bytes;
    static const uint32_t canary = CANARY_BITS;
    for (size_t i = 0; i < g.n_bytes; i += sizeof canary) memcpy(g.pages + i, &canary, sizeof canary);
    return g;
}

void guard_seal(const struct guard *g) {
    if (g->n_bytes && mprotect(g->pages, g->n_bytes, PROT_READ)) die("mprotect");
}

void guard_unseal(const struct guard *g) {
    if (g->n_bytes && mprotect(g->pages, g->n_bytes, PROT_READ | PROT_WRITE)) die("mprotect");
}

int guard_is_canary(const unsigned char *p, size_t n) {
    static const uint32_t canary = CANARY_BITS;
    unsigned char bytes[sizeof canary];
    memcpy(bytes, &canary, sizeof canary);
    for (; n > 0 && (uintptr_t)p % sizeof canary; p++, n--)
        if (*p != bytes[(uintptr_t)p % sizeof canary]) return 0;
    for (; n >= sizeof canary; p += sizeof canary, n -= sizeof canary)
        if (memcmp(p, &canary, sizeof canary) != 0) return 0;
    return memcmp(p, bytes, n) == 0;
}

int guard_intact(const struct guard *g) {
    const unsigned char *end = g->data + g->bytes;
    return guard_is_canary(g->pages, (size_t)(g->data - g->pages)) &&
           guard_is_canary(end, (size_t)(g->pages + g->n_bytes - end));
}

void guard_free(struct guard *g) {
    const size_t page = page_bytes(), n_pages = g->n_bytes / page;
    if (!g->pages) return;
    pthread_mutex_lock(&lock);
    const int kept = n_pages <= CACHED_PAGES && n_cached[n_pages] < CACHED_EACH;
    if (kept) cache[n_pages][n_cached[n_pages]++] = g->pages;
    pthread_mutex_unlock(&lock);
    if (!kept && munmap(g->pages - page, g->n_bytes + 2 * page)) die("munmap");
    g->pages = NULL;
}
