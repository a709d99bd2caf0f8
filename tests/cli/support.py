"""What the tests of the command share: running it, files made by hand, attention in plain Python.

Plain Python 3 without packages, so that the tests run wherever the command is built.
"""

import json
import math
import os
import random
import resource
import shutil
import struct
import subprocess
import tempfile
import unittest
import zlib

EXE = os.environ["ATTN_EXE"]
MINILM = os.environ["ATTN_MINILM"]
SANITIZED = os.environ.get("ATTN_SANITIZED") == "1"
FORMATS = {"F32": ("f", 4), "F16": ("e", 2), "F64": ("d", 8)}


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def shape_of(array):
    shape = []
    while isinstance(array, list):
        shape.append(len(array))
        array = array[0] if array else 0
    return shape


def flatten(array):
    return [x for row in array for x in flatten(row)] if isinstance(array, list) else [array]


def pack(array, dtype="F32"):
    """Little-endian bytes; bf16 is the upper half of an f32 that fits it."""
    values = flatten(array)
    if dtype == "BF16":
        return b"".join(struct.pack("<f", x)[2:] for x in values)
    return struct.pack(f"<{len(values)}{FORMATS[dtype][0]}", *values)


def npy_bytes(array, dtype="F32", descr=None, fortran=False, shape=None, version=1, data=None):
    shape = shape_of(array) if shape is None else shape
    descr = descr or {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]
    text = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {tuple(shape)}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    data = pack(array, dtype) if data is None else data
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + data


def safetensors_bytes(tensors):
    """From a dict of name: (dtype, nested list)."""
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        raw = pack(array, dtype)
        header[name] = {
            "dtype": dtype,
            "shape": shape_of(array),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    return frame(header, data)


def frame(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def read_npy(path):
    """(shape, flat list) of an f32 file that the command wrote."""
    with open(path, "rb") as file:
        blob = file.read()
    assert blob[:8] == b"\x93NUMPY\x01\x00", blob[:8]
    length = struct.unpack_from("<H", blob, 8)[0]
    assert (10 + length) % 64 == 0 and blob[10 + length - 1 : 10 + length] == b"\n"
    header = eval(blob[10 : 10 + length])  # as numpy.load does: a dict literal
    assert header["descr"] == "<f4" and header["fortran_order"] is False, header
    count = math.prod(header["shape"])
    return list(header["shape"]), list(struct.unpack(f"<{count}f", blob[10 + length :]))


def read_png(path):
    """(width, height, function that gives the (r, g, b) of a pixel) of an 8-bit RGB picture."""
    with open(path, "rb") as file:
        blob = file.read()
    assert blob[:8] == b"\x89PNG\r\n\x1a\n"
    at, data = 8, b""
    while at < len(blob):
        length, kind = struct.unpack_from(">I4s", blob, at)
        body = blob[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", blob, at + 8 + length)[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
            assert (depth, colour, interlace) == (8, 2, 0)
        data += body if kind == b"IDAT" else b""
        at += 12 + length
    raw, stride = zlib.decompress(data), 3 * width
    rows, above = [], bytes(stride)
    for y in range(height):
        method = raw[y * (stride + 1)]
        row = bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for i in range(stride):
            a, b, c = row[i - 3] if i >= 3 else 0, above[i], above[i - 3] if i >= 3 else 0
            if method == 1:
                row[i] = (row[i] + a) & 255
            elif method == 2:
                row[i] = (row[i] + b) & 255
            elif method == 3:
                row[i] = (row[i] + (a + b) // 2) & 255
            elif method == 4:
                p = a + b - c
                nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
                row[i] = (row[i] + nearest) & 255
        rows.append(row)
        above = row
    return width, height, lambda x, y: tuple(rows[y][3 * x : 3 * x + 3])


# ---- Attention in plain Python --------------------------------------------------------------------------


def linear(x, w, bias=None):
    return [
        [sum(a * b for a, b in zip(row, r)) + (bias[o] if bias else 0) for o, r in enumerate(w)] for row in x
    ]


def softmax_pool(scores, v):
    """The pooled row; scores of hidden keys are None."""
    seen = [j for j, s in enumerate(scores) if s is not None]
    if not seen:
        return [0.0] * len(v[0])
    top = max(scores[j] for j in seen)
    w = {j: math.exp(scores[j] - top) for j in seen}
    total = math.fsum(w.values())
    return [math.fsum(w[j] * v[j][c] for j in seen) / total for c in range(len(v[0]))]


def attend(q, k, v, score, limit=None):
    """limit(i): how many keys row i sees."""
    return [
        softmax_pool([score(a, b) if limit is None or j < limit(i) else None for j, b in enumerate(k)], v)
        for i, a in enumerate(q)
    ]


def dot_score(scale):
    return lambda a, b: scale * sum(x * y for x, y in zip(a, b))


def additive_score(w):
    return lambda a, b: sum(c * math.tanh(x + y) for c, x, y in zip(w, a, b))


def rows_of(matrix, i, p):
    return matrix[i * p : (i + 1) * p]


# ---- Running the command --------------------------------------------------------------------------------


class CliTest(unittest.TestCase):
    """Gives each test a directory of its own and a way to run the command."""

    memory_limit = None  # bytes of address space, or None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="attn-cli-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.random = random.Random(20)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, blob):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb" if isinstance(blob, bytes) else "w") as file:
            file.write(blob)
        return path

    def matrix(self, rows, columns, spread=1.0):
        return [[f32(self.random.gauss(0, spread)) for _ in range(columns)] for _ in range(rows)]

    def run_attn(self, *args, env=None):
        limit = None if SANITIZED else self.memory_limit  # sanitizers reserve terabytes

        def restrict():
            if limit:
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        return subprocess.run(
            [EXE, *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=dict(os.environ, **(env or {})),
            preexec_fn=restrict,
        )

    def good(self, *args, env=None):
        """Output of a call that must succeed."""
        done = self.run_attn(*args, env=env)
        self.assertEqual(done.returncode, 0, f"{args}\n{done.stdout}{done.stderr}")
        return done.stdout

    def bad(self, *args, says, env=None):
        """A call that must end with code 2 and one clear line that holds each text of `says`."""
        done = self.run_attn(*args, env=env)
        self.assertEqual(done.returncode, 2, f"{args}\n{done.stdout}{done.stderr}")
        self.assertRegex(done.stderr, r"\Aattn: [ -~]*\n\Z")
        for text in [says] if isinstance(says, str) else says:
            self.assertIn(text, done.stderr)

    def assert_close(self, got, want, bound=2e-5):
        """Relative to the largest magnitude: wide for f32, narrow for any mistake in the mathematics."""
        want = flatten(want)
        self.assertEqual(len(got), len(want))
        size = max(1.0, max(map(abs, want)))
        for i, (a, b) in enumerate(zip(got, want)):
            self.assertLessEqual(abs(a - b), bound * size, f"element {i}: {a} is not {b}")
