/* Files that lie about themselves. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <check.h>

/* path: a good file, to be damaged */
void add_hostile_tests(Suite *suite, const char *path);

#endif
