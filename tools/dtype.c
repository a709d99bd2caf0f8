/* Conversions are the library's but for f64, which it does not have. */
#include "dtype.h"

#include <string.h>

#include "tool.h"

attn_context *dtype_context(void) {
    static attn_context *context;
    char error[512] = "";
    attn_options options = {
        .size = sizeof options, .n_threads = 1, .error = error, .error_bytes = sizeof error};

    if (!context && attn_context_create(&options, &context) != ATTN_OK) {
        die("attn_context_create: %s", error);
    }
    return context;
}

void dtype_check(attn_status status, const char *what) {
    if (status != ATTN_OK) {
        die("%s: %s", what, attn_context_error(dtype_context()));
    }
}

float *dtype_floats(const attn_tensor *tensor, const char *what) {
    size_t count = tensor->size[2] * tensor->size[3];
    attn_tensor to;

    if (tensor->dtype == ATTN_F32) {
        return tensor->data;
    }
    to = attn_tensor_contiguous(get_array(count, sizeof(float), what), ATTN_F32, 1, 1, tensor->size[2],
                                tensor->size[3]);
    if (count) {
        dtype_check(attn_convert(dtype_context(), tensor, &to), what);
    }
    return to.data;
}

float *dtype_to_float(const void *data, size_t n, int dtype, const char *what) {
    float *floats = get_array(n, sizeof *floats, what);
    const double *wide = data; /* from get_memory(): aligned */

    if (dtype == DTYPE_F64) {
        for (size_t i = 0; i < n; i++) {
            floats[i] = (float)wide[i];
        }
    } else if (n) {
        attn_tensor from = attn_tensor_contiguous((void *)(uintptr_t)data, (attn_dtype)dtype, 1, 1, 1, n);
        attn_tensor to = attn_tensor_contiguous(floats, ATTN_F32, 1, 1, 1, n);

        dtype_check(attn_convert(dtype_context(), &from, &to), what);
    }
    return floats;
}

double *dtype_to_double(const void *data, size_t n, int dtype, const char *what) {
    double *doubles = get_array(n, sizeof *doubles, what);
    float *floats;

    if (dtype == DTYPE_F64) {
        memcpy(doubles, data, n * sizeof *doubles);
        return doubles;
    }
    floats = dtype_to_float(data, n, dtype, what);
    for (size_t i = 0; i < n; i++) {
        doubles[i] = floats[i];
    }
    release(floats);
    return doubles;
}
