/* How the command ends, memory, sizes. */
#include "tool.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void say(const char *kind, const char *format, va_list args) {
    char line[1024];

    progress_end();
    vsnprintf(line, sizeof line, format, args);
    for (char *c = line; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            *c = '?';
        }
    }
    fprintf(stderr, "attn: %s%s\n", kind, line);
}

void die(const char *format, ...) {
    va_list args;

    va_start(args, format);
    fflush(stdout);
    say("", format, args);
    va_end(args);
    exit(EXIT_INPUT);
}

void note(const char *format, ...) {
    va_list args;

    va_start(args, format);
    fflush(stdout);
    say("note: ", format, args);
    va_end(args);
}

/* The kernel promises more memory than there is and kills the process later: refuse before that. */
static size_t machine_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
    size_t bytes;

    if (pages <= 0 || page <= 0 || !size_product((size_t)pages, (size_t)page, &bytes)) {
        return SIZE_MAX;
    }
    return bytes;
}

/* Before each block; all blocks are in one list. */
union block {
    struct {
        union block *previous, *next;
    } link;
    char alignment[64]; /* what is handed out behind it is aligned, as packed weights need it */
};

static union block blocks = {.link = {&blocks, &blocks}};

void *get_memory(size_t bytes, const char *what) {
    size_t limit = machine_memory();
    union block *block = NULL;

    if (bytes <= limit && bytes <= SIZE_MAX - 2 * sizeof *block) {
        /* aligned_alloc wants a multiple of the alignment */
        block = aligned_alloc(sizeof *block, (bytes + 2 * sizeof *block - 1) / sizeof *block * sizeof *block);
    }
    if (!block) {
        die("%s: %zu MiB are needed and this machine has %zu; use fewer rows or a smaller model", what,
            bytes >> 20, limit >> 20);
    }
    block->link.previous = &blocks;
    block->link.next = blocks.link.next;
    block->link.next->link.previous = block;
    blocks.link.next = block;
    return block + 1;
}

void release(void *memory) {
    union block *block = memory;

    if (block) {
        block--;
        block->link.previous->link.next = block->link.next;
        block->link.next->link.previous = block->link.previous;
        free(block);
    }
}

void *get_array(size_t count, size_t bytes, const char *what) {
    size_t total;

    if (!size_product(count, bytes, &total)) {
        die("%s: %zu elements do not fit the address space; use fewer rows or a smaller model", what, count);
    }
    return memset(get_memory(total, what), 0, total);
}

char *copy_text(const char *text) {
    size_t bytes = strlen(text) + 1;

    return memcpy(get_memory(bytes, "text"), text, bytes);
}

char *print_text(const char *format, ...) {
    va_list args, again;
    char *text;
    int length;

    va_start(args, format);
    va_copy(again, args);
    length = vsnprintf(NULL, 0, format, args);
    text = get_memory((size_t)length + 1, "text");
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    va_end(args);
    return text;
}

int size_product(size_t a, size_t b, size_t *product) {
    if (b && a > SIZE_MAX / b) {
        return 0;
    }
    *product = a * b;
    return 1;
}

double seconds(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
