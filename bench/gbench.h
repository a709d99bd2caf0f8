/*
 * Google Benchmark for C: registration, interleaved rounds, statistics, a table on stdout and JSON in a file.
 * gbench.cc is the project's only C++.
 */
#ifndef BENCH_GBENCH_H
#define BENCH_GBENCH_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A running benchmark: benchmark::State. */
struct gbench_state;

/* One round of a benchmark: prepares, measures, and calls gbench_seconds() or gbench_fail() once. */
typedef void gbench_fn(struct gbench_state *state, void *arg);

void gbench_register(const char *name, gbench_fn *fn, void *arg);

/* What the round found: wall-clock seconds, and counters. */
void gbench_seconds(struct gbench_state *state, double seconds);
void gbench_counter(struct gbench_state *state, const char *counter, double value);
void gbench_fail(struct gbench_state *state, const char *why);

/* A key of the "context" object of the JSON file. */
void gbench_context(const char *key, const char *value);

/* A column of the table: the median of a counter over the rounds, times scale; "-" where there is none. */
struct gbench_column {
    const char *counter, *title;
    double scale;
    int decimals;
};

struct gbench_options {
    size_t rounds;      /* of every benchmark, in random order over all benchmarks */
    const char *json;   /* file that gets every round and the aggregates, or NULL */
    char *const *extra; /* more flags for Google Benchmark */
    size_t n_extra;
    const struct gbench_column *columns;
    size_t n_columns;
};

/* Runs what was registered; returns how many benchmarks failed. */
size_t gbench_run(const struct gbench_options *options);

#ifdef __cplusplus
}
#endif

#endif
