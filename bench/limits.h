/*
 * What this machine can do at most, measured: the rate of fused multiply-adds of a vector width, and the
 * rate at which memory is read. Rows are judged by limits measured beside them, since clocks and the
 * neighbours of a shared machine drift.
 */
#ifndef BENCH_LIMITS_H
#define BENCH_LIMITS_H

#include <stddef.h>

/* Bytes that a measurement of the read bandwidth goes through. */
#define LIMITS_READ_BYTES ((size_t)512 << 20)

/* The vector width that a backend uses: "zmm", "ymm", "neon" or "scalar" ("none" where it is not known). */
const char *limit_width(const char *backend);

/* The instructions whose rate limits a row. */
enum limit {
    LIMIT_F32,  /* f32 multiply-adds */
    LIMIT_BF16, /* bf16 dot products: vdpbf16ps, bfdot */
    LIMIT_INT8, /* int8 dot products: vpdpbusd, sdot; AVX2: vpmaddubsw, vpmaddwd and vpaddd */
    N_LIMITS
};
const char *limit_name(enum limit limit); /* "FMA", "bf16", "int8" */

/*
 * flop/s (for integers, operations) of that instruction and width on n_threads threads at once (scalar: of double multiplications and additions,
 * as the scalar backend does them); the best of `passes` runs of a millisecond. 0 where this machine lacks
 * the instructions or there is no measurement for it.
 */
double limit_flops(const char *backend, enum limit limit, size_t n_threads, int passes);

/*
 * Bytes/s of a linear read of LIMITS_READ_BYTES at `memory` (64-byte aligned), cut in n_threads pieces; the
 * best of `passes`.
 */
double limit_read(const void *memory, size_t n_threads, int passes);

#endif
