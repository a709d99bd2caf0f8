#include "avx512/vec.h"

#include "vec/vec_test.h"
