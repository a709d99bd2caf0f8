/* A case of vectors.txt through the library and through the bounds of tools/bound.h. */
#ifndef REFERENCE_CASES_H
#define REFERENCE_CASES_H

#include <attn/attn.h>

#include "bound.h"
#include "vectors.h"

/* One output of a case: what the library gave, what the file wants, what bound.h says. */
struct case_output {
    const char *name; /* "out", "lse" or "weights" */
    size_t n;
    float *got;
    const double *want;
    double *oracle, *err;
};

struct case_run {
    struct case_output output[3];
    size_t n_outputs;
};

/* Runs the case on the context and fills in the bounds for its backend. Free it with case_free(). */
struct case_run case_execute(attn_context *context, const struct vector_case *c);
void case_free(struct case_run *run);

/* A context of one thread on the backend; fails the test where there is none. */
attn_context *context_on(const char *backend);

/* Packs a matrix (64-byte aligned, to be freed by the caller with free()); fails the test on an error. */
attn_packed *pack_matrix(attn_context *context, const float *w, const float *bias, size_t n, size_t k);

/* Fails the test unless the status is ATTN_OK, quoting the context's error. */
void succeeded(attn_context *context, attn_status status);

#endif
