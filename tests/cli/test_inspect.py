"""attn inspect: the table's numbers, its flags, and the pictures; attn info; help; progress."""

import json
import math
import os
import pty
import re
import subprocess
import time
import unittest

from support import EXE, MINILM, SANITIZED, CliTest, npy_bytes, read_png, safetensors_bytes

REAL = ["-w", os.path.join(MINILM, "layer0.safetensors"), "-q", os.path.join(MINILM, "input.npy")]
NAN, WHITE = (0, 160, 60), (255, 255, 255)


def is_dark(pixel):
    """Whether it has the scale's last colour, or nearly."""
    return all(abs(a - b) <= 6 for a, b in zip(pixel, (22, 1, 70)))


def table(text):
    """Head number: (numbers and dashes, the rest of the line)."""
    lines = {}
    for line in text.splitlines():
        found = re.match(r" *(\d+) +((?:(?:[\d.]+|-) +){6}(?:[\d.]+|-))(.*)", line)
        if found:
            numbers = [None if x == "-" else float(x) for x in found.group(2).split()]
            lines[int(found.group(1))] = (numbers, found.group(3))
    return lines


def identity(n, scale=1.0):
    return [[scale * (i == j) for j in range(n)] for i in range(n)]


class Models(CliTest):
    """Small models with one matrix a projection."""

    def model(self, name="m.safetensors", **matrices):
        return self.write(name, safetensors_bytes({f"w{m}": ("F32", w) for m, w in matrices.items()}))

    def inspect(self, path, x, *args, heads=1):
        names = [t for m in "qkv" for t in (f"--w{m}", f"w{m}")]
        file = self.write("x.npy", npy_bytes(x))
        return self.good("inspect", "-w", path, *names, "-n", heads, "-q", file, *args)


class Table(Models):
    """One-hot inputs and diagonal matrices, so that every weight is known."""

    def test_real_layer(self):
        text = self.good("inspect", *REAL, "--tokens", os.path.join(MINILM, "tokens.json"))
        lines = table(text)
        self.assertEqual(sorted(lines), list(range(12)))
        numbers, notes = lines[2]  # this head looks at the previous token and at nothing else
        self.assertEqual(numbers[3], 1.0)
        self.assertEqual(numbers[0], 0.0)
        self.assertIn("SATURATED softmax; looks at the previous token", notes)
        self.assertIn("[CLS]", notes)
        for head in set(range(12)) - {2}:
            self.assertNotIn("SATURATED", lines[head][1])
            self.assertGreater(lines[head][0][0], 2.0)
        self.assertNotIn("NON-FINITE", text)
        self.assertNotIn("SAME", text)

    def test_uniform(self):
        n = 8
        zero = [[0.0] * n for _ in range(n)]
        numbers, notes = table(self.inspect(self.model(q=zero, k=zero, v=zero), identity(n)))[0]
        distance = sum(abs(i - j) for i in range(n) for j in range(n)) / n**2
        self.assertEqual(numbers, [3.0, round(distance, 2), 0.125, 0.125, 0.125, 0.125, 0.125])
        self.assertIn("UNIFORM softmax", notes)

    def test_own_token_under_a_causal_mask(self):
        n, scale = 6, 100.0
        path = self.model(q=identity(n, scale), k=identity(n), v=identity(n))
        numbers, notes = table(self.inspect(path, identity(n), "-c", "top-left"))[0]
        self.assertEqual(numbers[:2] + numbers[3:], [0.0, 0.0, 0.0, 1.0, 0.0, 1.0])
        self.assertIn("SATURATED softmax; looks at its own token", notes)

    def test_weights_by_hand(self):
        # two tokens, scores s on the diagonal and 0 off it
        path = self.model(q=identity(2, 3.0), k=identity(2), v=identity(2))
        w = 1 / (1 + math.exp(-3 / math.sqrt(2)))
        entropy = -w * math.log2(w) - (1 - w) * math.log2(1 - w)
        numbers, rest = table(self.inspect(path, identity(2)))[0]
        want = [entropy, 1 - w, 0.5, 1 - w, w, 1 - w, w]
        for got, right, digits in zip(numbers, want, [2, 2, 3, 3, 3, 3, 3]):
            self.assertAlmostEqual(got, right, delta=0.51 * 10**-digits)
        self.assertIn("[0,0]", rest)

    def test_cross_attention_has_no_positions(self):
        n = 4
        keys = self.write("k.npy", npy_bytes(self.matrix(3, n)))
        path = self.model(q=identity(n), k=identity(n), v=identity(n))
        numbers, _ = table(self.inspect(path, identity(n), "-k", keys))[0]
        self.assertEqual([x is None for x in numbers], [False, True, False, True, True, True, False])

    def test_equal_projections(self):
        w = {m: self.matrix(8, 4) for m in "qkv"}  # four heads of two
        for m in "qkv":
            w[m][6:8] = w[m][0:2]
        w["k"][4:6] = w["k"][2:4]
        lines = table(self.inspect(self.model(**w), self.matrix(3, 4), heads=4))
        self.assertNotIn("SAME", lines[0][1] + lines[1][1])
        self.assertIn("SAME W_k as head 1", lines[2][1])
        self.assertIn("SAME W_q, W_k, W_v as head 0", lines[3][1])

    def test_equal_projections_of_a_group(self):
        q, k = self.matrix(8, 4), self.matrix(4, 4)  # four query heads, two of keys and values
        q[2:4] = q[0:2]
        lines = table(self.inspect(self.model(q=q, k=k, v=k), self.matrix(3, 4), heads=4))
        self.assertIn("SAME W_q as head 0, whose key/value head it shares", lines[1][1])
        self.assertNotIn("SAME", lines[2][1] + lines[3][1])

    def test_values_that_are_not_finite(self):
        w = {m: self.matrix(4, 4) for m in "qkv"}
        w["v"][3][1] = math.inf
        x = self.matrix(5, 4)
        x[2][3] = math.nan
        text = self.inspect(self.model(**w), x, heads=2)
        lines = table(text)
        self.assertIn("NON-FINITE: 1 values of the input, first at [2, 3]", text)
        self.assertNotIn("W_v", lines.get(0, ("", ""))[1])
        self.assertIn("NON-FINITE: 1 values of W_v", text)
        self.assertIn("NON-FINITE: 10 outputs", text)  # every row sees the bad key


