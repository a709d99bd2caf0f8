/* attn_bench: how fast each row runs, against what this machine can do at most. */
#include <attn/attn.h>
#include <getopt.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gbench.h"
#include "limits.h"
#include "memory.h"
#include "rows.h"
#include "stage.h"
#include "team.h"

enum { MAX_CONTEXTS = 32, EXIT_USAGE = 2 };

/* A backend with a number of threads, and the limits measured at the start. */
struct setting {
    const char *backend;
    size_t n_threads;
    attn_context *context;
    double flops, read;
};

struct entry {
    const struct row *row;
    struct setting *setting;
    char name[ROW_NAME_BYTES + 32];
};

struct bench {
    struct setting settings[MAX_CONTEXTS];
    size_t n_settings;
    struct entry *entries;
    size_t n_entries;
    const char *filter;
    bool list;
    struct gbench_options run;
};

/* One for the whole process: the inputs (also what the read bandwidth is measured on), packed weights and
 * outputs, and the row that stands ready in them. */
static struct {
    struct arena source, work;
    struct stage stage;
    const struct entry *staged;
    double min_time; /* seconds that a row runs in a round at least */
    size_t n_staged, n_expected;
    bool progress;
} now;

/* Inputs beside keys and values. Packed weights, outputs, and what unfused rows pack: only what is used is
 * given memory. */
static const size_t other_bytes = (size_t)64 << 20;
static const size_t work_bytes = (size_t)3 << 30;

/* clang-format off */
static const struct gbench_column columns[] = {
    {"flops", "GFLOP/s", 1e-9, 1},
    {"flops_percent", "%peak", 1, 1},
    {"bytes", "GB/s", 1e-9, 1},
    {"read_percent", "%read", 1, 1},
    {"tanhs", "Gtanh/s", 1e-9, 2},
    {"cpu_percent", "%CPU", 1, 0},
};
/* clang-format on */

/* ---- A round of a row ---------------------------------------------------------------------------------- */

static const char *stage_entry(const struct entry *entry) {
    if (now.staged == entry) {
        return NULL;
    }
    now.staged = NULL;
    if (now.progress) {
        fprintf(stderr, "\r\033[K%zu of %zu  %s\r", ++now.n_staged, now.n_expected, entry->name);
    }
    const char *error = stage_set(&now.stage, entry->row, entry->setting->context, &now.source, &now.work);
    if (error) {
        return error;
    }
    /* Once through all copies: touches outputs and scratch, starts the threads. */
    for (size_t i = 0; i < now.stage.n_copies; i++) {
        if (stage_call(&now.stage) != ATTN_OK) {
            return attn_context_error(entry->setting->context);
        }
    }
    now.staged = entry;
    return NULL;
}

/* The limits beside a row; the read bandwidth takes its time, so only where the row is judged by it: several passes, since a
 * pool's threads spin for some milliseconds after a call. */
static void measure_limits(const struct entry *entry, double *flops, double *read) {
    const struct setting *s = entry->setting;

    *flops = limit_flops(s->backend, row_limit(entry->row, s->backend), s->n_threads, 3);
    *read = row_read_bound(entry->row) ? limit_read(now.source.base, s->n_threads, 4) : s->read;
}

struct round {
    double seconds;     /* of a call */
    double cpu_share;   /* CPU time by time gone by, of each thread; the pool's threads spin between calls */
    double flops, read; /* limits beside it */
};

