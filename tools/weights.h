/*
 * A file of weights, .safetensors or GGUF, by its contents: tensors by name, in the types that they are
 * stored in. What is read is the caller's own, so that the file can be closed at once.
 */
#ifndef ATTN_TOOL_WEIGHTS_H
#define ATTN_TOOL_WEIGHTS_H

#include <attn/attn.h>
#include <stddef.h>

#include "dtype.h"
#include "file.h"
#include "gguf.h"

enum { WEIGHTS_RANK_MAX = 8 };

struct tensor {
    const char *name;                    /* lives on when the file is closed */
    const char *type_name;               /* as its format calls it: "BF16", "Q4_K" */
    int dtype;                           /* as dtype.h has it */
    size_t rank, size[WEIGHTS_RANK_MAX]; /* a matrix is [outputs, inputs], in GGUF files too */
    size_t count;                        /* elements */
    size_t begin, end;                   /* bytes of the file */
};

struct weights {
    struct file file;
    size_t n_tensors;
    struct tensor *tensors;
    int is_gguf;
    struct gguf gguf;       /* open where is_gguf */
    struct gguf_text model; /* general.architecture: what the keys of its metadata start with */
};

/* Opens the file and checks all of it but the elements; dies on anything that its format does not allow. */
void weights_open(struct weights *weights, const char *path);

/* The tensor of that name, or NULL. */
const struct tensor *weights_find(const struct weights *weights, const char *name);

/* Metadata of the file's model, by keys such as "attention.head_count"; .safetensors files have none. A count is that of
 * the layer, where each has its own, and 0 when there is none. */
int weights_has(const struct weights *weights, const char *key);
size_t weights_count(const struct weights *weights, const char *key, size_t layer);

/* Its elements as they are stored, as [1, 1, rows, columns]: the columns are the last size. Dies when neither the
 * library nor the GGUF reader has the type; those that only the reader has come as f32. */
attn_tensor weights_read(const struct weights *weights, const struct tensor *tensor);

/* The same as f32, in rows without gaps. */
float *weights_floats(const struct weights *weights, const struct tensor *tensor);

void weights_close(struct weights *weights);

#endif
