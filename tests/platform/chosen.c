/*
 * chosen NAME: the backend that the library chooses by itself on this CPU is NAME, and NAME can run every
 * public computation (an instruction that the CPU lacks kills the program). Run under qemu with old CPUs.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn/attn.h"

enum { N_Q = 5, N_KV = 37, D = 19, P = 21 };

static float number(unsigned i) {
    return (float)((i * 2654435761u) >> 24) / 256.0f - 0.5f;
}

static void fill(float *x, size_t n, unsigned seed) {
    for (size_t i = 0; i < n; i++) x[i] = number((unsigned)i + seed);
}

static int all_finite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return 0;
    }
    return 1;
}

static attn_tensor rows(float *data, size_t n, size_t columns) {
    return attn_tensor_contiguous(data, ATTN_F32, 1, 1, n, columns);
}

/* y = x W^T + b, then the dot product's and the additive pooling of y over itself. */
static int compute(attn_context *context) {
    static float x[N_KV * D], w[P * D], b[P], y[N_KV * P], out[N_Q * P], lse[N_Q];
    fill(x, N_KV * D, 1);
    fill(w, P * D, 2);
    fill(b, P, 3);

    const attn_tensor tw = rows(w, P, D), tx = rows(x, N_KV, D), ty = rows(y, N_KV, P);
    size_t bytes;
    const attn_packed *packed;
    if (attn_pack_linear_bytes(context, &tw, &bytes)) return 0;
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!memory) return 0;
    const int linear = !attn_pack_linear(context, &tw, b, memory, bytes, &packed) &&
                       !attn_linear(context, &tx, packed, &ty) && all_finite(y, N_KV * P);
    free(memory);
    if (!linear) return 0;

    const attn_tensor tq = rows(y, N_Q, P), tout = rows(out, N_Q, P), tlse = rows(lse, N_Q, 1);
    const attn_tensor tv = attn_tensor_contiguous(w, ATTN_F32, 1, 1, 1, P);
    const attn_scoring scoring = {.size = sizeof scoring, .causal = ATTN_CAUSAL_BOTTOM_RIGHT};
    const attn_sdpa_args sdpa = {.size = sizeof sdpa, .q = &tq, .k = &ty, .v = &ty, .out = &tout,
                                 .scoring = &scoring, .lse = &tlse};
    if (attn_sdpa(context, &sdpa) || !all_finite(out, N_Q * P) || !all_finite(lse, N_Q)) return 0;
    const attn_additive_args additive = {.size = sizeof additive, .q = &tq, .k = &ty, .v = &ty, .w = &tv,
                                         .out = &tout, .scoring = &scoring, .lse = &tlse};
    return !attn_additive(context, &additive) && all_finite(out, N_Q * P) && all_finite(lse, N_Q);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: chosen NAME\n");
        return 2;
    }
    unsetenv("ATTN_BACKEND");

    char error[256] = "", features[256];
    const attn_options options = {.size = sizeof options, .n_threads = 2, .error = error,
                                  .error_bytes = sizeof error};
    attn_context *context;
    if (attn_context_create(&options, &context)) {
        fprintf(stderr, "chosen: %s\n", error);
        return 1;
    }
    attn_cpu_features(features, sizeof features);
    printf("chosen %s, expected %s, features: %s\n", attn_context_backend(context), argv[1], features);
    fflush(stdout);
    int ok = strcmp(attn_context_backend(context), argv[1]) == 0;
    if (!compute(context)) {
        fprintf(stderr, "chosen: computation failed: %s\n", attn_context_error(context));
        ok = 0;
    }
    attn_context_destroy(context);
    return ok ? 0 : 1;
}
