/*
 * Reads GGUF files (versions 2 and 3, little-endian): a header with the numbers of tensors and of metadata
 * entries, the entries (key, type, value), the tensors' descriptions (name, sizes, type, offset), then,
 * aligned, the tensors' bytes. The file is mapped, nothing is copied: tensors are given as they lie.
 *
 * Whatever the file holds, gguf_open() gives an error or a view whose every pointer lies inside the mapping.
 * The file must not be shortened while it is open.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
#ifndef GGUF_H
#define GGUF_H

#include <attn/attn.h>
#include <stddef.h>
#include <stdint.h>

/* Types of tensors that gguf_floats() converts; the numbers are the format's. Others are described only. */
enum gguf_type {
    GGUF_F32 = 0,
    GGUF_F16 = 1,
    GGUF_Q4_0 = 2,
    GGUF_Q4_1 = 3,
    GGUF_Q5_0 = 6,
    GGUF_Q5_1 = 7,
    GGUF_Q8_0 = 8,
    GGUF_Q4_K = 12,
    GGUF_Q5_K = 13,
    GGUF_Q6_K = 14,
    GGUF_BF16 = 30
};

/* Types of metadata values; the numbers are the format's. */
enum gguf_value_type {
    GGUF_VALUE_U8,
    GGUF_VALUE_I8,
    GGUF_VALUE_U16,
    GGUF_VALUE_I16,
    GGUF_VALUE_U32,
    GGUF_VALUE_I32,
    GGUF_VALUE_F32,
    GGUF_VALUE_BOOL,
    GGUF_VALUE_STRING,
    GGUF_VALUE_ARRAY,
    GGUF_VALUE_U64,
    GGUF_VALUE_I64,
    GGUF_VALUE_F64,
    GGUF_VALUE_TYPES
};

enum { GGUF_RANK_MAX = 4 };

/* A text inside the mapping, without a zero at its end. */
struct gguf_text {
    const char *text;
    size_t bytes;
};

struct gguf_tensor {
    struct gguf_text name;
    uint32_t type; /* an enum gguf_type, or another one of the format */
    uint32_t rank; /* 0 to GGUF_RANK_MAX */
    size_t size
        [GGUF_RANK_MAX]; /* size[0] is the length of a row, whose elements are contiguous; 1 from rank on */
    size_t row_bytes, rows; /* rows: size[1] * size[2] * size[3], without gaps between them */
    const void *data;       /* rows * row_bytes bytes, aligned to 8 or more */
};

struct gguf_value {
    struct gguf_text key;
    uint32_t type, element;    /* an enum gguf_value_type; element: of an array */
    size_t count;              /* elements of an array, otherwise 1 */
    const unsigned char *data; /* the value, or the array's first element; may be unaligned */
};

struct gguf {
    const unsigned char *map;
    size_t bytes;
    size_t n_values, n_tensors;
    struct gguf_value *values;   /* by key */
    struct gguf_tensor *tensors; /* by name */
};

/* Maps the file and checks all of it but the tensors' elements. Returns 1; or 0 and a sentence in error
 * (what is wrong and how to mend it), with nothing left to close. */
int gguf_open(struct gguf *gguf, const char *path, char *error, size_t error_bytes);

void gguf_close(struct gguf *gguf);

/* By name; NULL where there is none. */
const struct gguf_tensor *gguf_tensor(const struct gguf *gguf, const char *name);
const struct gguf_value *gguf_value(const struct gguf *gguf, const char *key);

/* The type's name, "Q4_K"; "?" for a number that the format does not have. */
const char *gguf_type_name(uint32_t type);

/* Bytes of a block of *block elements; 0 for a number that the format does not have. */
size_t gguf_type_bytes(uint32_t type, size_t *block);

/* The library's name for the type, whose blocks are the same bytes; 0 where it has none. */
int gguf_attn_type(uint32_t type, attn_dtype *dtype);

/* Bytes of a metadata value, an enum gguf_value_type; 0 for texts and arrays and what the format does not have. */
size_t gguf_value_bytes(uint32_t type);

/* Metadata as one kind of value; 0 where the key is missing or holds another kind. */
int gguf_count(const struct gguf *gguf, const char *key,
               size_t *count); /* any integer that is not negative */
int gguf_count_at(const struct gguf *gguf, const char *key, size_t i,
                  size_t *count); /* element i of an array, or the one number for all i */
int gguf_number(const struct gguf *gguf, const char *key,
                double *number); /* any integer or floating-point type */
int gguf_text(const struct gguf *gguf, const char *key, struct gguf_text *text);

/* Arrays: NULL where the key is missing or holds something else. Texts follow one another: start with
 * value->data and call gguf_next_text() value->count times. */
const struct gguf_value *gguf_texts(const struct gguf *gguf, const char *key);
struct gguf_text gguf_next_text(const unsigned char **at);
const struct gguf_value *gguf_integers(const struct gguf *gguf,
                                       const char *key); /* array of INT32 or UINT32 */
uint32_t gguf_integer(const struct gguf_value *value, size_t i);

/* 1 when gguf_floats() takes the type. */
int gguf_has_floats(uint32_t type);

/* Rows [row, row + n) as the library's tensor [1, 1, n, size[0]], which lies in the mapping and must not be written to;
 * 0 where the library does not have the type. */
int gguf_view(const struct gguf_tensor *tensor, size_t row, size_t n, attn_tensor *view);

/* Rows [row, row + n) of the tensor as floats, one after the other: the values of ggml's reference, to the bit. The
 * status is attn_convert()'s. Must not be called for a type without floats. */
ATTN_NODISCARD attn_status gguf_floats(attn_context *context, const struct gguf_tensor *tensor, size_t row,
                                       size_t n, float *to);

#endif
