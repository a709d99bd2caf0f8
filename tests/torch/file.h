/* Reads the files that make.py writes: cases as those of tests/reference, with their arrays in binary. */
#ifndef TORCH_FILE_H
#define TORCH_FILE_H

#include <stdio.h>

#include "../reference/vectors.h"

/*
 * A file is cases one after the other, each lines of text and then its arrays, little-endian, back to back:
 *
 *     case KIND NAME
 *     number NAME VALUE
 *     array NAME TYPE BATCH HEAD ROW COLUMN
 *     end
 *
 * TYPE: f32, f64, i32, i64, u8, u16. Integers become numbers of struct vector_array like any other (u16: the
 * bits of an f16). Gives the next case, 0 at the end; any error in the file fails the Check test.
 */
int torch_next(FILE *file, struct vector_case *c);

#endif
