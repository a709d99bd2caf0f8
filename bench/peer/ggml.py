"""ggml of the package llama-cpp-python, through its public functions: tensors, graphs of one node, backends."""

import ctypes
import glob
import importlib.util
import os

import numpy as np

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
    "ggml_view_4d": (POINTER, [POINTER] * 2 + [ctypes.c_int64] * 4 + [SIZE] * 4),
    "ggml_mul_mat": (POINTER, [POINTER] * 3),
    "ggml_flash_attn_ext": (POINTER, [POINTER] * 5 + [FLOAT] * 3),
    "ggml_flash_attn_ext_add_sinks": (None, [POINTER] * 2),
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
    "ggml_backend_tensor_get": (None, [POINTER, POINTER, SIZE, SIZE]),
    "ggml_backend_tensor_memset": (None, [POINTER, ctypes.c_uint8, SIZE, SIZE]),
    "ggml_backend_get_default_buffer_type": (POINTER, [POINTER]),
    "ggml_backend_get_device": (POINTER, [POINTER]),
    "ggml_backend_dev_buffer_type": (POINTER, [POINTER]),
    "ggml_backend_dev_init": (POINTER, [POINTER] * 2),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, [POINTER] * 2),
    "ggml_backend_free": (None, [POINTER]),
    "ggml_backend_reg_dev_get": (POINTER, [POINTER, SIZE]),
    "ggml_backend_reg_get_proc_address": (POINTER, [POINTER, ctypes.c_char_p]),
    "ggml_backend_graph_compute": (INT, [POINTER] * 2),
    "ggml_backend_load": (POINTER, [ctypes.c_char_p]),
    "ggml_backend_cpu_init": (POINTER, []),
    "ggml_backend_cpu_reg": (POINTER, []),
    "ggml_backend_cpu_set_n_threads": (None, [POINTER, INT]),
}


class Missing(Exception):
    """Why there is no ggml here."""


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


class Functions:
    """The functions above, each from the library that has it. The package's files of one library are copies: those
    whose names the libraries give each other are the ones that llama.cpp runs with."""

    def __init__(self):
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None:
            raise Missing("is not installed")
        folder = os.path.join(os.path.dirname(spec.origin), "lib")
        paths = [(glob.glob(os.path.join(folder, f"{name}.so.?")) or [os.path.join(folder, name + ".so")])[0]
                 for name in ("libggml-base", "libggml-cpu", "libggml")]
        try:
            libraries = [ctypes.CDLL(path, mode=os.RTLD_GLOBAL | os.RTLD_NOW) for path in paths]
            for name, (result, arguments) in FUNCTIONS.items():
                function = getattr(next((c for c in libraries if hasattr(c, name)), libraries[0]), name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)
        except (OSError, AttributeError) as error:
            raise Missing(f"cannot be used ({error})") from error
        self.ggml_log_set(ctypes.cast(SILENCE, POINTER), None)


class Backend:
    """The CPU backend, or that of a plugin; where its results lie, and where weights may lie: {name: buffer type}."""

    def __init__(self, c, plugin=None):
        self.c = c
        cpu = c.ggml_backend_cpu_init()
        self.plain = c.ggml_backend_get_default_buffer_type(cpu)
        if plugin:
            self.reg = c.ggml_backend_load(os.fsencode(plugin))
            if not self.reg:
                raise Missing(f"does not load {plugin}")
            self.device = c.ggml_backend_reg_dev_get(self.reg, 0)
            self.handle = c.ggml_backend_dev_init(self.device, None)
            self.weights = {"MUL_MAT": c.ggml_backend_dev_buffer_type(self.device)}
        else:
            self.reg, self.handle = c.ggml_backend_cpu_reg(), cpu
            self.device = c.ggml_backend_get_device(cpu)
            self.weights = {"MUL_MAT": self.plain} | self._repacking()

    def _function(self, name, kind):
        address = self.c.ggml_backend_reg_get_proc_address(self.reg, name)
        return kind(address) if address else None

    def _repacking(self):
        """The buffer types that lay weights out anew."""
        get = self._function(b"ggml_backend_dev_get_extra_bufts",
                             ctypes.CFUNCTYPE(ctypes.POINTER(POINTER), POINTER))
        types, found = get(self.device) if get else [None], {}
        for i in range(8):
            if not types[i]:
                break
            found[self.c.ggml_backend_buft_name(types[i]).decode()] = types[i]
        return found

    def set_threads(self, n):
        self._function(b"ggml_backend_set_n_threads", ctypes.CFUNCTYPE(None, POINTER, INT))(self.handle, n)

    def takes(self, node):
        return self.c.ggml_backend_dev_supports_op(self.device, node)

    def hold(self, type, shape, buft=None):
        """(memory, tensor) in a buffer of its own, or None where the buffer type cannot hold it."""
        memory = Memory(self.c)
        t = memory.tensor(type, *shape)
        if not memory.allocate(buft or self.plain):
            return None
        self.c.ggml_backend_buffer_set_usage(memory.buffer, USAGE_WEIGHTS)
        return memory, t

    def set(self, t, array):
        array = np.ascontiguousarray(array)
        self.c.ggml_backend_tensor_set(t, array.ctypes.data, 0, array.nbytes)

    def node(self, make, keep, shape, **inputs):
        """A callable that computes make(context, tensors) into f32 of a shape, and the node; inputs:
        (type, ne, array)."""
        c, memory = self.c, Memory(self.c)
        tensors = {name: memory.tensor(type, *ne) for name, (type, ne, _) in inputs.items()}
        node = make(memory.context, tensors)
        memory.allocate(self.plain)
        for name, (_, _, array) in inputs.items():
            self.set(tensors[name], array)
        graph = c.ggml_new_graph(memory.context)
        c.ggml_build_forward_expand(graph, node)
        out = (FLOAT * int(np.prod(shape))).from_address(c.ggml_get_data(node))

        def call(_keep=(keep, memory)):
            if c.ggml_backend_graph_compute(self.handle, graph) != SUCCESS:
                raise RuntimeError("ggml_backend_graph_compute fails")
            return np.frombuffer(out, np.float32).reshape(shape)

        return call, node
