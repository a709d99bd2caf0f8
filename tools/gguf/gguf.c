/* The GGUF container: every number of the file is suspect until it is checked here. */
#include "gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the file's numbers are read as they lie: little-endian only"
#endif

/* Where the parser stands. Once something failed, error is set and every take_*() gives 0. */
struct reader {
    struct gguf *gguf;
    const char *path;
    size_t at;
    int failed;
    char *error;
    size_t error_bytes;
};

/* The sentence's control characters, from a hostile name say, become '?'. Returns 0. */
__attribute__((format(printf, 2, 3))) static int fail(struct reader *r, const char *format, ...) {
    va_list args;
    int length;

    if (!r->failed && r->error_bytes) {
        length = snprintf(r->error, r->error_bytes, "%s: ", r->path);
        va_start(args, format);
        if (length >= 0 && (size_t)length < r->error_bytes) {
            vsnprintf(r->error + length, r->error_bytes - (size_t)length, format, args);
        }
        va_end(args);
        for (char *c = r->error; *c; c++) {
            if ((unsigned char)*c < ' ' || *c == 0x7f) {
                *c = '?';
            }
        }
    }
    r->failed = 1;
    return 0;
}

/* What a name looks like in a sentence: printf's precision and text. */
#define NAME(t) (int)((t).bytes < 100 ? (t).bytes : 100), (t).text

/* Skips `bytes` bytes that must be there; NULL when they are not. */
static const unsigned char *take(struct reader *r, size_t bytes) {
    const unsigned char *from = r->gguf->map + r->at;

    if (r->failed || bytes > r->gguf->bytes - r->at) {
        fail(r, "the file ends inside its header: it is truncated or damaged; get it again");
        return NULL;
    }
    r->at += bytes;
    return from;
}

static uint32_t take_u32(struct reader *r) {
    const unsigned char *from = take(r, 4);
    uint32_t value = 0;

    if (from) {
        memcpy(&value, from, sizeof value);
    }
    return value;
}

/* A 64-bit count or length. One that does not fit size_t cannot be in the file either. */
static size_t take_size(struct reader *r) {
    const unsigned char *from = take(r, 8);
    uint64_t value = 0;

    if (from) {
        memcpy(&value, from, sizeof value);
    }
    return value > SIZE_MAX ? SIZE_MAX : (size_t)value;
}

static struct gguf_text take_text(struct reader *r) {
    size_t bytes = take_size(r);
    const unsigned char *from = take(r, bytes);
    struct gguf_text text = {from ? (const char *)from : "", from ? bytes : 0};

    return text;
}

static void take_array(struct reader *r, struct gguf_value *value) {
    value->element = take_u32(r);
    value->count = take_size(r);
    value->data = r->gguf->map + r->at;
    if (value->element == GGUF_VALUE_STRING) {
        for (size_t i = 0; i < value->count && !r->failed; i++) {
            take_text(r);
        }
    } else if (gguf_value_bytes(value->element)) {
        size_t element = gguf_value_bytes(value->element);

        take(r, value->count > SIZE_MAX / element ? SIZE_MAX : value->count * element);
    } else {
        fail(r, "metadata %.*s: arrays of type %u are not supported; the file is damaged: get it again",
             NAME(value->key), value->element);
    }
}

static void take_value(struct reader *r, struct gguf_value *value) {
    value->key = take_text(r);
    value->type = take_u32(r);
    value->count = 1;
    value->data = r->gguf->map + r->at;
    if (value->type == GGUF_VALUE_STRING) {
        take_text(r);
    } else if (value->type == GGUF_VALUE_ARRAY) {
        take_array(r, value);
    } else if (gguf_value_bytes(value->type)) {
        take(r, gguf_value_bytes(value->type));
    } else {
        fail(r,
             "metadata %.*s has type %u, which GGUF 3 does not have; the file is damaged or newer: get it "
             "again",
             NAME(value->key), value->type);
    }
}

/* a * b in *a; 0 when it overflows. */
static int multiply(size_t *a, size_t b) {
    if (b && *a > SIZE_MAX / b) {
        return 0;
    }
    *a *= b;
    return 1;
}

/* The description; data is still the offset from the tensors' bytes, which is returned. */
static size_t take_tensor(struct reader *r, struct gguf_tensor *tensor) {
    tensor->name = take_text(r);
    tensor->rank = take_u32(r);
    if (tensor->rank > GGUF_RANK_MAX) {
        fail(r, "tensor %.*s has %u dimensions, more than %d; the file is damaged: get it again",
             NAME(tensor->name), tensor->rank, GGUF_RANK_MAX);
        return 0;
    }
    tensor->rows = 1;
    for (uint32_t i = 0; i < GGUF_RANK_MAX; i++) {
        tensor->size[i] = i < tensor->rank ? take_size(r) : 1;
        if (i && !multiply(&tensor->rows, tensor->size[i])) {
            fail(r, "tensor %.*s: absurdly large sizes; the file is damaged: get it again",
                 NAME(tensor->name));
        }
    }
    tensor->type = take_u32(r);
    return take_size(r);
}

