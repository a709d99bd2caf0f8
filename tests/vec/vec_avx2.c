#include "avx2/vec64.h"
#include "avx2/columns.h"

#include "vec/vec_test.h"

#include "vec/vec64_test.h"
