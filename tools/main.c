/* The `attn` command: picks the subcommand. */
#include <attn/attn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

static const struct {
    const char *name, *summary;
    int (*run)(int argc, const char **argv);
} commands[] = {
    {"head", "compute attention heads of a model's layer; check them", head_main},
    {"inspect", "show what each head looks at: a table and pictures", inspect_main},
    {"info", "show versions, CPU features, backends, caches", info_main},
};

static void print_usage(void) {
    printf("Usage: attn COMMAND [OPTION...]\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        printf("  attn %-8s %s\n", commands[i].name, commands[i].summary);
    }
    printf("\n`attn COMMAND --help` shows a command's options and examples; `attn --version` the version.\n"
           "Exit codes: 0 done, 1 a comparison exceeded its bound, 2 bad input.\n");
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "--help";

    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage();
        return argc > 1 ? 0 : EXIT_INPUT;
    }
    if (strcmp(name, "--version") == 0) {
        printf("attn %s\n", attn_version());
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            const char **args = get_array((size_t)argc, sizeof *args, "arguments"); /* popt wants const */

            args[0] = print_text("attn %s", name); /* popt's usage line shows it */
            for (int j = 2; j < argc; j++) {
                args[j - 1] = argv[j];
            }
            return commands[i].run(argc - 1, args);
        }
    }
    die("there is no command '%s'; the commands are head, inspect, info; see attn --help", name);
}
