/* Reading parts of a regular file whose size is known, so that no header can ask for more than there is. */
#ifndef ATTN_TOOL_FILE_H
#define ATTN_TOOL_FILE_H

#include <stddef.h>

struct file {
    const char *path;
    int fd;
    size_t bytes;
};

/* Dies, naming the path and `what` ("--q" say), when it cannot be opened or is not a regular file. */
void file_open(struct file *file, const char *path, const char *what);

/* Exactly `bytes` bytes from offset; dies when the file has become shorter. */
void file_read(const struct file *file, size_t offset, void *memory, size_t bytes);

/* The whole file, with a zero behind it; dies when it is longer than limit. */
char *file_read_text(const char *path, const char *what, size_t limit, size_t *bytes);

void file_close(struct file *file);

#endif
