"""The Python and the environment variables that the peers run under, and their installation."""

import os
import subprocess
import sys

import benchlib

# Variables of the user's that would hold a peer back (or choose its threads): each peer chooses by itself.
RESTRICTIONS = ("OPENBLAS_", "GOTO_", "BLIS_", "MKL_", "OMP_", "GOMP_", "KMP_", "ONEDNN_", "DNNL_",
                "ATEN_CPU_CAPABILITY", "ATTN_BACKEND")
# malloc's large blocks on huge pages, for ours and for every peer
HUGE_PAGES = "glibc.malloc.hugetlb=1"
AVX2 = {"OPENBLAS_CORETYPE": "Haswell", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2"}
PACKAGES = ["numpy==2.4.6", "mkl==2026.2.0", "scipy-openblas32==0.3.34.481.3", "onnxruntime==1.32.0",
            "onnx==1.23.2"]
# torch of PyPI asks for CUDA's gigabytes, which a CPU build (and some CUDA builds) run without
TORCH = "torch==2.13.0"
# compiled here, for this processor: some minutes, a compiler and cmake
LLAMA = "llama-cpp-python==0.3.36"
TORCH_NEEDS = ["filelock", "typing_extensions", "sympy", "networkx", "jinja2", "fsspec"]


def wanted(isa):
    """The environment to measure under."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(RESTRICTIONS)}
    tunables = env.get("GLIBC_TUNABLES", "")
    if HUGE_PAGES not in tunables.split(":"):
        env["GLIBC_TUNABLES"] = f"{tunables}:{HUGE_PAGES}".strip(":")
    return env | (AVX2 if isa == "avx2" else {})


def enter(venv, isa):
    """Starts this command again in the virtual environment and environment variables that it needs, once."""
    python = os.path.join(venv, "bin", "python") if venv else sys.executable
    if not os.access(python, os.X_OK):
        raise benchlib.Problem(f"{venv} is no virtual environment: bench/peers --install {venv}")
    env = wanted(isa)
    if env == dict(os.environ) and (not venv or os.path.realpath(sys.prefix) == os.path.realpath(venv)):
        return
    dropped = sorted(name for name in os.environ if name not in env)
    if dropped:
        print(f"without {', '.join(dropped)}, so that each peer chooses by itself", file=sys.stderr)
    sys.stdout.flush()
    os.execve(python, [python, *sys.argv], env)


def install(folder):
    """A virtual environment with all peers of PyPI."""
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        benchlib.run([sys.executable, "-m", "venv", folder])
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    benchlib.run([*pip, *PACKAGES, *TORCH_NEEDS])
    benchlib.run([*pip, "--no-deps", TORCH])
    if subprocess.run([python, "-c", "import torch"], capture_output=True).returncode != 0:
        print("this torch does not start without CUDA's libraries: installing them too", file=sys.stderr)
        benchlib.run([*pip, TORCH])
    if subprocess.run([*pip, LLAMA]).returncode != 0:
        print(f"{LLAMA} cannot be compiled here: the table goes without llama.cpp", file=sys.stderr)
    print(f"bench/peers --venv {folder} runs with these. Debian's peers, if missing:\n"
          "apt-get install libopenblas0-pthread libblis4-pthread libgomp1")
