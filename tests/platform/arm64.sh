#!/bin/bash
# arm64.sh SOURCE DIR: cross-builds SOURCE for arm64 in DIR and runs its tests under qemu-user. Fails when
# anything in there fails; what failed is at the end of the output. Without the cross compiler, qemu or
# the arm64 libraries it is skipped, or fails when ATTN_TEST_STRICT is set.
set -euo pipefail
export PATH="/usr/bin:/bin:$PATH" # Debian's meson and ninja
unset CC CXX CFLAGS CXXFLAGS LDFLAGS PKG_CONFIG_PATH ATTN_BACKEND MESON_TESTTHREADS MAKEFLAGS

source=$1
dir=$2

missing() {
    echo "arm64: $1 is missing; scripts/setup.sh test installs it" >&2
    if [ -n "${ATTN_TEST_STRICT:-}" ]; then exit 1; else exit 77; fi
}
command -v aarch64-linux-gnu-gcc >/dev/null || missing aarch64-linux-gnu-gcc
command -v qemu-aarch64 >/dev/null || missing qemu-aarch64
[ -e /usr/lib/aarch64-linux-gnu/libsleef.so ] || missing libsleef-dev:arm64
[ -e /usr/lib/aarch64-linux-gnu/libcheck.a ] || missing check:arm64

mkdir -p "$dir"
"$source/scripts/arm64-sysroot.sh" "$dir/sysroot"
build=$dir/build
if [ ! -f "$build/build.ninja" ]; then
    rm -rf "$build"
    meson setup "$build" "$source" --cross-file "$source/crossfiles/aarch64-linux-gnu.ini" \
        -Dwerror=true -Dneon=enabled -Dtests=enabled -Dtools=disabled -Dbench=disabled \
        -Dpthreadpool_root="$(realpath "$dir/sysroot")"
fi
rm -f "$build/meson-logs/testlog.json"
ninja -C "$build" --quiet
exec meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 10
