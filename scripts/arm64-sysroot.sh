#!/bin/bash
# Unpacks Debian's arm64 pthreadpool into DIR/include and DIR/lib (-Dpthreadpool_root=DIR); does nothing
# when it is there. libpthreadpool-dev cannot be installed for two architectures at once, so the two
# packages are only downloaded; this needs the arm64 architecture of scripts/setup.sh test.
set -euo pipefail
export PATH="/usr/sbin:/usr/bin:/sbin:/bin:$PATH"

if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
dir=$1
if [ -f "$dir/complete" ]; then
    exit 0
fi
packages=(libpthreadpool0:arm64 libpthreadpool-dev:arm64)

rm -rf "$dir"
mkdir -p "$dir/download" "$dir/include" "$dir/lib"
cd "$dir/download"
# Sandbox::User: apt's own user cannot write here. The lists may be stale or gone: update them once.
fetch=(apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download "${packages[@]}")
if ! "${fetch[@]}" </dev/null >&2; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get -q -o DPkg::Lock::Timeout=300 update </dev/null >&2
    "${fetch[@]}" </dev/null >&2
fi
for package in *.deb; do
    dpkg-deb -x "$package" root
done
mv root/usr/include/* "$dir/include/"
mv root/usr/lib/aarch64-linux-gnu/* "$dir/lib/"
cd "$dir"
rm -r download
touch complete
