#include <math.h>
#include <string.h>

#include "dtype.h"
#include "scalar/scalar.h"

/* binary16 by its definition. */
static float half_to_f32(uint16_t h) {
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    float x = exponent ? ldexpf((float)(1024 + fraction), exponent - 25) : ldexpf((float)fraction, -24);
    if (exponent == 31) x = INFINITY;
    if (exponent == 31 && fraction) { /* quiet, with what it carried */
        const uint32_t bits = 0x7fc00000u | (uint32_t)fraction << 13;
        memcpy(&x, &bits, sizeof x);
    }
    return h & 0x8000 ? -x : x;
}

static uint16_t half_from_f32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (isnan(x)) return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    const float size = fabsf(x);
    if (size >= 65520.0f) return (uint16_t)(sign | 0x7c00); /* halfway to the next power: even is infinity */
    int exponent = 0;
    frexpf(size, &exponent);
    if (exponent < -13) exponent = -13; /* subnormal: the step is 2^-24 */
    /* exact but for the rounding, which is the current one, to nearest even */
    const float steps = rintf(ldexpf(size, 11 - exponent));
    const float value = ldexpf(steps, exponent - 11);
    if (value < 0x1p-14f) return (uint16_t)(sign | (unsigned)ldexpf(value, 24));
    frexpf(value, &exponent);
    return (uint16_t)(sign | (unsigned)(exponent + 14) << 10 |
                      ((unsigned)ldexpf(value, 11 - exponent) & 1023u));
}

static float bf16_to_f32(uint16_t h) {
    const uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint16_t bf16_from_f32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x)) return (uint16_t)(bits >> 16 | 64);
    const uint32_t rest = bits & 0xffff, above = bits >> 16;
    return (uint16_t)(above + (rest > 0x8000 || (rest == 0x8000 && (above & 1))));
}

/* Value i of a row of the type. */
static float value_at(attn_dtype type, const void *row, size_t i) {
    const size_t n = attn_dtype_block(type), in = i % n, half = in % 16;
    switch (type) {
    case ATTN_F32: return ((const float *)row)[i];
    case ATTN_F16: return half_to_f32(((const uint16_t *)row)[i]);
    case ATTN_BF16: return bf16_to_f32(((const uint16_t *)row)[i]);
    case ATTN_Q8_0: {
        const struct attn_q8_0 *b = (const struct attn_q8_0 *)row + i / n;
        return half_to_f32(b->d) * (float)b->q[in];
    }
    case ATTN_Q4_0: {
        const struct attn_q4_0 *b = (const struct attn_q4_0 *)row + i / n;
        return half_to_f32(b->d) * (float)((in < 16 ? b->q[half] & 15 : b->q[half] >> 4) - 8);
    }
    case ATTN_Q4_1: {
        const struct attn_q4_1 *b = (const struct attn_q4_1 *)row + i / n;
        return half_to_f32(b->d) * (float)(in < 16 ? b->q[half] & 15 : b->q[half] >> 4) + half_to_f32(b->m);
    }
    case ATTN_Q4_K: {
        const struct attn_q4_k *b = (const struct attn_q4_k *)row + i / n;
        const uint8_t q = b->q[in / 64 * 32 + in % 32];
        int scale, min;
        attn_q4_k_part(b->scales, (int)(in / 32), &scale, &min);
        return half_to_f32(b->d) * (float)scale * (float)(in % 64 < 32 ? q & 15 : q >> 4) -
               half_to_f32(b->dmin) * (float)min;
    }
    case ATTN_Q6_K: {
        const struct attn_q6_k *b = (const struct attn_q6_k *)row + i / n;
        const size_t a = in % 128 / 32, l = in % 32;
        const uint8_t low = b->ql[in / 128 * 64 + 32 * (a % 2) + l], high = b->qh[in / 128 * 32 + l];
        const int q = (a < 2 ? low & 15 : low >> 4) | (high >> 2 * a & 3) << 4;
        return half_to_f32(b->d) * (float)b->scales[in / 16] * (float)(q - 32);
    }
    case ATTN_BOOL: break;
    }
    return 0.0f;
}

void attn_to_f32_scalar(attn_dtype type, const void *from, size_t n, float *to) {
    for (size_t i = 0; i < n; i++) to[i] = value_at(type, from, i);
}

static int all_finite(const float *x) {
    for (int i = 0; i < 32; i++)
        if (!isfinite(x[i])) return 0;
    return 1;
}

static void to_q8_0(const float *x, struct attn_q8_0 *to) {
    float most = 0.0f;
    memset(to, 0, sizeof *to);
    to->d = 0x7e00;
    if (!all_finite(x)) return;
    for (int i = 0; i < 32; i++) most = fmaxf(most, fabsf(x[i]));
    const float d = most / 127.0f;
    to->d = half_from_f32(d);
    if (d == 0.0f || isinf(1.0f / d)) return;
    for (int i = 0; i < 32; i++) to->q[i] = (int8_t)roundf(x[i] * (1.0f / d));
}

static void to_q4_0(const float *x, struct attn_q4_0 *to) {
    float most = 0.0f;
    memset(to, 0, sizeof *to);
    to->d = 0x7e00;
    if (!all_finite(x)) return;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > fabsf(most)) most = x[i];
    const float d = most / -8.0f;
    to->d = half_from_f32(d);
    for (int i = 0; i < 32; i++) {
        const float at = d == 0.0f ? 8.5f : isinf(1.0f / d) ? 0.0f : x[i] * (1.0f / d) + 8.5f;
        const unsigned q = (unsigned)fminf(at, 15.0f);
        to->q[i % 16] = (uint8_t)(to->q[i % 16] | (i < 16 ? q : q << 4));
    }
}

void attn_from_f32_scalar(attn_dtype type, const float *from, size_t n, void *to) {
    for (size_t i = 0; i < n / attn_dtype_block(type); i++) {
        switch (type) {
        case ATTN_F32: ((float *)to)[i] = from[i]; break;
        case ATTN_F16: ((uint16_t *)to)[i] = half_from_f32(from[i]); break;
        case ATTN_BF16: ((uint16_t *)to)[i] = bf16_from_f32(from[i]); break;
        case ATTN_Q8_0: to_q8_0(from + 32 * i, (struct attn_q8_0 *)to + i); break;
        case ATTN_Q4_0: to_q4_0(from + 32 * i, (struct attn_q4_0 *)to + i); break;
        case ATTN_BOOL:
        case ATTN_Q4_1:
        case ATTN_Q4_K:
        case ATTN_Q6_K: break;
        }
    }
}
