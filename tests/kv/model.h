/*
 * What a cache should hold: for every sequence all rows that were ever appended, in plain arrays, and who
 * shares which block. Rules are applied key by key; nothing of src/kv*.c is used.
 */
#ifndef KV_MODEL_H
#define KV_MODEL_H

#include <stddef.h>

#include "attn/attn.h"

struct kv_sizes {
    attn_kv_layout layout;
    int ring;
    size_t n_sequences, n_blocks, slots, block_rows, n_head, p_k, p_v;
    size_t most; /* keys that a sequence ever gets */
    attn_dtype k_type, v_type;
};

struct model_sequence {
    size_t first, length;
    size_t *owned;        /* for each slot a number that stands for a block, 0: none */
    unsigned char *k, *v; /* [most][head] rows of the types */
};

struct model {
    struct kv_sizes z;
    int counted; /* blocks have references; otherwise a sequence may always write */
    struct model_sequence *sequences;
    unsigned *holders; /* of each number */
    size_t n_numbers;
};

void model_open(struct model *m, const struct kv_sizes *z, int counted);
void model_close(struct model *m);

/* Bytes of a row of `columns` values. */
size_t model_row(attn_dtype type, size_t columns);

size_t model_capacity(const struct kv_sizes *z);
size_t model_free_blocks(const struct model *m);

/* One sequence's part of an append: rows of k and v as the types have them, [count][head]. */
struct model_rows {
    size_t sequence, count;
    const unsigned char *k, *v;
};

/* The append as a whole; 0, and nothing changes, where it does not fit. */
int model_append(struct model *m, const struct model_rows *rows, size_t n);
void model_fork(struct model *m, size_t from, size_t to);
void model_truncate(struct model *m, size_t sequence, size_t length);

#endif
