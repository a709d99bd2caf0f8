/*
 * Damaged files: either gguf_open() refuses them with a sentence, or every pointer of what it gives lies
 * inside the mapping. Small files made by hand for each check, then a good file cut at every byte and with
 * random bytes changed.
 */
#include "hostile.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gguf.h"

/* A file in memory. */
struct blob {
    unsigned char bytes[1 << 17];
    size_t n;
};

static const char *good_path;
static struct blob blob;

static void put(const void *bytes, size_t n) {
    ck_assert_uint_le(n, sizeof blob.bytes - blob.n);
    memcpy(blob.bytes + blob.n, bytes, n);
    blob.n += n;
}

static void put_u32(uint32_t value) { put(&value, sizeof value); }
static void put_u64(uint64_t value) { put(&value, sizeof value); }

static void put_text(const char *text) {
    put_u64(strlen(text));
    put(text, strlen(text));
}

/* Opens the blob as a file. */
static int open_blob(struct gguf *gguf, char *error, size_t error_bytes) {
    char path[] = "/tmp/attn-gguf-XXXXXX";
    int file = mkstemp(path), opened;

    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(write(file, blob.bytes, blob.n), (ssize_t)blob.n);
    close(file);
    opened = gguf_open(gguf, path, error, error_bytes);
    unlink(path);
    return opened;
}

static void check_inside(const struct gguf *gguf, const void *from, size_t bytes) {
    uintptr_t begin = (uintptr_t)from, map = (uintptr_t)gguf->map;

    ck_assert(begin >= map && begin - map <= gguf->bytes && bytes <= gguf->bytes - (begin - map));
}

/* Looks at everything that the reader gives. Returns a sum, so that it is really read. */
static double walk(const struct gguf *gguf) {
    double sum = 0;

    for (size_t i = 0; i < gguf->n_values; i++) {
        const struct gguf_value *value = &gguf->values[i];
        const unsigned char *at = value->data;

        check_inside(gguf, value->key.text, value->key.bytes);
        check_inside(gguf, value->data, value->count ? 1 : 0);
        for (size_t j = 0;
             value->type == GGUF_VALUE_ARRAY && value->element == GGUF_VALUE_STRING && j < value->count;
             j++) {
            struct gguf_text text = gguf_next_text(&at);

            check_inside(gguf, text.text, text.bytes);
        }
    }
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        const struct gguf_tensor *tensor = &gguf->tensors[i];
        float *floats;

        check_inside(gguf, tensor->name.text, tensor->name.bytes);
        ck_assert(!tensor->rows || tensor->row_bytes <= SIZE_MAX / tensor->rows);
        check_inside(gguf, tensor->data, tensor->rows * tensor->row_bytes);
        ck_assert_uint_eq((uintptr_t)tensor->data % 8, 0);
        if (gguf_has_floats(tensor->type) && tensor->rows && tensor->size[0] && tensor->row_bytes) {
            floats = malloc(tensor->size[0] * sizeof *floats); /* its bytes are in the file: not absurd */
            ck_assert_ptr_nonnull(floats);
            ck_assert_int_eq(gguf_floats(get_context(), tensor, tensor->rows - 1, 1, floats), ATTN_OK);
            sum += (double)floats[tensor->size[0] - 1];
            free(floats);
        }
    }
    return sum;
}

/* The numbers of a file made by hand, in the order of the file. */
enum {
    VERSION,
    N_TENSORS,
    N_VALUES,
    ALIGNMENT,
    VALUE_TYPE,
    ELEMENT_TYPE,
    COUNT,
    NAME_BYTES,
    RANK,
    SIZE_0,
    SIZE_1,
    SIZE_2,
    SIZE_3,
    TYPE,
    OFFSET,
    SECOND_NAME, /* a character */
    SECOND_TYPE,
    N_FIELDS
};

/* Two entries of metadata, two tensors: the first as the fields say, then 32 floats at offset 256. */
static void put_file(const uint64_t *field) {
    const char second[] = {(char)field[SECOND_NAME], 0};

    blob.n = 0;
    put("GGUF", 4);
    put_u32((uint32_t)field[VERSION]);
    put_u64(field[N_TENSORS]);
    put_u64(field[N_VALUES]);
    put_text("general.alignment");
    put_u32(GGUF_VALUE_U32);
    put_u32((uint32_t)field[ALIGNMENT]);
    put_text("list");
    put_u32((uint32_t)field[VALUE_TYPE]);
    put_u32((uint32_t)field[ELEMENT_TYPE]);
    put_u64(field[COUNT]);
    put("123456", 6);
    put_u64(field[NAME_BYTES]);
    put("a", 1);
    put_u32((uint32_t)field[RANK]);
    for (size_t i = 0; i < 4 && i < field[RANK]; i++) {
        put_u64(field[SIZE_0 + i]);
    }
    put_u32((uint32_t)field[TYPE]);
    put_u64(field[OFFSET]);
    put_text(second);
    put_u32(1);
    put_u64(32);
    put_u32((uint32_t)field[SECOND_TYPE]);
    put_u64(256);
    while (blob.n % 32 != 0) {
        put("", 1);
    }
    for (size_t i = 0; i < 256 + 128; i++) {
        put("", 1);
    }
}

