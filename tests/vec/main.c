/* Runs the operations' tests of one ISA, or skips where the CPU lacks it. */
#include "cpu.h"
#include "support/harness.h"
#include "vec/vec_cases.h"

int main(void) {
    if (!(attn_cpu_bundles() & VEC_BUNDLE)) return 77;
    Suite *suite = suite_create("vec.h, vec64.h");
    suite_add_tcase(suite, vec_cases());
    suite_add_tcase(suite, vec64_cases());
    return harness_main(suite);
}
