/* What this CPU, and the operating system on it, can run. */
#ifndef ATTN_CPU_H
#define ATTN_CPU_H

#include <stdint.h>

/* One bit per bundle: a backend's compile flags in src/meson.build are exactly its bundle. */
#define ATTN_CPU_AVX2 (1u << 0)       /* AVX2, FMA, F16C, and the OS saves ymm */
#define ATTN_CPU_AVX512 (1u << 1)     /* AVX-512 F, BW, DQ, VL and ATTN_CPU_AVX2, and the OS saves zmm */
#define ATTN_CPU_NEON (1u << 2)       /* arm64 Advanced SIMD */
#define ATTN_CPU_AVX512VNNI (1u << 3) /* AVX512_VNNI and ATTN_CPU_AVX512 */
#define ATTN_CPU_AVX512BF16 (1u << 4) /* AVX512_BF16 and ATTN_CPU_AVX512VNNI */
#define ATTN_CPU_NEONDOT (1u << 5)    /* FEAT_DotProd and ATTN_CPU_NEON */
#define ATTN_CPU_NEONBF16 (1u << 6)   /* FEAT_BF16 and ATTN_CPU_NEONDOT */

/* The bundles this machine can run. */
uint32_t attn_cpu_bundles(void);

/*
 * Whether vdpbf16ps, which does two multiply-adds a lane, is as fast as an f32 multiply-add, so that it pays. On Zen 4 and
 * Zen 5 it is; on Intel's Granite Rapids it was measured at half that rate (Intel's way to bf16 is AMX).
 */
int attn_cpu_bf16_pays(void);

#endif
