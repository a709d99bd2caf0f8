/* The cache under test: made by the library, or a host's own. */
#ifndef KV_SUBJECT_H
#define KV_SUBJECT_H

#include "kv/model.h"
#include "support/guard.h"
#include "support/harness.h"

enum subject_kind {
    SUBJECT_CREATED, /* attn_kv_create(): references */
    SUBJECT_TABLE,   /* a host's blocks, [block][key or value][row][head][column], in a table it has filled */
    SUBJECT_CONTIGUOUS, /* a host's: no table, one block a sequence, blocks in descending order */
    N_SUBJECT_KINDS
};

struct subject {
    enum subject_kind kind;
    struct kv_sizes z;
    attn_kv kv;
    struct guard memory; /* k and v; of a created one everything */
    struct guard table;  /* a host's lengths, firsts and blocks */
};

void subject_open(struct subject *s, enum subject_kind kind, const struct kv_sizes *z, attn_context *context,
                  struct rng *r);
void subject_close(struct subject *s);

/* The created cache's bytes at another address, opened there; the old memory is given back. */
void subject_move(struct subject *s, attn_context *context, struct rng *r);

/* A hash of all memory. */
uint64_t subject_hash(const struct subject *s);

/* Lengths, live rows to the bit, references, shared blocks, free blocks: as the model says. */
void subject_check(const struct subject *s, const struct model *m, struct verdict *verdict);

#endif
