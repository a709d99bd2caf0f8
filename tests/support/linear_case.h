/* One call of a backend's linear slot in guarded memory, checked against the oracle and the scalar slot. */
#ifndef TEST_LINEAR_CASE_H
#define TEST_LINEAR_CASE_H

#include "support/grid.h"
#include "support/harness.h"

struct linear_case {
    size_t m, n, k;
    size_t o0, o1; /* outputs to compute: whole panels of the backend */
    int bias;
    enum fill fill;
    unsigned layout; /* of x and y */
    uint64_t stream; /* of random numbers */
};

void linear_case_check(const struct attn_backend *b, const struct linear_case *c, struct verdict *v);

/* Packs w[n][k] into panels as backend.h lays them out; panel width nr. */
struct guard linear_case_pack(size_t nr, size_t n, size_t k, const float *w);

#endif
