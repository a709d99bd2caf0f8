/* What this CPU, and the operating system on it, can run. */
#ifndef ATTN_CPU_H
#define ATTN_CPU_H

#include <stdint.h>

/* One bit per bundle: a backend's compile flags in src/meson.build are exactly its bundle. */
#define ATTN_CPU_AVX2 (1u << 0)   /* AVX2, FMA, F16C, and the OS saves ymm */
#define ATTN_CPU_AVX512 (1u << 1) /* AVX-512 F, BW, DQ, VL and ATTN_CPU_AVX2, and the OS saves zmm */
#define ATTN_CPU_NEON (1u << 2)   /* arm64 Advanced SIMD */

/* The bundles this machine can run. */
uint32_t attn_cpu_bundles(void);

#endif
