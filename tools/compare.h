/* Comparing results with a reference at the bound that bound.h derives for each element. */
#ifndef ATTN_TOOL_COMPARE_H
#define ATTN_TOOL_COMPARE_H

#include <stddef.h>

#include "engine.h"

/* What is compared: one head's output, all heads', or the multi-head output. */
enum output { OUTPUT_HEAD, OUTPUT_HEADS, OUTPUT_MULTIHEAD };

struct result {
    enum output kind;
    size_t head;          /* OUTPUT_HEAD: which */
    size_t rank, size[3]; /* of data, as it is written to --out */
    const float *data;
};

/*
 * Compares with the scalar reference backend (when `backend` is itself the scalar one, with bound.h's
 * double-precision oracle) and prints a line. 1 when every element is within its bound, otherwise 0.
 */
int compare_check(const struct result *result, const struct model *model, const struct job *job,
                  const char *backend);

/* Compares with the array of an .npy file in the same way. */
int compare_expect(const struct result *result, const struct model *model, const struct job *job,
                   const char *backend, const char *path);

#endif
