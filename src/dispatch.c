#include "dispatch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn/attn.h"
#include "config.h"
#include "cpu.h"

/* Best first, but for what at() says; the first one that runs is the default. */
static const struct attn_backend *const backends[] = {
#if HAVE_AVX512BF16
    &attn_backend_avx512bf16,
#endif
#if HAVE_AVX512VNNI
    &attn_backend_avx512vnni,
#endif
#if HAVE_AVX512
    &attn_backend_avx512,
#endif
#if HAVE_AVX2DOT
    &attn_backend_avx2dot,
#endif
#if HAVE_AVX2
    &attn_backend_avx2,
#endif
#if HAVE_NEONBF16
    &attn_backend_neonbf16,
#endif
#if HAVE_NEONDOT
    &attn_backend_neondot,
#endif
#if HAVE_NEON
    &attn_backend_neon,
#endif
    &attn_backend_scalar,
};
enum { N_BACKENDS = sizeof backends / sizeof *backends };

/* Where bf16 dot products do not pay, the tier that has them comes behind the one without. */
static const struct attn_backend *at(size_t i) {
#if HAVE_AVX512BF16
    if (i < 2 && !attn_cpu_bf16_pays()) i = 1 - i;
#endif
    return backends[i];
}

static int runnable(const struct attn_backend *b) { return (b->requires & ~attn_cpu_bundles()) == 0; }

size_t attn_backend_list(const char **names, int *can_run, size_t n) {
    for (size_t i = 0; i < n && i < N_BACKENDS; i++) {
        if (names) names[i] = at(i)->name;
        if (can_run) can_run[i] = runnable(at(i));
    }
    return N_BACKENDS;
}

static void say_unavailable(const char *name, const char *origin, int known, char *text, size_t bytes) {
    char list[128];
    size_t n = 0;
    for (size_t i = 0; i < N_BACKENDS; i++)
        if (runnable(at(i)))
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", at(i)->name);
    snprintf(text, bytes, "%s: backend \"%.40s\" %s; available here: %s", origin, name,
             known ? "cannot run on this machine" : "does not exist", list);
}

const struct attn_backend *attn_backend_find(const char *name, char *text, size_t bytes) {
    const char *origin = "options.backend";
    if (!name) {
        name = secure_getenv("ATTN_BACKEND");
        origin = "ATTN_BACKEND";
        if (name && !*name) name = NULL;
    }
    int known = 0;
    for (size_t i = 0; i < N_BACKENDS; i++) {
        const int match = !name || strcmp(name, at(i)->name) == 0;
        if (match && runnable(at(i))) return at(i);
        known |= match;
    }
    say_unavailable(name, origin, known, text, bytes);
    return NULL;
}
