#include "limits.h"

#include <stdint.h>
#include <string.h>

#include "cpu.h"
#include "team.h"

/*
 * A step is one multiply-add in each of CHAINS registers, none of which waits for another: twice the 8 (x86:
 * 2 units of latency 4) to 16 (arm64: 4 units of latency 4) that keep the units busy. The block is assembly
 * so that it is these instructions whatever the compiler and its options.
 */
#define REPEAT_14(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13)
#define REPEAT_28(F) \
    REPEAT_14(F) F(14) F(15) F(16) F(17) F(18) F(19) F(20) F(21) F(22) F(23) F(24) F(25) F(26) F(27)

/* acc = acc * factor + addend converges to 1, so no operand is ever special. */
static const float factor = 0.5f, addend = 0.5f;

#if defined(__x86_64__)

enum { CHAINS = 14 };

#define CLOBBERS                                                                                            \
    "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
        "xmm12", "xmm13", "xmm14", "xmm15"

#define LOOP(START, CHAIN, END)                                         \
    __asm__ volatile(START "1:\n\t" REPEAT_14(CHAIN) "dec %[steps]\n\t" \
                                                     "jnz 1b\n\t" END   \
                     : [steps] "+r"(steps)                              \
                     : [factor] "m"(factor), [addend] "m"(addend)       \
                     : CLOBBERS)

#define ZMM_START(i) "vmovaps %%zmm15, %%zmm" #i "\n\t"
#define ZMM_CHAIN(i) "vfmadd132ps %%zmm14, %%zmm15, %%zmm" #i "\n\t"
#define YMM_START(i) "vmovaps %%ymm15, %%ymm" #i "\n\t"
#define YMM_CHAIN(i) "vfmadd132ps %%ymm14, %%ymm15, %%ymm" #i "\n\t"
/* Zeros: what is added up does not matter to these, but must stay ordinary. */
#define ZERO_START(i) "vpxord %%zmm" #i ", %%zmm" #i ", %%zmm" #i "\n\t"
#define BF16_CHAIN(i) "vdpbf16ps %%zmm14, %%zmm15, %%zmm" #i "\n\t"
#define INT8_CHAIN(i) "vpdpbusd %%zmm14, %%zmm15, %%zmm" #i "\n\t"
#define SCALAR_START(i) "movapd %%xmm15, %%xmm" #i "\n\t"
#define SCALAR_CHAIN(i) "mulsd %%xmm14, %%xmm" #i "\n\taddsd %%xmm15, %%xmm" #i "\n\t"

static void zmm_steps(size_t steps) {
    LOOP("vbroadcastss %[addend], %%zmm15\n\t" REPEAT_14(ZMM_START) "vbroadcastss %[factor], %%zmm14\n\t",
         ZMM_CHAIN, "vzeroupper\n\t");
}

static void ymm_steps(size_t steps) {
    LOOP("vbroadcastss %[addend], %%ymm15\n\t" REPEAT_14(YMM_START) "vbroadcastss %[factor], %%ymm14\n\t",
         YMM_CHAIN, "vzeroupper\n\t");
}

static void bf16_steps(size_t steps) {
    LOOP(REPEAT_14(ZERO_START) ZERO_START(14) ZERO_START(15), BF16_CHAIN, "vzeroupper\n\t");
}

static void int8_steps(size_t steps) {
    LOOP(REPEAT_14(ZERO_START) ZERO_START(14) ZERO_START(15), INT8_CHAIN, "vzeroupper\n\t");
}

/* What AVX2 has instead: 32 products of bytes to 16 sums of two, to 8 sums of four, which are added up. */
#define YMM_INT8_CHAIN(i)                            \
    "vpmaddubsw %%ymm14, %%ymm15, %%ymm" #i "\n\t"   \
    "vpmaddwd %%ymm15, %%ymm" #i ", %%ymm" #i "\n\t" \
    "vpaddd %%ymm14, %%ymm" #i ", %%ymm" #i "\n\t"
#define YMM_ZERO(i) "vpxor %%ymm" #i ", %%ymm" #i ", %%ymm" #i "\n\t"
static void ymm_int8_steps(size_t steps) {
    LOOP(REPEAT_14(YMM_ZERO) YMM_ZERO(14) YMM_ZERO(15), YMM_INT8_CHAIN, "vzeroupper\n\t");
}

