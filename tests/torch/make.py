"""Reference results in float64 by torch, for test_torch.c.

Without options: writes tests/torch/vectors/*.bin again. With torch 2.13.0+cpu that gives the committed bytes.
--live: draws random cases instead, has the test program check them, and goes on until the time is up.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# The same sums on every x86-64: no code for this processor alone, one thread.
os.environ.update(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE", OMP_NUM_THREADS="1")


def fail(text):
    print(f"make.py: {text}", file=sys.stderr)
    sys.exit(2)


def import_torch():
    try:
        import torch
        from torch.nn.attention import flex_attention
        assert flex_attention.AuxRequest
    except (ImportError, AttributeError, AssertionError):
        fail("no torch with flex_attention's AuxRequest here; install it in a virtual environment (pip "
             "install numpy torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu) and run "
             "make.py with its python")
    torch.set_num_threads(1)
    return torch


def write(torch, path, cases):
    """As file.h says."""
    types = {torch.float32: "f32", torch.float64: "f64", torch.int32: "i32", torch.int64: "i64",
             torch.bool: "u8", torch.float16: "u16"}
    with open(path, "wb") as file:
        for kind, name, numbers, arrays in cases:
            lines = [f"case {kind} {name}"]
            lines += [f"number {key} {float(value).hex()}" for key, value in numbers.items()]
            for key, x in arrays.items():
                lines.append(f"array {key} {types[x.dtype]} {' '.join(map(str, x.shape))}")
            file.write(("\n".join(lines) + "\nend\n").encode())
            for x in arrays.values():
                file.write(x.detach().contiguous().numpy().tobytes())


def rewrite(torch, folder):
    from cases import committed
    total = 0
    os.makedirs(folder, exist_ok=True)
    for name, cases in committed():
        path = os.path.join(folder, name + ".bin")
        write(torch, path, cases)
        total += os.path.getsize(path)
        print(f"{path}: {len(cases)} cases, {os.path.getsize(path)} bytes")
    print(f"torch {torch.__version__}: {total} bytes in all")


def live(torch, options):
    from cases import batch_of_random
    environment = dict(os.environ)
    if options.lib:
        if not os.path.exists(options.lib):
            fail(f"there is no library {options.lib}: give --lib the path of a built libattn.so")
        environment["LD_PRELOAD"] = os.path.abspath(options.lib)
    if not os.path.exists(options.program):
        fail(f"there is no test program {options.program}: build it (ninja -C build tests/torch/test_torch), "
             "or give --program its path")
    end, seed, count = time.monotonic() + options.seconds, options.seed, 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "live.bin")
        while True:
            cases = batch_of_random(seed, options.cases)
            write(torch, path, cases)
            run = subprocess.run([options.program, path], env=environment, capture_output=True, text=True)
            if run.returncode:
                kept = os.path.join(tempfile.gettempdir(), f"attn-torch-{seed}.bin")
                os.replace(path, kept)
                print(f"{run.stdout}{run.stderr}seed {seed} fails; its cases are in {kept}", file=sys.stderr)
                sys.exit(1)
            seed, count = seed + 1, count + len(cases)
            if time.monotonic() >= end:
                break
    print(run.stdout, end="")
    print(f"torch {torch.__version__}: {count} random cases of the seeds {options.seed} to {seed - 1} hold")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(HERE, "vectors"), help="folder of the vectors")
    parser.add_argument("--live", action="store_true", help="check random cases instead")
    parser.add_argument("--seconds", type=float, default=20, help="--live: for how long (20)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="--live: first batch's (the time)")
    parser.add_argument("--cases", type=int, default=40, help="--live: in a batch (40)")
    parser.add_argument("--program", default=os.path.join(ROOT, "build/tests/torch/test_torch"),
                        help="--live: the test program (build/tests/torch/test_torch)")
    parser.add_argument("--lib", help="--live: the libattn.so to check (the program's own)")
    options = parser.parse_args()
    torch = import_torch()
    if options.live:
        live(torch, options)
    else:
        rewrite(torch, options.out)


if __name__ == "__main__":
    main()
