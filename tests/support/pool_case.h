/* One call of a backend's pool slot (or of pool for every chunk and then merge) in guarded memory, checked
 * against the oracle and the scalar slot. Keys that no row may see are not even mapped. */
#ifndef TEST_POOL_CASE_H
#define TEST_POOL_CASE_H

#include "support/grid.h"
#include "support/harness.h"

/* What the rows of the block see. */
enum sight {
    SIGHT_ALL,
    SIGHT_CAUSAL,  /* bottom-right; earlier rows see nothing where there are more rows than keys */
    SIGHT_PREFIX,  /* all rows the same shorter length */
    SIGHT_RANGES,  /* each row a range of its own, half of them shorter than a tile */
    SIGHT_SOME,    /* each row a range or nothing */
    SIGHT_WINDOWS, /* each row a range, and the first keys too */
    SIGHT_NONE,
    N_SIGHTS
};

enum mask_bits { MASK_ROWS = 1, MASK_HEADS = 2, MASK_KEYS = 4 }; /* set: not broadcast in that dimension */

struct pool_case {
    enum attn_score_kind score;
    size_t n_rows, group, first, n_kv, d_k, d_v; /* first: of the group's heads, of row 0 */
    enum sight sight;
    enum attn_mask_kind mask;
    unsigned mask_bits;
    int documents, alibi, sinks; /* sinks: 2: -inf and far from all scores */
    float soft_cap;
    int lse, weights, lse_sinks, scores;
    int parts;    /* one call a chunk, then merge */
    int rising;   /* scores rise with j: the running maximum moves all the time */
    int spoiled;  /* NaN here and there, +inf in the mask; visible or not */
    int shared_w; /* additive: one w for all heads */
    enum fill fill;
    unsigned layout;
    uint64_t stream; /* of random numbers */
};

/* The inputs of a case. */
struct pool_data {
    struct grid q, k, v, w, mask;
    float scale;
    size_t from, to; /* keys that exist: row 0 of k and v is key `from` */
    size_t lo[ATTN_ROWS_MAX], hi[ATTN_ROWS_MAX], also[ATTN_ROWS_MAX];
    ptrdiff_t position;                     /* of query 0 */
    struct guard q_documents, kv_documents; /* int32_t */
    struct guard slopes, sinks;             /* float, of the group's heads */
};

void pool_case_check(const struct attn_backend *b, const struct pool_case *c, struct verdict *v);

/* In pieces, for tests that change the inputs in between. */
struct pool_data pool_case_make(const struct pool_case *c, struct rng *r);
void pool_case_check_data(const struct attn_backend *b, const struct pool_case *c, const struct pool_data *d,
                          struct rng *r, struct verdict *v);
void pool_case_free(struct pool_data *d);

/* The query and the head of row r. */
size_t pool_case_query(const struct pool_case *c, size_t r);
size_t pool_case_head(const struct pool_case *c, size_t r);

/* Whether row r of the block sees key j by its range and mask. */
int pool_case_sees(const struct pool_case *c, const struct pool_data *d, size_t r, size_t j);

/* What an additive mask adds to the score of key j. */
float pool_case_bias(const struct pool_case *c, const struct pool_data *d, size_t r, size_t j);

/* Describes the case for harness_case(). */
void pool_case_announce(const struct attn_backend *b, const struct pool_case *c);

#endif
