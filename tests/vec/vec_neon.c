#include "neon/vec64.h"
#include "neon/columns.h"

#include "vec/vec_test.h"

#include "vec/vec64_test.h"
