/* Element types of the files that the command reads, and their conversion to float and double. */
#ifndef ATTN_TOOL_DTYPE_H
#define ATTN_TOOL_DTYPE_H

#include <attn/attn.h>
#include <stddef.h>

/* A type is an attn_dtype, or one of these. */
enum { DTYPE_F64 = -1, DTYPE_OTHER = -2 };

/* A context for conversions alone, made when it is first asked for. */
attn_context *dtype_context(void);

/* Dies with the context's error unless status is ATTN_OK. */
void dtype_check(attn_status status, const char *what);

/* The rows of a tensor as float, by attn_convert(), without gaps between them: in memory of their own, or the tensor's
 * data where it is such rows already. `what` names it. */
float *dtype_floats(const attn_tensor *tensor, const char *what);

/* n little-endian elements of f16, f32 or f64 in memory of their own: f64 is rounded to the nearest float. */
float *dtype_to_float(const void *data, size_t n, int dtype, const char *what);

/* The same as double: exact for all. */
double *dtype_to_double(const void *data, size_t n, int dtype, const char *what);

#endif
