/* The common options. */
#include "request.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

#define TEXT(name, letter, member, help, value) \
    { name, letter, POPT_ARG_STRING, &r->member, 0, help, value }

void request_options(struct request *r, struct poptOption *table, size_t n) {
    const struct poptOption options[] = {
        TEXT("weights", 'w', weights, "the model's .safetensors or .gguf file", "FILE"),
        TEXT("layer", 'l', layer, "layer whose projections to take (default: the first there is)", "N"),
        TEXT("prefix", 0, prefix,
             "what the names of the layers' tensors start with, where there are several stacks", "TEXT"),
        TEXT("heads", 'n', heads,
             "number of heads (default: from the .gguf file, or config.json beside the weights)", "H"),
        TEXT("kv-heads", 0, kv_heads,
             "number of key/value heads (default: from the shapes, the .gguf file or config.json)", "H"),
        TEXT("wq", 0, w_q, "tensor that holds W_q, where the names are not known ones", "NAME"),
        TEXT("wk", 0, w_k, "... W_k", "NAME"),
        TEXT("wv", 0, w_v, "... W_v", "NAME"),
        TEXT("wo", 0, w_o, "... W_o", "NAME"),
        TEXT("bq", 0, b_q, "... the bias of W_q", "NAME"),
        TEXT("bk", 0, b_k, "... of W_k", "NAME"),
        TEXT("bv", 0, b_v, "... of W_v", "NAME"),
        TEXT("bo", 0, b_o, "... of W_o", "NAME"),
        {"additive", 'a', POPT_ARG_NONE, &r->additive, 0,
         "additive scores w.tanh(A_q q + A_k k) instead of the scaled dot product", NULL},
        TEXT("aq", 0, a_q, "tensor A_q [c, p_q] or [heads, c, p_q] (default: the identity)", "NAME"),
        TEXT("ak", 0, a_k, "tensor A_k [c, p_k] or [kv heads, c, p_k] (default: the identity)", "NAME"),
        TEXT("w", 0, w_a, "tensor w [c] or [heads, c]", "NAME"),
        TEXT("q", 'q', q, ".npy of the queries [n_q, d_q]; serves as keys and values too", "FILE"),
        TEXT("k", 'k', k, ".npy of the keys [n_kv, d_k], where they are others; serves as values too",
             "FILE"),
        TEXT("v", 'v', v, ".npy of the values [n_kv, d_v], where they are others", "FILE"),
        TEXT("causal", 'c', causal, "which keys a query sees: none (all), top-left, bottom-right", "KIND"),
        TEXT("scale", 0, scale, "of the scores (default: 1/sqrt(p_k), additive 1)", "NUMBER"),
        TEXT("backend", 'b', backend, "see `attn info` (default: $ATTN_BACKEND, or the best)", "NAME"),
        TEXT("threads", 't', threads, "number of threads (default: one a CPU)", "N"),
        POPT_TABLEEND,
    };

    if (sizeof options > n * sizeof *table) {
        die("too many options in the table");
    }
    memcpy(table, options, sizeof options);
}

void parse_options(int argc, const char **argv, struct poptOption *options, const char *name,
                   const char *examples) {
    int help = 0, code;
    const struct poptOption whole[] = {
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, options, 0, "Options:", NULL},
        {"help", 'h', POPT_ARG_NONE, &help, 0, "show this text", NULL},
        POPT_TABLEEND,
    };
    poptContext context = poptGetContext(name, argc, argv, whole, 0);

    while ((code = poptGetNextOpt(context)) > 0) {}
    if (help) {
        poptPrintHelp(context, stdout, 0);
        printf("\n%s", examples);
        exit(0);
    }
    if (code < -1) {
        die("%s: %s; see %s --help", poptBadOption(context, POPT_BADOPTION_NOALIAS), poptStrerror(code),
            name);
    }
    if (poptPeekArg(context)) {
        die("stray argument '%s'; see %s --help", poptPeekArg(context), name);
    }
    poptFreeContext(context);
}

size_t parse_count(const char *text, const char *option, size_t least, size_t most) {
    unsigned long long value;
    char *end;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < least || value > most) {
        die("%s: '%s' is not a whole number from %zu to %zu", option, text, least, most);
    }
    return (size_t)value;
}

float parse_number(const char *text, const char *option) {
    char *end;
    float value = strtof(text, &end);

    if (end == text || *end || !isfinite(value) || value == 0) {
        die("%s: '%s' is not a finite number other than 0", option, text);
    }
    return value;
}

attn_causal parse_causal(const char *text) {
    if (!text || strcmp(text, "none") == 0) {
        return ATTN_CAUSAL_NONE;
    }
    if (strcmp(text, "top-left") == 0) {
        return ATTN_CAUSAL_TOP_LEFT;
    }
    if (strcmp(text, "bottom-right") == 0) {
        return ATTN_CAUSAL_BOTTOM_RIGHT;
    }
    die("--causal: '%s' is not one of none, top-left, bottom-right", text);
}
