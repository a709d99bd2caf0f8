"""Weights in f16, bf16 and ggml's blocks, from .safetensors and GGUF files.

A file of rounded weights must give the bits of an f32 file of the same values, and lie within a bound of the
unrounded file's result that follows from how much each weight was rounded.
"""

import json
import math
import os
import pathlib
import struct
import unittest
from operator import mul

from formats import ROUNDERS, gguf_bytes
from support import (
    MINILM,
    CliTest,
    attend,
    dot_score,
    flatten,
    frame,
    linear,
    npy_bytes,
    read_npy,
    rows_of,
)

BLOCKS = str(pathlib.Path(__file__).resolve().parent.parent / "gguf" / "blocks.gguf")
INPUT = os.path.join(MINILM, "input.npy")
HEADS, P, D, N = 12, 32, 384, 22
HF = "encoder.layer.0.attention."
NAMES = {"self.query": "attn_q", "self.key": "attn_k", "self.value": "attn_v", "output.dense": "attn_output"}
BERT = {"general.architecture": "bert", "bert.attention.head_count": HEADS}
MORE = 1 + 1e-3  # what f32 rounds besides: far below what the weights' types do


def read_layer():
    """The example's tensors: name: (shape, values)."""
    with open(os.path.join(MINILM, "layer0.safetensors"), "rb") as file:
        blob = file.read()
    data = 8 + struct.unpack_from("<Q", blob)[0]
    tensors = {}
    for name, entry in json.loads(blob[8:data]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            values = struct.unpack(f"<{(end - begin) // 4}f", blob[data + begin : data + end])
            tensors[name.removeprefix(HF)] = (entry["shape"], list(values))
    return tensors


def safetensors_raw(tensors):
    """From a dict of name: (dtype, shape, bytes)."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return frame(header, data)


def weight_errors(kind, row):
    """How far each weight of a row may be from its rounding: half a unit in the last of 11 or 8 bits (and of
    the smallest f16); for q8_0 half a step d = largest / 127 of the block, and 127 times d's own rounding to
    f16."""
    if kind == "F16":
        return [abs(x) * 2.0**-11 + 2.0**-25 for x in row]
    if kind == "BF16":
        return [abs(x) * 2.0**-8 for x in row]
    errors = []
    for i in range(0, len(row), 32):
        largest = max(map(abs, row[i : i + 32]))
        errors += [largest * (0.5 / 127 + 2.0**-11) * MORE + 127 * 2.0**-25] * 32
    return errors


class Rounded(CliTest):
    """MiniLM's layer 0 with weights of each type."""

    @classmethod
    def setUpClass(cls):
        layer = read_layer()
        cls.files, cls.bounds = {}, {}
        cls.matrices = {name: values for name, (_, values) in layer.items()}
        for kind, rounder in ROUNDERS.items():
            st, gguf, back = {}, {}, {}
            for name, (shape, values) in layer.items():
                module, part = name.rsplit(".", 1)
                dtype = kind if part == "weight" else "F32"
                raw, rounded = ROUNDERS[dtype](values)
                back[name] = ("F32", shape, ROUNDERS["F32"](rounded)[0])
                st[HF + name] = (dtype, shape, raw)
                gguf[f"blk.0.{NAMES[module]}.{part}"] = (dtype, shape, raw)
            cls.files[kind] = {
                "same.safetensors": safetensors_raw({HF + n: t for n, t in back.items()}),
                "m.gguf": gguf_bytes(gguf, BERT),
            }
            if kind != "Q8_0":
                cls.files[kind]["m.safetensors"] = safetensors_raw(st)
        with open(INPUT, "rb") as file:
            blob = file.read()
        values = struct.unpack(f"<{N * D}f", blob[-4 * N * D :])
        cls.x = [values[i : i + D] for i in range(0, N * D, D)]
        cls.projected = [cls.project(m) for m in ("self.query", "self.key", "self.value")]

    def setUp(self):
        super().setUp()
        self.write("config.json", json.dumps({"num_attention_heads": HEADS}))

    def file(self, kind, name):
        return self.write(kind + name, self.files[kind][name])

    def head(self, path, *args):
        text = self.good("head", "-w", path, "-q", INPUT, *args, "-o", self.path("o.npy"), "--check")
        return text, read_npy(self.path("o.npy"))[1]

    @classmethod
    def project(cls, module):
        """The rows of W, and W x + b for each row x of the input."""
        w, bias = cls.matrices[module + ".weight"], cls.matrices[module + ".bias"]
        rows = [w[i : i + D] for i in range(0, D * D, D)]
        return rows, [[b + sum(map(mul, r, x)) for r, b in zip(rows, bias)] for x in cls.x]

    def errors(self, kind, rows):
        """Bounds of what the rounding of W does to W x."""
        wide = [weight_errors(kind, row) for row in rows]
        inputs = [list(map(abs, x)) for x in self.x]
        return [[sum(map(mul, e, x)) * MORE for e in wide] for x in inputs]

    def head_bounds(self, kind):
        """Bounds of all h_i, and for each row of scores the softmax weights and how much they may grow.

        With scores off by at most e, a weight p becomes one from p exp(-2 e) to p exp(2 e). So the sum of p v
        moves by at most (exp(2 e) - 1) p |v - c| for any c, as both sets of weights add up to 1, and by what
        v moves; and it never leaves the range of the values.
        """
        if kind in self.bounds:
            return self.bounds[kind]
        (wq, q), (wk, k), (wv, v) = self.projected
        dq, dk, dv = (self.errors(kind, w) for w in (wq, wk, wv))
        bounds, factors = [], []
        for h in range(HEADS):
            part = slice(h * P, h * P + P)
            mean = [sum(column) / N for column in zip(*(row[part] for row in v))]
            bounds.append([])
            factors.append([])
            for i in range(N):
                a, da = q[i][part], dq[i][part]
                size = [abs(x) + e for x, e in zip(a, da)]
                scores, off = [], 0.0
                for j in range(N):
                    b, db = k[j][part], dk[j][part]
                    scores.append(sum(map(mul, a, b)) / math.sqrt(P))
                    e = sum(map(mul, size, db)) + sum(map(mul, da, map(abs, b)))
                    off = max(off, e / math.sqrt(P) * MORE + 1e-5)
                top = max(scores)
                p = [math.exp(s - top) for s in scores]
                total, grown = sum(p), math.expm1(min(2 * off, 50))
                factors[-1].append(([x / total for x in p], grown))
                row = []
                for c in range(P):
                    column = [v[j][h * P + c] for j in range(N)]
                    moved = max(dv[j][h * P + c] for j in range(N))
                    centred = sum(x * abs(y - mean[c]) for x, y in zip(p, column)) / total
                    row.append(min(grown * centred, max(column) - min(column)) + moved + 1e-5)
                bounds[-1].append(row)
        self.bounds[kind] = bounds, factors
        return self.bounds[kind]

    def test_files_give_the_bits_of_their_values(self):
        for kind in self.files:
            want = self.head(self.file(kind, "same.safetensors"))[1]
            out = self.head(self.file(kind, "same.safetensors"), "-m")[1]
            table = self.good("inspect", "-w", self.file(kind, "same.safetensors"), "-q", INPUT)
            for name in self.files[kind]:
                with self.subTest(kind=kind, file=name):
                    path = self.file(kind, name)
                    text, got = self.head(path)
                    self.assertTrue(got == want, "other bits")  # assertEqual would take minutes to show them
                    self.assertTrue(self.head(path, "-m")[1] == out, "other bits")
                    if not name.startswith("same"):
                        self.assertIn(f"weights {kind}\n", text)
                    inspected = self.good("inspect", "-w", path, "-q", INPUT)
                    self.assertEqual(inspected.splitlines()[1:], table.splitlines()[1:])

    def test_rounding_stays_within_its_bound(self):
        exact = self.head(self.file("F32", "m.gguf"))[1]
        largest = {}
        for kind in ("F16", "BF16", "Q8_0"):
            got = self.head(self.file(kind, "m.gguf"))[1]
            bounds = flatten(self.head_bounds(kind)[0])
            errors = [abs(a - b) for a, b in zip(got, exact)]
            largest[kind] = max(errors)
            for i, (error, bound) in enumerate(zip(errors, bounds)):
                self.assertLessEqual(error, bound, f"{kind}, element {i}")
        self.assertGreater(largest["F16"], 1e-6)  # the weights were rounded
        self.assertGreater(largest["Q8_0"], 2 * largest["F16"])
        self.assertGreater(largest["BF16"], 2 * largest["F16"])

    def test_inspect_stays_within_its_bound(self):
        """The mean weights on the first, the previous, the query's own and the next token."""
        numbers = lambda text: [line.split()[3:7] for line in text.splitlines() if line.split()[0].isdigit()]
        exact = numbers(self.good("inspect", "-w", self.file("F32", "m.gguf"), "-q", INPUT))
        for kind in ("F16", "BF16", "Q8_0"):
            got = numbers(self.good("inspect", "-w", self.file(kind, "m.gguf"), "-q", INPUT))
            self.assertEqual(len(got), HEADS)
            for h, rows in enumerate(self.head_bounds(kind)[1]):
                for column, key in enumerate((lambda i: 0, lambda i: i - 1, lambda i: i, lambda i: i + 1)):
                    moves = [
                        min(1, grown * p[key(i)]) for i, (p, grown) in enumerate(rows) if 0 <= key(i) < N
                    ]
                    bound = sum(moves) / len(moves) + 0.001  # two numbers of three digits
                    self.assertLessEqual(abs(float(got[h][column]) - float(exact[h][column])), bound)


class Gguf(CliTest):
    """Small models with llama.cpp's names and metadata."""

    heads, kv, p, d, n = 4, 2, 6, 10, 7

    def setUp(self):
        super().setUp()
        self.x = self.matrix(self.n, self.d)
        self.input = self.write("x.npy", npy_bytes(self.x))
        kv = self.kv * self.p
        sizes = {"q": self.heads * self.p, "k": kv, "v": kv, "output": 5}
        self.w = {
            m: self.matrix(n, self.heads * self.p if m == "output" else self.d, 0.4) for m, n in sizes.items()
        }
        self.b = {m: self.matrix(1, len(w), 0.4)[0] for m, w in self.w.items()}

    def tensor(self, array, kind="F32"):
        shape = [len(array), len(array[0])] if isinstance(array[0], list) else [len(array)]
        return (kind, shape, ROUNDERS[kind](flatten(array))[0])

    def tensors(self, layer=0, w=None, prefix=""):
        w = w or self.w
        found = {f"{prefix}blk.{layer}.attn_{m}.weight": self.tensor(w[m]) for m in w}
        return found | {f"{prefix}blk.{layer}.attn_{m}.bias": self.tensor(self.b[m]) for m in w}

    def metadata(self, **changes):
        found = {
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv,
            "attention.key_length": self.p,
        }
        found.update({key.replace("__", "."): x for key, x in changes.items()})
        return {"general.architecture": "llama"} | {
            f"llama.{k}": x for k, x in found.items() if x is not None
        }

    def model(self, tensors, metadata, **options):
        return self.write("m.gguf", gguf_bytes(tensors, metadata, **options))

    def computed(self, path, *args):
        self.good("head", "-w", path, "-q", self.input, "--check", "-o", self.path("o.npy"), *args)
        return read_npy(self.path("o.npy"))[1]

    def want(self, w=None):
        w, out = w or self.w, []
        for h in range(self.heads):
            g = h * self.kv // self.heads
            q, k, v = (
                linear(self.x, rows_of(w[m], i, self.p), rows_of(self.b[m], i, self.p))
                for m, i in (("q", h), ("k", g), ("v", g))
            )
            out.append(attend(q, k, v, dot_score(1 / math.sqrt(self.p))))
        return out

    def test_heads_from_metadata(self):
        tensors = self.tensors()
        for metadata in (
            self.metadata(),
            self.metadata(attention__key_length=None),
            self.metadata(attention__head_count=[self.heads, 9]),
        ):
            for options in ({}, {"version": 2}, {"alignment": 64}):
                extra = {"general.alignment": 64} if "alignment" in options else {}
                path = self.model(tensors, metadata | extra, **options)
                self.assert_close(self.computed(path), self.want())
        joined = [[x for h in self.want() for x in h[i]] for i in range(self.n)]
        self.assert_close(self.computed(path, "-m"), linear(joined, self.w["output"], self.b["output"]))
        without = {"general.architecture": "llama"}
        self.assert_close(self.computed(self.model(tensors, without), "-n", self.heads), self.want())

    def test_layers_with_their_own_counts(self):
        other = {m: self.matrix(len(w), len(w[0]), 0.4) for m, w in self.w.items()}
        tensors = self.tensors(3) | self.tensors(11, other)
        counts = [1] * 3 + [self.heads] + [2] * 7 + [self.heads]
        path = self.model(tensors, self.metadata(attention__head_count=counts))
        self.assert_close(self.computed(path), self.want())
        self.assert_close(self.computed(path, "-l", 11), self.want(other))

    def test_three_in_one(self):
        joined = {"qkv": self.w["q"] + self.w["k"] + self.w["v"], "output": self.w["output"]}
        want = self.want()
        out = linear(
            [[x for h in want for x in h[i]] for i in range(self.n)], joined["output"], self.b["output"]
        )
        self.b["qkv"] = self.b["q"] + self.b["k"] + self.b["v"]
        path = self.model(self.tensors(w=joined), self.metadata())
        self.assert_close(self.computed(path), want)
        self.assert_close(self.computed(path, "-m"), out)
        path = self.model(self.tensors(w=joined), {})
        self.assert_close(self.computed(path, "-n", self.heads, "--kv-heads", self.kv), want)

    def test_permuted_rows_change_nothing(self):
        """llama.cpp puts columns i and i + p/2 of a head of W_q and W_k side by side, for its rotation."""
        order = [i // 2 + i % 2 * (self.p // 2) for i in range(self.p)]
        permuted = lambda list, n: [list[h * self.p + i] for h in range(n) for i in order]
        want = self.want()
        for m, n in (("q", self.heads), ("k", self.kv)):
            self.w[m], self.b[m] = permuted(self.w[m], n), permuted(self.b[m], n)
        self.assert_close(self.computed(self.model(self.tensors(), self.metadata())), want)

    def test_notes(self):
        norms = {
            f"blk.0.{name}.weight": self.tensor([1.0] * n)
            for name, n in (("attn_norm", self.d), ("attn_q_norm", self.p), ("attn_k_norm", self.p))
        }
        path = self.model(self.tensors() | norms, self.metadata(rope__dimension_count=self.p))
        done = self.run_attn("head", "-w", path, "-q", self.input, "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        for says in ("'llama' rotate queries", "by blk.0.attn_norm.weight", "by blk.0.attn_q_norm.weight"):
            self.assertIn(says, done.stderr)
        done = self.run_attn(
            "head", "-w", self.model(self.tensors(), self.metadata()), "-q", self.input, "--check"
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_two_stacks(self):
        tensors = self.tensors(prefix="enc.") | self.tensors(prefix="dec.")
        path = self.model(tensors, self.metadata())
        self.bad("head", "-w", path, "-q", self.input, "--check", says=["two stacks", "--prefix"])
        self.assert_close(self.computed(path, "--prefix", "dec."), self.want())

    def test_every_type(self):
        """The blocks of tests/gguf, whose floats are beside them: the same bits."""
        inputs = {n: self.write(f"x{n}.npy", npy_bytes(self.matrix(3, n))) for n in (96, 256, 768)}
        for kind in "F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K".split():
            n = 256 if kind.endswith("F16") else 768 if kind.endswith("K") else 96
            results = []
            for name in (kind, kind + ".floats"):
                names = [x for m in "qkv" for x in (f"--w{m}", name)]
                args = ["-w", BLOCKS, "-n", 1, "-q", inputs[n], *names, "-o", self.path("o.npy")]
                results.append((self.good("head", *args), read_npy(self.path("o.npy"))))
            self.assertEqual(repr(results[0][1]), repr(results[1][1]), kind)  # NaN is NaN
            self.assertIn(f"weights {kind}\n", results[0][0])


if __name__ == "__main__":
    unittest.main()
