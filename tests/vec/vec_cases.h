#ifndef TEST_VEC_CASES_H
#define TEST_VEC_CASES_H

#include <check.h>

TCase *vec_cases(void);
TCase *vec64_cases(void);

#endif