static void scalar_steps(size_t steps) {
    LOOP("cvtss2sd %[addend], %%xmm15\n\t" REPEAT_14(SCALAR_START) "cvtss2sd %[factor], %%xmm14\n\t",
         SCALAR_CHAIN, "");
}

#elif defined(__aarch64__)

enum { CHAINS = 28 };

#define CLOBBERS                                                                                          \
    "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",  \
        "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v30", \
        "v31"

#define LOOP(START, CHAIN)                                                             \
    __asm__ volatile(START "1:\n\t" REPEAT_28(CHAIN) "subs %[steps], %[steps], #1\n\t" \
                                                     "b.ne 1b\n\t"                     \
                     : [steps] "+r"(steps)                                             \
                     : [factor] "r"(&factor), [addend] "r"(&addend)                    \
                     : CLOBBERS)

/* fmla adds to its accumulator: it starts at 0 and grows by factor * addend, exactly. */
#define NEON_LOAD "ld1r {v30.4s}, [%[factor]]\n\tld1r {v31.4s}, [%[addend]]\n\t"
#define NEON_START(i) "movi v" #i ".4s, #0\n\t"
#define NEON_CHAIN(i) "fmla v" #i ".4s, v30.4s, v31.4s\n\t"
#define SCALAR_LOAD "ldr s30, [%[factor]]\n\tfcvt d30, s30\n\tldr s31, [%[addend]]\n\tfcvt d31, s31\n\t"
#define SCALAR_START(i) "fmov d" #i ", d31\n\t"
#define SCALAR_CHAIN(i) "fmul d" #i ", d" #i ", d30\n\tfadd d" #i ", d" #i ", d31\n\t"

/* Zeros, as above. */
#define DOT_LOAD ".arch_extension dotprod\n\tmovi v30.4s, #0\n\tmovi v31.4s, #0\n\t"
#define DOT_CHAIN(i) "sdot v" #i ".4s, v30.16b, v31.16b\n\t"
#define BFDOT_LOAD ".arch_extension bf16\n\tmovi v30.4s, #0\n\tmovi v31.4s, #0\n\t"
#define BFDOT_CHAIN(i) "bfdot v" #i ".4s, v30.8h, v31.8h\n\t"

static void neon_int8_steps(size_t steps) { LOOP(DOT_LOAD REPEAT_28(NEON_START), DOT_CHAIN); }

static void neon_bf16_steps(size_t steps) { LOOP(BFDOT_LOAD REPEAT_28(NEON_START), BFDOT_CHAIN); }

static void neon_steps(size_t steps) { LOOP(NEON_LOAD REPEAT_28(NEON_START), NEON_CHAIN); }

static void scalar_steps(size_t steps) { LOOP(SCALAR_LOAD REPEAT_28(SCALAR_START), SCALAR_CHAIN); }

#endif

static const struct width {
    const char *backend, *name;
    struct {
        uint32_t needs;            /* ATTN_CPU_ bundle, or 0 */
        size_t flops;              /* of a step */
        void (*run)(size_t steps); /* 1 or more; NULL: no such instruction */
    } limits[N_LIMITS];
} widths[] = {
#if defined(__x86_64__)
#define ZMM_F32 \
    { ATTN_CPU_AVX512, CHAINS * 16 * 2, zmm_steps }
#define ZMM_INT8 \
    { ATTN_CPU_AVX512VNNI, CHAINS * 64 * 2, int8_steps }
    {"avx512bf16", "zmm", {ZMM_F32, {ATTN_CPU_AVX512BF16, CHAINS * 32 * 2, bf16_steps}, ZMM_INT8}},
    {"avx512vnni", "zmm", {ZMM_F32, {0, 0, NULL}, ZMM_INT8}},
    {"avx512", "zmm", {ZMM_F32}},
#define YMM_F32 \
    { ATTN_CPU_AVX2, CHAINS * 8 * 2, ymm_steps }
    {"avx2dot", "ymm", {YMM_F32, {0, 0, NULL}, {ATTN_CPU_AVX2, CHAINS * 32 * 2, ymm_int8_steps}}},
    {"avx2", "ymm", {YMM_F32}},
    {"scalar", "scalar", {{0, CHAINS * 2, scalar_steps}}},
#elif defined(__aarch64__)
#define NEON_F32 \
    { ATTN_CPU_NEON, CHAINS * 4 * 2, neon_steps }
#define NEON_INT8 \
    { ATTN_CPU_NEONDOT, CHAINS * 16 * 2, neon_int8_steps }
    {"neonbf16", "neon", {NEON_F32, {ATTN_CPU_NEONBF16, CHAINS * 8 * 2, neon_bf16_steps}, NEON_INT8}},
    {"neondot", "neon", {NEON_F32, {0, 0, NULL}, NEON_INT8}},
    {"neon", "neon", {NEON_F32}},
    {"scalar", "scalar", {{0, CHAINS * 2, scalar_steps}}},
#endif
    {NULL, "none", {{0, 0, NULL}}},
};

