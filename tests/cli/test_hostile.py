"""GGUF files that lie, through the command: exit code 2 and one line that says what is wrong."""

import pathlib
import random
import unittest

from formats import GGUF_TYPES, ROUNDERS, gguf_bytes
from support import CliTest, flatten, npy_bytes

BLOCKS = pathlib.Path(__file__).resolve().parent.parent / "gguf" / "blocks.gguf"
HEADS, P, D = 2, 3, 8
GOOD = {"general.architecture": "llama", "llama.attention.head_count": HEADS}
HUGE = (1 << 64) - 1


class Hostile(CliTest):
    memory_limit = 1 << 30

    def setUp(self):
        super().setUp()
        self.input = self.write("x.npy", npy_bytes(self.matrix(3, D)))
        self.tensors = {f"blk.0.attn_{m}.weight": self.tensor(HEADS * P, D) for m in "qkv"}

    def tensor(self, rows, columns, kind="F32"):
        return (kind, [rows, columns], ROUNDERS[kind](flatten(self.matrix(rows, columns)))[0])

    def run_file(self, blob, name="m.gguf"):
        path = self.write(name, blob)
        return path, ["head", "-w", path, "-q", self.input, "--check"]

    def refuse(self, blob, *says, name="m.gguf", args=()):
        path, command = self.run_file(blob, name)
        self.bad(*command, *args, says=[path, *says])

    def refuse_model(self, *says, tensors=None, metadata=None, args=(), **lies):
        self.refuse(gguf_bytes(tensors or self.tensors, metadata or GOOD, **lies), *says, args=args)

    def test_good(self):
        self.good(*self.run_file(gguf_bytes(self.tensors, GOOD))[1])
        self.good(*self.run_file(gguf_bytes(self.tensors, GOOD), "by its contents")[1])

    def test_truncated(self):
        whole = gguf_bytes(self.tensors, GOOD)
        for length in [0, 3, 4, 7, 8, 23, 24, 31, *range(40, len(whole), 41), len(whole) - 1]:
            with self.subTest(length=length):
                self.refuse(whole[:length])
        self.refuse(whole[:-1], "ends behind the end of the file", "get it again")
        self.refuse(whole[:250], "ends inside its header")

    def test_magic_and_version(self):
        self.refuse_model("does not start with 'GGUF'", magic=b"GGML")
        self.refuse(b"PK\3\4" + bytes(100), "does not start with 'GGUF'")
        self.refuse_model("GGUF version 1", "convert it anew", version=1)
        self.refuse_model("GGUF version 4", version=4)
        self.refuse_model("big-endian", version=3 << 24)

    def test_counts(self):
        for count in (HUGE, 1 << 60, 1 << 32, 4000):
            self.refuse_model("more entries than the file has room for", n_tensors=count)
            self.refuse_model("damaged", n_values=count)
        self.refuse_model("damaged", n_tensors=4)
        self.refuse_model("damaged", n_values=3)

    def test_sizes(self):
        name = "tensor blk.0.attn_q.weight"
        self.refuse_model(name, "absurdly large", sizes=[D, HUGE // 2])
        self.refuse_model(name, "absurdly large", sizes=[1 << 62, 4])
        self.refuse_model(name, "absurdly large", sizes=[1, 1 << 32, 1 << 32, 1])
        self.refuse_model(name, "ends behind", sizes=[D, 1 << 40])
        self.refuse_model(name, "5 dimensions", sizes=[1] * 5)
        self.refuse_model(name, "dimensions", rank=0xFFFFFFFF)
        self.refuse_model(name, "shape [0, 8]", sizes=[D, 0])
        self.refuse_model(name, "shape [3, 2, 8]", sizes=[D, 2, 3])
        self.refuse_model(name, "shape [6]", sizes=[6])

    def test_offsets(self):
        name = "tensor blk.0.attn_q.weight"
        self.refuse_model(name, "ends behind", offset=1 << 20)
        self.refuse_model(name, "ends behind", offset=HUGE - 31)
        self.refuse_model(name, "not aligned to 32", offset=4)
        self.refuse_model("tensors blk.0.attn_q.weight and blk.0.attn_k.weight overlap", offset=32)
        for alignment in (0, 4, 48, 1 << 31):
            self.refuse_model("general.alignment", metadata=GOOD | {"general.alignment": alignment})

    def test_types(self):
        name = "tensor blk.0.attn_q.weight"
        self.refuse_model(name, "has type 4,", type=4)
        self.refuse_model(name, "has type 4294967295,", type=0xFFFFFFFF)
        self.refuse_model(name, "not whole blocks of Q8_0", type=GGUF_TYPES["Q8_0"])
        self.refuse_model(name, "is I32; convert it", type=GGUF_TYPES["I32"])
        wide = {n: ("Q2_K", [HEADS * P, 256], bytes(HEADS * P * 84)) for n in self.tensors}
        self.refuse_model(name, "is Q2_K; convert it", "Q8_0", tensors=wide)

    def test_names(self):
        twice = gguf_bytes(self.tensors, GOOD).replace(b"attn_k", b"attn_q")
        self.refuse(twice, "two tensors are called blk.0.attn_q.weight")
        keys = gguf_bytes(self.tensors, GOOD | {"llama.attention.head_counT": 2}).replace(
            b"head_counT", b"head_count"
        )
        self.refuse(keys, "two metadata entries are called llama.attention.head_count")
        shouting = {"a\nattn: all is well\x1b[2J": self.tensor(1, 1)} | self.tensors
        self.refuse_model("tensor a?attn", "?[2J", tensors=shouting, sizes=[1, 1 << 40])
        self.refuse_model("ends behind", tensors={"n" * 100000: self.tensor(1, 1)}, sizes=[1, 1 << 40])
        self.refuse_model("no projection matrices", tensors={"a": self.tensor(1, 1)})
        for rows in (1, 5, 3 * HEADS * P + 1):
            _, command = self.run_file(gguf_bytes({"blk.0.attn_qkv.weight": self.tensor(rows, D)}, GOOD))
            self.bad(*command, says=["--heads", f"have {rows} outputs together"])
        _, command = self.run_file(gguf_bytes({"blk.0.attn_qkv.weight": self.tensor(3 * HEADS * P, D)}, {}))
        self.bad(*command, says=["--heads", "attention.head_count"])
        some = {n: t for n, t in self.tensors.items() if "attn_k" not in n}
        self.refuse_model("no tensor attn_k.weight", tensors=some)
        self.bad(
            *self.run_file(gguf_bytes(self.tensors, GOOD))[1],
            "-l",
            7,
            says=["--layer", "layers 0 to 0, not 7"],
        )

    def test_metadata(self):
        count = "llama.attention.head_count"
        for heads in (0, 1 << 20, "two", [], [0]):
            _, command = self.run_file(gguf_bytes(self.tensors, GOOD | {count: heads}))
            self.bad(*command, says=["--heads", "attention.head_count"])
        _, command = self.run_file(gguf_bytes(self.tensors, {count: HEADS}))
        self.bad(*command, says=["--heads", "attention.head_count"])  # no architecture
        _, command = self.run_file(gguf_bytes(self.tensors, {"general.architecture": "x" * 5000}))
        self.bad(*command, says="--heads")
        for lie in (
            {count: 5},
            {count: 7},
            {"llama.attention.key_length": 2},
            {"llama.attention.head_count_kv": 4},
            {"llama.attention.head_count_kv": 1},
        ):
            self.refuse_model("do not fit", "--heads", metadata=GOOD | lie)

    def test_damaged_bytes(self):
        """Whatever one wrong byte of the header does, it is refused in one line or read; never a crash."""
        whole, rng = gguf_bytes(self.tensors, GOOD), random.Random(5)
        header = whole.index(b"attn_v.weight") + 40
        for _ in range(100):
            blob = bytearray(whole)
            blob[rng.randrange(header)] = rng.randrange(256)
            done = self.run_attn(*self.run_file(bytes(blob))[1])
            self.assertIn(done.returncode, (0, 2), done.stderr)
            self.assertEqual(done.stderr.count("\n"), done.returncode // 2, done.stderr)

    def test_inspect(self):
        path = self.write("m.gguf", gguf_bytes(self.tensors, GOOD, offset=1 << 20))
        self.bad("inspect", "-w", path, "-q", self.input, says=[path, "ends behind"])
        self.good("inspect", "-w", self.write("m.gguf", gguf_bytes(self.tensors, GOOD)), "-q", self.input)

    def test_other_uses_of_a_file(self):
        self.bad("head", "-w", BLOCKS, "-q", self.input, "--check", says="no projection matrices")
        self.bad(
            "head",
            "-w",
            self.path("none.gguf"),
            "-q",
            self.input,
            "--check",
            says=["--weights", "No such file"],
        )
        self.bad("head", "-w", self.input, "-q", self.input, "--check", says="not a .safetensors file")


if __name__ == "__main__":
    unittest.main()
