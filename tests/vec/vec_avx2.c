#include "avx2/vec.h"

#include "vec/vec_test.h"
