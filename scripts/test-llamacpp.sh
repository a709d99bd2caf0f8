#!/bin/bash
# Tests the plugin for llama.cpp with the unchanged library: its interface against ggml's headers, its nodes, a model with
# and without it, and a C program under valgrind.
#
#   scripts/test-llamacpp.sh PLUGIN                everything
#   scripts/test-llamacpp.sh --nodes PLUGIN        only the C program, compiled with $CFLAGS (a sanitizer's, say)
#
# Exit status: 0; 1 when something failed; 77 where llama.cpp cannot be got (no network, or no minutes).
# ATTN_TEST_SCALE=2: all types of keys and values, 200 tokens, 20 KB of text.
set -euo pipefail
export PATH="/usr/bin:/bin:$PATH" # Debian's own tools, whatever version managers put in front of them
unset ATTN_BACKEND

nodes=0
if [ "${1:-}" = --nodes ]; then nodes=1; shift; fi
if [ $# != 1 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
plugin=$(realpath "$1")
folder=$("$root/scripts/get-llamacpp.sh") || exit 77
python=$folder/env/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step() { printf '\n== %s (%d s)\n' "$1" $SECONDS; }

# The C program on ggml without AVX-512
program() {
    # shellcheck disable=SC2086 # several flags
    "${CC:-gcc}" -std=c11 -D_GNU_SOURCE -g -O1 ${CFLAGS:-} -I"$folder/source/ggml/include" "$root/tests/ggml/nodes.c" \
        -o "$work/nodes" -L"$folder/ggml/lib" -lggml -lggml-cpu -lggml-base -lm -Wl,-rpath,"$folder/ggml/lib"
}

if [ $nodes = 1 ]; then
    [ -d "$folder/ggml/lib" ] || exit 77
    program
    "$work/nodes" "$plugin"
    exit
fi

step "interface: ggml's headers"
"${CC:-gcc}" -std=c11 -fsyntax-only -I"$folder/source/ggml/include" -I"$folder/source/ggml/src" \
    -I"$root/plugins/ggml" "$root/tests/ggml/abi.c"

export GGML_ATTN_PLUGIN=$plugin PYTHONDONTWRITEBYTECODE=1
step "nodes"
"$python" "$root/tests/ggml/test_nodes.py"

if [ -n "${ATTN_SMOLLM2:-}" ]; then
    step "models"
    "$python" "$root/tests/ggml/test_models.py"
fi

if [ -d "$folder/ggml/lib" ] && command -v valgrind >/dev/null; then
    step "valgrind (AVX2)"
    program
    ATTN_BACKEND=avx2 valgrind --quiet --error-exitcode=1 --leak-check=full --errors-for-leak-kinds=definite \
        "$work/nodes" "$plugin"
fi
