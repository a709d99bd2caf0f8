/* The parts of suite `errors`. */
#ifndef ERRORS_SUITE_H
#define ERRORS_SUITE_H

#include <check.h>

void add_call_tests(Suite *suite);
void add_scoring_tests(Suite *suite);
void add_context_tests(Suite *suite);
void add_kv_append_tests(Suite *suite);
void add_kv_cache_tests(Suite *suite);
void add_kv_memory_tests(Suite *suite);
void add_kv_sdpa_tests(Suite *suite);
void add_merge_tests(Suite *suite);
void add_packed_tests(Suite *suite);
void add_packed_types_tests(Suite *suite);
void add_rope_tests(Suite *suite);
void add_scratch_tests(Suite *suite);
void add_step_tests(Suite *suite);
void add_tensor_tests(Suite *suite);

#endif
