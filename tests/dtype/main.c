#include "dtype/suite.h"
#include "support/harness.h"

int main(void) {
    Suite *suite = suite_create("dtype");
    add_value_tests(suite);
    add_digest_tests(suite);
    return harness_main(suite);
}
