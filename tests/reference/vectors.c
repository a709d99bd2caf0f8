#include "vectors.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static void read_array(FILE *file, struct vector_array *a) {
    size_t *s = a->size;
    ck_assert_int_eq(fscanf(file, "%23s %zu %zu %zu %zu", a->name, &s[0], &s[1], &s[2], &s[3]), 5);
    a->n = s[0] * s[1] * s[2] * s[3];
    a->x = calloc(a->n, sizeof *a->x);
    a->f = calloc(a->n, sizeof *a->f);
    ck_assert_ptr_nonnull(a->x);
    ck_assert_ptr_nonnull(a->f);
    for (size_t i = 0; i < a->n; i++) {
        ck_assert_msg(fscanf(file, "%lf", &a->x[i]) == 1, "array %s: value %zu is missing", a->name, i);
        a->f[i] = (float)a->x[i];
    }
}

int vectors_next(FILE *file, struct vector_case *c) {
    char word[24];
    memset(c, 0, sizeof *c);
    if (fscanf(file, "%23s", word) != 1) return 0;
    ck_assert_str_eq(word, "case");
    ck_assert_int_eq(fscanf(file, "%15s %39s", c->kind, c->name), 2);
    for (;;) {
        ck_assert_int_eq(fscanf(file, "%23s", word), 1);
        if (strcmp(word, "end") == 0) return 1;
        if (strcmp(word, "number") == 0) {
            ck_assert_uint_lt(c->n_numbers, VECTOR_NUMBERS);
            ck_assert_int_eq(
                fscanf(file, "%23s %lf", c->number[c->n_numbers].name, &c->number[c->n_numbers].value), 2);
            c->n_numbers++;
        } else {
            ck_assert_str_eq(word, "array");
            ck_assert_uint_lt(c->n_arrays, VECTOR_ARRAYS);
            read_array(file, &c->array[c->n_arrays++]);
        }
    }
}

void vectors_free(struct vector_case *c) {
    for (size_t i = 0; i < c->n_arrays; i++) {
        free(c->array[i].x);
        free(c->array[i].f);
    }
}

const struct vector_array *vectors_find(const struct vector_case *c, const char *name) {
    for (size_t i = 0; i < c->n_arrays; i++)
        if (strcmp(c->array[i].name, name) == 0) return &c->array[i];
    return NULL;
}

const struct vector_array *vectors_get(const struct vector_case *c, const char *name) {
    const struct vector_array *a = vectors_find(c, name);
    ck_assert_msg(a != NULL, "case %s %s has no array %s", c->kind, c->name, name);
    return a;
}

double vectors_number(const struct vector_case *c, const char *name) {
    for (size_t i = 0; i < c->n_numbers; i++)
        if (strcmp(c->number[i].name, name) == 0) return c->number[i].value;
    return 0;
}
