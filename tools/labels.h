/* Names of rows or keys: the tokens of a text. */
#ifndef ATTN_TOOL_LABELS_H
#define ATTN_TOOL_LABELS_H

#include <stddef.h>

struct labels {
    char **text; /* NULL: there are none */
    size_t n;
};

/* Reads a JSON array of strings, or plain text with one token a line; dies when there are not n. */
void labels_read(struct labels *labels, const char *path, const char *option, size_t n);

#endif
