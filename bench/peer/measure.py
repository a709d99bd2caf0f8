"""Rounds of a row: ours and the peers in random order, each for a while."""

import gc
import glob
import itertools
import random
import statistics
import sys
import time

import benchlib
from peer.data import Case

# Before a turn with several threads those of the peer before it must have gone to sleep: until a nap of the
# process costs at most this share of a CPU, for some seconds at most.
NAP, ASLEEP, PATIENCE = 0.01, 0.05, 1
# A turn whose threads waited for a CPU for longer than this share of it was not alone, and is repeated.
WAITING, REPEATS = 0.02, 2
# A result that differs from ours by more than this, relative to the largest element, is of something else: peers (and
# our instruction tiers) round x, queries or probabilities to the type.
SAME = {"f32": 1e-4, "f16": 2e-2}
SAME_ROUNDED = 3e-2


class Contender:
    """A way of a peer to run a row."""

    def __init__(self, peer, way, prepared):
        self.peer, self.way = peer, way
        self.result = prepared.result
        self.next_call = itertools.cycle(prepared.calls).__next__
        self.first = prepared.calls[0]
        self.seconds = []  # of a call, of each round
        self.difference = 0.0
        self.busy = False

    def check(self, expected):
        """Runs once and compares the result with what is expected (None: nothing yet), which it returns."""
        import numpy as np
        result = np.asarray(self.result(self.first()))
        if expected is None:
            return result
        if result.shape == expected.shape:
            self.difference = float(np.abs(result - expected).max() / np.abs(expected).max())
        else:
            self.difference = float("inf")
        return expected

    def run(self, n):
        """Seconds of a call, and the share of the time that a thread was ready and had no CPU."""
        call, waited, start = self.next_call, waiting(), time.perf_counter()
        for _ in range(n):
            call()()
        elapsed = time.perf_counter() - start
        return elapsed / n, (waiting() - waited) / elapsed

    def turn(self, min_time, threads):
        if threads > 1:
            settle()
        seconds, share = self.run(1)
        if seconds < min_time:  # that was to warm the caches
            n = int(min_time / seconds) + 1
            seconds, share = self.run(n)
        else:
            n = 1
        for _ in range(REPEATS):
            if share <= WAITING * threads:
                break
            seconds, share = self.run(n)
        self.busy = self.busy or share > WAITING * threads
        self.seconds.append(seconds)


def waiting():
    """Seconds that the threads of this process have waited for a CPU (0 where Linux does not say)."""
    total = 0
    for path in glob.glob("/proc/self/task/*/schedstat"):
        try:
            with open(path) as file:
                total += int(file.read().split()[1])
        except (OSError, IndexError):  # a thread that has ended since
            pass
    return total * 1e-9


def settle():
    end = time.perf_counter() + PATIENCE
    while time.perf_counter() < end:
        cpu, start = time.process_time(), time.perf_counter()
        time.sleep(NAP)
        if time.process_time() - cpu <= ASLEEP * (time.perf_counter() - start):
            break


def measure(row, threads, ours, peers, rounds, min_time):
    """The record of a row that report.py shows."""
    gc.collect()  # what the row before it held
    case, contenders, expected = Case(row), [], None
    for peer in ours + peers:
        if row.type not in peer.types:
            continue
        try:
            for way, prepared in peer.prepare(case).items():
                contender = Contender(peer, way, prepared)
                expected = contender.check(expected)
                contenders.append(contender)
        except Exception as error:  # a peer of another version than the one this was written for, say
            if peer in ours:
                raise
            print(f"{row.name}: {peer.name} cannot run it: {error}", file=sys.stderr)
    order = random.Random(row.name)
    gc.disable()
    for _ in range(rounds):
        order.shuffle(contenders)
        for contender in contenders:
            contender.turn(min_time, threads)
    gc.enable()
    return record(row, threads, ours, peers, contenders)


def record(row, threads, ours, peers, contenders):
    unit, work = row.unit_and_work()
    same = SAME.get(row.type, SAME_ROUNDED)
    places = {peer.name: place for place, peer in enumerate(ours + peers)}
    entries = [{"name": c.peer.name, "way": c.way, "ours": c.peer in ours, "seconds": c.seconds,
                "median": statistics.median(c.seconds), "difference": c.difference,
                "wrong": not c.difference <= same, "busy": c.busy} for c in contenders]
    wrong = [f"{e['name']} {e['way']}" for e in entries if e["wrong"] and e["ours"]]
    if wrong:
        raise benchlib.Problem(f"{row.name}: {wrong[0].strip()} differs from our first backend")
    return {"row": row.name, "kind": row.kind, "threads": threads, "unit": unit, "work": work,
            "entries": sorted(entries, key=lambda e: (places[e["name"]], e["way"]))}