static const struct width *width_of(const char *backend) {
    const struct width *width = widths;

    while (width->backend && strcmp(width->backend, backend) != 0) {
        width++;
    }
    return width;
}

const char *limit_width(const char *backend) { return width_of(backend)->name; }

const char *limit_name(enum limit limit) {
    static const char *const names[] = {[LIMIT_F32] = "FMA", [LIMIT_BF16] = "bf16", [LIMIT_INT8] = "int8"};
    return names[limit];
}

struct flops_job {
    void (*run)(size_t steps);
    size_t steps;
};

static void flops_part(void *arg, size_t member, size_t n_members) {
    const struct flops_job *job = arg;

    (void)member;
    (void)n_members;
    job->run(job->steps);
}

double limit_flops(const char *backend, enum limit limit, size_t n_threads, int passes) {
    const struct width *width = width_of(backend);
    struct flops_job job = {width->limits[limit].run, 0};
    const double pass_seconds = 1e-3;

    if (!job.run || (attn_cpu_bundles() & width->limits[limit].needs) != width->limits[limit].needs) {
        return 0;
    }
    /* The steps of a pass are found by doubling, which also gives the clock time to settle. */
    double seconds = 0;
    for (job.steps = 2048; seconds < pass_seconds;) {
        job.steps *= 2;
        seconds = team_run(n_threads, 1, TEAM_CPU, flops_part, &job);
        if (seconds < 0) {
            return 0;
        }
    }
    seconds = team_run(n_threads, passes, TEAM_CPU, flops_part, &job);
    return seconds > 0 ? (double)job.steps * (double)width->limits[limit].flops * (double)n_threads / seconds
                       : 0;
}

/*
 * A plain linear read with the widest loads there are: on some cores (Zen 5) one of 512 bits a line reads a
 * fifth more than four of 128. No software prefetch, which would give some percent more on one thread.
 */
#define READER(NAME, WIDTH, SUMS, TARGET)                                                      \
    TARGET static void NAME(const char *from, const char *to) {                                \
        typedef uint32_t lanes __attribute__((vector_size(WIDTH), may_alias));                 \
        lanes sum[SUMS] = {{0}};                                                               \
        for (; from < to; from += sizeof sum) {                                                \
            for (int i = 0; i < SUMS; i++) {                                                   \
                sum[i] += ((const lanes *)(const void *)from)[i];                              \
            }                                                                                  \
        }                                                                                      \
        for (int i = 0; i < SUMS; i++) {                                                       \
            __asm__ volatile("" ::"m"(sum[i])); /* the sums are wanted, so the reads happen */ \
        }                                                                                      \
    }

READER(read_128, 16, 8, )
#if defined(__x86_64__)
READER(read_256, 32, 8, __attribute__((target("avx2"))))
READER(read_512, 64, 4, __attribute__((target("avx512f"))))
#endif

struct read_job {
    const char *memory;
    void (*read)(const char *from, const char *to);
};

static void read_part(void *arg, size_t member, size_t n_members) {
    enum { STEP = 256 };
    const struct read_job *job = arg;
    const size_t n = LIMITS_READ_BYTES / STEP;

    job->read(job->memory + n * member / n_members * STEP, job->memory + n * (member + 1) / n_members * STEP);
}

double limit_read(const void *memory, size_t n_threads, int passes) {
    struct read_job job = {memory, read_128};

#if defined(__x86_64__)
    const uint32_t bundles = attn_cpu_bundles();
    job.read = bundles & ATTN_CPU_AVX512 ? read_512 : bundles & ATTN_CPU_AVX2 ? read_256 : read_128;
#endif
    const double seconds = team_run(n_threads, passes, TEAM_WALL, read_part, &job);
    return seconds > 0 ? (double)LIMITS_READ_BYTES / seconds : 0;
}
