/*
 * The .safetensors format: a 64-bit little-endian length, a JSON object of that many bytes that names each
 * tensor with its dtype, shape and byte range, then the bytes.
 */
#ifndef ATTN_TOOL_SAFETENSORS_H
#define ATTN_TOOL_SAFETENSORS_H

#include <stddef.h>

#include "dtype.h"
#include "file.h"

enum { ST_RANK_MAX = 8 };

struct st_tensor {
    const char *name;       /* as long as the file is open */
    const char *dtype_name; /* "F32" */
    enum dtype dtype;
    size_t rank, size[ST_RANK_MAX];
    size_t count;      /* elements */
    size_t begin, end; /* bytes of the file */
};

struct safetensors {
    struct file file;
    size_t n_tensors;
    struct st_tensor *tensors; /* in the order of their bytes */
    void *json;
};

/* Opens the file and checks the whole header; dies on anything that the format does not allow. */
void st_open(struct safetensors *st, const char *path);

/* The tensor of that name, or NULL. */
const struct st_tensor *st_find(const struct safetensors *st, const char *name);

/* Its elements as float (exactly), in memory of their own; dies when it is not F32, F16 or BF16. */
float *st_floats(const struct safetensors *st, const struct st_tensor *tensor);

void st_close(struct safetensors *st);

#endif