static const uint64_t good_fields[N_FIELDS] = {[VERSION] = 3,
                                               [N_TENSORS] = 2,
                                               [N_VALUES] = 2,
                                               [ALIGNMENT] = 32,
                                               [VALUE_TYPE] = GGUF_VALUE_ARRAY,
                                               [ELEMENT_TYPE] = GGUF_VALUE_U16,
                                               [COUNT] = 3,
                                               [NAME_BYTES] = 1,
                                               [RANK] = 2,
                                               [SIZE_0] = 32,
                                               [SIZE_1] = 2,
                                               [SIZE_2] = 1,
                                               [SIZE_3] = 1,
                                               [TYPE] = GGUF_F32,
                                               [OFFSET] = 0,
                                               [SECOND_NAME] = 'b',
                                               [SECOND_TYPE] = GGUF_F32};

/* What is changed in a good file, and what the refusal says of it; NULL: the file is still good. */
static const struct lie {
    const char *says;
    struct {
        int field;
        uint64_t value;
    } changes[3]; /* unused ones leave VERSION at 0, which means "as it was" */
} lies[] = {
    {NULL, {{VERSION, 3}}},
    {NULL, {{VERSION, 2}}},
    {NULL, {{SIZE_1, 0}}},
    {NULL, {{RANK, 0}}},
    {NULL, {{SIZE_0, 0}}},
    {NULL, {{SIZE_0, 0}, {SIZE_1, UINT64_MAX}}},
    {NULL, {{ALIGNMENT, 8}}},
    {"version 1", {{VERSION, 1}}},
    {"big-endian", {{VERSION, 3 << 24}}},
    {"more entries", {{N_TENSORS, UINT64_MAX}}},
    {"more entries", {{N_VALUES, UINT64_MAX / 13}}},
    {"general.alignment", {{ALIGNMENT, 0}}},
    {"general.alignment", {{ALIGNMENT, 48}}},
    {"general.alignment", {{ALIGNMENT, 4}}},
    {"general.alignment", {{ALIGNMENT, 1u << 31}}},
    {"arrays of type 9", {{ELEMENT_TYPE, GGUF_VALUE_ARRAY}}},
    {"arrays of type 13", {{ELEMENT_TYPE, GGUF_VALUE_TYPES}}},
    {"ends inside", {{ELEMENT_TYPE, GGUF_VALUE_STRING}}},
    {"ends inside", {{COUNT, UINT64_MAX}}},
    {"ends inside", {{COUNT, UINT64_MAX / 2 + 1}}},
    {"has type 13", {{VALUE_TYPE, GGUF_VALUE_TYPES}}},
    {"has type 4294967295", {{VALUE_TYPE, UINT32_MAX}}},
    {"ends inside", {{NAME_BYTES, UINT64_MAX}}},
    {"5 dimensions", {{RANK, 5}}},
    {"absurdly large", {{RANK, 4}, {SIZE_1, 1ull << 32}, {SIZE_2, 1ull << 32}}},
    {"absurdly large", {{SIZE_0, 1ull << 62}}},
    {"absurdly large", {{SIZE_1, UINT64_MAX / 2}}},
    {"ends behind", {{SIZE_0, 1ull << 40}}},
    {"type 4,", {{TYPE, 4}}},
    {"type 4294967295,", {{TYPE, UINT32_MAX}}},
    {"whole blocks of Q4_K", {{TYPE, GGUF_Q4_K}}},
    {"not aligned", {{OFFSET, 16}}},
    {"ends behind", {{OFFSET, UINT64_MAX - 31}}},
    {"ends behind", {{OFFSET, 256}}},
    {"a and b overlap", {{SIZE_1, 1}, {OFFSET, 224}}},
    {"b and a overlap", {{SIZE_0, 16}, {SIZE_1, 1}, {OFFSET, 288}}},
    {NULL, {{SIZE_1, 0}, {OFFSET, 256}}},
    {NULL, {{SIZE_1, 1}, {OFFSET, 128}}},
    {"two tensors are called a", {{SECOND_NAME, 'a'}}},
    {"tensor ? has type 99", {{SECOND_NAME, '\033'}, {SECOND_TYPE, 99}}},
};

