"""OpenBLAS, BLIS and MKL: cblas_sgemm, each from its own library, for projections."""

import ctypes
import glob
import importlib.util
import os
import sys

import numpy as np

from peer import Peer, Prepared

ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, MATRIX_B, PACKED = 101, 111, 112, 162, 151
INT, FLOAT, POINTER = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
SHAPE = [INT] * 3  # m, n, k


def load(path):
    """A library of its own: nothing of another BLAS in the process is mixed in."""
    return ctypes.CDLL(path, mode=os.RTLD_LOCAL | os.RTLD_NOW)


def library_paths(pattern):
    """Files of a name below Debian's library folder, last version first."""
    return sorted(glob.glob(f"/usr/lib/*-linux-gnu/{pattern}"), reverse=True)


def sgemm(function, case):
    """y = x W^T with W as it is stored."""
    row = case.row
    function.argtypes = [INT] * 3 + SHAPE + [FLOAT, POINTER, INT, POINTER, INT, FLOAT, POINTER, INT]
    function.restype = None
    out = np.zeros((row.n_q, row.p), np.float32)

    def bind(w):
        arguments = (ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, row.n_q, row.p, row.d, 1, case.x.ctypes.data, row.d,
                     w.ctypes.data, row.d, 0, out.ctypes.data, row.p)
        return lambda: function(*arguments)

    return Prepared([bind(w) for w in case.w], lambda _: out.copy())


class Blas(Peer):
    """A BLAS library that missing() loads."""

    library = None

    def prepare(self, case):
        return {"": sgemm(self.library.cblas_sgemm, case)} if case.row.kind == "linear" else {}


class OpenBlas(Peer):
    """Debian's and PyPI's OpenBLAS; the better of the two counts."""

    name = "OpenBLAS"
    install = "apt-get install libopenblas0-pthread, or pip install scipy-openblas32"

    def __init__(self):
        self.libraries = {}  # version: (library, prefix of its symbols)

    def missing(self):
        places = [(path, "") for path in library_paths("openblas-pthread/libopenblas.so.0")[:1]]
        spec = importlib.util.find_spec("scipy_openblas32")
        if spec:
            folder = os.path.join(os.path.dirname(spec.origin), "lib")
            places.append((os.path.join(folder, "libscipy_openblas.so"), "scipy_"))
        for path, prefix in places:
            library = load(path)
            config = getattr(library, prefix + "openblas_get_config")
            config.restype = ctypes.c_char_p
            self.libraries[config().decode().split()[1]] = library, prefix
        return None if self.libraries else "is not installed"

    def version(self):
        names = []
        for version, (library, prefix) in self.libraries.items():
            core = getattr(library, prefix + "openblas_get_corename")
            core.restype = ctypes.c_char_p
            names.append(f"{version} ({core().decode()})")
        return ", ".join(names)

    def set_threads(self, n):
        for library, prefix in self.libraries.values():
            getattr(library, prefix + "openblas_set_num_threads")(n)

    def prepare(self, case):
        if case.row.kind != "linear":
            return {}
        return {version: sgemm(getattr(library, prefix + "cblas_sgemm"), case)
                for version, (library, prefix) in self.libraries.items()}


class Blis(Blas):
    name = "BLIS"
    install = "apt-get install libblis4-pthread"

    def __init__(self, isa):
        self.isa = isa

    def missing(self):
        paths = library_paths("blis-pthread/libblis.so.4")
        if not paths:
            return "is not installed"
        self.library = load(paths[0])
        self.library.bli_arch_string.restype = ctypes.c_char_p
        self._choose()
        self.library.bli_init()
        return None

    def _choose(self):
        """
        BLIS 0.9 runs its generic C kernels on a processor that it does not know: name the best set then.
        The choice is made once for a process, so a child asks what it would be.
        """
        child = os.fork()
        if child == 0:
            os._exit(self.library.bli_arch_query_id())
        own = self.library.bli_arch_string(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if own != b"generic" and self.isa != "avx2":
            return
        with open("/proc/cpuinfo") as file:
            flags = set(next((line for line in file if line.startswith("flags")), "").split())
        wide = "avx512f" in flags and self.isa != "avx2"
        wanted = b"skx" if wide else b"haswell" if "avx2" in flags else own
        names = [self.library.bli_arch_string(i) for i in range(16)]
        if wanted in names:
            os.environ["BLIS_ARCH_TYPE"] = str(names.index(wanted))

    def version(self):
        self.library.bli_info_get_version_str.restype = ctypes.c_char_p
        kernels = self.library.bli_arch_string(self.library.bli_arch_query_id())
        return f"{self.library.bli_info_get_version_str().decode()} ({kernels.decode()})"

    def set_threads(self, n):
        self.library.bli_thread_set_num_threads(ctypes.c_long(n))


class Mkl(Blas):
    name = "MKL"
    install = "pip install mkl"

    def missing(self):
        paths = sorted(glob.glob(os.path.join(sys.prefix, "lib", "libmkl_rt.so.*")))
        if not paths:
            return "is not installed"
        # With MKL's own OpenMP beside torch's in one process, calls of one reach the other. Both use GNU's
        # then: torch's if it is here, else the system's.
        if importlib.util.find_spec("torch"):
            import torch  # noqa: F401
        try:
            ctypes.CDLL("libgomp.so.1", mode=os.RTLD_GLOBAL)
        except OSError:
            return "needs libgomp.so.1 (apt-get install libgomp1)"
        os.environ["MKL_THREADING_LAYER"] = "GNU"
        self.library = load(paths[-1])
        return None

    def version(self):
        text = ctypes.create_string_buffer(200)
        self.library.MKL_Get_Version_String(text, len(text))
        words = text.value.decode().replace("-Product", "").split()
        return next((word for word in words if word[0].isdigit()), "?")

    def set_threads(self, n):
        self.library.MKL_Set_Num_Threads(n)

    def prepare(self, case):
        if case.row.kind != "linear":
            return {}
        return super().prepare(case) | {"packed": self._packed(case)}

    def _packed(self, case):
        """W packed ahead of time."""
        row, c = case.row, self.library
        c.cblas_sgemm_pack_get_size.argtypes = [INT] + SHAPE
        c.cblas_sgemm_pack_get_size.restype = ctypes.c_size_t
        c.cblas_sgemm_pack.argtypes = [INT] * 3 + SHAPE + [FLOAT, POINTER, INT, POINTER]
        c.cblas_sgemm_pack.restype = None
        c.cblas_sgemm_compute.argtypes = [INT] * 3 + SHAPE + [POINTER, INT, POINTER, INT, FLOAT, POINTER, INT]
        c.cblas_sgemm_compute.restype = None
        shape = (row.n_q, row.p, row.d)
        out = np.zeros((row.n_q, row.p), np.float32)

        def bind(w):
            memory = np.empty(c.cblas_sgemm_pack_get_size(MATRIX_B, *shape) + 64, np.uint8)
            start = memory.ctypes.data + -memory.ctypes.data % 64
            c.cblas_sgemm_pack(ROW_MAJOR, MATRIX_B, TRANSPOSE, *shape, 1, w.ctypes.data, row.d, start)
            arguments = (ROW_MAJOR, NO_TRANSPOSE, PACKED, *shape, case.x.ctypes.data, row.d, start, row.d, 0,
                         out.ctypes.data, row.p)
            return lambda _keep=memory: c.cblas_sgemm_compute(*arguments)

        return Prepared([bind(w) for w in case.w], lambda _: out.copy())
