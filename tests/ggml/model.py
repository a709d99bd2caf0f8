"""Runs a model in unchanged llama.cpp, with or without the plugin, and writes what came out: called by test_models.py.

    model.py MODEL OUT.npz [--plugin FILE] [--kv TYPE] [--follow OTHER.npz] [--tokens N] [--prompt FILE]... [--text FILE]...

Without --follow prompts are continued greedily; with it by the other run's tokens, so that every step has the same past.
"""

import argparse
import os
import pathlib
import sys
import time

import llama_cpp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))

from peer.ggml import Functions  # noqa: E402

WINDOW, CONTEXT, BATCH = 1024, 2560, 512


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--plugin")
    parser.add_argument("--kv", default="f16")
    parser.add_argument("--follow")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flash", choices=["on", "auto"], default="on")
    parser.add_argument("--prompt", action="append", default=[])
    parser.add_argument("--text", action="append", default=[])
    return parser.parse_args()


def load(arguments):
    kv = getattr(llama_cpp, "GGML_TYPE_" + arguments.kv.upper())
    if arguments.flash == "auto":  # the class has no word for it
        llama_cpp.llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED = llama_cpp.llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
    return llama_cpp.Llama(arguments.model, n_ctx=CONTEXT, n_batch=BATCH, n_threads=arguments.threads,
                           n_threads_batch=arguments.threads, flash_attn=arguments.flash == "on", type_k=kv, type_v=kv,
                           verbose=False, logits_all=True)


def last_logits(llama):
    n = llama.n_vocab()
    return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llama._ctx.ctx, -1), (n,)).copy()


def generate(llama, prompt, n, follow):
    """(tokens, logits of each step)."""
    llama.reset()
    llama.eval(llama.tokenize(pathlib.Path(prompt).read_bytes())[:CONTEXT - n])
    tokens, logits = [], []
    for i in range(n):
        logits.append(last_logits(llama))
        tokens.append(int(follow[i]) if follow is not None else int(logits[-1].argmax()))
        if i + 1 < n:
            llama.eval(tokens[-1:])
    return np.array(tokens), np.array(logits)


def perplexity(llama, files):
    tokens = llama.tokenize(b"\n\n".join(pathlib.Path(file).read_bytes() for file in files))
    total = count = 0
    for at in range(0, len(tokens) - 1, WINDOW):
        piece = tokens[at:at + WINDOW + 1]
        llama.reset()
        llama.eval(piece[:-1])
        x = llama.scores[:len(piece) - 1].astype(np.float64)
        most = x.max(1, keepdims=True)
        norm = np.log(np.exp(x - most).sum(1)) + most[:, 0]
        total += (norm - x[np.arange(len(piece) - 1), piece[1:]]).sum()
        count += len(piece) - 1
    return np.exp(total / count), count


def main():
    arguments = parse()
    if arguments.plugin and not Functions().ggml_backend_load(os.fsencode(arguments.plugin)):
        sys.exit("the plugin is not loaded")
    llama = load(arguments)
    follow = np.load(arguments.follow) if arguments.follow else None
    result = {}
    for i, prompt in enumerate(arguments.prompt):
        tokens, logits = generate(llama, prompt, arguments.tokens,
                                  follow[f"tokens{i}"] if follow is not None else None)
        result[f"tokens{i}"], result[f"logits{i}"] = tokens, logits
    if arguments.text:
        start = time.perf_counter()
        result["perplexity"], result["count"] = perplexity(llama, arguments.text)
        result["seconds"] = time.perf_counter() - start
    np.savez(arguments.out, **result)


main()
