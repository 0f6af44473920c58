#!/bin/sh
# Measures the engine alone, this machine's limits, and other engines where they
# are installed, in one run: bench_engine.sh BUILD. Nothing here fails on a slow
# figure. PYTHON names the interpreter whose packages are the peers.
set -eu
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
benches=$(cd "$here/.." && ls tests/bench/bench_engine_*.c | sed 's,.*/,,; s,\.c$,,')
cmake --build "$build" --target $benches > /dev/null
for bench in $benches; do
    echo "== $bench"
    "$build/$bench"
    echo
done
echo "== Peers"
"${PYTHON:-python3}" "$here/engine_peers.py"
