#include "softmax.h"

#include <float.h>

#if defined(__AVX512F__)
#include "avx512/vec.h"
#define SOFTMAX softmax_avx512
#elif defined(__AVX2__)
#include "avx2/vec.h"
#define SOFTMAX softmax_avx2
#else
#include "neon/vec.h"
#define SOFTMAX softmax_neon
#endif

enum { CHAINS = 4 }; /* independent ones, so that no loop waits for a latency */

static float largest(const float *s, size_t n) {
    vf32 m[CHAINS];
    size_t j = 0;
    float lanes[VF32_N], x = -FLT_MAX;

    ATTN_UNROLL for (int i = 0; i < CHAINS; i++) m[i] = v_set1(-FLT_MAX);
    for (; j + CHAINS * VF32_N <= n; j += CHAINS * VF32_N) {
        ATTN_UNROLL for (int i = 0; i < CHAINS; i++) m[i] = v_max(m[i], v_load(s + j + i * VF32_N));
    }
    v_store(lanes, v_max(v_max(m[0], m[1]), v_max(m[2], m[3])));
    for (int i = 0; i < VF32_N; i++) x = lanes[i] > x ? lanes[i] : x;
    for (; j < n; j++) x = s[j] > x ? s[j] : x;
    return x;
}

/* s = exp2(c * s + d); returns the sum. */
static float exponentials(float *s, size_t n, float c, float d) {
    vf32 sum[CHAINS];
    size_t j = 0;
    float lanes[VF32_N], total = 0;

    ATTN_UNROLL for (int i = 0; i < CHAINS; i++) sum[i] = v_zero();
    for (; j + CHAINS * VF32_N <= n; j += CHAINS * VF32_N) {
        ATTN_UNROLL for (int i = 0; i < CHAINS; i++) {
            float *at = s + j + i * VF32_N;
            const vf32 p = v_exp2_inline(v_fma(v_set1(c), v_load(at), v_set1(d)));
            v_store(at, p);
            sum[i] = v_add(sum[i], p);
        }
    }
    v_store(lanes, v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3])));
    for (int i = 0; i < VF32_N; i++) total += lanes[i];
    for (size_t m; j < n; j += m) {
        m = n - j < VF32_N ? n - j : VF32_N;
        const vf32 p = v_exp2_inline(v_fma(v_set1(c), v_load_tail(s + j, m), v_set1(d)));
        v_store_tail(s + j, p, m);
        for (size_t i = 0; i < m; i++) total += s[j + i];
    }
    return total;
}

static void rows(float *s, size_t row, size_t n_rows, const size_t *visible, size_t n, float c,
                 float *inverse) {
    for (size_t i = 0; i < n_rows; i++, s += row) {
        inverse[i] = 1 / exponentials(s, visible[i], c, -c * largest(s, visible[i]));
        for (size_t j = visible[i]; j < n; j++) s[j] = 0;
    }
}

static void scale(float *y, ptrdiff_t row, size_t n_rows, size_t n, const float *inverse) {
    for (size_t i = 0; i < n_rows; i++, y += row) {
        for (size_t j = 0; j < n; j++) y[j] *= inverse[i];
    }
}

const struct softmax SOFTMAX = {rows, scale};
