#!/usr/bin/env python3
"""Multi-head attention of the layer beside this file, in NumPy float64: heads.npy and output.npy.

Textbook (eq. 11.5.1), one head at a time, every matrix spelled out; shares nothing with libattn:

    h_i = softmax((W_i^q x + b_i^q)(W_i^k x + b_i^k)^T / sqrt(p)) (W_i^v x + b_i^v)
    o   = W_o [h_1; ...; h_h] + b_o

heads.npy is [n_head, n, p], output.npy is [n, p_o] (before the residual and LayerNorm of BERT's block).
"""

import json
import pathlib
import struct

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
N_HEAD = 12  # config.json: num_attention_heads


def load(path):
    blob = path.read_bytes()
    length = struct.unpack_from("<Q", blob)[0]
    tensors = {}
    for name, entry in json.loads(blob[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            flat = np.frombuffer(blob[8 + length + begin : 8 + length + end], "<f4")
            tensors[name.removeprefix("encoder.layer.0.attention.")] = flat.reshape(entry["shape"]).astype(
                np.float64
            )
    return tensors


def head(x, w, i, p):
    rows = slice(i * p, (i + 1) * p)
    q, k, v = (
        x @ w[f"self.{m}.weight"][rows].T + w[f"self.{m}.bias"][rows] for m in ("query", "key", "value")
    )
    score = q @ k.T / np.sqrt(p)
    weight = np.exp(score - score.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    return weight @ v


def main():
    w = load(HERE / "layer0.safetensors")
    x = np.load(HERE / "input.npy").astype(np.float64)
    p = w["self.query.weight"].shape[0] // N_HEAD
    heads = np.stack([head(x, w, i, p) for i in range(N_HEAD)])
    output = np.concatenate(heads, axis=1) @ w["output.dense.weight"].T + w["output.dense.bias"]
    np.save(HERE / "heads.npy", heads)
    np.save(HERE / "output.npy", output)


if __name__ == "__main__":
    main()
