"""llama.cpp's node operations: graphs of one node, on ggml's CPU backend or on a plugin of it."""

import numpy as np

from peer import Peer, Prepared
from peer.formats import FORMATS
from peer.ggml import TYPE_F16, TYPE_F32, Backend, Functions, Missing


class Ggml(Peer):
    name = "llama.cpp"
    install = "pip install llama-cpp-python"
    follows_isa = False  # it is compiled for one machine
    types = tuple(FORMATS)

    def __init__(self, plugin=None):
        self.plugin = plugin
        if plugin:
            self.name = "plugin"

    def missing(self):
        try:
            self.backend = Backend(Functions(), self.plugin)
        except Missing as why:
            return str(why)
        return None

    def version(self):
        return f"ggml {self.backend.c.ggml_version().decode()}"

    def set_threads(self, n):
        self.backend.set_threads(n)

    def prepare(self, case):
        if case.row.kind == "linear":
            return self._linear(case)
        return {"FLASH_ATTN_EXT": self._flash_attention(case)} if case.row.is_sdpa else {}

    def _linear(self, case):
        row, backend, ways = case.row, self.backend, {}

        def call(w, buft):
            held = backend.hold(row.form.ggml, (row.d, row.p), buft)
            if not held:
                return None
            memory, weights = held
            made, node = backend.node(lambda context, t: backend.c.ggml_mul_mat(context, weights, t["x"]), memory,
                                      (row.n_q, row.p), x=(TYPE_F32, (row.d, row.n_q), case.x))
            if not backend.takes(node):  # setting such weights would crash
                return None
            backend.set(weights, w)
            return made

        for name, buft in backend.weights.items():
            calls = [call(case.w[0], buft)]
            if calls[0]:
                calls += [call(w, buft) for w in case.w[1:]]
                ways[name] = Prepared(calls, lambda y: y.copy())
        return ways

    def _held(self, array, columns):
        """Keys or values [head, row, column] as a tensor, of [row, head, column] memory where they are that."""
        row, backend = self.case_row, self.backend
        heads, rows = array.shape[:2]
        memory_array = array.transpose(1, 0, 2) if row.key_major else array
        outer, inner = memory_array.shape[:2]
        memory, t = backend.hold(row.form.ggml, (columns, inner, outer))
        backend.set(t, memory_array)
        if not row.key_major:
            return memory, t
        line = row.form.row(columns)
        return memory, backend.c.ggml_view_4d(memory.context, t, columns, rows, heads, 1, line * heads, line,
                                              line * heads * rows, 0)

    def _flash_attention(self, case):
        row, backend = case.row, self.backend
        self.case_row = row
        inputs = {"q": (TYPE_F32, (row.d, row.n_q, row.n_head), np.ascontiguousarray(case.q))}
        if row.causal:
            hidden = np.triu(np.full((row.n_q, row.n_kv), -np.inf, np.float16), 1)
            inputs["mask"] = TYPE_F16, hidden.shape[::-1], hidden

        def call(k, v):
            held = self._held(k, row.d), self._held(v, row.p)
            return backend.node(lambda context, t: backend.c.ggml_flash_attn_ext(
                context, t["q"], held[0][1], held[1][1], t.get("mask"), row.d**-0.5, 0, 0),
                held, (row.n_q, row.n_head, row.p), **inputs)[0]

        return Prepared([call(k, v) for k, v in zip(case.k, case.v)], lambda y: y.transpose(1, 0, 2).copy())