class Pictures(Models):
    def test_one_head(self):
        png = self.path("h.png")
        text = self.good(
            "inspect", *REAL, "-H", 2, "--tokens", os.path.join(MINILM, "tokens.json"), "-p", png
        )
        self.assertIn(f"wrote {png}", text)
        width, height, pixel = read_png(png)
        self.assertTrue(900 < width < 1300 and 900 < height < 1300, (width, height))
        self.assertEqual(pixel(2, 2), WHITE)
        # The map is 22 x 22 cells of 40 pixels that ends at the bottom margin of 16; its first dark column
        # belongs to the first key, which rows 0 and 1 look at.
        top = height - 16 - 22 * 40
        left = next(x for x in range(width) if is_dark(pixel(x, top + 3)))
        dark = [is_dark(pixel(left + 40 * j + 3, top + 40 * i + 3)) for i in range(22) for j in range(22)]
        self.assertEqual(dark, [j == max(i - 1, 0) for i in range(22) for j in range(22)])

    def test_grid(self):
        png = self.path("g.png")
        self.good("inspect", *REAL, "-p", png)
        width, height, pixel = read_png(png)
        self.assertTrue(1000 < width < 1500 and 900 < height < 1500, (width, height))
        # Four panels of 22 x 14 + 16 pixels side by side; head 2 is the third, and a diagonal.
        inside = range(16 + 2 * 324, 16 + 3 * 324)
        dark = [(x, y) for x in inside for y in range(100, 430) if is_dark(pixel(x, y))]
        self.assertEqual(len(dark), 22 * 13 * 13)
        xs, ys = [x for x, _ in dark], [y for _, y in dark]
        mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
        slope = sum((x - mean_x) * (y - mean_y) for x, y in dark) / sum((x - mean_x) ** 2 for x in xs)
        self.assertAlmostEqual(slope, 1, delta=0.1)

    def test_sizes(self):
        for n_q, n_kv in ((1, 1), (1, 300), (300, 1), (70, 70), (30, 400), (1500, 1500)):
            with self.subTest(n_q=n_q, n_kv=n_kv):
                path = self.model(q=identity(2), k=identity(2), v=identity(2))
                keys = self.write("k.npy", npy_bytes(self.matrix(n_kv, 2)))
                for args in (["-H", 0], []):
                    png = self.path("s.png")
                    self.inspect(
                        path, self.matrix(n_q, 2), "-k", keys, "-p", png, *args, heads=1 if args else 2
                    )
                    with open(png, "rb") as file:
                        header = file.read(24)
                    width, height = (int.from_bytes(header[i : i + 4], "big") for i in (16, 20))
                    self.assertTrue(100 < width < 1600 and 60 < height < 1600, (width, height))

    def test_a_nan_has_a_colour_of_its_own(self):
        x = self.matrix(4, 2)
        x[1][0] = math.nan
        png = self.path("n.png")
        self.inspect(self.model(q=identity(2), k=identity(2), v=identity(2)), x, "-H", 0, "-p", png)
        width, height, pixel = read_png(png)
        self.assertGreater(
            sum(pixel(x, y) == NAN for x in range(width) for y in range(height)), 16 * 39 * 39 - 1
        )

    def test_token_files(self):
        path = self.model(q=identity(2), k=identity(2), v=identity(2))
        x = self.matrix(3, 2)
        for name, content in {
            "t.txt": "a\n\u0120b\nc",
            "u.txt": "a\nb\nc\n",
            "t.json": json.dumps(["a", "\u2581b", "\u00e9"]),
        }.items():
            self.inspect(path, x, "-H", 0, "--tokens", self.write(name, content), "-p", self.path("t.png"))


