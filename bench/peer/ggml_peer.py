"""llama.cpp's node operations: graphs of one node on ggml's CPU backend, of the package llama-cpp-python."""

import ctypes
import importlib.util
import os

import numpy as np

from peer import Peer, Prepared
from peer.formats import FORMATS

SIZE, INT, FLOAT, POINTER = ctypes.c_size_t, ctypes.c_int, ctypes.c_float, ctypes.c_void_p
TYPE_F32, TYPE_F16, USAGE_WEIGHTS, SUCCESS = 0, 1, 1, 0
CONTEXT_BYTES = 1 << 20  # of the descriptions of some tensors and a graph
SILENCE = ctypes.CFUNCTYPE(None, INT, ctypes.c_char_p, POINTER)(lambda level, text, data: None)


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", SIZE), ("mem_buffer", POINTER), ("no_alloc", ctypes.c_bool)]


FUNCTIONS = {  # result, arguments
    "ggml_init": (POINTER, [InitParams]),
    "ggml_free": (None, [POINTER]),
    "ggml_new_tensor": (POINTER, [POINTER, INT, INT, POINTER]),
    "ggml_mul_mat": (POINTER, [POINTER] * 3),
    "ggml_flash_attn_ext": (POINTER, [POINTER] * 5 + [FLOAT] * 3),
    "ggml_new_graph": (POINTER, [POINTER]),
    "ggml_build_forward_expand": (None, [POINTER] * 2),
    "ggml_get_data": (POINTER, [POINTER]),
    "ggml_log_set": (None, [POINTER] * 2),
    "ggml_version": (ctypes.c_char_p, []),
    "ggml_backend_alloc_ctx_tensors_from_buft": (POINTER, [POINTER] * 2),
    "ggml_backend_buffer_set_usage": (None, [POINTER, INT]),
    "ggml_backend_buffer_free": (None, [POINTER]),
    "ggml_backend_buft_name": (ctypes.c_char_p, [POINTER]),
    "ggml_backend_tensor_set": (None, [POINTER, POINTER, SIZE, SIZE]),
    "ggml_backend_get_default_buffer_type": (POINTER, [POINTER]),
    "ggml_backend_get_device": (POINTER, [POINTER]),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, [POINTER] * 2),
    "ggml_backend_reg_get_proc_address": (POINTER, [POINTER, ctypes.c_char_p]),
    "ggml_backend_graph_compute": (INT, [POINTER] * 2),
}
CPU_FUNCTIONS = {
    "ggml_backend_cpu_init": (POINTER, []),
    "ggml_backend_cpu_reg": (POINTER, []),
    "ggml_backend_cpu_set_n_threads": (None, [POINTER, INT]),
}


class Memory:
    """A ggml context and the buffer of its tensors."""

    def __init__(self, c):
        self.c, self.buffer = c, None
        self.context = c.ggml_init(InitParams(CONTEXT_BYTES, None, True))

    def tensor(self, type, *ne):
        return self.c.ggml_new_tensor(self.context, type, len(ne), (ctypes.c_int64 * len(ne))(*ne))

    def allocate(self, buft):
        self.buffer = self.c.ggml_backend_alloc_ctx_tensors_from_buft(self.context, buft)
        return self.buffer is not None

    def __del__(self):
        if self.buffer:
            self.c.ggml_backend_buffer_free(self.buffer)
        self.c.ggml_free(self.context)


