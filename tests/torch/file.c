#include "file.h"

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 160 };

static void next_line(FILE *file, char line[LINE]) {
    ck_assert_msg(fgets(line, LINE, file) != NULL, "the file ends inside a case");
}

/* Element i of packed elements of a type; bytes: their size. */
static double element(const char *type, const unsigned char *at, size_t bytes) {
    union {
        float f32;
        double f64;
        int32_t i32;
        int64_t i64;
        uint8_t u8;
        uint16_t u16;
    } x;
    memcpy(&x, at, bytes);
    if (strcmp(type, "f32") == 0) return (double)x.f32;
    if (strcmp(type, "f64") == 0) return x.f64;
    if (strcmp(type, "i32") == 0) return x.i32;
    if (strcmp(type, "i64") == 0) return (double)x.i64;
    return bytes == 1 ? x.u8 : x.u16;
}

static size_t bytes_of(const char *type) {
    static const struct {
        const char *name;
        size_t bytes;
    } types[] = {{"f32", 4}, {"f64", 8}, {"i32", 4}, {"i64", 8}, {"u8", 1}, {"u16", 2}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, type) == 0) return types[i].bytes;
    ck_abort_msg("unknown type of array: %s", type);
    return 0;
}

static void read_array(FILE *file, const struct vector_case *c, struct vector_array *a, const char *type) {
    const size_t bytes = bytes_of(type);
    unsigned char *raw = malloc(a->n * bytes + 1);
    a->x = calloc(a->n + 1, sizeof *a->x);
    a->f = calloc(a->n + 1, sizeof *a->f);
    ck_assert(raw && a->x && a->f);
    ck_assert_msg(fread(raw, bytes, a->n, file) == a->n, "%s %s: array %s is cut off", c->kind, c->name,
                  a->name);
    for (size_t i = 0; i < a->n; i++) {
        a->x[i] = element(type, raw + i * bytes, bytes);
        a->f[i] = (float)a->x[i];
    }
    free(raw);
}

int torch_next(FILE *file, struct vector_case *c) {
    char line[LINE], types[VECTOR_ARRAYS][4];
    memset(c, 0, sizeof *c);
    if (!fgets(line, LINE, file)) return 0;
    ck_assert_msg(sscanf(line, "case %15s %39s", c->kind, c->name) == 2, "not a case: %s", line);
    for (next_line(file, line); strcmp(line, "end\n") != 0; next_line(file, line)) {
        struct vector_array *a = &c->array[c->n_arrays];
        size_t *s = a->size;
        if (c->n_numbers < VECTOR_NUMBERS && sscanf(line, "number %23s %lf", c->number[c->n_numbers].name,
                                                    &c->number[c->n_numbers].value) == 2) {
            c->n_numbers++;
            continue;
        }
        ck_assert_msg(c->n_arrays < VECTOR_ARRAYS && sscanf(line, "array %23s %3s %zu %zu %zu %zu", a->name,
                                                            types[c->n_arrays], s, s + 1, s + 2, s + 3) == 6,
                      "%s %s: cannot read: %s", c->kind, c->name, line);
        a->n = s[0] * s[1] * s[2] * s[3];
        c->n_arrays++;
    }
    for (size_t i = 0; i < c->n_arrays; i++) read_array(file, c, &c->array[i], types[i]);
    return 1;
}
