"""libattn itself, through ctypes: what the rows need of include/attn/attn.h."""

import ctypes
import os
import re
import subprocess

import benchlib
from peer import Peer, Prepared
from peer.formats import FORMATS

SIZE, POINTER = ctypes.c_size_t, ctypes.c_void_p
CAUSAL_TOP_LEFT = 1


class Tensor(ctypes.Structure):
    _fields_ = [("data", POINTER), ("dtype", ctypes.c_int), ("size", SIZE * 4),
                ("stride", ctypes.c_ssize_t * 4)]


class Options(ctypes.Structure):
    _fields_ = [("size", SIZE), ("backend", ctypes.c_char_p), ("n_threads", SIZE), ("executor", POINTER),
                ("scratch", POINTER), ("scratch_bytes", SIZE), ("error", ctypes.c_char_p),
                ("error_bytes", SIZE)]


class Scoring(ctypes.Structure):
    _fields_ = [("size", SIZE), ("scale", ctypes.c_float), ("causal", ctypes.c_int), ("q_lengths", POINTER),
                ("kv_lengths", POINTER), ("mask", POINTER)]


class SdpaArgs(ctypes.Structure):
    _fields_ = [("size", SIZE)] + [(name, POINTER) for name in "q k v out scoring lse weights".split()]


class AdditiveArgs(ctypes.Structure):
    _fields_ = [("size", SIZE)] + [(name, POINTER) for name in
                                   "q k v a_q a_k w out scoring lse weights".split()]


class Weights(ctypes.Structure):
    _fields_ = [("size", SIZE), ("n_head", SIZE), ("n_head_kv", SIZE), ("w_q", POINTER), ("w_k", POINTER),
                ("w_v", POINTER), ("w_o", POINTER), ("pooling", ctypes.c_int), ("a_q", POINTER),
                ("a_k", POINTER), ("w_a", POINTER)]


class HeadArgs(ctypes.Structure):
    _fields_ = [("size", SIZE), ("weights", POINTER), ("head", SIZE)] + [
        (name, POINTER) for name in "q k v out scoring lse attention".split()]


def build(folder):
    """Builds the shared library in a build folder, which is made if missing; returns its path."""
    if not os.path.exists(os.path.join(folder, "build.ninja")):
        benchlib.run(["meson", "setup", "-Dtests=disabled", "-Dtools=disabled", folder, benchlib.ROOT])
    targets = subprocess.run(["ninja", "-C", folder, "-t", "targets", "all"], capture_output=True, text=True)
    found = re.search(r"^(src/libattn\.so[.\d]*): c_LINKER", targets.stdout, re.MULTILINE)
    if not found:
        raise benchlib.Problem(f"{folder} does not build libattn.so: remove it, or choose another --build")
    benchlib.run(["ninja", "-C", folder, found[1]])
    return os.path.join(folder, found[1])


