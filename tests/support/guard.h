/*
 * Memory between two inaccessible pages. The payload lies flush against the page after it (reading or
 * writing one byte past its end crashes) or near the page before it (the same for its start), at a chosen
 * misalignment. The rest of the accessible pages is canary.
 */
#ifndef TEST_GUARD_H
#define TEST_GUARD_H

#include <stddef.h>
#include <stdint.h>

/* What canaries hold, by address: as a float a quiet NaN, so that a value read from one is noticed, with a
 * payload that no arithmetic makes up. */
#define CANARY_BITS 0x7fc0deadu

/* Multiples of 4 bytes by which a payload at the start may be moved. */
#define GUARD_SHIFTS 16

struct guard {
    unsigned char *pages; /* the accessible ones */
    size_t n_bytes;       /* of them */
    unsigned char *data;  /* payload */
    size_t bytes;
};

/* place 0: flush to the end; 1 + s: s * 4 bytes after the start. The payload is filled with canary. */
struct guard guard_alloc(size_t bytes, unsigned place);

/* Makes the pages read-only, and writable again. */
void guard_seal(const struct guard *g);
void guard_unseal(const struct guard *g);

/* Whether n bytes from p on are canary. */
int guard_is_canary(const unsigned char *p, size_t n);

/* Whether every accessible byte outside the payload is still canary. */
int guard_intact(const struct guard *g);

/* Gives the memory back (writable). */
void guard_free(struct guard *g);

#endif
