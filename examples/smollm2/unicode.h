/* What the tokenizer asks of a code point. */
#ifndef UNICODE_H
#define UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum unicode_kind {
    UNICODE_OTHER,
    UNICODE_LETTER, /* category L */
    UNICODE_NUMBER, /* category N */
    UNICODE_SPACE   /* white space */
};

enum unicode_kind unicode_kind(uint32_t point);

#endif
