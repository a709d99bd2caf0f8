/* Reading parts of a regular file. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

void file_open(struct file *file, const char *path, const char *what) {
    struct stat status;

    file->path = path;
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* does not wait for a pipe's writer */
    if (file->fd < 0 || fstat(file->fd, &status) != 0) {
        die("%s: cannot open %s: %s", what, path, strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        die("%s: %s is not a regular file; give the name of a file on disk", what, path);
    }
    file->bytes = (size_t)status.st_size;
}

void file_read(const struct file *file, size_t offset, void *memory, size_t bytes) {
    char *to = memory;

    while (bytes) {
        ssize_t got = pread(file->fd, to, bytes, (off_t)offset);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            die("%s: cannot read: %s", file->path, got < 0 ? strerror(errno) : "the file became shorter");
        }
        to += got;
        offset += (size_t)got;
        bytes -= (size_t)got;
    }
}

char *file_read_text(const char *path, const char *what, size_t limit, size_t *bytes) {
    struct file file;
    char *text;

    file_open(&file, path, what);
    if (file.bytes > limit) {
        die("%s: %s has %zu bytes, more than the %zu expected of such a file", what, path, file.bytes, limit);
    }
    text = get_memory(file.bytes + 1, path);
    file_read(&file, 0, text, file.bytes);
    text[file.bytes] = 0;
    *bytes = file.bytes;
    file_close(&file);
    return text;
}

void file_close(struct file *file) {
    close(file->fd);
    file->fd = -1;
}
