"""Bad input: exit code 2 and one clear line; hostile headers are refused without taking memory for them."""

import json
import os
import random
import struct
import unittest

from support import MINILM, CliTest, frame, npy_bytes, safetensors_bytes

LAYER = os.path.join(MINILM, "layer0.safetensors")
INPUT = os.path.join(MINILM, "input.npy")
REAL = ["-w", LAYER, "-q", INPUT]
QKV = ["layer.0.attention.self." + m for m in ("query", "key", "value")]


class Options(CliTest):
    def test_commands(self):
        self.bad("haed", says=["no command 'haed'", "attn --help"])
        self.bad("head", "--chekc", says=["--chekc", "attn head --help"])
        self.bad("head", "stray", says="stray argument 'stray'")
        self.bad("info", "stray", says="stray argument")
        self.bad("head", "-w", says="-w")
        self.assertEqual(self.run_attn().returncode, 2)

    def test_what_is_needed(self):
        self.bad("head", says="nothing to do")
        self.bad("head", "--check", says="--weights")
        self.bad("head", "--check", "-w", LAYER, says="--q")
        self.bad("head", *REAL, says="nothing to do")

    def test_numbers(self):
        for option, value in (
            ("--heads", "0"),
            ("--heads", "x"),
            ("--heads", "-1"),
            ("--heads", "1e3"),
            ("--heads", "99999999999999999999"),
            ("--kv-heads", "0"),
            ("--layer", "-1"),
            ("--head", "12"),
            ("--head", "-1"),
            ("--head", ""),
            ("--threads", "0"),
            ("--threads", "many"),
            ("--scale", "nan"),
            ("--scale", "0"),
            ("--scale", "1x"),
        ):
            with self.subTest(option=option, value=value):
                self.bad("head", *REAL, "--check", f"{option}={value}", says=[option, f"'{value}'"])

    def test_shape_of_the_model(self):
        self.bad("head", *REAL, "--check", "--heads", 7, says=["--heads", "384", "7 heads do not divide"])
        self.bad("head", *REAL, "--check", "--kv-heads", 5, says=["--kv-heads", "12 query heads"])
        self.bad("head", *REAL, "--check", "--kv-heads", 6, says=["p_q is 32 and p_k 64"])
        self.bad("head", *REAL, "--check", "--layer", 3, says=["--layer", "has layers 0 to 0, not 3"])
        self.bad("head", *REAL, "--check", "--prefix", "bert.", says=["no projection matrices", "--wq"])

    def test_backend_and_causal(self):
        self.bad("head", *REAL, "--check", "-b", "cray", says=["--backend", "cray", "scalar"])
        self.bad("head", *REAL, "--check", says=["cray", "scalar"], env={"ATTN_BACKEND": "cray"})
        self.bad("head", *REAL, "--check", "-c", "left", says=["--causal", "top-left"])

    def test_head_and_multihead(self):
        self.bad("head", *REAL, "--check", "-m", "-H", 1, says="--multihead")

    def test_names(self):
        self.bad("head", *REAL, "--check", "--wq", "x", says=["--wq", "no tensor 'x'"])
        name = "encoder.layer.0.attention.self.query.weight"
        self.bad("head", *REAL, "--check", "--wq", name, says=["--wk", "needed together"])
        self.bad("head", *REAL, "--check", "--bo", name, says="--wq")

    def test_additive(self):
        self.bad("head", *REAL, "--check", "--w", "x", says="--additive")
        self.bad("head", *REAL, "--check", "--additive", says="--w")
        self.bad("head", *REAL, "--check", "--additive", "--w", "x", says=["--w", "no tensor 'x'"])
        bias = "encoder.layer.0.attention.self.query.bias"
        self.bad("head", *REAL, "--check", "--additive", "--w", bias, says=["--aq", "identity", "32", "384"])

    def test_files_that_are_not_there(self):
        missing = self.path("missing")
        self.bad("head", "-w", missing, "-q", INPUT, "--check", says=["--weights", missing, "No such file"])
        self.bad("head", "-w", LAYER, "-q", missing, "--check", says=["--q", missing, "No such file"])
        self.bad("head", "-w", self.dir, "-q", INPUT, "--check", says="not a regular file")
        self.bad("head", "-w", LAYER, "-q", "/dev/zero", "--check", says="not a regular file")
        self.bad("head", *REAL, "--expect", missing, says=["--expect", missing])
        self.bad("inspect", *REAL, "--tokens", missing, says=["--tokens", missing])

    def test_files_that_cannot_be_written(self):
        nowhere = self.path("no/where")
        self.bad("head", *REAL, "-o", nowhere, says=["--out", nowhere])
        self.bad("inspect", *REAL, "-p", nowhere, says=["--png", nowhere])
        self.bad("inspect", *REAL, "-H", 0, "-p", nowhere, says=["--png", nowhere])
        self.bad("head", *REAL, "-o", "/dev/full", says=["--out", "No space"])

    def test_tokens(self):
        for name, content, says in (
            ("t.json", '["a", "b"]', "has 2 tokens, the input has 22 rows"),
            ("t.json", '["a", 1]', "element 1 is not a string"),
            ("t.json", "[", "not JSON"),
            ("t.json", "{}", "has 0 tokens"),
            ("t.txt", "a\nb\n", "has 2 tokens"),
            ("t.txt", "", "has 0 tokens"),
        ):
            self.bad("inspect", *REAL, "--tokens", self.write(name, content), says=["--tokens", says])

    def test_config(self):
        with open(LAYER, "rb") as file:
            layer = self.write("m.safetensors", file.read())
        self.bad("head", "-w", layer, "-q", INPUT, "--check", says=["--heads", "config.json"])
        for content in ("{", '{"num_attention_heads": "twelve"}', '{"num_attention_heads": -3}', "[]", "7"):
            self.write("config.json", content)
            self.bad("head", "-w", layer, "-q", INPUT, "--check", says="config.json")


