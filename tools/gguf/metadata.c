/* Values of a GGUF file's metadata. gguf_open() has checked that they lie inside the mapping. */
#include <string.h>

#include "gguf.h"

/* An integer of any width as its value and its sign; 0 for other types. */
static int take_integer(uint32_t type, const unsigned char *data, uint64_t *magnitude, int *negative) {
    uint64_t u = 0;
    int64_t i = 0;

    switch (type) {
    case GGUF_VALUE_U8: u = *data; break;
    case GGUF_VALUE_U16: memcpy(&u, data, 2); break; /* little-endian: the low bytes */
    case GGUF_VALUE_U32: memcpy(&u, data, 4); break;
    case GGUF_VALUE_U64: memcpy(&u, data, 8); break;
    case GGUF_VALUE_I8: i = (signed char)*data; break;
    case GGUF_VALUE_I16: {
        int16_t narrow;

        memcpy(&narrow, data, sizeof narrow);
        i = narrow;
        break;
    }
    case GGUF_VALUE_I32: {
        int32_t narrow;

        memcpy(&narrow, data, sizeof narrow);
        i = narrow;
        break;
    }
    case GGUF_VALUE_I64: memcpy(&i, data, sizeof i); break;
    default: return 0;
    }
    *negative = i < 0;
    *magnitude = i < 0 ? 0 - (uint64_t)i : u + (uint64_t)i;
    return 1;
}

static int take_count(uint32_t type, const unsigned char *data, size_t *count) {
    uint64_t magnitude;
    int negative;

    if (!take_integer(type, data, &magnitude, &negative) || negative || magnitude > SIZE_MAX) {
        return 0;
    }
    *count = (size_t)magnitude;
    return 1;
}

int gguf_count(const struct gguf *gguf, const char *key, size_t *count) {
    const struct gguf_value *value = gguf_value(gguf, key);

    return value && take_count(value->type, value->data, count);
}

int gguf_count_at(const struct gguf *gguf, const char *key, size_t i, size_t *count) {
    const struct gguf_value *value = gguf_value(gguf, key);

    if (!value || value->type != GGUF_VALUE_ARRAY) {
        return gguf_count(gguf, key, count);
    }
    return i < value->count && value->element != GGUF_VALUE_STRING &&
           take_count(value->element, value->data + i * gguf_value_bytes(value->element), count);
}

int gguf_number(const struct gguf *gguf, const char *key, double *number) {
    const struct gguf_value *value = gguf_value(gguf, key);
    uint64_t magnitude;
    int negative;
    float narrow;

    if (!value) {
        return 0;
    }
    if (value->type == GGUF_VALUE_F32) {
        memcpy(&narrow, value->data, sizeof narrow);
        *number = (double)narrow;
    } else if (value->type == GGUF_VALUE_F64) {
        memcpy(number, value->data, sizeof *number);
    } else if (take_integer(value->type, value->data, &magnitude, &negative)) {
        *number = negative ? -(double)magnitude : (double)magnitude;
    } else {
        return 0;
    }
    return 1;
}

struct gguf_text gguf_next_text(const unsigned char **at) {
    struct gguf_text text;
    uint64_t bytes;

    memcpy(&bytes, *at, sizeof bytes);
    text.text = (const char *)*at + sizeof bytes;
    text.bytes = (size_t)bytes;
    *at += sizeof bytes + text.bytes;
    return text;
}

int gguf_text(const struct gguf *gguf, const char *key, struct gguf_text *text) {
    const struct gguf_value *value = gguf_value(gguf, key);
    const unsigned char *at;

    if (!value || value->type != GGUF_VALUE_STRING) {
        return 0;
    }
    at = value->data;
    *text = gguf_next_text(&at);
    return 1;
}

const struct gguf_value *gguf_texts(const struct gguf *gguf, const char *key) {
    const struct gguf_value *value = gguf_value(gguf, key);

    return value && value->type == GGUF_VALUE_ARRAY && value->element == GGUF_VALUE_STRING ? value : NULL;
}

const struct gguf_value *gguf_integers(const struct gguf *gguf, const char *key) {
    const struct gguf_value *value = gguf_value(gguf, key);

    return value && value->type == GGUF_VALUE_ARRAY &&
                   (value->element == GGUF_VALUE_I32 || value->element == GGUF_VALUE_U32)
               ? value
               : NULL;
}

uint32_t gguf_integer(const struct gguf_value *value, size_t i) {
    uint32_t integer;

    memcpy(&integer, value->data + 4 * i, sizeof integer);
    return integer;
}
