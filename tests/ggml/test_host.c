/* A program that loads the plugin as ggml does, but whose functions (all of them NULL or 0) are not those of the ggml that
 * the plugin knows; compiled with LACKING, one is not even there. It must get NULL and one line on stderr. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

#ifdef LACKING
#define ggml_permute another_function
static const char *const expected = "it lacks the function ggml_permute";
#else
static const char *const expected = "its element types are others";
#endif

#define STUB(result, name, arguments) STUB_OF(name)
#define STUB_OF(name) \
    void *name(void); \
    void *name(void) { return NULL; }
HOST_FUNCTIONS(STUB)

int main(int argc, char **argv) {
    char text[600] = "";
    FILE *file = tmpfile();
    void *plugin = dlopen(argc == 2 ? argv[1] : "", RTLD_NOW | RTLD_LOCAL), *(*init)(void);
    if (!plugin || !file) {
        printf("usage: test_host PLUGIN; %s\n", dlerror());
        return 1;
    }
    void *symbol = dlsym(plugin, "ggml_backend_init");
    memcpy(&init, &symbol, sizeof symbol);
    fflush(stderr);
    dup2(fileno(file), STDERR_FILENO);
    void *reg = init();
    rewind(file);
    const size_t n = fread(text, 1, sizeof text - 1, file);
    printf("%s", text);
    dlclose(plugin);
    return reg || !n || !strstr(text, expected) || strchr(text, '\n') != text + n - 1;
}