class Npy(CliTest):
    """Inputs that do not fit, or are no sound .npy files."""

    memory_limit = 1 << 30

    def refuse(self, blob, *says):
        path = self.write("x.npy", blob)
        self.bad("head", "-w", LAYER, "-n", 12, "-q", path, "--check", says=[path, *says])

    def test_shapes(self):
        row = [0.5] * 384
        for array, says in (
            ([row[:-1]], "[1, 383]"),
            (row, "[384]"),
            ([[row], [row]], "[2, 1, 384]"),
            ([[[row]]], "[1, 1, 1, 384]"),
        ):
            self.refuse(npy_bytes(array), says, "384")
        self.refuse(npy_bytes([], shape=(0, 384)), "[0, 384]")
        self.refuse(npy_bytes(0.5, shape=()), "[]")
        good, two = self.write("g.npy", npy_bytes([row])), self.write("two.npy", npy_bytes([row, row]))
        self.bad(
            "head",
            "-w",
            LAYER,
            "-n",
            12,
            "-q",
            good,
            "-v",
            two,
            "--check",
            says=["--v", "2 rows of values and 1"],
        )

    def test_kinds(self):
        row = [[0.5] * 384]
        self.refuse(npy_bytes(row, descr=">f4"), "big-endian", "astype")
        self.refuse(npy_bytes(row, descr="<i4"), "'<i4'", "astype")
        self.refuse(npy_bytes(row, fortran=True), "Fortran order", "ascontiguousarray")
        self.refuse(npy_bytes(row, version=4), "version 4")
        self.refuse(npy_bytes(row).replace(b"'<f4'", b"[('a', '<f4')]"), "records")

    def test_truncated(self):
        whole = npy_bytes([[0.5] * 384])
        for length in list(range(0, 140, 3)) + [len(whole) - 1]:
            self.refuse(whole[:length])
        self.refuse(whole + b"\0", "1 bytes too many")

    def test_headers(self):
        data = bytes(4 * 384)
        for text in (
            "",
            "{",
            "{}",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '<f4', 'shape': (1, 384)}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (1, 384)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 384)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 384}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1 384)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1.0, 384)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 384)}",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1, 384)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 384), 'x': 1}",
            "{'descr': '" + "x" * 99 + "', 'fortran_order': False, 'shape': (1, 384)}",
            "{'descr': '<f4\\x00', 'fortran_order': False, 'shape': (1, 384)}",
        ):
            blob = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data
            with self.subTest(text=text):
                self.refuse(blob, "header is malformed")
        self.refuse(npy_bytes([[0.5] * 384], shape=(1,) * 9 + (384,)), "dimensions")

    def test_huge_sizes(self):
        for shape in (
            (1 << 62, 384),
            (1 << 40, 384),
            (1 << 32, 1 << 32),
            (0, 1 << 63, 4),
            ((1 << 64) - 1, 1),
        ):
            self.refuse(npy_bytes([[0.5] * 384], shape=shape))
        self.refuse(b"\x93NUMPY\x02\x00" + b"\xff\xff\xff\xff" + b" " * 100, "truncated")
        self.refuse(b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 20) + b" " * (1 << 20), "1048576")

    def test_damaged_bytes(self):
        """Whatever one wrong byte of the header does, it is refused in one line or read; never a crash."""
        whole, rng = npy_bytes([[0.5] * 384]), random.Random(3)
        for _ in range(60):
            blob = bytearray(whole)
            blob[rng.randrange(128)] = rng.randrange(256)
            done = self.run_attn(
                "head", "-w", LAYER, "-n", 12, "-q", self.write("x.npy", bytes(blob)), "-o", "/dev/null"
            )
            self.assertIn(done.returncode, (0, 2), done.stderr)
            self.assertEqual(done.stderr.count("\n"), done.returncode // 2, done.stderr)

    def test_expectation_of_another_shape(self):
        self.bad("head", *REAL, "--expect", INPUT, says=["--expect", "[22, 384]", "[12, 22, 32]"])


class Safetensors(CliTest):
    memory_limit = 1 << 30

    def refuse(self, blob, *says, args=()):
        path = self.write("m.safetensors", blob)
        self.bad("head", "-w", path, "-n", 1, "-q", INPUT, "--check", *args, says=[path, *says])

    def entry(self, **changes):
        return dict({"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, **changes)

    def test_truncated(self):
        tensors = {name + ".weight": ("F32", self.matrix(2, 3)) for name in QKV}
        whole = safetensors_bytes(tensors)
        header = 8 + struct.unpack_from("<Q", whole)[0]
        for length in [0, 1, 7, 8, 9, 100, header - 1, header, header + 1, len(whole) - 1]:
            with self.subTest(length=length):
                self.refuse(whole[:length])
        self.refuse(whole + b"\0", "1 bytes too many")

    def test_header_length(self):
        for length in (1 << 63, (1 << 64) - 1, 1 << 40, 1000):
            self.refuse(struct.pack("<Q", length) + b"{}", "truncated")
        self.refuse(frame(b"{}" + b" " * (17 << 20)), "header of 17825794 bytes")

    def test_json(self):
        for text in (b"", b"{", b"[]", b"7", b'{"a": 1', b"\xff\xfe{}", b'{"a\\ud800": 1}', b"{}x", b'"' * 9):
            self.refuse(frame(text), "header is not")
        self.refuse(frame(b'{"a":' * 100000 + b"1" + b"}" * 100000), "not JSON")
        self.refuse(frame(b"[" * 1000000), "not JSON")
        self.refuse(frame(b'{"a": {}, "a": {}}'), "not JSON", "duplicate")
        self.refuse(frame(b"{}"), "no projection matrices")
        self.refuse(frame({"__metadata__": {"format": "pt"}}), "no projection matrices")

    def test_tensors(self):
        data = bytes(24)
        for entry, says in (
            ({}, "dtype"),
            (7, "dtype"),
            (self.entry(dtype=3), "dtype"),
            (self.entry(shape=7), "shape"),
            (self.entry(shape=[2, "3"]), "not a size"),
            (self.entry(shape=[-2, 3]), "not a size"),
            (self.entry(shape=[2.0, 3]), "not a size"),
            (self.entry(shape=[1] * 9), "shape"),
            (self.entry(shape=[2, 4]), "does not fit"),
            (self.entry(shape=[1 << 62, 1 << 62]), "absurdly large"),
            (self.entry(shape=[1 << 62, 6]), "absurdly large"),
            (self.entry(shape=[1 << 62, 2]), "does not fit"),
            (self.entry(dtype="F16"), "does not fit"),
            (self.entry(data_offsets=[0]), "data_offsets"),
            (self.entry(data_offsets=7), "data_offsets"),
            (self.entry(data_offsets=[24, 0]), "data_offsets"),
            (self.entry(data_offsets=[-24, 0]), "data_offsets"),
            (self.entry(data_offsets=[0, 25]), "data_offsets"),
            (self.entry(data_offsets=[0, 1 << 62]), "data_offsets"),
            (self.entry(data_offsets=[0.0, 24]), "data_offsets"),
        ):
            with self.subTest(entry=entry):
                self.refuse(frame({"a": entry}, data), "tensor a", says)
        self.refuse(
            frame(b'{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,24]}}', data), "JSON"
        )

    def test_overlap_and_gaps(self):
        a, data = self.entry(), bytes(48)
        self.refuse(frame({"a": a, "b": a}, data[:24]), "overlap")
        self.refuse(frame({"a": a, "b": self.entry(data_offsets=[20, 44])}, data[:44]), "overlap")
        self.refuse(frame({"a": self.entry(data_offsets=[24, 48])}, data), "gap")
        self.refuse(frame({"a": a}, data), "24 bytes too many")

    def test_hostile_names_stay_on_one_line(self):
        self.refuse(
            frame({"a\nattn: all is well\x1b[2J": self.entry(shape=[9])}, bytes(24)), "tensor a?attn", "?[2J"
        )
        self.refuse(frame({"n" * 100000: self.entry(shape=[9])}, bytes(24)), "does not fit")

    def test_matrices(self):
        good = {QKV[i] + ".weight": ("F32", self.matrix(2, 384)) for i in range(3)}
        weight, bias = QKV[1] + ".weight", QKV[1] + ".bias"
        self.refuse(safetensors_bytes(dict(good, **{weight: ("F32", [0.5, 0.5])})), weight, "[2]")
        self.refuse(
            safetensors_bytes(dict(good, **{weight: ("F64", self.matrix(2, 384))})), weight, "F64", "convert"
        )
        self.refuse(safetensors_bytes(dict(good, **{bias: ("F32", [1.0] * 3)})), bias, "[3]")
        self.refuse(safetensors_bytes({k: v for k, v in good.items() if k != weight}), "self.key.weight")
        empty = json.loads(
            json.dumps({n: {"dtype": "F32", "shape": [0, 384], "data_offsets": [0, 0]} for n in good})
        )
        self.refuse(frame(empty), "[0, 384]")
        self.bad(
            "head",
            "-w",
            self.write(
                "k.safetensors", safetensors_bytes(dict(good, **{weight: ("F32", self.matrix(2, 5))}))
            ),
            "-n",
            1,
            "-q",
            INPUT,
            "--check",
            says=["--k", "d_k = 5"],
        )
        output = {"layer.0.attention.output.dense.weight": ("F32", self.matrix(4, 3))}
        self.bad(
            "head",
            "-w",
            self.write("o.safetensors", safetensors_bytes(dict(good, **output))),
            "-n",
            1,
            "-q",
            INPUT,
            "--check",
            says=["W_o has 3 inputs", "need 2"],
        )

    def test_damaged_bytes(self):
        """Whatever one wrong byte of the header does, it is refused in one line or read; never a crash."""
        tensors = {name + ".weight": ("F32", self.matrix(2, 384)) for name in QKV}
        whole, rng = safetensors_bytes(tensors), random.Random(4)
        header = 8 + struct.unpack_from("<Q", whole)[0]
        for _ in range(80):
            blob = bytearray(whole)
            blob[rng.randrange(header)] = rng.randrange(256)
            path = self.write("m.safetensors", bytes(blob))
            done = self.run_attn("head", "-w", path, "-n", 1, "-q", INPUT, "-o", "/dev/null")
            self.assertIn(done.returncode, (0, 2), done.stderr)
            self.assertEqual(done.stderr.count("\n"), done.returncode // 2, done.stderr)


if __name__ == "__main__":
    unittest.main()
