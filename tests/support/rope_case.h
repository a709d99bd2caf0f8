/* One attn_rope_apply() in guarded memory, checked against formulas in long double. */
#ifndef TEST_ROPE_CASE_H
#define TEST_ROPE_CASE_H

#include "support/grid.h"
#include "support/harness.h"

enum rope_positions {
    ROPE_NO_POSITIONS,
    ROPE_SHARED,   /* [row] of all sequences */
    ROPE_SEQUENCES /* [batch][row], with a gap between */
};

struct rope_case {
    attn_rope rope; /* size and divisors are set by the check */
    int divided;    /* with divisors */
    size_t batch, head, rows, columns;
    int offsets; /* of each sequence */
    enum rope_positions positions;
    int64_t around; /* positions are near this one */
    int in_place;
    enum fill fill;
    unsigned layout, y_layout;
    size_t n_workers;
    uint64_t stream;
};

/* Frequency of pair i in radians a position, without divisors, and the factor of cos and sin, by the formulas as
 * their authors wrote them. */
long double rope_oracle_frequency(const attn_rope *rope, size_t dims, size_t i);
double rope_oracle_magnitude(const attn_rope *rope);

/* Fills what a case leaves open from its stream. */
void rope_case_draw(struct rope_case *c);

void rope_case_announce(const char *backend, const struct rope_case *c);

/* substitute: runs in the place of the backend, or NULL. */
void rope_case_check(const char *backend, const struct attn_backend *substitute, const struct rope_case *c,
                     struct verdict *v);

#endif
