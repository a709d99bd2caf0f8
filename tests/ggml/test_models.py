"""SmolLM2-135M in unchanged llama.cpp with and without the plugin: same tokens but for near ties, same perplexity.

Run by scripts/test-llamacpp.sh. ATTN_SMOLLM2 is the model, GGML_ATTN_PLUGIN the plugin; ATTN_TEST_SCALE=2: the whole table
of types, some minutes.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODEL, PLUGIN = os.environ["ATTN_SMOLLM2"], os.environ["GGML_ATTN_PLUGIN"]
WHOLE = os.environ.get("ATTN_TEST_SCALE") == "2"
TYPES = ["f32", "f16", "bf16", "q8_0", "q4_0"] if WHOLE else ["f16"]
TEXTS = [ROOT / "examples" / "smollm2" / "text.txt", *([ROOT / "LICENSE"] if WHOLE else [])]
TOKENS = 200 if WHOLE else 60
# Both round activations to 8 bits and add in another order, so logits differ by 0.2 (root mean square); a token may
# differ where the two best are nearer than some of that.
NEAR = 1.5


def run_python(*arguments):
    # threads that wait actively would stand still beside another test
    env = os.environ if WHOLE else os.environ | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=1200,
                          env=env)
    if done.returncode != 0:
        raise AssertionError(done.stderr[-2000:])
    return done.stderr


def run(folder, name, *options):
    out = folder / f"{name}.npz"
    log = run_python(HERE / "model.py", MODEL, out, *options)
    return np.load(out), log


class Models(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        text = TEXTS[0].read_text()
        prompts = ["Once upon a time there was a lighthouse keeper who", "The three laws of thermodynamics are:", text]
        self.prompts = []
        for i, prompt in enumerate(prompts):
            path = self.folder / f"prompt{i}"
            path.write_text(prompt)
            self.prompts += ["--prompt", str(path)]

    def flips(self, stock, ours, what):
        """Steps at which the best token is another one; each must be a near tie in both runs."""
        count = 0
        for i in range(3):
            a, b = stock[f"logits{i}"], ours[f"logits{i}"]
            for step in np.nonzero(a.argmax(1) != b.argmax(1))[0]:
                first, second = a[step].argmax(), b[step].argmax()
                print(f"{what}, prompt {i}, step {step}: tokens {first} and {second}, logits "
                      f"{a[step, first]:.3f} and {a[step, second]:.3f} without the plugin, "
                      f"{b[step, first]:.3f} and {b[step, second]:.3f} with it", file=sys.stderr)
                self.assertLess(a[step, first] - a[step, second], NEAR)
                self.assertLess(b[step, second] - b[step, first], NEAR)
                count += 1
        return count

    def test_tokens_and_perplexity(self):
        texts = [option for text in TEXTS for option in ("--text", str(text))]
        for kv in TYPES:
            options = ["--kv", kv, "--tokens", str(TOKENS), "--threads", "2" if WHOLE else "1", *self.prompts, *texts]
            stock, _ = run(self.folder, "stock-" + kv, *options)
            ours, _ = run(self.folder, "ours-" + kv, "--plugin", PLUGIN, "--follow",
                          str(self.folder / f"stock-{kv}.npz"), *options)
            flips = self.flips(stock, ours, kv)
            change = float(ours["perplexity"] / stock["perplexity"] - 1)
            print(f"{kv}: {flips} of {3 * TOKENS} tokens flipped; perplexity of {stock['count']} tokens "
                  f"{stock['perplexity']:.4f}, with the plugin {ours['perplexity']:.4f} ({100 * change:+.3f} %), "
                  f"{stock['seconds']:.1f} and {ours['seconds']:.1f} s", file=sys.stderr)
            self.assertLess(flips, 3 * TOKENS * 0.06)
            self.assertLess(abs(change), 0.01)

    def test_robust(self):
        """Contexts, threads, shifts, drafts, embeddings (robust.py): near what llama.cpp gives without the plugin."""
        for name, plugin in ("stock", "-"), ("ours", PLUGIN):
            run_python(HERE / "robust.py", MODEL, plugin, self.folder / f"robust-{name}.npz")
        stock, ours = (np.load(self.folder / f"robust-{name}.npz") for name in ("stock", "ours"))
        for name in "whole", "mixed", "shifted", "embeddings":
            a, b = stock[name], ours[name]
            error = np.sqrt(np.square(a - b).mean() / np.square(a - a.mean(-1, keepdims=True)).mean())
            print(f"{name}: differs by {100 * error:.2f} %", file=sys.stderr)
            self.assertLess(error, 0.15, name)  # activations of 8 bits, in two ways

    def test_auto_flash_attention(self):
        """-fa auto keeps flash attention, and the plugin takes it."""
        os.environ["ATTN_GGML_LOG"] = "1"
        self.addCleanup(os.environ.pop, "ATTN_GGML_LOG")
        _, log = run(self.folder, "auto", "--plugin", PLUGIN, "--flash", "auto", "--tokens", "3", *self.prompts[:2])
        self.assertRegex(log, r"FLASH_ATTN_EXT [^\n]*: taken")
        self.assertRegex(log, r"MUL_MAT q4_1 [^\n]*: taken")

    def test_weights_left_to_ggml(self):
        os.environ["ATTN_GGML_LOG"], os.environ["ATTN_GGML_WEIGHTS"] = "1", "0"
        self.addCleanup(os.environ.pop, "ATTN_GGML_LOG")
        self.addCleanup(os.environ.pop, "ATTN_GGML_WEIGHTS")
        _, log = run(self.folder, "left", "--plugin", PLUGIN, "--tokens", "3", *self.prompts[:2])
        self.assertRegex(log, r"FLASH_ATTN_EXT [^\n]*: taken")
        self.assertNotRegex(log, r"MUL_MAT [^\n]*: taken")


if __name__ == "__main__":
    unittest.main()
