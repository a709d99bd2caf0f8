/*
 * Greedy generation with SmolLM2-135M-Instruct: prompt in, text out. The text goes to stdout, what it took
 * to stderr. Or the perplexity of a text.
 */
#include <attn/attn.h>
#include <errno.h>
#include <math.h>
#include <popt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "gguf.h"
#include "model.h"
#include "tokenizer.h"

#define SYSTEM "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

/* As on the command line; NULL where not given. */
struct request {
    char *model, *prompt, *prompt_file, *perplexity, *tokens, *chunk, *kv, *threads, *backend;
    int raw, ids, logits, ignore_end;
};

static void parse(int argc, const char **argv, struct request *r) {
    int help = 0, code;
    const struct poptOption options[] = {
        {"model", 'm', POPT_ARG_STRING, &r->model, 0, "the GGUF file (default: $ATTN_SMOLLM2)", "FILE"},
        {"prompt", 'p', POPT_ARG_STRING, &r->prompt, 0, "what to ask", "TEXT"},
        {"prompt-file", 'f', POPT_ARG_STRING, &r->prompt_file, 0, "a file that holds the prompt; - is stdin",
         "FILE"},
        {"perplexity", 0, POPT_ARG_STRING, &r->perplexity, 0,
         "print the perplexity of this file's text instead, of its first --tokens tokens (default: all)",
         "FILE"},
        {"raw", 'r', POPT_ARG_NONE, &r->raw, 0,
         "go on with the text itself instead of answering it as a chat", NULL},
        {"tokens", 'n', POPT_ARG_STRING, &r->tokens, 0,
         "tokens to generate at most (default 200; 0: only encode)", "N"},
        {"chunk", 0, POPT_ARG_STRING, &r->chunk, 0,
         "tokens of a prompt or text that are computed at once (default 512); no result depends on it", "N"},
        {"kv", 0, POPT_ARG_STRING, &r->kv, 0,
         "type of the cache: f32 (default), f16, bf16, q8_0 or q4_0, or two of them: keys,values", "TYPE"},
        {"ignore-end", 0, POPT_ARG_NONE, &r->ignore_end, 0, "go on behind the end of the answer", NULL},
        {"ids", 'i', POPT_ARG_NONE, &r->ids, 0,
         "print the ids of the prompt's and the new tokens, not the text", NULL},
        {"logits", 'l', POPT_ARG_NONE, &r->logits, 0,
         "print each new token with its logit and the second best's", NULL},
        {"threads", 't', POPT_ARG_STRING, &r->threads, 0, "number of threads (default: one a CPU)", "N"},
        {"backend", 'b', POPT_ARG_STRING, &r->backend, 0,
         "see `attn info` (default: $ATTN_BACKEND, or the best)", "NAME"},
        {"help", 'h', POPT_ARG_NONE, &help, 0, "show this text", NULL},
        POPT_TABLEEND,
    };
    poptContext context = poptGetContext("smollm2", argc, argv, options, 0);

    while ((code = poptGetNextOpt(context)) > 0) {}
    if (help) {
        poptPrintHelp(context, stdout, 0);
        printf("\nsmollm2 -m $(scripts/get-smollm2.sh) -p \"Why is the sky blue?\"\n"
               "smollm2 -m $(scripts/get-smollm2.sh) --perplexity examples/smollm2/text.txt -n 2000\n");
        exit(0);
    }
    if (code < -1) {
        die("%s: %s; see smollm2 --help", poptBadOption(context, POPT_BADOPTION_NOALIAS), poptStrerror(code));
    }
    if (poptPeekArg(context)) {
        die("stray argument '%s'; give the prompt with --prompt, see smollm2 --help", poptPeekArg(context));
    }
    poptFreeContext(context);
}

/* popt copies the texts. */
static void drop_request(struct request *r) {
    char *const texts[] = {r->model, r->prompt, r->prompt_file, r->perplexity, r->tokens,
                           r->chunk, r->kv,     r->threads,     r->backend};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        free(texts[i]);
    }
}

static size_t parse_count(const char *text, const char *option, size_t otherwise, size_t least, size_t most) {
    unsigned long long value;
    char *end;

    if (!text) {
        return otherwise;
    }
    errno = 0;
    value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < least || value > most) {
        die("%s: '%s' is not a whole number from %zu to %zu", option, text, least, most);
    }
    return (size_t)value;
}

