#!/bin/bash
# oldcpu.sh CPU PROGRAM [ARGUMENT...]: runs an x86-64 program on qemu's CPU of that name.
# Skipped without qemu, or fails when ATTN_TEST_STRICT is set.
set -euo pipefail
export PATH="/usr/bin:/bin:$PATH"
unset ATTN_BACKEND

if ! command -v qemu-x86_64 >/dev/null; then
    echo "oldcpu: qemu-x86_64 is missing; scripts/setup.sh test installs it" >&2
    if [ -n "${ATTN_TEST_STRICT:-}" ]; then exit 1; else exit 77; fi
fi
cpu=$1
shift
exec qemu-x86_64 -cpu "$cpu" "$@"
