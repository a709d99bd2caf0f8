#ifndef TEST_DTYPE_SUITE_H
#define TEST_DTYPE_SUITE_H

#include <check.h>

#include "backend.h"
#include "dtype.h"

void add_digest_tests(Suite *suite);
void add_value_tests(Suite *suite);

#endif
