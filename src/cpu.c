#include "cpu.h"

#include <stdio.h>
#include <string.h>

#include "attn/attn.h"

#if defined(__x86_64__)

#include <cpuid.h>

/* clang (14) has no name for F16C. Its registers are AVX's, which the OS saves where "avx" counts. */
static int has_f16c(void) {
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* The compiler's CPU model looks at OSXSAVE and XCR0 too: a feature counts when the OS saves its registers. */
uint32_t attn_cpu_bundles(void) {
    uint32_t bundles = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
        bundles |= ATTN_CPU_AVX2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            bundles |= ATTN_CPU_AVX512;
    }
    if ((bundles & ATTN_CPU_AVX512) && __builtin_cpu_supports("avx512vnni")) {
        bundles |= ATTN_CPU_AVX512VNNI;
        if (__builtin_cpu_supports("avx512bf16")) bundles |= ATTN_CPU_AVX512BF16;
    }
    return bundles;
}

int attn_cpu_bf16_pays(void) {
    __builtin_cpu_init();
    return !__builtin_cpu_is("intel");
}

#define FEATURES(X)                                                                                         \
    X("sse4.2")                                                                                             \
    X("avx"){"f16c", has_f16c()}, X("fma") X("avx2") X("avx512f") X("avx512bw") X("avx512dq") X("avx512vl") \
                                      X("avx512vnni") X("avx512bf16")
#define HAS_FEATURE(name) {name, __builtin_cpu_supports(name) != 0},

#elif defined(__aarch64__)

#include <sys/auxv.h>

#ifndef HWCAP_ASIMD
#define HWCAP_ASIMD (1ul << 1)
#endif
#ifndef HWCAP_ASIMDHP
#define HWCAP_ASIMDHP (1ul << 10)
#endif
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1ul << 20)
#endif
#ifndef HWCAP_SVE
#define HWCAP_SVE (1ul << 22)
#endif
#ifndef HWCAP2_I8MM
#define HWCAP2_I8MM (1ul << 13)
#endif
#ifndef HWCAP2_BF16
#define HWCAP2_BF16 (1ul << 14)
#endif

uint32_t attn_cpu_bundles(void) {
    const unsigned long caps = getauxval(AT_HWCAP);
    uint32_t bundles = 0;
    if (caps & HWCAP_ASIMD) bundles |= ATTN_CPU_NEON;
    if (bundles && (caps & HWCAP_ASIMDDP)) bundles |= ATTN_CPU_NEONDOT;
    if ((bundles & ATTN_CPU_NEONDOT) && (getauxval(AT_HWCAP2) & HWCAP2_BF16)) bundles |= ATTN_CPU_NEONBF16;
    return bundles;
}
int attn_cpu_bf16_pays(void) { return 1; }

#define FEATURES(X)                       \
    X("asimd", AT_HWCAP, HWCAP_ASIMD)     \
    X("asimdhp", AT_HWCAP, HWCAP_ASIMDHP) \
    X("asimddp", AT_HWCAP, HWCAP_ASIMDDP) \
    X("sve", AT_HWCAP, HWCAP_SVE) X("i8mm", AT_HWCAP2, HWCAP2_I8MM) X("bf16", AT_HWCAP2, HWCAP2_BF16)
#define HAS_FEATURE(name, word, bit) {name, (getauxval(word) & (bit)) != 0},

#else

uint32_t attn_cpu_bundles(void) { return 0; }
int attn_cpu_bf16_pays(void) { return 0; }

#define FEATURES(X) X("none")
#define HAS_FEATURE(name) {name, 0},

#endif

size_t attn_cpu_features(char *text, size_t bytes) {
    const struct {
        const char *name;
        int has;
    } features[] = {FEATURES(HAS_FEATURE)};
    char all[256];
    size_t n = 0;
    all[0] = 0;
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        if (!features[i].has) continue;
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", n ? " " : "", features[i].name);
    }
    if (text && bytes) snprintf(text, bytes, "%s", all);
    return n;
}
