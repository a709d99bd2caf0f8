#include <stdlib.h>

#include "suite.h"

int main(void) {
    Suite *suite = suite_create("reference");
    add_hand_tests(suite);
    add_vector_tests(suite);
    add_bound_tests(suite);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