/* The prompt; for the caller to free. */
static char *read_prompt(const struct request *r, size_t *bytes) {
    const char *name = r->perplexity ? r->perplexity : r->prompt_file;
    const char *option = r->perplexity ? "--perplexity" : "--prompt-file";
    FILE *file;
    char *text = NULL;
    size_t room = 0, got;

    if (!r->prompt == !name || (r->perplexity && r->prompt_file)) {
        die("give either --prompt TEXT or --prompt-file FILE or --perplexity FILE; see smollm2 --help");
    }
    *bytes = 0;
    if (r->prompt) {
        text = make_room(text, &room, strlen(r->prompt) + 1, 1);
        *bytes = strlen(r->prompt);
        return memcpy(text, r->prompt, *bytes);
    }
    file = strcmp(name, "-") == 0 ? stdin : fopen(name, "rb");
    if (!file) {
        die("%s: cannot open %s: %s", option, name, strerror(errno));
    }
    do {
        text = make_room(text, &room, *bytes + (1 << 16), 1);
        got = fread(text + *bytes, 1, room - *bytes, file);
        *bytes += got;
    } while (got && *bytes < 1 << 26);
    if (ferror(file) || got) {
        die("%s: cannot read %s: %s", option, name, got ? "more than 64 MiB" : strerror(errno));
    }
    if (file != stdin) {
        fclose(file);
    }
    return text;
}

/* A message of the chat template: <|im_start|>role\n text <|im_end|>\n. The text's words are its own: names
 * of special tokens in it are not special. */
static void append_message(const struct tokenizer *t, const char *role, const char *text, size_t bytes,
                           struct ids *ids) {
    char *part = get_array(strlen(role) + bytes + 2, 1);
    size_t head = (size_t)sprintf(part, "%s\n", role);

    memcpy(part + head, text, bytes);
    ids_append(ids, tokenizer_special(t, "<|im_start|>"));
    tokenizer_encode(t, part, head + bytes, 0, ids);
    ids_append(ids, tokenizer_special(t, "<|im_end|>"));
    tokenizer_encode(t, "\n", 1, 0, ids);
    free(part);
}

static void encode_prompt(const struct tokenizer *t, const struct request *r, struct ids *ids) {
    size_t bytes;
    char *text = read_prompt(r, &bytes);

    if (r->raw || r->perplexity) {
        tokenizer_encode(t, text, bytes, 0, ids);
    } else {
        append_message(t, "system", SYSTEM, sizeof SYSTEM - 1, ids);
        append_message(t, "user", text, bytes, ids);
        ids_append(ids, tokenizer_special(t, "<|im_start|>"));
        tokenizer_encode(t, "assistant\n", 10, 0, ids);
    }
    if (ids->n == 0) {
        die("the prompt is empty; give some text");
    }
    free(text);
}

static void print_ids(const char *what, const struct ids *ids) {
    printf("%s", what);
    for (size_t i = 0; i < ids->n; i++) {
        printf(" %u", ids->id[i]);
    }
    printf("\n");
}

static void print_token(const struct tokenizer *t, uint32_t id) {
    char bytes[1024];
    size_t n = tokenizer_decode(t, id, bytes, sizeof bytes);

    fwrite(bytes, 1, n < sizeof bytes ? n : sizeof bytes, stdout);
    fflush(stdout);
}

/* Times and shares of a part of the run: from the model's counters, which are set to 0. */
static void report(struct model *m, const char *what, size_t n, double time) {
    if (n) {
        fprintf(stderr, "%s %5zu tokens in %6.2f s: %8.1f tokens/s; %4.1f %% of the time in attention\n",
                what, n, time, (double)n / time, 100 * m->attention_seconds / time);
    }
    m->attention_seconds = 0;
}

/* The best token, the first one of equals; the second best in *second. */
static uint32_t best_of(const float *logits, size_t n, uint32_t *second) {
    uint32_t best = 0;

    *second = n > 1 ? 1 : 0;
    for (uint32_t i = 1; i < n; i++) {
        if (logits[i] > logits[best]) {
            *second = best;
            best = i;
        } else if (i > 1 && logits[i] > logits[*second]) {
            *second = i;
        }
    }
    return best;
}

static void generate(struct model *m, const struct tokenizer *t, const struct request *r,
                     const struct ids *prompt, size_t n_new) {
    double start = seconds(), now;
    const float *logits = model_run(m, prompt->id, prompt->n);
    struct ids new = {0};
    size_t runs = 0;

    now = seconds();
    fprintf(stderr, "\n");
    report(m, "prompt   ", prompt->n, now - start);
    start = now;
    while (new.n < n_new) {
        uint32_t second, id = best_of(logits, m->n_token, &second);

        if (tokenizer_is_end(t, id) && !r->ignore_end) {
            break;
        }
        ids_append(&new, id);
        if (r->logits) {
            printf("%u %.4f %u %.4f\n", id, (double)logits[id], second, (double)logits[second]);
        } else if (!r->ids) {
            print_token(t, id);
        }
        if (new.n < n_new) {
            logits = model_run(m, &id, 1);
            runs++;
        }
    }
    now = seconds();
    if (r->ids) {
        print_ids("new", &new);
    } else if (!r->logits) {
        printf("\n");
    }
    fflush(stdout);
    report(m, "generated", runs, now - start);
    free(new.id);
}