static int check_tensor(struct reader *r, struct gguf_tensor *tensor, size_t offset, size_t base,
                        size_t alignment) {
    size_t bytes, block, block_bytes = gguf_type_bytes(tensor->type, &block);

    if (!block_bytes) {
        return fail(
            r, "tensor %.*s has type %u, which this reader does not know; use a file of another quantisation",
            NAME(tensor->name), tensor->type);
    }
    if (tensor->size[0] % block != 0) {
        return fail(
            r,
            "tensor %.*s: rows of %zu elements are not whole blocks of %s; the file is damaged: get it again",
            NAME(tensor->name), tensor->size[0], gguf_type_name(tensor->type));
    }
    tensor->row_bytes = tensor->size[0] / block;
    bytes = tensor->rows;
    if (!multiply(&tensor->row_bytes, block_bytes) || !multiply(&bytes, tensor->row_bytes)) {
        return fail(r, "tensor %.*s: absurdly large sizes; the file is damaged: get it again",
                    NAME(tensor->name));
    }
    if (offset % alignment != 0) {
        return fail(r, "tensor %.*s is not aligned to %zu bytes; the file is damaged: get it again",
                    NAME(tensor->name), alignment);
    }
    if (offset > r->gguf->bytes - base || bytes > r->gguf->bytes - base - offset) {
        return fail(r, "tensor %.*s ends behind the end of the file: it is truncated; get it again",
                    NAME(tensor->name));
    }
    tensor->data = r->gguf->map + base + offset;
    return 1;
}

/* Where the tensors' bytes lie: in which order they do, and that no two share any. */
static int compare_data(const void *a, const void *b) {
    const struct gguf_tensor *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    size_t n = x->rows * x->row_bytes, m = y->rows * y->row_bytes;

    return p != q ? (p > q) - (p < q) : (n > m) - (n < m); /* empty ones first */
}

static void check_overlap(struct reader *r) {
    struct gguf_tensor *tensors = r->gguf->tensors;

    qsort(tensors, r->gguf->n_tensors, sizeof *tensors, compare_data);
    for (size_t i = 1; i < r->gguf->n_tensors; i++) {
        const struct gguf_tensor *last = &tensors[i - 1];

        if ((uintptr_t)tensors[i].data - (uintptr_t)last->data < last->rows * last->row_bytes) {
            fail(r, "tensors %.*s and %.*s overlap; the file is damaged: get it again", NAME(last->name),
                 NAME(tensors[i].name));
        }
    }
}

