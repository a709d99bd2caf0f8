/* Files that lie about themselves. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <attn/attn.h>
#include <check.h>

/* For conversions; made when it is first asked for. */
attn_context *get_context(void);

/* path: a good file, to be damaged */
void add_hostile_tests(Suite *suite, const char *path);

#endif
