#!/bin/bash
# Installs what is missing, builds the library and the attn command in build/demo, and shows a real attention
# layer (examples/minilm): every backend of this machine against NumPy's results, a table of what each head
# looks at, and pictures. Nothing is written outside build/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
# Debian's own tools, whatever version managers put in front of them
export PATH="/usr/sbin:/usr/bin:/sbin:/bin:$PATH"

unset ATTN_BACKEND

scripts/setup.sh demo

out=build/demo
log=$out/build.log
mkdir -p "$out"
configure=(meson setup --buildtype=release -Dtools=enabled -Dtests=disabled -Dbench=disabled)
[ -e "$out/build.ninja" ] && configure+=(--reconfigure)
echo "building in $out ..."
if ! { "${configure[@]}" "$out" && ninja -C "$out"; } >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "demo.sh: the build failed; the whole log is in $log" >&2
    exit 1
fi

attn=$out/tools/attn
layer=examples/minilm
model=(-w "$layer/layer0.safetensors" -q "$layer/input.npy")
show() {
    echo
    echo "\$ $*"
    "$@"
}

show "$attn" info
for backend in $("$attn" info | sed -n 's/^backends runnable //p'); do
    show "$attn" head "${model[@]}" --backend "$backend" --check --expect "$layer/heads.npy"
    show "$attn" head "${model[@]}" --backend "$backend" --multihead --check --expect "$layer/output.npy"
done
show "$attn" inspect "${model[@]}" --tokens "$layer/tokens.json" --png "$out/heads.png"
for head in 2 5; do
    show "$attn" inspect "${model[@]}" --tokens "$layer/tokens.json" --head "$head" --png "$out/head$head.png"
done

echo
echo "Every backend agrees with NumPy within the derived bound. Pictures of the attention weights:"
echo "  $PWD/$out/heads.png  all heads"
echo "  $PWD/$out/head2.png  head 2: looks at the previous token"
echo "  $PWD/$out/head5.png  head 5: the word before, or [CLS]"
