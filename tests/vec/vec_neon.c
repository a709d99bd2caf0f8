#include "neon/vec.h"

#include "vec/vec_test.h"
