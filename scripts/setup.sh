#!/bin/bash
# Installs the Debian packages that are missing; does nothing, quickly, when all are there.
#
#   scripts/setup.sh demo    what building the library and the attn command needs (default)
#   scripts/setup.sh test    that, and what the tests need: Check, Google Benchmark, clang, qemu, llvm-mca,
#                            cmake, valgrind, pip, and on an amd64 machine the arm64 cross compiler and libraries; and, from
#                            PyPI (26 MB), onnx in a virtual environment: $ATTN_ONNX_ENV (default
#                            onnx-env in $ATTN_BUILD, build/)
#
# Works as root or with sudo. ATTN_SETUP=skip: install nothing, only say what is missing.
set -euo pipefail
# Debian's own tools, whatever version managers put in front of them
export PATH="/usr/sbin:/usr/bin:/sbin:/bin:$PATH"

level=${1:-demo}
demo=(gcc libc6-dev meson ninja-build pkgconf libsleef-dev libpthreadpool-dev libpopt-dev libpng-dev
    libjansson-dev python3)
test=(g++ clang binutils check libbenchmark-dev qemu-user llvm-19 python3-pip python3-venv
    cmake valgrind)
arm64=(crossbuild-essential-arm64 libc6:arm64 check:arm64 libsleef-dev:arm64)

if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: this is not Debian; install by hand: ${demo[*]}" >&2
    exit 1
fi

case $level in
    demo) wanted=("${demo[@]}") ;;
    test) wanted=("${demo[@]}" "${test[@]}")
        # The arm64 packages are foreign only on amd64; elsewhere the tests run natively.
        if [ "$(dpkg --print-architecture)" = amd64 ]; then
            wanted+=("${arm64[@]}")
        fi ;;
    *) echo "usage: $0 [demo|test]" >&2
        exit 2 ;;
esac

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | head -n 1)" = installed ]
}

missing=()
for package in "${wanted[@]}"; do
    installed "$package" || missing+=("$package")
done

# The generator of ONNX's test cases; a virtual environment that was cut short is made again.
onnx_env() {
    local root env
    root=$(cd "$(dirname "$0")/.." && pwd)
    env=${ATTN_ONNX_ENV:-${ATTN_BUILD:-$root/build}/onnx-env}
    if [ -e "$env/complete" ]; then return; fi
    if [ "${ATTN_SETUP:-}" = skip ]; then
        echo "setup.sh: missing, not installed: onnx (PyPI) in $env" >&2
        return
    fi
    echo "setup.sh: installing onnx (PyPI) in $env" >&2
    rm -rf "$env"
    mkdir -p "$(dirname "$env")"
    if python3 -m venv "$env" >&2 && "$env/bin/pip" install -q --only-binary :all: 'onnx==1.23.2' >&2; then
        touch "$env/complete"
    else
        rm -rf "$env"
        echo "setup.sh: onnx could not be got from PyPI; the test 'onnx' will be skipped" >&2
    fi
}

if [ ${#missing[@]} -eq 0 ]; then
    if [ "$level" = test ]; then onnx_env; fi
    exit 0
fi
if [ "${ATTN_SETUP:-}" = skip ]; then
    echo "setup.sh: missing, not installed: ${missing[*]}" >&2
    if [ "$level" = test ]; then onnx_env; fi
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup.sh: run as root or install sudo; missing: ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

echo "setup.sh: installing ${missing[*]}" >&2
if [[ " ${missing[*]} " == *:arm64\ * ]] && ! dpkg --print-foreign-architectures | grep -qx arm64; then
    "${as_root[@]}" dpkg --add-architecture arm64
fi
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300
    -o Acquire::Retries=3)
"${apt[@]}" update </dev/null >&2
"${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null >&2
if [ "$level" = test ]; then onnx_env; fi
