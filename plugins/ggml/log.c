#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
enum { LINES = 4096 };
static uint64_t seen[LINES]; /* hashes of the lines that were written; beyond so many nothing is */
static size_t n_seen;

int log_wanted(void) {
    const char *text = getenv("ATTN_GGML_LOG");
    return text && strcmp(text, "1") == 0;
}

static uint64_t hash(const char *text) {
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 1099511628211u;
    return h;
}

void log_once(const char *format, ...) {
    char line[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    const uint64_t h = hash(line);
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (i < n_seen && seen[i] != h) i++;
    const int is_new = i == n_seen && n_seen < LINES;
    if (is_new) seen[n_seen++] = h;
    pthread_mutex_unlock(&lock);
    if (is_new) fprintf(stderr, "ggml-attn: %s\n", line);
}

void log_error(const char *format, ...) {
    char line[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    fprintf(stderr, "ggml-attn: %s\n", line);
}
