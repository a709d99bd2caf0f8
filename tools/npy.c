/*
 * The .npy format: "\x93NUMPY", version (2 bytes), header length (2 bytes, from version 2 on 4), a Python
 * dict literal {'descr': '<f4', 'fortran_order': False, 'shape': (22, 384), }, then the elements.
 */
#include "npy.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "tool.h"

enum { HEADER_MAX = 1 << 16 };

struct header {
    const char *at; /* where the parser stands, in a zero-terminated text */
    const char *path;
    char descr[32];
    int fortran, seen; /* seen: bit 0 descr, 1 fortran_order, 2 shape */
};

static _Noreturn void malformed(const struct header *h) {
    die("%s: the .npy header is malformed; write the file with numpy.save", h->path);
}

static int take(struct header *h, const char *token) {
    size_t length = strlen(token);

    h->at += strspn(h->at, " \n");
    if (strncmp(h->at, token, length) != 0) {
        return 0;
    }
    h->at += length;
    return 1;
}

static void expect(struct header *h, const char *token) {
    if (!take(h, token)) {
        malformed(h);
    }
}

/* A quoted string without escapes: neither the keys nor the types here need any. */
static void take_string(struct header *h, char *text, size_t bytes) {
    char quote;
    size_t length;

    h->at += strspn(h->at, " \n");
    quote = *h->at;
    if (quote != '\'' && quote != '"') {
        malformed(h);
    }
    h->at++;
    length = strcspn(h->at, "'\"\\\n");
    if (h->at[length] != quote || length >= bytes) {
        malformed(h);
    }
    memcpy(text, h->at, length);
    text[length] = 0;
    h->at += length + 1;
}

static void take_shape(struct header *h, struct npy *array) {
    expect(h, "(");
    while (!take(h, ")")) {
        char *end;

        if (array->rank == NPY_RANK_MAX) {
            die("%s: more than %d dimensions; two are needed, [rows, columns]", h->path, NPY_RANK_MAX);
        }
        h->at += strspn(h->at, " \n");
        if (*h->at < '0' || *h->at > '9') { /* strtoull would take a minus sign */
            malformed(h);
        }
        errno = 0;
        array->size[array->rank++] = strtoull(h->at, &end, 10);
        if (errno) {
            malformed(h);
        }
        h->at = end;
        if (!take(h, ",")) {
            expect(h, ")");
            break;
        }
    }
}

static void parse_header(struct header *h, struct npy *array) {
    char key[32];
    int bit;

    expect(h, "{");
    while (!take(h, "}")) {
        take_string(h, key, sizeof key);
        expect(h, ":");
        if (strcmp(key, "descr") == 0) {
            bit = 1;
            if (take(h, "[")) {
                die("%s: holds records; save a plain array of numbers", h->path);
            }
            take_string(h, h->descr, sizeof h->descr);
        } else if (strcmp(key, "fortran_order") == 0) {
            bit = 2;
            h->fortran = take(h, "True");
            if (!h->fortran) {
                expect(h, "False");
            }
        } else if (strcmp(key, "shape") == 0) {
            bit = 4;
            take_shape(h, array);
        } else {
            malformed(h);
        }
        if (h->seen & bit) {
            malformed(h);
        }
        h->seen |= bit;
        if (!take(h, ",")) {
            expect(h, "}");
            break;
        }
    }
    if (h->seen != 7) {
        malformed(h);
    }
}

/* Reads the header text; returns the offset of the elements. */
static size_t read_header(const struct file *file, struct header *h, char *text) {
    unsigned char start[12];
    size_t length, offset = 10;

    if (file->bytes < 12) {
        die("%s: too short for a .npy file (%zu bytes)", file->path, file->bytes);
    }
    file_read(file, 0, start, sizeof start);
    if (memcmp(start, "\x93NUMPY", 6) != 0) {
        die("%s: not a .npy file; write it with numpy.save", file->path);
    }
    if (start[6] < 1 || start[6] > 3) {
        die("%s: .npy format version %d is not known; save it with version 1", file->path, start[6]);
    }
    length = start[8] | (size_t)start[9] << 8;
    if (start[6] > 1) {
        length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
        offset = 12;
    }
    if (length > file->bytes - offset) {
        die("%s: truncated: the header says it has %zu bytes, the file ends before", file->path, length);
    }
    if (length > HEADER_MAX) {
        die("%s: a header of %zu bytes is more than a plain array needs", file->path, length);
    }
    file_read(file, offset, text, length);
    text[length] = 0;
    h->at = text;
    return offset + length;
}

