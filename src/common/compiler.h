/* What the kernels ask of the compiler. */
#ifndef ATTN_COMPILER_H
#define ATTN_COMPILER_H

/* A kernel whose int parameters are constants at each call: it must be inlined
 * to become one variant. */
#define ATTN_INLINE static inline __attribute__((always_inline))
#define ATTN_NOINLINE static __attribute__((noinline))

/* Before a loop over an array of accumulators: only a fully unrolled one keeps
 * them in registers. */
#if defined(__clang__)
#define ATTN_UNROLL _Pragma("clang loop unroll(full)")
#define ATTN_NO_UNROLL _Pragma("clang loop unroll(disable)")
#define ATTN_UNROLL_4 _Pragma("clang loop unroll_count(4)")
#elif !defined(__OPTIMIZE__)
/* They would do nothing, and gcc complains where a sanitizer watches the loop's bound. */
#define ATTN_UNROLL
#define ATTN_NO_UNROLL
#define ATTN_UNROLL_4
#else
#define ATTN_UNROLL _Pragma("GCC unroll 32")
#define ATTN_NO_UNROLL _Pragma("GCC unroll 1")
#define ATTN_UNROLL_4 _Pragma("GCC unroll 4")
#endif

enum { ATTN_LINE = 16 }; /* floats in a cache line */

/* Hints for a read to come soon, into L1 or L2. They never fault: the address may lie behind the end. */
#define ATTN_PREFETCH_L1(p) __builtin_prefetch((p), 0, 3)
#define ATTN_PREFETCH_L2(p) __builtin_prefetch((p), 0, 2)
#define ATTN_PREFETCH_WRITE(p) __builtin_prefetch((p), 1, 3)

/* Hides what pointer p points to from the compiler, so that it loads constants where they are used and leaves the
 * registers to accumulators. */
#define ATTN_OPAQUE(p) __asm__ volatile("" : "+r"(p))

#define ATTN_UNLIKELY(x) __builtin_expect(!!(x), 0)

#endif
