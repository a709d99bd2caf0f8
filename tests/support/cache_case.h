/*
 * A cache with the keys and values of a case of attn_sdpa: any arrangement of blocks, NaN in every place that no
 * sequence uses, more sequences than the case has, in another order.
 */
#ifndef TEST_CACHE_CASE_H
#define TEST_CACHE_CASE_H

#include "support/api_case.h"

/* Keys and values of a case as other types have them, row by row. */
struct cache_rounded {
    attn_dtype k_type, v_type;
    unsigned char *k, *v; /* [batch][head][row], by the scalar backend */
};

/* Whether the case's columns are whole blocks; then d's keys and values become what the types hold of them. */
int cache_case_round(const struct api_case *c, struct api_data *d, attn_dtype k_type, attn_dtype v_type,
                     struct cache_rounded *to);
void cache_rounded_free(struct cache_rounded *x);

struct cache_shape {
    attn_kv_layout layout;
    size_t block_rows; /* 0: as many as the longest sequence */
    int pages;         /* 0: a block a sequence, without a table */
    int ring; /* only the keys that the rows see, and some before them, in so many blocks as they take */
    int rows_outside;                    /* blocks are [row][head][column], where the layout is rows */
    const struct cache_rounded *rounded; /* the cache's types; NULL: f32. Panels: no blocks of keys */
    uint64_t stream;
};

/* The ones that suites go through; api_case's `cache` counts them from 1. */
enum { CACHE_SHAPES = 14 };
extern const struct cache_shape cache_shapes[CACHE_SHAPES];

struct cache_case {
    attn_kv kv;
    size_t sequences[API_SEQUENCES_MAX];
    size_t lengths[API_SEQUENCES_MAX + 2], firsts[API_SEQUENCES_MAX + 2];
    struct guard k, v, blocks, documents;
    struct api_data data; /* the case's, that it reads from here */
};

/* Whether the case can be had so: its rows see a part of a ring's keys. */
int cache_case_make(const struct api_case *c, const struct api_data *d, const struct cache_shape *shape,
                    struct cache_case *to);
void cache_case_free(struct cache_case *x);

#endif
