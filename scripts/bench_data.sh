#!/bin/sh
# Measures streams of samples, and mlx-data's where it is installed, in one run:
# bench_data.sh BUILD. The text is this repository's own, repeated to 64 MB. PYTHON
# names the interpreter that has mlx-data; TOKENIZER a model's folder (the demo's
# when it was made). Nothing here fails on a slow figure.
set -eu
build=$(cd "$1" && pwd)
source=$(cd "$(dirname "$0")/.." && pwd)
tokenizer=${TOKENIZER:-$build/demo/smollm2}
[ -d "$tokenizer" ] || tokenizer=
cmake --build "$build" --target bench_data_streams > /dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
cd "$source"
git ls-files '*.c' '*.h' '*.md' | xargs cat > "$work/once"
size=$(wc -c < "$work/once")
for _ in $(seq 1 $((64000000 / size + 1))); do cat "$work/once"; done > "$work/text"
rm "$work/once"
[ -n "$tokenizer" ] || echo "No tokenizer: run the demo first, or set TOKENIZER to a model's folder"
# shellcheck disable=SC2086
"$build/bench_data_streams" "$work/text" ${tokenizer:+"$tokenizer"}
"${PYTHON:-python3}" "$source/scripts/data_peer.py" "$work/text" || true
