#include "gbench.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace {

using Run = benchmark::BenchmarkReporter::Run;

benchmark::State *unwrap(gbench_state *state) { return reinterpret_cast<benchmark::State *>(state); }

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const size_t n = values.size();
    return n == 0 ? 0 : (values[(n - 1) / 2] + values[n / 2]) / 2;
}

/* Seconds as a person reads them, seven characters wide. */
std::string pretty(double seconds) {
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1, "s "}, {1e-3, "ms"}, {1e-6, "us"}, {1e-9, "ns"}};
    size_t i = 0;
    while (i < 3 && seconds < units[i].unit) {
        i++;
    }
    char text[32];
    std::snprintf(text, sizeof text, "%6.4g %s", seconds / units[i].unit, units[i].name);
    return text;
}

/*
 * One line a benchmark, in the order of registration: median time and spread ((largest - smallest) / median)
 * of its rounds, the columns. Google Benchmark reports in the order in which benchmarks end, which is random
 * where rounds are interleaved, so the lines wait for the end.
 */
class Table : public benchmark::BenchmarkReporter {
  public:
    Table(const gbench_column *columns, size_t n) : columns_(columns, columns + n) {}

    size_t failed() const { return failed_; }

    bool ReportContext(const Context &context) override {
        PrintBasicContext(&GetErrorStream(), context);
        return true;
    }

    void ReportRuns(const std::vector<Run> &report) override {
        std::vector<const Run *> rounds;
        Line line;
        for (const Run &run : report) {
            if (run.run_type == Run::RT_Iteration) {
                rounds.push_back(&run);
            }
            if (run.error_occurred) {
                line.cells = " " + run.error_message;
            }
        }
        if (rounds.empty()) {
            return;
        }
        line.name = rounds[0]->run_name.function_name;
        if (line.cells.empty()) {
            line.cells = measured(rounds);
        } else {
            failed_++;
        }
        lines_[rounds[0]->family_index] = line;
    }

    void Finalize() override {
        int width = 3;
        for (const auto &line : lines_) {
            width = std::max(width, static_cast<int>(line.second.name.size()));
        }
        std::printf("%-*s %9s %7s", width, "row", "time", "spread");
        for (const gbench_column &column : columns_) {
            std::printf(" %9s", column.title);
        }
        std::printf("\n");
        for (const auto &line : lines_) {
            std::printf("%-*s%s\n", width, line.second.name.c_str(), line.second.cells.c_str());
        }
    }

  private:
    struct Line {
        std::string name, cells;
    };

    static std::string number(int decimals, double value) {
        char text[64];
        std::snprintf(text, sizeof text, " %9.*f", decimals, value);
        return text;
    }

    std::string measured(const std::vector<const Run *> &rounds) const {
        std::vector<double> times;
        for (const Run *run : rounds) {
            times.push_back(run->real_accumulated_time / static_cast<double>(run->iterations));
        }
        const auto ends = std::minmax_element(times.begin(), times.end());
        char text[64];
        std::snprintf(text, sizeof text, " %9s %6.1f%%", pretty(median(times)).c_str(),
                      100 * (*ends.second - *ends.first) / median(times));
        std::string cells = text;
        for (const gbench_column &column : columns_) {
            std::vector<double> values;
            for (const Run *run : rounds) {
                const auto found = run->counters.find(column.counter);
                if (found != run->counters.end()) {
                    values.push_back(found->second.value);
                }
            }
            cells += values.empty() ? "         -" : number(column.decimals, median(values) * column.scale);
        }
        return cells;
    }

    std::vector<gbench_column> columns_;
    std::map<int64_t, Line> lines_; /* by order of registration */
    size_t failed_ = 0;
};

} // namespace

/* A round is one iteration to Google Benchmark, which would otherwise repeat it to find how many it wants. */
void gbench_register(const char *name, gbench_fn *fn, void *arg) {
    const auto round = [fn, arg](benchmark::State &state) {
        while (state.KeepRunning()) {
            fn(reinterpret_cast<gbench_state *>(&state), arg);
        }
    };
    benchmark::RegisterBenchmark(name, round)->UseManualTime()->Iterations(1);
}

void gbench_seconds(gbench_state *state, double seconds) { unwrap(state)->SetIterationTime(seconds); }

void gbench_counter(gbench_state *state, const char *counter, double value) {
    unwrap(state)->counters[counter] = benchmark::Counter(value);
}

void gbench_fail(gbench_state *state, const char *why) { unwrap(state)->SkipWithError(why); }

void gbench_context(const char *key, const char *value) { benchmark::AddCustomContext(key, value); }

size_t gbench_run(const gbench_options *options) {
    std::vector<std::string> flags = {
        "attn_bench",
        "--benchmark_enable_random_interleaving=true",
        "--benchmark_repetitions=" + std::to_string(options->rounds),
    };
    if (options->json) {
        flags.push_back(std::string("--benchmark_out=") + options->json);
        flags.push_back("--benchmark_out_format=json");
    }
    flags.insert(flags.end(), options->extra, options->extra + options->n_extra);
    std::vector<char *> argv;
    for (std::string &flag : flags) {
        argv.push_back(&flag[0]);
    }
    argv.push_back(nullptr);
    int argc = static_cast<int>(flags.size());
    benchmark::Initialize(&argc, argv.data());
    if (benchmark::ReportUnrecognizedArguments(argc, argv.data())) {
        return 1;
    }
    Table table(options->columns, options->n_columns);
    benchmark::RunSpecifiedBenchmarks(&table);
    return table.failed();
}
