"""Seconds of torch's textbook additive attention: the peer of one goal in bench/goals.csv.

Usage: torch_additive.py additive/128x1024/c256 THREADS ROUNDS
"""

import re
import statistics
import sys
import time

import torch


def textbook(q, k, v, w):
    features = torch.tanh(q.unsqueeze(1) + k.unsqueeze(0))
    weights = torch.softmax(features @ w, dim=-1)
    return weights @ v


def main():
    n_q, n_kv, c = map(int, re.fullmatch(r"additive/(\d+)x(\d+)/c(\d+)", sys.argv[1]).groups())
    torch.set_num_threads(int(sys.argv[2]))
    q, k, v, w = torch.randn(n_q, c), torch.randn(n_kv, c), torch.randn(n_kv, c), torch.randn(c) / c**0.5
    times = []
    with torch.inference_mode():
        textbook(q, k, v, w)
        for _ in range(int(sys.argv[3])):
            start = time.perf_counter()
            textbook(q, k, v, w)
            times.append(time.perf_counter() - start)
    print(statistics.median(times))


main()
