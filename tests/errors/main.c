#include <stdlib.h>

#include "suite.h"

int main(void) {
    Suite *suite = suite_create("errors");
    add_context_tests(suite);
    add_packed_tests(suite);
    add_packed_types_tests(suite);
    add_rope_tests(suite);
    add_tensor_tests(suite);
    add_call_tests(suite);
    add_scoring_tests(suite);
    add_scratch_tests(suite);
    add_merge_tests(suite);
    add_kv_memory_tests(suite);
    add_kv_cache_tests(suite);
    add_kv_append_tests(suite);
    add_kv_sdpa_tests(suite);
    add_step_tests(suite);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
