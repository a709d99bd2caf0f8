/* Which backend a context gets. */
#ifndef ATTN_DISPATCH_H
#define ATTN_DISPATCH_H

#include "backend.h"

/*
 * The backend of that name; with NULL the one that ATTN_BACKEND names, or the best runnable one.
 * NULL where the name is unknown or this machine cannot run it; then text says so and lists what is
 * available.
 */
const struct attn_backend *attn_backend_find(const char *name, char *text, size_t bytes);

#endif
