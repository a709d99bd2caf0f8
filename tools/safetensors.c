/* Reads and checks the frame of a .safetensors file; the JSON inside is jansson's work. */
#include "safetensors.h"

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

/* A model of 100 000 tensors has a header of 12 MB. JSON takes up to 40 times its text in memory, so a
 * hostile file gets no further than this. */
enum { HEADER_MAX = 16 << 20 };

static json_t *read_header(const struct file *file, size_t *data) {
    unsigned char start[8];
    size_t length = 0;
    json_error_t error;
    json_t *root;
    char *text;

    if (file->bytes < 8) {
        die("%s: too short for a .safetensors file (%zu bytes)", file->path, file->bytes);
    }
    file_read(file, 0, start, sizeof start);
    for (size_t i = 8; i-- > 0;) {
        length = length << 8 | start[i];
    }
    if (length > file->bytes - 8) {
        die("%s: not a .safetensors file, or truncated: the header says it has %zu bytes, the file has %zu",
            file->path, length, file->bytes);
    }
    if (length > HEADER_MAX) {
        die("%s: a header of %zu bytes is more than the %d that a model needs", file->path, length,
            HEADER_MAX);
    }
    text = get_memory(length, file->path);
    file_read(file, 8, text, length);
    root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    release(text);
    if (!root) {
        die("%s: the header is not JSON: %s", file->path, error.text);
    }
    if (!json_is_object(root)) {
        die("%s: the header is not a JSON object", file->path);
    }
    *data = 8 + length;
    return root;
}

/* A size or an offset: an integer, not negative. */
static int take_size(json_t *value, size_t *size) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return 0;
    }
    *size = (size_t)json_integer_value(value);
    return 1;
}

/* Bytes of an element of each dtype of the format, so that sizes are checked for those we do not load. */
static size_t find_dtype(const char *name, struct tensor *tensor) {
    static const struct {
        const char *name;
        size_t bytes;
        int dtype;
    } types[] = {
        {"F32", 4, ATTN_F32},     {"F16", 2, ATTN_F16},        {"BF16", 2, ATTN_BF16},
        {"F64", 8, DTYPE_F64},    {"I64", 8, DTYPE_OTHER},     {"U64", 8, DTYPE_OTHER},
        {"I32", 4, DTYPE_OTHER},  {"U32", 4, DTYPE_OTHER},     {"I16", 2, DTYPE_OTHER},
        {"U16", 2, DTYPE_OTHER},  {"I8", 1, DTYPE_OTHER},      {"U8", 1, DTYPE_OTHER},
        {"BOOL", 1, DTYPE_OTHER}, {"F8_E4M3", 1, DTYPE_OTHER}, {"F8_E5M2", 1, DTYPE_OTHER},
    };

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(name, types[i].name) == 0) {
            tensor->dtype = types[i].dtype;
            tensor->type_name = types[i].name;
            return types[i].bytes;
        }
    }
    tensor->dtype = DTYPE_OTHER;
    tensor->type_name = copy_text(name);
    return 0;
}

static void take_shape(const struct weights *w, struct tensor *tensor, json_t *shape, size_t element) {
    size_t bytes;

    tensor->rank = json_array_size(shape);
    if (!json_is_array(shape) || tensor->rank > WEIGHTS_RANK_MAX) {
        die("%s: tensor %.200s: 'shape' is not a list of at most %d sizes", w->file.path, tensor->name,
            WEIGHTS_RANK_MAX);
    }
    tensor->count = 1;
    for (size_t i = 0; i < tensor->rank; i++) {
        if (!take_size(json_array_get(shape, i), &tensor->size[i])) {
            die("%s: tensor %.200s: 'shape' holds something that is not a size", w->file.path, tensor->name);
        }
        if (!size_product(tensor->count, tensor->size[i], &tensor->count)) {
            die("%s: tensor %.200s: the shape's sizes are absurdly large; the file is damaged", w->file.path,
                tensor->name);
        }
    }
    /* element 0: a dtype of a later version of the format, whose size is not known */
    if (element && (!size_product(tensor->count, element, &bytes) || bytes != tensor->end - tensor->begin)) {
        die("%s: tensor %.200s: the shape does not fit its %zu bytes; the file is damaged", w->file.path,
            tensor->name, tensor->end - tensor->begin);
    }
}

static void take_tensor(const struct weights *w, struct tensor *tensor, const char *name, json_t *entry,
                        size_t data) {
    json_t *offsets = json_object_get(entry, "data_offsets");
    size_t element;
    const char *type_name = json_string_value(json_object_get(entry, "dtype"));

    tensor->name = copy_text(name);
    if (!type_name) {
        die("%s: tensor %.200s: no 'dtype'; the file is damaged", w->file.path, name);
    }
    if (json_array_size(offsets) != 2 || !take_size(json_array_get(offsets, 0), &tensor->begin) ||
        !take_size(json_array_get(offsets, 1), &tensor->end) || tensor->begin > tensor->end ||
        tensor->end > w->file.bytes - data) {
        die("%s: tensor %.200s: 'data_offsets' is not a range inside the file (truncated?)", w->file.path,
            name);
    }
    element = find_dtype(type_name, tensor);
    take_shape(w, tensor, json_object_get(entry, "shape"), element);
    tensor->begin += data;
    tensor->end += data;
}

static int compare_begin(const void *a, const void *b) {
    const struct tensor *x = a, *y = b;

    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    return (x->end > y->end) - (x->end < y->end); /* empty ones first */
}

/* The format wants every byte to belong to exactly one tensor. */
static void check_cover(const struct weights *w, size_t data) {
    size_t at = data;

    for (size_t i = 0; i < w->n_tensors; i++) {
        if (w->tensors[i].begin != at) {
            die("%s: tensor %.200s: its bytes %s; the file is damaged", w->file.path, w->tensors[i].name,
                w->tensors[i].begin < at ? "overlap another tensor's" : "leave a gap before them");
        }
        at = w->tensors[i].end;
    }
    if (at != w->file.bytes) {
        die("%s: %zu bytes too many after the last tensor; the file is damaged", w->file.path,
            w->file.bytes - at);
    }
}

void st_read(struct weights *w) {
    size_t data;
    json_t *root = read_header(&w->file, &data), *entry;
    const char *name;

    w->tensors = get_array(json_object_size(root) + 1, sizeof *w->tensors, w->file.path);
    json_object_foreach(root, name, entry) {
        if (strcmp(name, "__metadata__") != 0) {
            take_tensor(w, &w->tensors[w->n_tensors++], name, entry, data);
        }
    }
    qsort(w->tensors, w->n_tensors, sizeof *w->tensors, compare_begin);
    check_cover(w, data);
    json_decref(root);
}
