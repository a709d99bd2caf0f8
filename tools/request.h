/* What `attn head` and `attn inspect` are asked for: their common options. */
#ifndef ATTN_TOOL_REQUEST_H
#define ATTN_TOOL_REQUEST_H

#include <attn/attn.h>
#include <popt.h>
#include <stddef.h>

/* All texts are as on the command line, or NULL where not given. */
struct request {
    const char *weights, *prefix, *layer, *heads, *kv_heads;
    const char *w_q, *w_k, *w_v, *w_o, *b_q, *b_k, *b_v, *b_o; /* names of tensors */
    int additive;
    const char *a_q, *a_k, *w_a;
    const char *q, *k, *v;
    const char *causal, *scale;
    const char *backend, *threads;
};

/* The option table of a request's members, to be included in a subcommand's with POPT_ARG_INCLUDE_TABLE. */
void request_options(struct request *request, struct poptOption *table, size_t n);

enum { REQUEST_OPTIONS_MAX = 32 };

/* Runs popt over the arguments; dies on an unknown option or a stray argument. Where --help is given,
 * prints the usage, then `examples`, and exits. */
void parse_options(int argc, const char **argv, struct poptOption *options, const char *name,
                   const char *examples);

/* Numbers of options; die when the text is not one, or is outside [least, most]. */
size_t parse_count(const char *text, const char *option, size_t least, size_t most);
float parse_number(const char *text, const char *option);

attn_causal parse_causal(const char *text);

#endif
