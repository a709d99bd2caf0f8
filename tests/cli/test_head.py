"""attn head: results against attention in plain Python and against the NumPy outputs of the real layer."""

import json
import math
import os
import re
import struct
import subprocess
import unittest

from support import (
    EXE,
    MINILM,
    CliTest,
    additive_score,
    attend,
    dot_score,
    linear,
    npy_bytes,
    read_npy,
    rows_of,
    safetensors_bytes,
)

REAL = ["-w", os.path.join(MINILM, "layer0.safetensors"), "-q", os.path.join(MINILM, "input.npy")]
D, P, HEADS, KV, N = 12, 5, 4, 2, 9


def runnable():
    text = subprocess.run([EXE, "info"], stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout
    return re.search(r"^backends runnable (.*)$", text, re.M).group(1).split()


class RealLayer(CliTest):
    """all-MiniLM-L6-v2, layer 0, on every backend."""

    def check_all(self, args, expect):
        for backend in runnable():
            with self.subTest(backend=backend):
                text = self.good("head", *REAL, *args, "-b", backend, "--check", "--expect", expect)
                self.assertEqual(len(re.findall(r": largest error .*: ok$", text, re.M)), 2, text)
                self.assertIn(f"backend {backend}", text)

    def test_all_heads(self):
        self.check_all([], os.path.join(MINILM, "heads.npy"))

    def test_multihead(self):
        self.check_all(["--multihead"], os.path.join(MINILM, "output.npy"))

    def test_one_head_is_a_slice_of_all(self):
        self.good("head", *REAL, "-o", self.path("all.npy"))
        shape, every = read_npy(self.path("all.npy"))
        self.assertEqual(shape, [12, 22, 32])
        for head in (0, 2, 11):
            self.good("head", *REAL, "-H", head, "-o", self.path("one.npy"), "--check")
            shape, one = read_npy(self.path("one.npy"))
            self.assertEqual(shape, [22, 32])
            self.assertEqual(one, every[head * 22 * 32 : (head + 1) * 22 * 32])

    def test_threads_change_no_bit(self):
        results = []
        for threads in (1, 2, 3):
            self.good("head", *REAL, "-t", threads, "-m", "-o", self.path("o.npy"))
            results.append(read_npy(self.path("o.npy")))
        self.assertEqual(results[0], results[1])
        self.assertEqual(results[0], results[2])

    def test_wrong_expectation_is_found(self):
        with open(os.path.join(MINILM, "output.npy"), "rb") as file:
            blob = bytearray(file.read())
        blob[-8:] = struct.pack("<d", struct.unpack("<d", blob[-8:])[0] + 0.1)
        done = self.run_attn("head", *REAL, "-m", "--expect", self.write("wrong.npy", bytes(blob)))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("EXCEEDED by 1 elements, first [21, 383]", done.stdout)
        self.assertEqual(done.stderr, "")

    def test_output_serves_as_expectation(self):
        self.good("head", *REAL, "-o", self.path("h.npy"))
        self.assertIn(": ok", self.good("head", *REAL, "--expect", self.path("h.npy"), "-t", 1))


class SmallModels(CliTest):
    """Models with the names of several families, made here."""

    def setUp(self):
        super().setUp()
        self.x = self.matrix(N, D)
        self.input = self.write("x.npy", npy_bytes(self.x))

    def projections(self, kv=KV, p_k=P, p_v=P, bias=True):
        sizes = {"q": HEADS * P, "k": kv * p_k, "v": kv * p_v, "o": 7}
        w = {m: self.matrix(n, HEADS * p_v if m == "o" else D, 0.4) for m, n in sizes.items()}
        b = {m: self.matrix(1, n)[0] if bias else None for m, n in sizes.items()}
        return w, b

    def heads(self, w, b, kv=KV, limit=None, scale=1 / math.sqrt(P), x=None, y=None):
        x = x or self.x
        y = y or x
        group = HEADS // kv
        out = []
        for i in range(HEADS):
            j = i // group
            part = lambda m, index, p, rows: linear(
                rows, rows_of(w[m], index, p), b[m] and rows_of(b[m], index, p)
            )
            p_v = len(w["v"]) // kv
            q, k, v = part("q", i, P, x), part("k", j, P, y), part("v", j, p_v, y)
            out.append(attend(q, k, v, dot_score(scale), limit))
        return out

    def model(self, w, b, pattern, modules, dtype="F32", extra=None, name="m.safetensors"):
        tensors = dict(extra or {})
        for m, module in zip("qkvo", modules):
            tensors[pattern % module + ".weight"] = (dtype, w[m])
            if b[m]:
                tensors[pattern % module + ".bias"] = (dtype, b[m])
        return self.write(name, safetensors_bytes(tensors))

    LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj"]
    BERT = ["self.query", "self.key", "self.value", "output.dense"]

    def computed(self, path, *args, heads=HEADS, inputs=None):
        self.good(
            "head",
            "-w",
            path,
            "-n",
            heads,
            *(inputs or ["-q", self.input]),
            *args,
            "-o",
            self.path("o.npy"),
            "--check",
        )
        return read_npy(self.path("o.npy"))

    def test_llama_names_grouped_heads_and_layers(self):
        w, b = self.projections(bias=False)
        other, _ = self.projections(bias=False)
        extra = {
            f"model.layers.3.self_attn.{m}.weight": ("F32", other[k]) for k, m in zip("qkvo", self.LLAMA)
        }
        path = self.model(w, b, "model.layers.17.self_attn.%s", self.LLAMA, extra=extra)
        shape, got = self.computed(path, "--layer", 17)
        self.assertEqual(shape, [HEADS, N, P])
        self.assert_close(got, self.heads(w, b))
        self.assert_close(self.computed(path)[1], self.heads(other, b))  # the lowest layer

    def test_bert_names_with_prefix(self):
        w, b = self.projections(kv=HEADS)
        path = self.model(w, b, "bert.encoder.layer.0.attention.%s", self.BERT)
        self.assert_close(self.computed(path)[1], self.heads(w, b, kv=HEADS))
        want = self.heads(w, b, kv=HEADS)
        joined = [[x for h in want for x in h[i]] for i in range(N)]
        shape, got = self.computed(path, "--multihead")
        self.assertEqual(shape, [N, 7])
        self.assert_close(got, linear(joined, w["o"], b["o"]))

    def test_two_stacks_need_a_prefix(self):
        w, b = self.projections()
        other, c = self.projections()
        modules = ["q_proj", "k_proj", "v_proj", "out_proj"]
        extra = {f"encoder.layers.0.self_attn.{m}.weight": ("F32", other[k]) for k, m in zip("qkvo", modules)}
        path = self.model(w, b, "decoder.layers.0.self_attn.%s", modules, extra=extra)
        self.bad(
            "head", "-w", path, "-n", HEADS, "-q", self.input, "--check", says=["two stacks", "--prefix"]
        )
        self.assert_close(self.computed(path, "--prefix", "decoder.")[1], self.heads(w, b))
        none = dict.fromkeys("qkvo")
        self.assert_close(self.computed(path, "--prefix", "encoder.")[1], self.heads(other, none))

    def test_half_precision_is_exact(self):
        w, b = self.projections()
        rounders = {
            "F16": lambda x: struct.unpack("<e", struct.pack("<e", x))[0],
            "BF16": lambda x: struct.unpack("<f", b"\0\0" + struct.pack("<f", x)[2:])[0],
        }
        for dtype, rounder in rounders.items():
            with self.subTest(dtype=dtype):
                ww = {m: [[rounder(x) for x in row] for row in w[m]] for m in w}
                bb = {m: [rounder(x) for x in b[m]] for m in b}
                path = self.model(ww, bb, "layers.0.self_attn.%s", self.LLAMA, dtype)
                narrow = self.computed(path)
                wide = self.computed(
                    self.model(ww, bb, "layers.0.self_attn.%s", self.LLAMA, name="f32.safetensors")
                )
                self.assertEqual(narrow, wide)

    def test_names_by_option(self):
        w, b = self.projections()
        tensors = {f"net/{m}": ("F32", w[m]) for m in "qkv"} | {f"net/{m}/b": ("F32", b[m]) for m in "qkv"}
        path = self.write("m.safetensors", safetensors_bytes(tensors))
        names = [x for m in "qkv" for x in (f"--w{m}", f"net/{m}", f"--b{m}", f"net/{m}/b")]
        self.assert_close(self.computed(path, *names)[1], self.heads(w, b))
        self.bad("head", "-w", path, *names, "-n", HEADS, "-q", self.input, "-m", "--check", says=["--wo"])

    def test_causal_and_scale(self):
        w, b = self.projections()
        path = self.model(w, b, "layers.0.self_attn.%s", self.LLAMA)
        y = self.matrix(6, D)
        inputs = ["-q", self.input, "-k", self.write("y.npy", npy_bytes(y))]
        for kind, limit in {
            "none": None,
            "top-left": lambda i: i + 1,
            "bottom-right": lambda i: i + 1 + 6 - N,
        }.items():
            with self.subTest(kind=kind):
                got = self.computed(path, "-c", kind, "--scale", "0.3", inputs=inputs)[1]
                self.assert_close(got, self.heads(w, b, limit=limit, scale=0.3, y=y))

    def test_inputs_of_other_types_and_ranks(self):
        w, b = self.projections()
        path = self.model(w, b, "layers.0.self_attn.%s", self.LLAMA)
        want = self.computed(path)
        for blob in (npy_bytes(self.x, "F64"), npy_bytes([self.x]), npy_bytes(self.x, version=2)):
            self.assertEqual(self.computed(path, inputs=["-q", self.write("y.npy", blob)]), want)

    def test_heads_from_config(self):
        w, b = self.projections()
        path = self.model(w, b, "layers.0.self_attn.%s", self.LLAMA)
        self.write("config.json", json.dumps({"num_attention_heads": HEADS, "num_key_value_heads": KV}))
        self.good("head", "-w", path, "-q", self.input, "-o", self.path("o.npy"))
        self.assert_close(read_npy(self.path("o.npy"))[1], self.heads(w, b))


class Additive(CliTest):
    """Bahdanau's scores, with sizes that all differ."""

    def check(self, shared, identity):
        d_q, d_k, d_v, p_q, p_k, p_v, c, heads, n_q, n_kv = 6, 9, 4, 5, 5 if identity else 7, 3, 5, 2, 4, 8
        q, k, v = self.matrix(n_q, d_q), self.matrix(n_kv, d_k), self.matrix(n_kv, d_v)
        w_q, w_k, w_v = (self.matrix(heads * p, d, 0.5) for p, d in ((p_q, d_q), (p_k, d_k), (p_v, d_v)))
        a_q, a_k = ([self.matrix(c, p, 0.5) for _ in range(heads)] for p in (p_q, p_k))
        w = self.matrix(heads, c)
        if shared:
            a_q, a_k, w = [a_q[0]] * heads, [a_k[0]] * heads, [w[0]] * heads
        tensors = {"q": w_q, "k": w_k, "v": w_v, "w": w[0] if shared else w}
        tensors.update(aq=a_q[0] if shared else a_q, ak=a_k[0] if shared else a_k)
        path = self.write("m.safetensors", safetensors_bytes({n: ("F32", t) for n, t in tensors.items()}))
        args = [
            "-w",
            path,
            "-n",
            heads,
            "--wq",
            "q",
            "--wk",
            "k",
            "--wv",
            "v",
            "--additive",
            "--w",
            "w",
            "--check",
        ]
        args += [] if identity else ["--aq", "aq", "--ak", "ak"]
        for name, array in (("q", q), ("k", k), ("v", v)):
            args += [f"--{name}", self.write(f"{name}.npy", npy_bytes(array))]
        want = []
        for i in range(heads):
            x, y = linear(q, rows_of(w_q, i, p_q)), linear(k, rows_of(w_k, i, p_k))
            if not identity:
                x, y = linear(x, a_q[i]), linear(y, a_k[i])
            want.append(attend(x, y, linear(v, rows_of(w_v, i, p_v)), additive_score(w[i])))
        self.good("head", *args, "-o", self.path("o.npy"))
        shape, got = read_npy(self.path("o.npy"))
        self.assertEqual(shape, [heads, n_q, p_v])
        self.assert_close(got, want)
        self.good("head", *args, "-H", 1, "-o", self.path("o.npy"))
        self.assert_close(read_npy(self.path("o.npy"))[1], want[1])

    def test_own_matrices(self):
        self.check(shared=False, identity=False)

    def test_shared_matrices(self):
        self.check(shared=True, identity=False)

    def test_identity(self):
        self.check(shared=False, identity=True)


if __name__ == "__main__":
    unittest.main()
