/* How the example ends, and its memory. */
#include "common.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void die(const char *format, ...) {
    va_list args;

    fflush(stdout);
    fputs("smollm2: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(2);
}

void *get_array(size_t count, size_t bytes) {
    size_t total = count * bytes;
    void *memory = NULL;

    if (count <= (SIZE_MAX - 64) / bytes) {
        total = (total + 63) / 64 * 64; /* aligned_alloc wants a multiple of the alignment */
        memory = aligned_alloc(64, total ? total : 64);
    }
    if (!memory) {
        die("no memory for %zu elements of %zu bytes; use a smaller model or fewer tokens", count, bytes);
    }
    return memset(memory, 0, total);
}

void *make_room(void *list, size_t *room, size_t n, size_t bytes) {
    size_t more = n < 16 ? 16 : n + n / 2;

    if (n <= *room) {
        return list;
    }
    list = more >= n && more <= SIZE_MAX / bytes ? realloc(list, more * bytes) : NULL;
    if (!list) {
        die("no memory for %zu elements of %zu bytes; use a shorter prompt", n, bytes);
    }
    *room = more;
    return list;
}
