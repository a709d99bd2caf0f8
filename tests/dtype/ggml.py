#!/usr/bin/env python3
"""Digests of ggml's own conversions on the values of draw.h, for tests/dtype/ggml.txt.

    ggml.py LIBGGML_BASE.so            prints them (LIBGGML_BASE.so: of the pip package llama-cpp-python)
    ggml.py LIBGGML_BASE.so --check    compares them with ggml.txt; exit status 1 where they differ
"""
import ctypes
import pathlib
import sys

import numpy as np

PIECE, PIECES, FEW = 8192, 1221, 16
TYPES = {  # values and bytes of a block
    "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18), "q4_1": (32, 20), "q4_K": (256, 144),
    "q6_K": (256, 210)}
FROM_F32 = {"f16": "ggml_fp32_to_fp16_row", "bf16": "ggml_fp32_to_bf16_row_ref", "q8_0": "quantize_row_q8_0_ref",
            "q4_0": "quantize_row_q4_0_ref"}
TO_F32 = {"f16": "ggml_fp16_to_fp32_row", "bf16": "ggml_bf16_to_fp32_row"}
U = np.uint64
GAMMA = U(0x9E3779B97F4A7C15)


def word(stream, i):
    z = U(stream << 40) + (i + U(1)) * GAMMA
    z = (z ^ z >> U(30)) * U(0xBF58476D1CE4E5B9)
    z = (z ^ z >> U(27)) * U(0x94D049BB133111EB)
    return z ^ z >> U(31)


def floats(i):
    block, z = word(1, i // U(32)), word(2, i)
    sign, fraction = z >> U(63) << U(31), z & U(0x7FFFFF)
    base = (block >> U(8) & U(0xFFFFFFFF)) % U(222) + U(16)
    high = z >> U(24) & U(0xFFFFFFFF)
    eighths = high % U(8)
    ties = fraction & U(0x7C0000)
    outlier = np.where(i % U(32) == block >> U(59), U(12), eighths)
    kinds = [sign | high % U(255) << U(23) | fraction,
             sign | (base + high % U(16)) << U(23) | fraction,
             sign | base << U(23) | (block & U(0xFFFFFFFF)) >> U(9),
             sign,
             sign | fraction,
             sign | U(254) << U(23) | fraction,
             sign | (U(126) + eighths) << U(23) | ties,
             sign | (U(126) + outlier) << U(23) | ties]
    return np.choose((block % U(8)).astype(np.int64), kinds).astype(np.uint32)


def digest(total, words, first):
    at = np.arange(first, first + len(words), dtype=np.uint64)
    return total + np.sum((words ^ words >> U(29)) * ((U(2) * at + U(1)) * GAMMA | U(1)), dtype=np.uint64)


def digests(lib, name, to_f32):
    block, size = TYPES[name]
    row = getattr(lib, (TO_F32 if to_f32 else FROM_F32).get(name, f"dequantize_row_{name}"))
    total, first, few = U(0), 0, None
    for piece in range(PIECES):
        i = np.arange(piece * PIECE, (piece + 1) * PIECE, dtype=np.uint64)
        packed = PIECE // block * size
        if to_f32:
            at = np.arange(piece * packed // 8, (piece + 1) * packed // 8, dtype=np.uint64)
            source = word(3 + list(TYPES).index(name), at)
            result = np.zeros(PIECE, np.float32)
        else:
            source = floats(i)
            result = np.zeros(packed, np.uint8)
        row(source.ctypes.data_as(ctypes.c_void_p), result.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(PIECE))
        if to_f32:
            result[np.isnan(result)] = np.nan
        words = result.view(np.uint64)
        total = digest(total, words, first)
        first += len(words)
        if piece == FEW - 1:
            few = total
    return f"{name} {'to' if to_f32 else 'from'} {int(few):016x} {int(total):016x}"


def main():
    if len(sys.argv) not in (2, 3) or (len(sys.argv) == 3 and sys.argv[2] != "--check"):
        sys.exit(__doc__)
    lib = ctypes.CDLL(sys.argv[1])
    with np.errstate(over="ignore"):
        lines = [digests(lib, name, True) for name in TYPES] + [digests(lib, name, False) for name in FROM_F32]
    print("\n".join(lines))
    stored = pathlib.Path(__file__).with_name("ggml.txt")
    if len(sys.argv) == 3 and stored.read_text().split("\n")[:-1] != lines:
        sys.exit(f"{stored} says otherwise")


if __name__ == "__main__":
    main()