class Library:
    """The loaded library; its functions raise benchlib.Problem with the library's own text."""

    def __init__(self, path):
        try:
            self.c = ctypes.CDLL(os.path.abspath(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
        except OSError as error:
            raise benchlib.Problem(f"cannot load the library to measure: {error}") from error
        for name in ("attn_version", "attn_context_error"):
            getattr(self.c, name).restype = ctypes.c_char_p
        self.c.attn_context_error.argtypes = [POINTER]
        self.c.attn_context_destroy.argtypes = [POINTER]
        self.c.attn_context_destroy.restype = None
        self.c.attn_backend_list.restype = SIZE
        self.c.attn_backend_list.argtypes = [POINTER, POINTER, SIZE]
        self.c.attn_pack_linear.argtypes = [POINTER, POINTER, POINTER, POINTER, SIZE, POINTER]
        for name in "pack_linear_bytes sdpa_scratch head_scratch multihead_scratch additive_scratch".split():
            getattr(self.c, "attn_" + name).argtypes = [POINTER] * 3
        self.c.attn_linear.argtypes = [POINTER] * 4
        for name in "sdpa additive head multihead".split():
            getattr(self.c, "attn_" + name).argtypes = [POINTER] * 2

    def backends(self):
        """Names of the SIMD backends that this machine can run, best first."""
        n = self.c.attn_backend_list(None, None, 0)
        names, runnable = (ctypes.c_char_p * n)(), (ctypes.c_int * n)()
        self.c.attn_backend_list(names, runnable, n)
        return [name.decode() for name, can in zip(names, runnable) if can and name != b"scalar"]

    def version(self):
        return self.c.attn_version().decode()


def tensor(array, type="f32"):
    """[head, row, column], [row, column] or [column] as an attn_tensor; the array must outlive it."""
    form = FORMATS[type]
    columns = array.shape[-1] * array.itemsize // form.bytes * form.block
    shape = (1,) * (4 - array.ndim) + array.shape[:-1] + (columns,)
    strides = (array.nbytes,) * (4 - array.ndim) + array.strides[:-1] + (form.bytes,)
    return Tensor(array.ctypes.data, form.code, (SIZE * 4)(*shape), (ctypes.c_ssize_t * 4)(*strides))


class Ours(Peer):
    """A backend of the library. `keep` holds what the C structs of a row point to, until the next row."""

    types = tuple(FORMATS)

    def __init__(self, library, backend):
        self.library, self.backend, self.name = library, backend, backend
        self.context = POINTER()

    def missing(self):
        return None

    def version(self):
        return f"{self.library.version()} {self.backend}"

    def set_threads(self, n):
        self.close()
        error = ctypes.create_string_buffer(200)
        options = Options(ctypes.sizeof(Options), self.backend.encode(), n, None, None, 0,
                          ctypes.cast(error, ctypes.c_char_p), len(error))
        if self.library.c.attn_context_create(ctypes.byref(options), ctypes.byref(self.context)) != 0:
            raise benchlib.Problem(f"backend {self.backend}: {error.value.decode()}")

    def close(self):
        self.library.c.attn_context_destroy(self.context)
        self.context = POINTER()

    def prepare(self, case):
        kind = "sdpa" if case.row.is_sdpa else case.row.kind
        calls, out = getattr(self, "_" + kind)(case)
        return {"": Prepared(calls, lambda _: out.copy())}

    def _check(self, status):
        if status != 0:
            raise benchlib.Problem(self.library.c.attn_context_error(self.context).decode())

    def _call(self, name, keep, *arguments):
        """A callable that runs a function of the library with prepared arguments. Checks a first run."""
        function = getattr(self.library.c, "attn_" + name)
        context, check = self.context, self._check

        def call(_keep=keep):
            status = function(context, *arguments)
            if status != 0:
                check(status)

        return call

    def _pack(self, matrix, type="f32"):
        """(address of the packed matrix, what keeps it in memory)"""
        import numpy as np
        w, size = tensor(matrix, type), SIZE()
        self._check(self.library.c.attn_pack_linear_bytes(self.context, ctypes.byref(w), ctypes.byref(size)))
        memory = np.empty(size.value + 64, np.uint8)
        start = memory.ctypes.data + -memory.ctypes.data % 64
        packed = POINTER()
        self._check(self.library.c.attn_pack_linear(self.context, ctypes.byref(w), None, start, size.value,
                                                    ctypes.byref(packed)))
        return packed.value, memory

    def _linear(self, case):
        import numpy as np
        out = np.zeros((case.row.n_q, case.row.p), np.float32)
        x, y = tensor(case.x), tensor(out)
        calls = []
        for w in case.w:
            packed, memory = self._pack(w, case.row.type)
            calls.append(self._call("linear", (x, y, memory, case, out), ctypes.addressof(x), packed,
                                    ctypes.addressof(y)))
        return calls, out

    def _sdpa(self, case):
        import numpy as np
        row = case.row
        if row.key_major:
            out = np.zeros((row.n_q, row.n_head, row.p), np.float32).transpose(1, 0, 2)
        else:
            out = np.zeros((row.n_head, row.n_q, row.p), np.float32)
        scoring = Scoring(size=ctypes.sizeof(Scoring), causal=CAUSAL_TOP_LEFT if row.causal else 0)
        calls = [self._pool("sdpa", SdpaArgs, case, out, scoring, q=case.q, k=k, v=v)
                 for k, v in zip(case.k, case.v)]
        return calls, out

    def _additive(self, case):
        import numpy as np
        out = np.zeros((case.row.n_q, case.row.p), np.float32)
        scoring = Scoring(size=ctypes.sizeof(Scoring))
        return [self._pool("additive", AdditiveArgs, case, out, scoring, q=case.q, k=case.k[0], v=case.v[0],
                           w=case.w_a)], out

    def _pool(self, name, struct, case, out, scoring, **arrays):
        types = dict.fromkeys("kv", case.row.type)
        tensors = {key: tensor(array, types.get(key, "f32")) for key, array in dict(arrays, out=out).items()}
        args = struct(size=ctypes.sizeof(struct), scoring=ctypes.addressof(scoring),
                      **{key: ctypes.addressof(value) for key, value in tensors.items()})
        return self._call(name, (tensors, scoring, args, case, out), ctypes.addressof(args))

    def _head(self, case):
        import numpy as np
        row = case.row
        out = np.zeros((row.n_q, row.d if row.kind == "multihead" else row.p), np.float32)
        packs = {name: self._pack(getattr(case, name)) for name in ("w_q", "w_k", "w_v", "w_o")}
        weights = Weights(size=ctypes.sizeof(Weights), n_head=row.n_head, n_head_kv=row.n_head_kv,
                          **{name: address for name, (address, _) in packs.items()})
        x, y = tensor(case.x), tensor(out)
        x_at = ctypes.addressof(x)
        args = HeadArgs(size=ctypes.sizeof(HeadArgs), weights=ctypes.addressof(weights), q=x_at, k=x_at,
                        v=x_at, out=ctypes.addressof(y))
        return [self._call(row.kind, (packs, weights, x, y, args, case, out), ctypes.addressof(args))], out

    _multihead = _head
