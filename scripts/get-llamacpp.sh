#!/bin/bash
# Gets llama-cpp-python from PyPI and compiles it for this processor, unchanged, in a virtual environment with NumPy and
# gguf (some minutes); and its ggml again without AVX-512, which valgrind does not run. Prints the folder, $ATTN_LLAMACPP
# (default llamacpp in $ATTN_BUILD, build/); only prints it when it is there:
#
#   env/         the virtual environment
#   source/      ggml's headers, the internal ones included
#   ggml/        libraries of ggml for any AVX2 processor (amd64), in lib
set -euo pipefail
export PATH="/usr/bin:/bin:$PATH" # Debian's own tools, whatever version managers put in front of them

root=$(cd "$(dirname "$0")/.." && pwd)
folder=${ATTN_LLAMACPP:-${ATTN_BUILD:-$root/build}/llamacpp}
package=llama-cpp-python==0.3.36
patience=1200 # seconds of one compilation

say() { echo "get-llamacpp.sh: $*" >&2; }

if [ ! -e "$folder/complete" ]; then
    for tool in cmake ninja g++ python3; do
        command -v "$tool" >/dev/null || { say "$tool is missing: scripts/setup.sh test"; exit 1; }
    done
    rm -rf "$folder"
    mkdir -p "$folder/source"
    python3 -m venv "$folder/env" >&2
    pip=("$folder/env/bin/pip" --disable-pip-version-check --quiet)
    say "compiling $package (PyPI) ..."
    "${pip[@]}" download --no-deps --no-binary :all: --dest "$folder" "$package" >&2
    "${pip[@]}" install --only-binary :all: 'numpy<3' 'gguf==0.19.0' >&2
    timeout "$patience" "${pip[@]}" install "$package" >&2 || { say "it does not compile within $patience s"; exit 1; }
    tar -xzf "$folder"/llama_cpp_python-*.tar.gz -C "$folder/source" --strip-components=3 --wildcards \
        '*/vendor/llama.cpp/ggml'
    rm "$folder"/llama_cpp_python-*.tar.gz
    if [ "$(uname -m)" = x86_64 ]; then
        say "compiling its ggml without AVX-512 ..."
        timeout "$patience" bash -euc '
            printf "%s\n" "cmake_minimum_required(VERSION 3.14)" "project(ggml_alone C CXX)" "add_subdirectory(ggml)" \
                >"$1/source/CMakeLists.txt"
            cmake -G Ninja -S "$1/source" -B "$1/ggml" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_SHARED_LIBS=ON \
                -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$1/ggml/lib"
            ninja -C "$1/ggml"' - "$folder" >"$folder/ggml.log" 2>&1 || { tail "$folder/ggml.log" >&2; exit 1; }
    fi
    touch "$folder/complete"
fi
echo "$folder"