static int compare_texts(struct gguf_text a, struct gguf_text b) {
    int order = memcmp(a.text, b.text, a.bytes < b.bytes ? a.bytes : b.bytes);

    return order ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

/* Both structs start with their name; bsearch and qsort use the same comparison. */
static int compare_names(const void *a, const void *b) {
    return compare_texts(*(const struct gguf_text *)a, *(const struct gguf_text *)b);
}

_Static_assert(offsetof(struct gguf_tensor, name) == 0 && offsetof(struct gguf_value, key) == 0,
               "name first");

static void *find(const void *list, size_t n, size_t bytes, const char *name) {
    struct gguf_text key = {name, strlen(name)};

    return n ? bsearch(&key, list, n, bytes, compare_names) : NULL;
}

const struct gguf_tensor *gguf_tensor(const struct gguf *gguf, const char *name) {
    return find(gguf->tensors, gguf->n_tensors, sizeof *gguf->tensors, name);
}

const struct gguf_value *gguf_value(const struct gguf *gguf, const char *key) {
    return find(gguf->values, gguf->n_values, sizeof *gguf->values, key);
}

static int sort_names(struct reader *r, void *list, size_t n, size_t bytes, const char *what) {
    qsort(list, n, bytes, compare_names);
    for (size_t i = 1; i < n; i++) {
        const struct gguf_text *name = (const void *)((char *)list + i * bytes);

        if (compare_names((char *)list + (i - 1) * bytes, name) == 0) {
            return fail(r, "two %s are called %.*s; the file is damaged: get it again", what, NAME(*name));
        }
    }
    return 1;
}

/* Memory for n descriptions, of which each takes `least` bytes of the file or more. */
static void *allocate(struct reader *r, size_t n, size_t least, size_t bytes) {
    void *list;

    if (r->failed || n > (r->gguf->bytes - r->at) / least) {
        fail(r, "the header counts more entries than the file has room for; it is truncated or damaged: get "
                "it again");
        return NULL;
    }
    list = calloc(n + 1, bytes);
    if (!list) {
        fail(r, "no memory for the header");
    }
    return list;
}

static int read_values(struct reader *r, size_t *alignment) {
    struct gguf *gguf = r->gguf;

    gguf->values = allocate(r, gguf->n_values, 13, sizeof *gguf->values); /* 8 length, 4 type, 1 value */
    for (size_t i = 0; i < gguf->n_values && !r->failed; i++) {
        take_value(r, &gguf->values[i]);
    }
    if (r->failed || !sort_names(r, gguf->values, gguf->n_values, sizeof *gguf->values, "metadata entries")) {
        return 0;
    }
    *alignment = 32;
    if (gguf_value(gguf, "general.alignment") &&
        (!gguf_count(gguf, "general.alignment", alignment) || *alignment < 8 || *alignment > 1 << 20 ||
         (*alignment & (*alignment - 1)) != 0)) {
        return fail(
            r,
            "general.alignment is not a power of two from 8 to 1048576; the file is damaged: get it again");
    }
    return 1;
}

static int read_tensors(struct reader *r, size_t alignment) {
    struct gguf *gguf = r->gguf;
    size_t *offsets, base;

    gguf->tensors =
        allocate(r, gguf->n_tensors, 24, sizeof *gguf->tensors); /* 8 length, 4 rank, 4 type, 8 offset */
    offsets = allocate(r, gguf->n_tensors, 24, sizeof *offsets);
    for (size_t i = 0; i < gguf->n_tensors && !r->failed; i++) {
        offsets[i] = take_tensor(r, &gguf->tensors[i]);
    }
    base = r->at + (alignment - r->at % alignment) % alignment;
    if (base > gguf->bytes) { /* a file without tensors may end before the padding */
        base = gguf->bytes;
    }
    for (size_t i = 0; i < gguf->n_tensors && !r->failed; i++) {
        check_tensor(r, &gguf->tensors[i], offsets[i], base, alignment);
    }
    free(offsets);
    if (!r->failed) {
        check_overlap(r);
    }
    return !r->failed && sort_names(r, gguf->tensors, gguf->n_tensors, sizeof *gguf->tensors, "tensors");
}

static int read_header(struct reader *r) {
    size_t alignment;
    uint32_t version;

    if (r->gguf->bytes < 4 || memcmp(r->gguf->map, "GGUF", 4) != 0) {
        return fail(r, "not a GGUF file: it does not start with 'GGUF'; give another, or get it again");
    }
    r->at = 4;
    version = take_u32(r);
    if (version != 2 && version != 3) {
        return fail(r, "GGUF version %u%s; only 2 and 3 are supported: convert it anew", version,
                    version >> 16 ? " (a big-endian file?)" : "");
    }
    r->gguf->n_tensors = take_size(r);
    r->gguf->n_values = take_size(r);
    return read_values(r, &alignment) && read_tensors(r, alignment);
}

static int map_file(struct reader *r) {
    struct stat status;
    int file = open(r->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* does not wait for a pipe's writer */

    if (file < 0 || fstat(file, &status) != 0) {
        fail(r, "cannot open it: %s", strerror(errno));
    } else if (!S_ISREG(status.st_mode)) {
        fail(r, "not a regular file; give the name of a file on disk");
    } else if (status.st_size == 0) {
        fail(r, "the file is empty; get it again");
    } else {
        void *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0);

        if (map == MAP_FAILED) {
            fail(r, "cannot map it: %s", strerror(errno));
        } else {
            r->gguf->map = map;
            r->gguf->bytes = (size_t)status.st_size;
        }
    }
    if (file >= 0) {
        close(file);
    }
    return !r->failed;
}

int gguf_open(struct gguf *gguf, const char *path, char *error, size_t error_bytes) {
    struct reader r = {.gguf = gguf, .path = path, .error = error, .error_bytes = error_bytes};

    memset(gguf, 0, sizeof *gguf);
    if (map_file(&r) && read_header(&r)) {
        return 1;
    }
    gguf_close(gguf);
    return 0;
}

void gguf_close(struct gguf *gguf) {
    free(gguf->values);
    free(gguf->tensors);
    if (gguf->map) {
        munmap((void *)(uintptr_t)gguf->map, gguf->bytes);
    }
    memset(gguf, 0, sizeof *gguf);
}
