#include "avx512/vec64.h"
#include "avx512/columns.h"

#include "vec/vec_test.h"

#include "vec/vec64_test.h"
