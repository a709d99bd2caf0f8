/* The parts of suite `reference`. */
#ifndef REFERENCE_SUITE_H
#define REFERENCE_SUITE_H

#include <check.h>

void add_hand_tests(Suite *suite);
void add_vector_tests(Suite *suite);
void add_bound_tests(Suite *suite);

#endif
