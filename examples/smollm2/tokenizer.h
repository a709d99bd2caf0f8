/*
 * Byte-level BPE (GPT-2's scheme) with SmolLM's splitting rule, from a GGUF file's vocabulary and merges: the
 * tokens are those of llama.cpp.
 *
 * The vocabulary spells each byte as one visible character: printable Latin-1 bytes as themselves, the others
 * as the characters from U+0100 on, in order.
 */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "gguf.h"

#define NO_TOKEN UINT32_MAX

enum { TOKENIZER_SPECIAL_MAX = 1024 };

/* Two neighbours that may become one token; the lower the rank, the earlier. */
struct merge {
    uint32_t left, right; /* left == NO_TOKEN: a free slot of the table */
    uint32_t rank, merged;
};

struct tokenizer {
    size_t n;                     /* tokens */
    struct gguf_text *texts;      /* spelled; inside the mapping */
    unsigned char *special;       /* by id: 1 for special tokens */
    uint32_t *slots;              /* hash table: ids by text */
    struct merge *merges;         /* hash table by pair */
    size_t slot_mask, merge_mask; /* sizes of the tables, less 1 */
    uint32_t byte_id[256];        /* NO_TOKEN: the vocabulary lacks the byte */
    uint32_t byte_point[256];     /* the code point that spells a byte */
    short point_byte[512];        /* the byte that a code point spells; -1: none */
    uint32_t specials[TOKENIZER_SPECIAL_MAX];
    size_t n_special;
    uint32_t end, end_of_text; /* generation ends at these, where they are tokens */
};

struct ids {
    uint32_t *id;
    size_t n, room;
};

/* Reads the vocabulary (vocabulary.c); dies where the file has none, or one of another kind. The file must
 * stay open as long as the tokenizer. */
struct tokenizer *tokenizer_open(const struct gguf *gguf);
void tokenizer_close(struct tokenizer *t);

/* The merge of two tokens, or NULL. */
const struct merge *tokenizer_merge(const struct tokenizer *t, uint32_t left, uint32_t right);

/* The special token of that name; dies where there is none. */
uint32_t tokenizer_special(const struct tokenizer *t, const char *name);

/* 1 where generation ends at this token. */
int tokenizer_is_end(const struct tokenizer *t, uint32_t id);

/*
 * Appends the tokens of a text, which must be UTF-8 (dies). special: names of special tokens in the text
 * become those tokens; otherwise they are text like any other. Bytes that the vocabulary lacks (SmolLM2's: a
 * few control characters) are left out, as llama.cpp does.
 */
void tokenizer_encode(const struct tokenizer *t, const char *text, size_t bytes, int special,
                      struct ids *ids);

void ids_append(struct ids *ids, uint32_t id);

/* The bytes of a token: at most `room` are written, the number of all is returned. Special tokens have none.
 * A character may be spread over several tokens. */
size_t tokenizer_decode(const struct tokenizer *t, uint32_t id, char *bytes, size_t room);

#endif
