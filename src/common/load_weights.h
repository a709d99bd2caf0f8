/* Panels of f32, f16 or bf16 weights (src/weights.h), as the micro-kernels of projections read them; after fields.h. */
#ifndef ATTN_LOAD_WEIGHTS_H
#define ATTN_LOAD_WEIGHTS_H

/* A step is 1 or 2 values of k: the same bytes for all three types. Vector v of the step's value j. */
ATTN_INLINE int v_weights_step(int type) { return type == ATTN_F32 ? 1 : 2; }
ATTN_INLINE vf32 v_load_weights(int type, const char *panel, int nv, int v, int j) {
    const char *const pairs = panel + 4 * VF32_N * v;
    switch (type) {
    case ATTN_F16: return v_load_f16((const uint16_t *)(const void *)(panel + 2 * VF32_N * (j * nv + v)));
    case ATTN_BF16: return j ? v_load_bf16_second(pairs) : v_load_bf16_first(pairs);
    default: return v_load((const float *)(const void *)pairs);
    }
}

#endif
