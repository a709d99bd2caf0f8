/* What every part of the `attn` command uses: how it ends, memory, sizes, progress. */
#ifndef ATTN_TOOL_H
#define ATTN_TOOL_H

#include <stddef.h>

/* Exit codes: 0 done; 1 a comparison exceeded its bound; 2 bad input, or no memory or disk. */
enum { EXIT_DIFFERS = 1, EXIT_INPUT = 2 };

/* Prints "attn: ..." as one line on stderr (control characters, from a hostile file say, become '?')
 * and exits with EXIT_INPUT. Say what is wrong and how to mend it. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints "attn: note: ..." the same way, and goes on. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Memory lives until the command ends; release() is for large blocks that are done with earlier.
 * 64-byte aligned, never NULL: dies, naming `what`, when the size is more than the machine has.
 */
void *get_memory(size_t bytes, const char *what);
void release(void *memory);

/* As get_memory, for count elements of `bytes` each; the product may overflow. Zeroed. */
void *get_array(size_t count, size_t bytes, const char *what);

/* A copy of a string, and one made by printf's rules. */
char *copy_text(const char *text);
char *print_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* a * b in *product; 0 when it overflows. */
int size_product(size_t a, size_t b, size_t *product);

/* Wall-clock seconds since some fixed point. */
double seconds(void);

/*
 * Progress: one line on stderr that is rewritten, only when stderr is a terminal and the work has taken
 * more than a second. total 0: no count is shown. One piece of work at a time. progress_hide() takes the
 * line away until the next step, so that stdout can be printed to.
 */
void progress_begin(const char *what, size_t total);
void progress_step(size_t done);
void progress_hide(void);
void progress_end(void);

/* The subcommands: argv[0] is the subcommand's name; return the exit code. */
int head_main(int argc, const char **argv);
int inspect_main(int argc, const char **argv);
int info_main(int argc, const char **argv);

#endif