static attn_dtype parse_type(const char *text, size_t length) {
    static const attn_dtype types[] = {ATTN_F32, ATTN_F16, ATTN_BF16, ATTN_Q8_0, ATTN_Q4_0};

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strlen(attn_dtype_name(types[i])) == length &&
            memcmp(attn_dtype_name(types[i]), text, length) == 0) {
            return types[i];
        }
    }
    die("--kv: '%.*s' is not one of f32, f16, bf16, q8_0, q4_0", (int)length, text);
}

/* Of keys and values: a name, or two with a comma between them. */
static void parse_types(const char *text, attn_dtype *k, attn_dtype *v) {
    size_t length = strcspn(text, ",");

    *k = parse_type(text, length);
    *v = text[length] ? parse_type(text + length + 1, strlen(text + length + 1)) : *k;
}

/* exp of the mean of -log p over all tokens but the first. */
static void measure(struct model *m, const struct ids *text) {
    double start = seconds(), loss = model_loss(m, text->id, text->id + 1, text->n - 1);

    printf("perplexity %.5f of %zu tokens\n", exp(loss / (double)(text->n - 1)), text->n);
    fflush(stdout);
    report(m, "text     ", text->n - 1, seconds() - start);
}

/* Loads the model and does what is asked for, with n_new tokens behind the prompt. */
static void run(const struct request *r, const struct gguf *gguf, const struct tokenizer *t,
                const struct ids *prompt, size_t n_new, double start) {
    char error[512];
    attn_options options = {.size = sizeof options,
                            .backend = r->backend,
                            .strict = !r->backend, /* the tokens of f32 */
                            .n_threads = parse_count(r->threads, "--threads", 0, 1, 1024),
                            .error = error,
                            .error_bytes = sizeof error};
    size_t chunk = parse_count(r->chunk, "--chunk", CHUNK_MAX, 1, CHUNK_MAX);
    attn_context *context;
    struct model m;

    model_describe(&m, gguf);
    if (prompt->n + n_new > m.n_trained) {
        die("%zu tokens of prompt and %zu new ones are more than the %zu that the model was trained for; "
            "shorten the"
            " prompt or give fewer --tokens",
            prompt->n, n_new, m.n_trained);
    }
    parse_types(r->kv ? r->kv : "f32", &m.k_dtype, &m.v_dtype);
    if (attn_context_create(&options, &context) != ATTN_OK) {
        die("%s", error);
    }
    model_load(&m, gguf, context, prompt->n + n_new, chunk);
    if (m.n_token != t->n) {
        die("the vocabulary has %zu tokens and the model %zu; the file is damaged", t->n, m.n_token);
    }
    fprintf(stderr, "loaded in %.2f s (weights %.1f MB, caches %.1f MB), backend %s, %zu threads\n",
            seconds() - start, 1e-6 * (double)m.weight_bytes, 1e-6 * (double)m.cache_bytes,
            attn_context_backend(context), attn_context_workers(context));
    if (r->perplexity) {
        measure(&m, prompt);
    } else {
        generate(&m, t, r, prompt, n_new);
    }
    model_close(&m);
    attn_context_destroy(context);
}

int main(int argc, char **argv) {
    struct request r = {0};
    struct gguf gguf;
    struct tokenizer *t;
    struct ids prompt = {0};
    size_t n_tokens;
    char error[512];
    double start = seconds();

    parse(argc, (void *)argv, &r); /* popt wants const, which C converts only by way of void */
    n_tokens = parse_count(r.tokens, "--tokens", r.perplexity ? 1 << 20 : 200, r.perplexity ? 2 : 0, 1 << 20);
    if (!r.model && !getenv("ATTN_SMOLLM2")) {
        die("give the model with --model FILE or in ATTN_SMOLLM2; scripts/get-smollm2.sh gets it and prints "
            "its name");
    }
    if (!gguf_open(&gguf, r.model ? r.model : getenv("ATTN_SMOLLM2"), error, sizeof error)) {
        die("%s", error);
    }
    t = tokenizer_open(&gguf);
    encode_prompt(t, &r, &prompt);
    if (r.perplexity && prompt.n < 2) {
        die("--perplexity: the text has one token; give a longer one");
    }
    if (r.perplexity) {
        prompt.n = prompt.n < n_tokens ? prompt.n : n_tokens;
        n_tokens = 0;
    }
    if (r.ids) {
        print_ids("prompt", &prompt);
    }
    if (r.perplexity || n_tokens) {
        run(&r, &gguf, t, &prompt, n_tokens, start);
    }
    free(prompt.id);
    tokenizer_close(t);
    gguf_close(&gguf);
    drop_request(&r);
    return 0;
}