static void put_lie(const struct lie *lie) {
    uint64_t field[N_FIELDS];

    memcpy(field, good_fields, sizeof field);
    for (size_t i = 0; i < 3; i++) {
        if (lie->changes[i].field != VERSION || lie->changes[i].value) {
            field[lie->changes[i].field] = lie->changes[i].value;
        }
    }
    put_file(field);
}

START_TEST(test_lie) {
    const struct lie *lie = &lies[_i];
    struct gguf gguf;
    char error[512] = "";
    int opened;

    put_lie(lie);
    opened = open_blob(&gguf, error, sizeof error);
    if (lie->says) {
        ck_assert_msg(!opened && strstr(error, lie->says), "%d: '%s', not '%s'", _i, error, lie->says);
        ck_assert(!gguf.map && !gguf.values && !gguf.tensors);
    } else {
        ck_assert_msg(opened, "%d: %s", _i, error);
        walk(&gguf);
        gguf_close(&gguf);
    }
}
END_TEST

/* The sentence fits whatever room there is. */
START_TEST(test_room) {
    struct gguf gguf;
    char error[512];

    put_lie(&lies[sizeof lies / sizeof *lies - 1]);
    for (size_t room = 0; room <= sizeof error; room++) {
        memset(error, 'x', sizeof error);
        ck_assert(!open_blob(&gguf, room ? error : NULL, room));
        for (size_t i = room; i < sizeof error; i++) {
            ck_assert_int_eq(error[i], 'x');
        }
        ck_assert(!room || strnlen(error, room) < room);
    }
}
END_TEST

static void read_good(void) {
    FILE *file = fopen(good_path, "rb");

    ck_assert_ptr_nonnull(file);
    blob.n = fread(blob.bytes, 1, sizeof blob.bytes, file);
    ck_assert(blob.n > 1000 && blob.n < sizeof blob.bytes);
    fclose(file);
}

START_TEST(test_cut) {
    struct gguf gguf;
    char error[512];
    size_t whole;

    read_good();
    whole = blob.n;
    for (blob.n = 0; blob.n < whole; blob.n += blob.n < 4096 ? 1 : 97) {
        error[0] = 0;
        if (open_blob(&gguf, error,
                      sizeof error)) { /* the writer's padding behind the last tensor may be missing */
            walk(&gguf);
            gguf_close(&gguf);
            ck_assert_uint_lt(whole - blob.n, 32);
        } else {
            ck_assert_uint_gt(strlen(error), 0);
        }
    }
}
END_TEST

START_TEST(test_flips) {
    uint64_t state = 88172645463325252;
    struct blob *good = malloc(sizeof *good);
    struct gguf gguf;
    char error[512];
    size_t opened = 0,
           rounds = getenv("ATTN_TEST_SCALE") && atoi(getenv("ATTN_TEST_SCALE")) == 0 ? 1000 : 20000;

    read_good();
    ck_assert_ptr_nonnull(good);
    *good = blob;
    for (size_t round = 0; round < rounds; round++) {
        memcpy(blob.bytes, good->bytes, 4096); /* the header is in there */
        for (size_t i = 0; i <= round % 3; i++) {
            size_t at;

            state ^= state << 13; /* xorshift64 */
            state ^= state >> 7;
            state ^= state << 17;
            at = (size_t)(state >> 16) % 2048;
            blob.bytes[at] = state & 1 ? (unsigned char)(state >> 8)
                                       : (unsigned char)(blob.bytes[at] ^ 1 << (state >> 8 & 7));
        }
        if (open_blob(&gguf, error, sizeof error)) {
            walk(&gguf);
            gguf_close(&gguf);
            opened++;
        }
    }
    ck_assert(opened > 0 && opened < rounds); /* the changes are neither too small nor too large */
    free(good);
}
END_TEST

void add_hostile_tests(Suite *suite, const char *path) {
    TCase *hostile = tcase_create("hostile");

    good_path = path;
    tcase_set_timeout(hostile, 300);
    suite_add_tcase(suite, hostile);
    tcase_add_loop_test(hostile, test_lie, 0, (int)(sizeof lies / sizeof *lies));
    tcase_add_test(hostile, test_room);
    tcase_add_test(hostile, test_cut);
    tcase_add_test(hostile, test_flips);
}
