"""Counts the results in meson's testlog.json files and prints the closing line of scripts/test.sh.

usage: test-summary.py [--broken N] LOG...
N failures are added for what did not get so far as to write a log. Exits 1 when anything failed or nothing
ran.
"""

import argparse
import collections
import json
import sys

PASSED = {"OK", "EXPECTEDFAIL"}
SKIPPED = {"SKIP"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--broken", type=int, default=0)
    parser.add_argument("logs", nargs="*")
    args = parser.parse_args()

    count = collections.Counter(failed=args.broken)
    for log in args.logs:
        here = collections.Counter()
        with open(log, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                test = json.loads(line)
                result = test["result"]
                kind = "passed" if result in PASSED else "skipped" if result in SKIPPED else "failed"
                here[kind] += 1
                if kind == "failed":
                    print(f"FAILED: {test['name']} ({result}) in {log}")
        print(f"{log}: {here['passed']} passed, {here['failed']} failed, {here['skipped']} skipped")
        count += here

    line = f"{count['passed']} passed, {count['failed']} failed"
    if count["skipped"]:
        line += f", {count['skipped']} skipped"
    print(line)
    sys.exit(0 if count["passed"] and not count["failed"] else 1)


if __name__ == "__main__":
    main()
