/* attn info: what this build and this machine offer. */
#include <attn/attn.h>
#include <popt.h>
#include <sleef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "request.h"
#include "tool.h"

enum { BACKENDS_MAX = 16 };

static const char examples[] =
    "Prints the versions, the CPU's features, the backends built, those this machine can\n"
    "run and the one chosen (see $ATTN_BACKEND), and the caches.\n"
    "\n"
    "Example: which backend will be used?\n"
    "  attn info\n"
    "Example: and when AVX2 is asked for?\n"
    "  ATTN_BACKEND=avx2 attn info\n";

static void print_features(void) {
    size_t length = attn_cpu_features(NULL, 0);
    char *text = get_memory(length + 1, "CPU features");

    attn_cpu_features(text, length + 1);
    printf("cpu features     %s\n", *text ? text : "(none that a backend uses)");
    release(text);
}

static void print_backends(void) {
    const char *names[BACKENDS_MAX];
    int runnable[BACKENDS_MAX];
    size_t n = attn_backend_list(names, runnable, BACKENDS_MAX);

    printf("backends built  ");
    for (size_t i = 0; i < n && i < BACKENDS_MAX; i++) {
        printf(" %s", names[i]);
    }
    printf("\nbackends runnable");
    for (size_t i = 0; i < n && i < BACKENDS_MAX; i++) {
        if (runnable[i]) {
            printf(" %s", names[i]);
        }
    }
    printf("\n");
}

static void print_chosen(void) {
    char error[512] = "";
    attn_options options = {.size = sizeof options, .error = error, .error_bytes = sizeof error};
    const char *wish = getenv("ATTN_BACKEND");
    attn_context *context;

    if (attn_context_create(&options, &context) != ATTN_OK) {
        die("%s", error);
    }
    printf("backend chosen   %s%s\n", attn_context_backend(context), wish ? " (by ATTN_BACKEND)" : "");
    printf("threads          %zu\n", attn_context_workers(context));
    attn_context_destroy(context);
}

/* A line of a file of sysfs, without its newline; 0 when there is no such file. */
static int read_line(const char *path, char *text, int bytes) {
    FILE *file = fopen(path, "r");
    int ok = file && fgets(text, bytes, file);

    if (file) {
        fclose(file);
    }
    if (ok) {
        text[strcspn(text, "\n")] = 0;
    }
    return ok;
}

static void print_caches(void) {
    for (int i = 0; i < 8; i++) {
        static const char *const leaves[] = {"level", "type", "size", "shared_cpu_list"};
        char text[4][64], path[128];
        int ok = 1;

        for (int j = 0; j < 4; j++) {
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", i, leaves[j]);
            ok = ok && read_line(path, text[j], sizeof text[j]);
        }
        if (!ok) {
            if (i == 0) {
                printf("caches           (the system does not tell)\n");
            }
            return;
        }
        printf("%-16s L%s %s %s, of CPUs %s\n", i ? "" : "caches", text[0], text[1], text[2], text[3]);
    }
}

int info_main(int argc, const char **argv) {
    struct poptOption options[] = {POPT_TABLEEND};

    parse_options(argc, argv, options, "attn info", examples);
    printf("attn             %s (headers %d.%d.%d)\n", attn_version(), ATTN_VERSION_MAJOR, ATTN_VERSION_MINOR,
           ATTN_VERSION_PATCH);
    printf("sleef            %d.%d.%d\n", SLEEF_VERSION_MAJOR, SLEEF_VERSION_MINOR, SLEEF_VERSION_PATCHLEVEL);
    print_features();
    print_backends();
    print_chosen();
    print_caches();
    return 0;
}