static int find_dtype(const struct header *h) {
    static const struct {
        const char *descr;
        int dtype;
    } types[] = {{"<f4", ATTN_F32}, {"<f2", ATTN_F16}, {"<f8", DTYPE_F64}};

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(h->descr, types[i].descr) == 0) {
            return types[i].dtype;
        }
    }
    die("%s: type '%s' is not supported%s; save x.astype('<f4')", h->path, h->descr,
        h->descr[0] == '>' ? " (big-endian)" : "");
}

static void read_elements(const struct file *file, size_t offset, struct npy *array) {
    size_t bytes =
        array->dtype == DTYPE_F64 ? sizeof(double) : attn_dtype_size((attn_dtype)array->dtype, NULL);

    array->count = 1;
    for (size_t i = 0; i < array->rank; i++) {
        if (!size_product(array->count, array->size[i], &array->count)) {
            die("%s: the shape's sizes are absurdly large; the file is damaged", file->path);
        }
    }
    if (!size_product(array->count, bytes, &bytes) || bytes > file->bytes - offset) {
        die("%s: truncated: the shape needs more bytes than the %zu that follow the header", file->path,
            file->bytes - offset);
    }
    if (bytes < file->bytes - offset) {
        die("%s: %zu bytes too many after the array; the file is damaged", file->path,
            file->bytes - offset - bytes);
    }
    array->data = get_memory(bytes, file->path);
    file_read(file, offset, array->data, bytes);
}

void npy_read(struct npy *array, const char *path, const char *what) {
    struct file file;
    struct header h = {.path = path};
    char *text = get_memory(HEADER_MAX + 1, path);
    size_t offset;

    memset(array, 0, sizeof *array);
    array->path = path;
    file_open(&file, path, what);
    offset = read_header(&file, &h, text);
    parse_header(&h, array);
    array->dtype = find_dtype(&h);
    if (h.fortran && array->rank > 1) {
        die("%s: the array is in Fortran order; save numpy.ascontiguousarray(x)", path);
    }
    read_elements(&file, offset, array);
    file_close(&file);
    release(text);
}

float *npy_floats(const struct npy *array) {
    return dtype_to_float(array->data, array->count, array->dtype, array->path);
}

double *npy_doubles(const struct npy *array) {
    return dtype_to_double(array->data, array->count, array->dtype, array->path);
}

char *npy_shape_text(const size_t *size, size_t rank) {
    char *text = copy_text("[");

    for (size_t i = 0; i <= rank; i++) {
        char *longer =
            i == rank ? print_text("%s]", text) : print_text("%s%s%zu", text, i ? ", " : "", size[i]);

        release(text);
        text = longer;
    }
    return text;
}

void npy_write(const char *path, const float *data, const size_t *size, size_t rank) {
    char dict[256], shape[128] = "";
    size_t count = 1, length = 0, padded;
    FILE *file = fopen(path, "wb");
    int ok;

    for (size_t i = 0; i < rank; i++) {
        count *= size[i];
        length += (size_t)snprintf(shape + length, sizeof shape - length, "%zu, ", size[i]);
    }
    /* The elements start at a multiple of 64: 10 bytes, the dict, spaces, a newline. */
    length = (size_t)snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }",
                              shape);
    padded = (10 + length + 1 + 63) / 64 * 64 - 10;
    ok = file && fwrite("\x93NUMPY\x01\x00", 1, 8, file) == 8 && putc((int)(padded & 255), file) != EOF &&
         putc((int)(padded >> 8), file) != EOF &&
         fprintf(file, "%-*s\n", (int)padded - 1, dict) == (int)padded &&
         fwrite(data, sizeof *data, count, file) == count;
    if (file && fclose(file) != 0) {
        ok = 0;
    }
    if (!ok) {
        die("--out: cannot write %s: %s", path, strerror(errno));
    }
}

void npy_free(struct npy *array) {
    release(array->data);
    array->data = NULL;
}