/* Calls the staged row for min_time, between two measurements of the limits. */
static attn_status measure_round(const struct entry *entry, struct round *round) {
    double flops[2], read[2];
    size_t calls = 0;

    measure_limits(entry, &flops[0], &read[0]);
    attn_status status = stage_call(&now.stage); /* brings back into cache what the measurement displaced */
    const double cpu = team_clock(CLOCK_PROCESS_CPUTIME_ID), start = team_clock(CLOCK_MONOTONIC);
    double end = start;
    while (status == ATTN_OK && end - start < now.min_time) {
        status = stage_call(&now.stage);
        end = team_clock(CLOCK_MONOTONIC);
        calls++;
    }
    if (status == ATTN_OK) {
        round->cpu_share = (team_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (end - start);
        round->cpu_share /= (double)entry->setting->n_threads;
        round->seconds = (end - start) / (double)calls;
        measure_limits(entry, &flops[1], &read[1]);
        round->flops = (flops[0] + flops[1]) / 2;
        round->read = (read[0] + read[1]) / 2;
    }
    return status;
}

static void report_round(struct gbench_state *state, const struct row *row, const struct round *round) {
    gbench_seconds(state, round->seconds);
    gbench_counter(state, "flops", row_flops(row) / round->seconds);
    gbench_counter(state, "bytes", row_bytes(row) / round->seconds);
    gbench_counter(state, "cpu_percent", 100 * round->cpu_share);
    gbench_counter(state, "scratch_bytes", (double)stage_scratch(&now.stage));
    if (row->unfused) {
        gbench_counter(state, "pack_seconds", now.stage.pack_seconds); /* not in the time above */
    }
    if (round->flops > 0) {
        gbench_counter(state, "flops_limit", round->flops);
        gbench_counter(state, "flops_percent", 100 * row_flops(row) / round->seconds / round->flops);
    }
    if (round->read > 0) {
        gbench_counter(state, "read_limit", round->read);
        gbench_counter(state, "read_percent", 100 * row_bytes(row) / round->seconds / round->read);
    }
    if (row_tanhs(row) > 0) {
        gbench_counter(state, "tanhs", row_tanhs(row) / round->seconds);
    }
}

/* A round in which something else had the CPU is tried again, twice at most; the least disturbed counts. */
static void run_entry(struct gbench_state *state, void *arg) {
    const double calm = 0.98;
    const struct entry *entry = arg;
    const char *error = stage_entry(entry);
    struct round best = {.cpu_share = -1}, round;

    for (int attempt = 0; !error && attempt < 3 && best.cpu_share < calm; attempt++) {
        if (measure_round(entry, &round) != ATTN_OK) {
            error = attn_context_error(entry->setting->context);
        } else if (round.cpu_share > best.cpu_share) {
            best = round;
        }
    }
    if (error) {
        gbench_fail(state, error);
    } else {
        report_round(state, entry->row, &best);
    }
}

/* ---- What is run --------------------------------------------------------------------------------------- */

static void add_settings(struct bench *b, const char *backend, const char *threads) {
    while (*threads) {
        char *end;
        const unsigned long n = strtoul(threads, &end, 10);
        char error[256];

        if (end == threads || n == 0 || (*end != ',' && *end != '\0') || b->n_settings == MAX_CONTEXTS) {
            fprintf(stderr, "attn_bench: --threads takes numbers from 1, with commas between\n");
            exit(EXIT_USAGE);
        }
        threads = *end ? end + 1 : end;
        struct setting *s = &b->settings[b->n_settings++];
        const attn_options options = {.size = sizeof options,
                                      .backend = *backend ? backend : NULL,
                                      .n_threads = n,
                                      .error = error,
                                      .error_bytes = sizeof error};
        if (attn_context_create(&options, &s->context) != ATTN_OK) {
            fprintf(stderr, "attn_bench: %s\n", error);
            exit(EXIT_USAGE);
        }
        s->backend = attn_context_backend(s->context);
        s->n_threads = n;
    }
}

/* `backends` is cut at its commas; an empty name is the library's choice. */
static void add_backends(struct bench *b, char *backends, const char *threads) {
    for (char *name; (name = strsep(&backends, ","));) {
        add_settings(b, name, threads);
    }
}

/* Unfused rows need a softmax of their own, and show one thread against one thread. */
static bool runs_here(const struct setting *s, const struct row *row) {
    return !row->unfused || (s->n_threads == 1 && strcmp(s->backend, "scalar") != 0);
}

static void add_entries(struct bench *b) {
    regex_t filter;

    if (regcomp(&filter, b->filter, REG_EXTENDED | REG_NOSUB) != 0) {
        fprintf(stderr, "attn_bench: not a regular expression: %s\n", b->filter);
        exit(EXIT_USAGE);
    }
    b->entries = calloc(row_count() * b->n_settings, sizeof *b->entries);
    if (!b->entries) {
        fprintf(stderr, "attn_bench: no memory\n");
        exit(EXIT_FAILURE);
    }
    for (size_t i = 0; i < row_count() * b->n_settings; i++) {
        struct entry *e = &b->entries[b->n_entries];
        char row[ROW_NAME_BYTES];

        e->row = row_get(i / b->n_settings);
        e->setting = &b->settings[i % b->n_settings];
        row_name(e->row, row);
        snprintf(e->name, sizeof e->name, "%s/%s/t%zu", row, e->setting->backend, e->setting->n_threads);
        if (runs_here(e->setting, e->row) && regexec(&filter, e->name, 0, NULL, 0) == 0) {
            b->n_entries++;
        }
    }
    regfree(&filter);
    if (b->n_entries == 0) {
        fprintf(stderr, "attn_bench: no row matches %s (--list shows them)\n", b->filter);
        exit(EXIT_USAGE);
    }
}

/* The largest row's keys and values, or what the read bandwidth is measured on, and a little. */
static size_t source_bytes(const struct bench *b) {
    double largest = (double)LIMITS_READ_BYTES;

    for (size_t i = 0; i < b->n_entries; i++) {
        const double bytes = row_bytes(b->entries[i].row);
        largest = bytes > largest ? bytes : largest;
    }
    return (size_t)largest + other_bytes;
}

/* The limits at the start, printed and noted in the JSON file. */
static void start_limits(struct bench *b) {
    for (size_t i = 0; i < b->n_settings; i++) {
        struct setting *s = &b->settings[i];
        char key[64], value[160];

        s->read = limit_read(now.source.base, s->n_threads, 4);
        snprintf(key, sizeof key, "limits/%s/t%zu", s->backend, s->n_threads);
        size_t n = (size_t)snprintf(value, sizeof value, "%s", limit_width(s->backend));
        for (enum limit limit = LIMIT_F32; limit < N_LIMITS; limit++) {
            const double flops = limit_flops(s->backend, limit, s->n_threads, 5);

            if (flops > 0 && n < sizeof value) {
                n += (size_t)snprintf(value + n, sizeof value - n, ", %.1f G%s/s (%s)", flops * 1e-9,
                                      limit == LIMIT_INT8 ? "OP" : "FLOP", limit_name(limit));
            }
        }
        snprintf(value + n, sizeof value - n, ", %.1f GB/s read", s->read * 1e-9);
        gbench_context(key, value);
        fprintf(stderr, "%s: %s\n", key, value);
    }
}

/* ---- Command line -------------------------------------------------------------------------------------- */

/* clang-format off */
static void usage(FILE *to) {
    fprintf(to,
            "Usage: attn_bench [OPTION...] [-- GOOGLE_BENCHMARK_FLAG...]\n"
            "\n"
            "  --backend LIST   backends, for example avx512,avx2 (default: the library's choice)\n"
            "  --threads LIST   numbers of threads, for example 1,2 (default: 1)\n"
            "  --filter REGEX   rows whose ROW/BACKEND/tTHREADS matches (extended, anywhere in it)\n"
            "  --rounds N       rounds of every row, in random order over all rows (default: 5)\n"
            "  --min-time S     seconds that a row runs in a round at least (default: 0.1)\n"
            "  --json FILE      every round, the aggregates and the machine as JSON\n"
            "  --list           only print the names of the rows\n"
            "  --help           this text\n"
            "\n"
            "The table has the medians over the rounds: useful operations (visible scores, all query heads)\n"
            "and their percentage of the peak of the backend's instruction for the row's type (f32 multiply-\n"
            "adds; bf16 or int8 dot products where the backend uses them there); bytes of weights\n"
            "or of keys and values, and their percentage of the read bandwidth. Both limits are measured,\n"
            "with as many threads, before and after every round of a row (the bandwidth where it limits the\n"
            "row; otherwise at the start). spread is (slowest - fastest) / median of the rounds. %%CPU is\n"
            "what each thread got: below 98, something else ran there, and the row says little.\n"
            "\n"
            "Example: attn_bench --backend avx512,avx2 --filter '^linear/(512|1)x'\n");
}
/* clang-format on */

static void parse(struct bench *b, int argc, char **argv) {
    static const struct option options[] = {
        {"backend", required_argument, NULL, 'b'},
        {"threads", required_argument, NULL, 't'},
        {"filter", required_argument, NULL, 'f'},
        {"rounds", required_argument, NULL, 'r'},
        {"min-time", required_argument, NULL, 'm'},
        {"json", required_argument, NULL, 'j'},
        {"list", no_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    char none[] = "", *backends = none, *end;
    const char *threads = "1";
    int option;

    *b = (struct bench){.filter = "", .run = {.rounds = 5, .columns = columns}};
    now.min_time = 0.1;
    b->run.n_columns = sizeof columns / sizeof *columns;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        end = none;
        switch (option) {
        case 'b': backends = optarg; break;
        case 't': threads = optarg; break;
        case 'f': b->filter = optarg; break;
        case 'r': b->run.rounds = strtoul(optarg, &end, 10); break;
        case 'm': now.min_time = strtod(optarg, &end); break;
        case 'j': b->run.json = optarg; break;
        case 'l': b->list = true; break;
        case 'h': usage(stdout); exit(EXIT_SUCCESS);
        default: usage(stderr); exit(EXIT_USAGE);
        }
        if (*end != '\0' || b->run.rounds == 0 || !(now.min_time > 0)) {
            fprintf(stderr, "attn_bench: not a number above 0: %s\n", optarg);
            exit(EXIT_USAGE);
        }
    }
    b->run.extra = argv + optind;
    b->run.n_extra = (size_t)(argc - optind);
    add_backends(b, backends, threads);
}

int main(int argc, char **argv) {
    struct bench b;
    size_t failed = 0;

    parse(&b, argc, argv);
    add_entries(&b);
    if (b.list) {
        for (size_t i = 0; i < b.n_entries; i++) {
            puts(b.entries[i].name);
        }
    } else {
        if (!arena_map(&now.source, source_bytes(&b)) || !arena_map(&now.work, work_bytes)) {
            fprintf(stderr, "attn_bench: no memory\n");
            return EXIT_FAILURE;
        }
        arena_fill(&now.source);
        start_limits(&b);
        now.progress = isatty(STDERR_FILENO);
        now.n_expected = b.n_entries * b.run.rounds;
        for (size_t i = 0; i < b.n_entries; i++) {
            gbench_register(b.entries[i].name, run_entry, &b.entries[i]);
        }
        failed = gbench_run(&b.run);
    }
    for (size_t i = 0; i < b.n_settings; i++) {
        attn_context_destroy(b.settings[i].context);
    }
    free(b.entries);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
