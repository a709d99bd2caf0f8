"""What bench/compare and bench/goals share: finding, building and running attn_bench."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.path.join("bench", "attn_bench")


class Problem(Exception):
    """Something the user can mend; printed as one line."""


def run(command, **options):
    """Runs a build step with its output on stderr."""
    result = subprocess.run(command, stdout=sys.stderr, **options)
    if result.returncode != 0:
        raise Problem(f"failed: {' '.join(command)}")


def build(source, folder):
    """Builds attn_bench of a source tree in a build folder, which is made if missing; returns its path."""
    if not os.path.exists(os.path.join(folder, "build.ninja")):
        run(["meson", "setup", "-Dbench=enabled", "-Dtests=disabled", "-Dtools=disabled", folder, source])
    run(["ninja", "-C", folder, BINARY])
    return os.path.join(folder, BINARY)


def names(binary, backends, threads, pattern=""):
    """Names ROW/BACKEND/tTHREADS that a binary has; none where a backend does not run on this machine."""
    command = [binary, "--list", "--filter", pattern, "--threads", ",".join(map(str, threads))]
    if backends:
        command += ["--backend", ",".join(backends)]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.split() if result.returncode == 0 else []


def measure(binary, entries, backends, threads, rounds, min_time):
    """Runs rows (by full name); returns {name: [{"seconds": s, counter: value...}, of each round]}."""
    pattern = "^(" + "|".join(map(re.escape, entries)) + ")$"
    with tempfile.TemporaryDirectory(prefix="attn-bench-") as folder:
        path = os.path.join(folder, "out.json")
        command = [binary, "--filter", pattern, "--threads", ",".join(map(str, threads)), "--json", path,
                   "--rounds", str(rounds), "--min-time", str(min_time)]
        if backends:
            command += ["--backend", ",".join(backends)]
        quiet = None if sys.stderr.isatty() else subprocess.DEVNULL
        if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=quiet).returncode not in (0, 1):
            raise Problem(f"failed: {' '.join(command)}")
        with open(path) as file:
            report = json.load(file)
    rows = {}
    for record in report["benchmarks"]:
        name = record["run_name"].split("/iterations:")[0]
        if record["run_type"] != "iteration":
            continue
        if record.get("error_occurred"):
            raise Problem(f"{name}: {record['error_message']}")
        scale = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}[record["time_unit"]]
        counters = {key: value for key, value in record.items() if isinstance(value, (int, float))}
        counters["seconds"] = record["real_time"] * scale
        rows.setdefault(name, []).append(counters)
    return rows


def median(rounds, counter):
    return statistics.median(r[counter] for r in rounds)


def busy_note(rounds):
    """What to say of a row whose threads were not alone on their CPUs (98 %: as attn_bench has it)."""
    return "" if median(rounds, "cpu_percent") >= 98 else ", on a busy CPU"


def main(function):
    """Exit status of a command: 2 for a problem, 130 when interrupted, otherwise what function() returns."""
    try:
        status = function()
    except Problem as problem:
        print(f"{os.path.basename(sys.argv[0])}: {problem}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
