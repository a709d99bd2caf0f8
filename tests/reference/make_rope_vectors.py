#!/usr/bin/env python3
"""Writes rope_vectors.txt: what others make of rotary position embedding's parameters.

Run by hand (pip install torch transformers mpmath; python3 make_rope_vectors.py > rope_vectors.txt) when a case is
added; the result is committed. Two kinds of lines, numbers separated by blanks:

    scaling NAME DIMS BASE SCALING FACTOR CONTEXT LOW HIGH FAST SLOW EXACT ATTENTION DIVISORS
            (DIVISORS of them, all other members as in attn_rope), then on a line of its own the attention factor
            and DIMS / 2 frequencies that Hugging Face's modeling_rope_utils computes, in float64
    turn BASE DIMS PAIR POSITION COS SIN
            of the angle POSITION * BASE^(-2 PAIR / DIMS), by mpmath with 60 digits
"""
import argparse
import sys
from types import SimpleNamespace

try:
    import mpmath
    import torch
    from transformers import modeling_rope_utils as hf
except ImportError as error:
    sys.exit(f"{error}; install it with: pip install torch transformers mpmath")

NONE, LINEAR, NTK, YARN, LLAMA3 = range(5)
PHI3_LIKE = [1 + 0.75 * i + (i * 7 % 5) / 8 for i in range(48)]

# name, HF's rope_type, dims, base, HF's parameters
SCALINGS = [
    ("linear_x4", "linear", 128, 10000.0, {"factor": 4.0}),
    ("linear_partial", "linear", 32, 10000.0, {"factor": 2.5}),
    ("ntk_x8", "ntk", 128, 10000.0, {"factor": 8.0}),
    ("ntk_d80", "ntk", 80, 500000.0, {"factor": 2.0}),
    ("yarn_llama2_x16", "yarn", 128, 10000.0, {"factor": 16.0, "original": 4096}),
    ("yarn_qwen3", "yarn", 128, 1000000.0, {"factor": 4.0, "original": 32768}),
    ("yarn_deepseek_v3", "yarn", 64, 10000.0, {"factor": 40.0, "original": 4096, "attention_factor": 1.0}),
    ("yarn_gpt_oss", "yarn", 64, 150000.0, {"factor": 32.0, "original": 4096, "truncate": False}),
    ("yarn_betas", "yarn", 96, 10000.0, {"factor": 3.0, "original": 2048, "beta_fast": 16.0, "beta_slow": 2.0}),
    ("yarn_one_step", "yarn", 64, 10000.0, {"factor": 3.0, "original": 2048, "beta_fast": 1.0, "beta_slow": 1.0}),
    ("llama31", "llama3", 128, 500000.0, {"factor": 8.0, "original": 8192, "low": 1.0, "high": 4.0}),
    ("llama32_1b", "llama3", 64, 500000.0, {"factor": 32.0, "original": 8192, "low": 1.0, "high": 4.0}),
    ("llama3_odd", "llama3", 48, 10000.0, {"factor": 3.0, "original": 1000, "low": 1.5, "high": 9.0}),
    ("phi3_longrope", "longrope", 96, 10000.0, {"long": PHI3_LIKE, "attention_factor": 1.1875}),
    ("gemma4_proportional", "proportional", 512, 1000000.0, {"share": 0.25}),
]


def frequencies(kind, dims, base, p):
    """(inverse frequencies, attention factor) as Hugging Face computes them."""
    names = {"original": "original_max_position_embeddings", "low": "low_freq_factor", "high": "high_freq_factor",
             "long": "long_factor", "share": "partial_rotary_factor"}
    parameters = {"rope_theta": base} | {names.get(key, key): value for key, value in p.items()}
    if kind == "longrope":
        parameters |= {"short_factor": p["long"], "original_max_position_embeddings": 4096}
    if kind == "proportional":
        parameters |= {"factor": 1.0}
    config = SimpleNamespace(rope_parameters=parameters, head_dim=dims, hidden_size=dims, num_attention_heads=1,
                             max_position_embeddings=131072, standardize_rope_params=lambda: None)
    if kind == "ntk":  # the dynamic rule at seq_len with (factor seq_len / max - (factor - 1)) = the factor asked for
        config.max_position_embeddings, parameters["factor"] = 4096, 1.0
        return hf.ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=int(4096 * p["factor"]))
    return hf.ROPE_INIT_FUNCTIONS[kind](config, "cpu")


def write_scaling(name, kind, dims, base, p):
    scaling = {"linear": LINEAR, "ntk": NTK, "yarn": YARN, "llama3": LLAMA3}.get(kind, NONE)
    divisors = p.get("long", [])
    if kind == "proportional":
        turning = int(p["share"] * dims // 2)
        divisors = [1.0] * turning + [float("inf")] * (dims // 2 - turning)
    print("scaling", name, dims, base, scaling, p.get("factor", 0.0), p.get("original", 0), p.get("low", 0.0),
          p.get("high", 0.0), p.get("beta_fast", 0.0), p.get("beta_slow", 0.0), int(not p.get("truncate", True)),
          p.get("attention_factor", 0.0), len(divisors), *divisors)
    inverse, attention = frequencies(kind, dims, base, p)
    assert inverse.dtype == torch.float64
    print(repr(float(attention)), *(repr(x) for x in inverse.tolist()))


def write_turns():
    mpmath.mp.dps = 60
    positions = [0, 1, 7, 1000, 131072, 1000000, 2**31 - 1, 2**53, -1, -1000000, -(2**31), -(2**53) + 1]
    for base, dims in ((10000.0, 128), (10000.0, 2), (500000.0, 64), (1.0625, 10), (2.0**100, 1024)):
        pairs = sorted({0, 1, 2, dims // 5, dims // 3, dims // 2 - 1} & set(range(dims // 2)))
        for pair in pairs:
            for position in positions:
                angle = position * mpmath.mpf(base) ** (mpmath.mpf(-2 * pair) / dims)
                print("turn", base, dims, pair, position, float(mpmath.cos(angle)), float(mpmath.sin(angle)))


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    # its functions ask for float32 by name; what is wanted are their formulas
    torch.float = torch.float32 = torch.float64
    torch.Tensor.float = torch.Tensor.double
    for case in SCALINGS:
        write_scaling(*case)
    write_turns()


if __name__ == "__main__":
    main()
