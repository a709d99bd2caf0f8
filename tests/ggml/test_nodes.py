"""The plugin's nodes through ggml's public functions, against float64 and ggml's own bytes.

Run by scripts/test-llamacpp.sh, with llama-cpp-python, NumPy and gguf. GGML_ATTN_PLUGIN is the plugin.
"""

import ctypes
import os
import pathlib
import sys
import unittest

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))

from gguf import GGMLQuantizationType  # noqa: E402
from gguf.quants import dequantize  # noqa: E402
from peer.formats import FORMATS, from_f32, random_blocks  # noqa: E402
from peer.ggml import POINTER, TYPE_F16, TYPE_F32, Backend, Functions, Memory  # noqa: E402

C = Functions()
PLUGIN = Backend(C, os.environ["GGML_ATTN_PLUGIN"])
PLUGIN.set_threads(1)  # a context that computes
EPS = 2.0**-24
KV_TYPES = ["f32", "f16", "bf16", "q8_0", "q4_0"]
SEED = int(os.environ.get("ATTN_TEST_SEED", "20260801"))


def draw(random, type, *shape):
    """(storage, values in f64) of a type."""
    if FORMATS[type].block > 1:
        raw = random_blocks(type, random, *shape)
        rows = raw.reshape(-1, raw.shape[-1])
        return raw, dequantize(rows, GGMLQuantizationType(FORMATS[type].ggml)).reshape(shape).astype(np.float64)
    x = random.standard_normal(shape, np.float32)
    raw = from_f32(type, x)
    if type == "bf16":
        return raw, (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return raw, raw.astype(np.float64)


class Products(unittest.TestCase):
    def bound(self, type, x, w):
        """Of |y - x W^T|: one rounding a term in f32; x rounded to bf16, or to 8 bits by 32 values where the weights
        are blocks (docs/numerics.md, section 11)."""
        size = np.abs(x) @ np.abs(w).T
        rounding = (x.shape[1] + 40) * EPS * size
        if type == "bf16":
            return rounding + 2.0**-8 * size
        if FORMATS[type].block == 1:
            return rounding
        blocks = np.abs(x).reshape(len(x), -1, 32)
        steps = blocks.max(-1, keepdims=True) / 127 * (0.5 + 2.0**-8)
        return 2 * rounding + np.broadcast_to(steps, blocks.shape).reshape(x.shape) @ np.abs(w).T

    def product(self, type, n, k, m, random, threads=1):
        raw, w = draw(random, type, n, k)
        x = random.standard_normal((m, k), np.float32)
        memory, weights = PLUGIN.hold(FORMATS[type].ggml, (k, n), PLUGIN.weights["MUL_MAT"])
        PLUGIN.set(weights, raw)
        call, node = PLUGIN.node(lambda c, t: C.ggml_mul_mat(c, weights, t["x"]), memory, (m, n),
                                 x=(TYPE_F32, (k, m), x))
        self.assertTrue(PLUGIN.takes(node))
        PLUGIN.set_threads(threads)
        return raw, w, x, weights, call

    def test_values(self):
        random = np.random.default_rng(SEED)
        for type, form in FORMATS.items():
            for _ in range(12):
                n, m = int(random.integers(1, 200)), int(random.choice([1, 2, 3, 5, 8, 33, 100]))
                k = form.block * int(random.integers(1, 1 + 1024 // form.block))
                _, w, x, _, call = self.product(type, n, k, m, random, int(random.integers(1, 4)))
                error = np.abs(call() - x.astype(np.float64) @ w.T)
                bound = self.bound(type, x.astype(np.float64), w)
                self.assertTrue((error <= bound).all(), (type, n, k, m, (error / bound).max()))

    def test_bytes_come_back(self):
        """Whole and in parts, in any order."""
        random = np.random.default_rng(SEED)
        for type, form in FORMATS.items():
            n, k = 37, form.block * max(1, 256 // form.block)
            raw, _, _, weights, _ = self.product(type, n, k, 1, random)
            back = np.zeros_like(raw)
            C.ggml_backend_tensor_get(weights, back.ctypes.data, 0, back.nbytes)
            self.assertTrue(np.array_equal(back, raw), type)
            other = draw(random, type, n, k)[0]
            half = form.row(k) * (n // 2)
            for offset, size in ((half, other.nbytes - half), (0, half)):
                C.ggml_backend_tensor_set(weights, other.ctypes.data + offset, offset, size)
                back[:] = 0
                C.ggml_backend_tensor_get(weights, back.ctypes.data + offset, offset, size)
                self.assertEqual(back.tobytes()[offset:offset + size], other.tobytes()[offset:offset + size])
            C.ggml_backend_tensor_get(weights, back.ctypes.data, 0, back.nbytes)
            self.assertTrue(np.array_equal(back, other), type)
            C.ggml_backend_tensor_memset(weights, 0, 0, other.nbytes)
            C.ggml_backend_tensor_get(weights, back.ctypes.data, 0, back.nbytes)
            self.assertFalse(back.any())

    def test_together(self):
        """Products of one input are computed together, to the bits of each alone."""
        random = np.random.default_rng(SEED)
        k, m = 256, 7
        x = random.standard_normal((m, k), np.float32)
        memory = Memory(C)
        t_x = memory.tensor(TYPE_F32, k, m)
        keep, nodes, alone = [], [], []
        for i, type in enumerate(["q4_0", "q4_0", "q8_0", "f32", "q6_K"] * 4):
            raw, _ = draw(random, type, 20 + i, k)
            held = PLUGIN.hold(FORMATS[type].ggml, (k, 20 + i), PLUGIN.weights["MUL_MAT"])
            PLUGIN.set(held[1], raw)
            keep.append(held)
            nodes.append((20 + i, C.ggml_mul_mat(memory.context, held[1], t_x)))
            call, _ = PLUGIN.node(lambda c, t, w=held[1]: C.ggml_mul_mat(c, w, t["x"]), held, (m, 20 + i),
                                  x=(TYPE_F32, (k, m), x))
            alone.append(call().copy())  # what it returns lives as long as the call
        memory.allocate(PLUGIN.plain)
        PLUGIN.set(t_x, x)
        graph = C.ggml_new_graph(memory.context)
        for _, node in nodes:
            C.ggml_build_forward_expand(graph, node)
        self.assertEqual(C.ggml_backend_graph_compute(PLUGIN.handle, graph), 0)
        for (n, node), expected in zip(nodes, alone):
            y = np.zeros((m, n), np.float32)
            C.ggml_backend_tensor_get(node, y.ctypes.data, 0, y.nbytes)
            self.assertTrue(np.array_equal(y, expected))

    def test_declined(self):
        """Weights in ggml's own layout, of other types, or of more than two dimensions."""
        memory = Memory(C)
        x = memory.tensor(TYPE_F32, 256, 4)
        plain, w = PLUGIN.hold(TYPE_F32, (256, 8))
        self.assertFalse(PLUGIN.takes(C.ggml_mul_mat(memory.context, w, x)))
        for type, shape in ((6, (256, 8)), (TYPE_F32, (256, 8, 2))):  # q5_0
            held = PLUGIN.hold(type, shape, PLUGIN.weights["MUL_MAT"])
            y = memory.tensor(TYPE_F32, 256, 4, *shape[2:])
            self.assertFalse(PLUGIN.takes(C.ggml_mul_mat(memory.context, held[1], y)))


def slopes(n_head, max_bias):
    power = 2 ** int(np.floor(np.log2(n_head)))
    near, far = 2.0 ** (-max_bias / power), 2.0 ** (-max_bias / 2 / power)
    return np.array([near ** (h + 1) if h < power else far ** (2 * (h - power) + 1) for h in range(n_head)])


class Attention(unittest.TestCase):
    """softmax(soft_cap(scale q K^T) + slope mask, sink) V in f64."""

    def expected(self, q, k, v, mask, scale, max_bias, cap, sinks):
        group = q.shape[1] // k.shape[1]
        k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
        s = scale * q @ k.swapaxes(-1, -2)
        if cap:
            s = cap * np.tanh(s / cap)
        if mask is not None:
            factor = slopes(q.shape[1], max_bias)[:, None, None] if max_bias else 1
            s = s + factor * mask[:, :, :q.shape[2]].astype(np.float64)
        most = s.max(-1, keepdims=True)
        if sinks is not None:
            most = np.maximum(most, sinks[:, None, None])
        most = np.where(np.isfinite(most), most, 0)
        p = np.exp(s - most)
        total = p.sum(-1, keepdims=True)
        if sinks is not None:
            total = total + np.exp(sinks[:, None, None] - most)
        return np.where(total > 0, p / np.where(total > 0, total, 1), 0) @ v

    def mask(self, random, kind, n_seq, n_q, n_kv, bias):
        """[n_seq or 1, 1, rows, n_kv]; rows beyond n_q are padding."""
        rows, own = np.arange(n_q)[:, None], np.arange(n_kv)
        offset = int(random.integers(0, n_kv - n_q + 1)) if n_kv >= n_q else 0
        seen = {"causal": own <= rows + offset,
                "window": (own <= rows + offset) & (own > rows + offset - int(random.integers(1, n_kv + 1))),
                "length": (own < offset + 1) & (rows >= 0),
                "random": random.random((n_q, n_kv)) < 0.5,
                "all": np.ones((n_q, n_kv), bool)}[kind]
        values = np.where(seen, -np.abs(rows + offset - own) if bias else 0, -np.inf).astype(np.float16)
        padded = np.zeros((n_seq, 1, n_q + 3, n_kv), np.float16)
        padded[:, :, :n_q] = values
        return padded

    def run_case(self, random, k_type, v_type, d, d_v, n_q, n_kv, heads, heads_kv, n_seq, kind, max_bias=0.0, cap=0.0,
                 with_sinks=False, key_major=True, threads=1):
        q = random.standard_normal((n_seq, heads, n_q, d), np.float32)
        sinks = random.standard_normal(heads, np.float32) if with_sinks else None
        mask = None if kind is None else self.mask(random, kind, int(random.choice([1, n_seq])), n_q, n_kv, max_bias)
        held, tensors, values = [], [], []
        for type, columns in ((k_type, d), (v_type, d_v)):
            lead = (n_kv, heads_kv) if key_major else (heads_kv, n_kv)
            raw, x = draw(random, type, n_seq, *lead, columns)
            memory, t = PLUGIN.hold(FORMATS[type].ggml, (columns, *lead[::-1], n_seq))
            PLUGIN.set(t, raw)
            if key_major:
                x, line = x.swapaxes(1, 2), FORMATS[type].row(columns)
                t = C.ggml_view_4d(memory.context, t, columns, n_kv, heads_kv, n_seq, line * heads_kv, line,
                                   line * heads_kv * n_kv, 0)
            held.append(memory)
            tensors.append(t)
            values.append(x)
        inputs = {"q": (TYPE_F32, q.shape[::-1], q)}
        if mask is not None:
            inputs["mask"] = TYPE_F16, mask.shape[::-1], mask
        if with_sinks:
            inputs["sinks"] = TYPE_F32, sinks.shape, sinks

        def make(context, t):
            node = C.ggml_flash_attn_ext(context, t["q"], *tensors, t.get("mask"), d**-0.5, max_bias, cap)
            if with_sinks:
                C.ggml_flash_attn_ext_add_sinks(node, t["sinks"])
            return node

        call, node = PLUGIN.node(make, held, (n_seq, n_q, heads, d_v), **inputs)
        self.assertTrue(PLUGIN.takes(node))
        PLUGIN.set_threads(threads)
        y = call().swapaxes(1, 2)
        wanted = self.expected(q.astype(np.float64), *values, mask, d**-0.5, max_bias, cap, sinks)
        size = np.abs(values[1]).max()
        # bf16 keys are multiplied by queries rounded to bf16 (scores of about N(0, 1), up to 6, move by 2^-8 of the sum of
        # |q k|), and so are probabilities; the rest is f32
        rounded = "bf16" in (k_type, v_type)
        self.assertLess(np.abs(y - wanted).max(), size * (0.05 if rounded else 2e-5),
                        (k_type, v_type, d, d_v, n_q, n_kv, heads, heads_kv, n_seq, kind, max_bias, cap, with_sinks))

    def test_random(self):
        random = np.random.default_rng(SEED)
        choose = lambda *of: of[int(random.integers(0, len(of)))]  # noqa: E731
        for i in range(150):
            k_type, v_type = choose(*KV_TYPES), choose(*KV_TYPES)
            heads_kv = choose(1, 2, 3)
            n_kv = int(random.integers(1, 600))
            kind = choose(None, "causal", "window", "length", "random", "all")
            max_bias = choose(0.0, 0.0, 8.0) if kind else 0.0
            self.run_case(random, k_type, v_type, 32 * choose(1, 2, 4), 32 * choose(1, 2, 3),
                          min(n_kv, choose(1, 1, 2, 7, 16, 33, 100)), n_kv, heads_kv * choose(1, 2, 4), heads_kv,
                          choose(1, 1, 2, 3), kind, max_bias, choose(0.0, 0.0, 20.0), choose(False, False, True),
                          choose(False, True), choose(1, 2, 3))

    def test_any_head_size(self):
        random = np.random.default_rng(SEED)
        for d in (1, 5, 40, 80, 96, 112, 192, 256):
            for type in ("f32", "f16", "bf16"):
                self.run_case(random, type, type, d, d, 9, 70, 4, 2, 1, "causal")

    def test_declined(self):
        """Types that libattn does not pool."""
        memory = Memory(C)
        q = memory.tensor(TYPE_F32, 64, 4, 2)
        for k_type, v_type in ((6, 6), (TYPE_F16, 6), (3, 3)):  # q5_0, q4_1
            k, v = memory.tensor(k_type, 64, 8, 2), memory.tensor(v_type, 64, 8, 2)
            node = C.ggml_flash_attn_ext(memory.context, q, k, v, None, 0.125, 0, 0)
            self.assertFalse(PLUGIN.takes(node))

    def test_hidden_keys_may_hold_anything(self):
        random = np.random.default_rng(SEED)
        n_kv, seen = 96, 41
        for n_q in (1, 20):
            k = random.standard_normal((2, n_kv, 64), np.float32)
            k[:, seen:] = np.nan
            mask = np.full((n_q, n_kv), -np.inf, np.float16)
            mask[:, :seen] = 0
            for gap in (False, True):  # a pattern, and a mask that is none
                if gap:
                    mask[:, 3] = -np.inf
                    k[:, 3] = np.inf
                memory, t = PLUGIN.hold(TYPE_F32, (64, n_kv, 2))
                PLUGIN.set(t, k)
                q = random.standard_normal((2, n_q, 64), np.float32)
                call, _ = PLUGIN.node(
                    lambda c, n: C.ggml_flash_attn_ext(c, n["q"], t, t, n["mask"], 0.125, 0, 0), memory, (n_q, 2, 64),
                    q=(TYPE_F32, (64, n_q, 2), q), mask=(TYPE_F16, (n_kv, n_q), mask))
                self.assertTrue(np.isfinite(call()).all())


class Making(unittest.TestCase):
    """Attention is declined while a context is made (so that -fa auto stays on), and taken behind that."""

    def test_probe(self):
        memory = Memory(C)
        k = memory.tensor(TYPE_F16, 64, 256, 2)
        nodes = [C.ggml_flash_attn_ext(memory.context, memory.tensor(TYPE_F32, 64, n, 4), k, k, None, 0.125, 0, 0)
                 for n in (1, 512)]
        new = C.ggml_backend_dev_init(PLUGIN.device, None)
        self.assertFalse(PLUGIN.takes(nodes[0]))
        self.assertFalse(PLUGIN.takes(nodes[0]))  # of another layer
        self.assertTrue(PLUGIN.takes(nodes[1]))
        self.assertTrue(PLUGIN.takes(nodes[0]))
        C.ggml_backend_free(new)
        new = C.ggml_backend_dev_init(PLUGIN.device, None)
        self.assertFalse(PLUGIN.takes(nodes[1]))
        set_threads = PLUGIN._function(b"ggml_backend_set_n_threads", ctypes.CFUNCTYPE(None, POINTER, ctypes.c_int))
        set_threads(new, 2)
        self.assertTrue(PLUGIN.takes(nodes[1]))
        C.ggml_backend_free(new)


if __name__ == "__main__":
    unittest.main()
