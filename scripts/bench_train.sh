#!/bin/sh
# Measures a step of training beside this machine's limits and other tools where they are
# installed, in one run: bench_train.sh BUILD. The models, of random weights, are made in
# BUILD/bench-train (about 6 GB). Nothing here fails on a slow figure. PYTHON names the
# interpreter that has torch, transformers and peft, MLX_PYTHON the one that has mlx-lm.
set -eu
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
models=$build/bench-train
cmake --build "$build" --target bench_tune_step > /dev/null
mkdir -p "$models"
echo "== Steps of training: rank 8 on all linear layers"
"$build/bench_tune_step" "$models"
printf '\n== Peers: SmolLM2-135M in shape, 4 x 256\n'
"${PYTHON:-python3}" "$here/train_peers.py" "$models/smollm2-135m" torch 2> /dev/null || true
"${MLX_PYTHON:-python3}" "$here/train_peers.py" "$models/smollm2-135m" mlx 2> /dev/null || true
