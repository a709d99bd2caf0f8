/* A case of attn_sdpa with everything that attn_scoring has; the other kinds run as in tests/reference. */
#ifndef TORCH_CALL_H
#define TORCH_CALL_H

#include "../reference/cases.h"

/* What the case asks for of out, lse, weights and lse_sinks. */
struct sdpa_run {
    struct case_output output[4];
    size_t n_outputs;
};

struct sdpa_run sdpa_execute(attn_context *context, const struct vector_case *c);
void sdpa_free(struct sdpa_run *run);

#endif
