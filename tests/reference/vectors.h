/* Reads vectors.txt (make_vectors.py says what is in it). Any error in the file fails the Check test. */
#ifndef REFERENCE_VECTORS_H
#define REFERENCE_VECTORS_H

#include <stddef.h>
#include <stdio.h>

enum { VECTOR_ARRAYS = 24, VECTOR_NUMBERS = 8 };

struct vector_array {
    char name[24];
    size_t size[4];
    size_t n; /* elements */
    double *x;
    float *f; /* the same rounded to f32: exact for inputs */
};

struct vector_case {
    char kind[16], name[40];
    struct vector_array array[VECTOR_ARRAYS];
    struct {
        char name[24];
        double value;
    } number[VECTOR_NUMBERS];
    size_t n_arrays, n_numbers;
};

/* The next case of the file; 0 at its end. */
int vectors_next(FILE *file, struct vector_case *c);
void vectors_free(struct vector_case *c);

/* By name; NULL where the case has none. */
const struct vector_array *vectors_find(const struct vector_case *c, const char *name);
/* As vectors_find, but the case must have it. */
const struct vector_array *vectors_get(const struct vector_case *c, const char *name);
/* By name; 0 where the case has none. */
double vectors_number(const struct vector_case *c, const char *name);

#endif
