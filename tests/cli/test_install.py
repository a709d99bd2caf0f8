"""A user's way: install, compile the examples and README's program with pkg-config, run all of them."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest

BUILD, SOURCE, NINJA = os.environ["ATTN_BUILD"], os.environ["ATTN_SOURCE"], os.environ["ATTN_NINJA"]
COMPILER = shlex.split(os.environ["ATTN_CC"])


def weighted_mean(keys, head):
    """Of key numbers j that weigh 2^(head * (j mod 4)): what the caches of the examples are made for."""
    weights = [2 ** (head * (j % 4)) for j in range(keys)]
    return sum(w * j for j, w in enumerate(weights)) / sum(weights)


EXAMPLES = {
    # computed with NumPy in float64
    "one_head.c": [-1.763256, 3.224844, -1.713882, -0.870025, -1.239829, 3.350845]
    + [-0.999942, -1.249923, 3.499711, -2.487544, 0.485981, -0.220384],
    # row i is the mean of 0 .. i
    "causal.c": [i / 2 for i in range(16)],
    # each head from the whole cache, then merged from its four parts
    "split_cache.c": [weighted_mean(64, head) / 64 for head in range(4) for _ in range(2)],
    # heads of eight sequences: a prompt of 100 keys, and 1, 4, .. 22 of their own
    "shared_prefix.c": [weighted_mean(101 + 3 * i, head) / 128 for i in range(8) for head in range(4)],
}


class Install(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="attn-install-")
        self.addCleanup(shutil.rmtree, self.root)

    def run_command(self, *command, **env):
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            env=dict(os.environ, **env),
        )
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}")
        return done.stdout

    def find(self, name):
        found = [os.path.join(d, name) for d, _, files in os.walk(self.root) if name in files]
        self.assertEqual(len(found), 1, f"{name}: {found}")
        return found[0]

    def compile_and_run(self, source, flags):
        program = os.path.join(self.root, "program")
        self.run_command(
            *COMPILER, "-std=c11", "-Wall", "-Wextra", "-Werror", source, *shlex.split(flags), "-o", program
        )
        libraries = os.path.dirname(self.find("libattn.a"))
        return [float(x) for x in self.run_command(program, LD_LIBRARY_PATH=libraries).split()]

    def readme_programs(self):
        """The C programs in README.md, each in a file of its own."""
        with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
            blocks = re.findall(r"^```c\n(.*?)^```$", file.read(), re.M | re.S)
        for i, block in enumerate(b for b in blocks if "int main" in b):
            path = os.path.join(self.root, f"readme{i}.c")
            with open(path, "w", encoding="utf-8") as file:
                file.write(block)
            yield path

    def test_everything(self):
        self.run_command(NINJA, "-C", BUILD, "install", DESTDIR=self.root)
        package = {
            "PKG_CONFIG_PATH": os.path.dirname(self.find("attn.pc")),
            "PKG_CONFIG_SYSROOT_DIR": self.root,
            "PKG_CONFIG_ALLOW_SYSTEM_CFLAGS": "1",
            "PKG_CONFIG_ALLOW_SYSTEM_LIBS": "1",
        }
        flags = self.run_command("pkg-config", "--cflags", "--libs", "attn", **package)
        self.assertIn("-lattn", flags)

        for name, want in EXAMPLES.items():
            with self.subTest(name=name):
                got = self.compile_and_run(os.path.join(SOURCE, "examples", name), flags)
                self.assertEqual(len(got), len(want), got)
                for a, b in zip(got, want):
                    self.assertAlmostEqual(a, b, delta=5e-6)
        programs = list(self.readme_programs())
        self.assertTrue(programs, "README.md shows no C program")
        for path in programs:
            with self.subTest(path=path):
                self.assertTrue(self.compile_and_run(path, flags))

        version = self.run_command("pkg-config", "--modversion", "attn", **package).strip()
        libraries = os.path.dirname(self.find("libattn.a"))
        command = self.run_command(self.find("attn"), "--version", LD_LIBRARY_PATH=libraries)
        self.assertEqual(command, f"attn {version}\n")


if __name__ == "__main__":
    unittest.main()