class Ggml(Peer):
    name = "llama.cpp"
    install = "pip install llama-cpp-python"
    follows_isa = False  # it is compiled for one machine
    types = tuple(FORMATS)

    def missing(self):
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None:
            return "is not installed"
        folder = os.path.join(os.path.dirname(spec.origin), "lib")
        try:
            self.c, cpu = (ctypes.CDLL(os.path.join(folder, name), mode=os.RTLD_GLOBAL | os.RTLD_NOW)
                           for name in ("libggml-base.so", "libggml-cpu.so"))
            for library, functions in (self.c, FUNCTIONS), (cpu, CPU_FUNCTIONS):
                for name, (result, arguments) in functions.items():
                    function = getattr(library, name)
                    function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            return f"cannot be used ({error})"
        self.cpu = cpu
        self.c.ggml_log_set(ctypes.cast(SILENCE, POINTER), None)
        self.backend = cpu.ggml_backend_cpu_init()
        self.device = self.c.ggml_backend_get_device(self.backend)
        self.plain = self.c.ggml_backend_get_default_buffer_type(self.backend)
        return None

    def version(self):
        return f"ggml {self.c.ggml_version().decode()}"

    def set_threads(self, n):
        self.cpu.ggml_backend_cpu_set_n_threads(self.backend, n)

    def prepare(self, case):
        if case.row.kind == "linear":
            return self._linear(case)
        return {"FLASH_ATTN_EXT": self._flash_attention(case)} if self._takes(case.row) else {}

    def _takes(self, row):
        return row.is_sdpa and not row.key_major

    def _repacking(self):
        """The buffer types that lay weights out anew: {name: address}."""
        get = self.c.ggml_backend_reg_get_proc_address(self.cpu.ggml_backend_cpu_reg(),
                                                       b"ggml_backend_dev_get_extra_bufts")
        if not get:
            return {}
        types = ctypes.CFUNCTYPE(ctypes.POINTER(POINTER), POINTER)(get)(self.device)
        found = {}
        for i in range(8):
            if not types[i]:
                break
            found[self.c.ggml_backend_buft_name(types[i]).decode()] = types[i]
        return found

    def _held(self, type, shape, buft):
        """(memory, tensor) in a buffer of its own, or None where the buffer type cannot hold it."""
        memory = Memory(self.c)
        t = memory.tensor(type, *shape)
        if not memory.allocate(buft):
            return None
        self.c.ggml_backend_buffer_set_usage(memory.buffer, USAGE_WEIGHTS)
        return memory, t

    def _set(self, t, array):
        array = np.ascontiguousarray(array)
        self.c.ggml_backend_tensor_set(t, array.ctypes.data, 0, array.nbytes)

    def _node(self, make, keep, shape, **inputs):
        """A callable that computes make(context, tensors) into f32 of a shape; inputs: (type, ne, array)."""
        c, memory = self.c, Memory(self.c)
        tensors = {name: memory.tensor(type, *ne) for name, (type, ne, _) in inputs.items()}
        node = make(memory.context, tensors)
        memory.allocate(self.plain)
        for name, (_, _, array) in inputs.items():
            self._set(tensors[name], array)
        graph = c.ggml_new_graph(memory.context)
        c.ggml_build_forward_expand(graph, node)
        out = (FLOAT * int(np.prod(shape))).from_address(c.ggml_get_data(node))

        def call(_keep=(keep, memory)):
            if c.ggml_backend_graph_compute(self.backend, graph) != SUCCESS:
                raise RuntimeError("ggml_backend_graph_compute fails")
            return np.frombuffer(out, np.float32).reshape(shape)

        return call

    def _linear(self, case):
        row, ways = case.row, {}
        x = TYPE_F32, (row.d, row.n_q), case.x

        def call(w, buft):
            held = self._held(row.form.ggml, (row.d, row.p), buft)
            if not held:
                return None
            memory, weights = held
            taken = []

            def make(context, tensors):
                node = self.c.ggml_mul_mat(context, weights, tensors["x"])
                taken.append(self.c.ggml_backend_dev_supports_op(self.device, node))
                return node

            made = self._node(make, memory, (row.n_q, row.p), x=x)
            if not taken[0]:  # setting such weights would crash
                return None
            self._set(weights, w)
            return made

        for name, buft in ({"MUL_MAT": self.plain} | self._repacking()).items():
            calls = [call(case.w[0], buft)]
            if calls[0]:
                calls += [call(w, buft) for w in case.w[1:]]
                ways[name] = Prepared(calls, lambda y: y.copy())
        return ways

    def _flash_attention(self, case):
        row, c = case.row, self.c
        inputs = {"q": (TYPE_F32, (row.d, row.n_q, row.n_head), np.ascontiguousarray(case.q))}
        if row.causal:
            hidden = np.triu(np.full((row.n_q, row.n_kv), -np.inf, np.float16), 1)
            inputs["mask"] = TYPE_F16, hidden.shape[::-1], hidden

        def call(k, v):
            held = [self._held(row.form.ggml, (columns, row.n_kv, row.n_head_kv), self.plain)
                    for columns in (row.d, row.p)]
            for (_, t), array in zip(held, (k, v)):
                self._set(t, array)
            return self._node(lambda context, t: c.ggml_flash_attn_ext(
                context, t["q"], held[0][1], held[1][1], t.get("mask"), row.d**-0.5, 0, 0),
                held, (row.n_q, row.n_head, row.p), **inputs)

        return Prepared([call(k, v) for k, v in zip(case.k, case.v)], lambda y: y.transpose(1, 0, 2).copy())
