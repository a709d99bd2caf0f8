"""The hot loops of this build's objects against the floors of bench/mca.csv, by llvm-mca (bench/mca --check).

usage: mca.py [--saboteur] BENCH_MCA LIBRARY
--saboteur: with floors above 100 % and with functions that do not exist, the check must fail, for every row.
Skipped where llvm-mca or the library is missing, or fails when ATTN_TEST_STRICT is set.
"""

import argparse
import csv
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

TOOLS = ["llvm-mca-19", "llvm-objdump-19"]


def check(mca, library, *options):
    result = subprocess.run([sys.executable, mca, "--check", *options, library], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    print(result.stdout, flush=True)
    return result.returncode, result.stdout


def missing(args):
    if not args.library.exists():
        return f"{args.library} is missing; build it first"
    lacking = [tool for tool in TOOLS if not shutil.which(tool)]
    return f"{' and '.join(lacking)} missing; scripts/setup.sh test installs it" if lacking else None


def sabotaged(mca, library, change):
    """The check with a table whose every row is changed: its exit status, output and number of rows."""
    with open(mca.parent / "mca.csv", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    for row in rows:
        row.update(change)
    with tempfile.TemporaryDirectory(prefix="attn-mca-") as folder:
        path = pathlib.Path(folder) / "mca.csv"
        with open(path, "w", newline="") as file:
            table = csv.DictWriter(file, rows[0].keys())
            table.writeheader()
            table.writerows(rows)
        return check(mca, library, "--csv", path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--saboteur", action="store_true")
    parser.add_argument("mca", type=pathlib.Path)
    parser.add_argument("library", type=pathlib.Path)
    args = parser.parse_args()

    reason = missing(args)
    if reason:
        print(f"mca: {reason}", file=sys.stderr)
        sys.exit(1 if os.environ.get("ATTN_TEST_STRICT") else 77)
    if not args.saboteur:
        sys.exit(check(args.mca, args.library)[0])

    status, output = sabotaged(args.mca, args.library, {"floor": "100.5"})
    lines = output.splitlines()[1:]
    if status != 1 or not lines or not all(line.endswith("below its floor") for line in lines):
        sys.exit("mca: loops below their floors were not found")
    status, output = sabotaged(args.mca, args.library, {"function": "no_such_function"})
    if status != 2 or "no_such_function" not in output:
        sys.exit("mca: loops that are not there were not missed")


if __name__ == "__main__":
    main()
