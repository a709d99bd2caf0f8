/* How the example ends, and its memory. */
#ifndef COMMON_H
#define COMMON_H

#include <stddef.h>

/* Prints "smollm2: ..." on stderr and exits with 2. Say what is wrong and how to mend it. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* count elements of `bytes` each, zeroed, aligned to 64 bytes; dies when there is no memory. */
void *get_array(size_t count, size_t bytes);

/* list has room for *room elements of `bytes`, or is NULL with *room 0. The same with room for n or more, as
 * realloc() gives it; dies when there is no memory. */
void *make_room(void *list, size_t *room, size_t n, size_t bytes);

#endif
