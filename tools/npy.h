/* NumPy's .npy files (format versions 1 to 3; little-endian f16, f32, f64 in C order). */
#ifndef ATTN_TOOL_NPY_H
#define ATTN_TOOL_NPY_H

#include <stddef.h>

#include "dtype.h"

enum { NPY_RANK_MAX = 8 };

struct npy {
    const char *path;
    int dtype; /* ATTN_F16, ATTN_F32 or DTYPE_F64 */
    size_t rank, size[NPY_RANK_MAX];
    size_t count; /* elements */
    void *data;   /* as in the file */
};

/* Dies on anything that is not a sound file of a type above; `what` names the option. */
void npy_read(struct npy *array, const char *path, const char *what);

/* The elements as float or double, in memory of their own. */
float *npy_floats(const struct npy *array);
double *npy_doubles(const struct npy *array);

/* "[12, 22, 32]" in memory of its own. */
char *npy_shape_text(const size_t *size, size_t rank);

/* Writes a C-ordered f32 array; dies when it cannot. */
void npy_write(const char *path, const float *data, const size_t *size, size_t rank);

void npy_free(struct npy *array);

#endif