class Info(CliTest):
    def test_info(self):
        text = self.good("info")
        for pattern in (
            r"^attn +\d+\.\d+\.\d+",
            r"^sleef +3\.\d+",
            r"^cpu features ",
            r"^backends built .*scalar$",
            r"^backends runnable .*scalar$",
            r"^backend chosen +\w+$",
            r"^threads +\d+$",
            r"^caches ",
        ):
            self.assertRegex(text, re.compile(pattern, re.M))

    def test_backend_by_environment(self):
        self.assertIn(
            "backend chosen   scalar (by ATTN_BACKEND)", self.good("info", env={"ATTN_BACKEND": "scalar"})
        )
        self.bad("info", says=["ATTN_BACKEND", "scalar"], env={"ATTN_BACKEND": "cray"})

    def test_version_and_help(self):
        self.assertRegex(self.good("--version"), r"\Aattn \d+\.\d+\.\d+\n\Z")
        self.assertIn("attn inspect", self.good("--help"))
        for command in ("head", "inspect", "info"):
            text = self.good(command, "--help")
            self.assertIn("Example:", text)
            self.assertIn(f"attn {command}", text)


class Progress(CliTest):
    """The line appears only on a terminal, and only when the work is long."""

    def run_on_terminal(self, args):
        try:
            master, slave = pty.openpty()
        except OSError as error:  # a chroot without /dev/pts
            self.skipTest(f"no pseudo-terminal here: {error}")
        start = time.monotonic()
        process = subprocess.Popen(
            [EXE, *args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=slave
        )
        os.close(slave)
        shown = b""
        try:
            while True:
                part = os.read(master, 4096)
                if not part:
                    break
                shown += part
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(master)
        self.assertEqual(process.wait(), 0)
        return shown.decode(), time.monotonic() - start

    def test_progress(self):
        n, d = 350 if SANITIZED else 1000, 64
        row = self.matrix(1, d)[0]
        x = [row[i % d :] + row[: i % d] for i in range(n)]
        names = [f"layer.0.attention.self.{m}.weight" for m in ("query", "key", "value")]
        w = {name: ("F32", self.matrix(256, d, 0.1)) for name in names}
        args = ["head", "-w", self.write("m.safetensors", safetensors_bytes(w)), "-n", "4"]
        args += [
            "-q",
            self.write("x.npy", npy_bytes(x)),
            "-b",
            "scalar",
            "-t",
            "1",
            "-o",
            "/dev/null",
            "--check",
        ]
        shown, took = self.run_on_terminal(args)
        if took > 3:  # then one of the two pieces of work took more than a second
            self.assertRegex(shown, r"attn: (computing|check: head \d of 4), \d+ s")
        if shown:
            self.assertTrue(shown.endswith("\r\x1b[K"), repr(shown[-40:]))

    def test_no_progress_for_short_work(self):
        shown, took = self.run_on_terminal(["head", *REAL, "-o", "/dev/null"])
        if took < 1:
            self.assertEqual(shown, "")


if __name__ == "__main__":
    unittest.main()
