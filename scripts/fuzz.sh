#!/bin/sh
# Builds every fuzz target with clang and runs each for some seconds, two a
# processor at a time: fuzz.sh BUILD SECONDS JOBS. A crash leaves its input in the build
# folder and makes this script fail. Seeds are tests/fuzz/seeds/<target>/.
# FUZZ_SEED starts the random numbers (0: another way each time).
set -eu
build=$1 seconds=$2 jobs=$3
source=$(cd "$(dirname "$0")/.." && pwd)

cmake -S "$source" -B "$build" -DFUZZ=ON -DCMAKE_C_COMPILER=clang > /dev/null
targets=$(cd "$source/tests/fuzz" && ls fuzz_*.c | sed 's/\.c$//')
# shellcheck disable=SC2086
cmake --build "$build" -j"$jobs" --target $targets

one() {
    mkdir -p "$build/corpus/$1" "$build/crashes/$1"
    seeds="$source/tests/fuzz/seeds/$1"
    [ -d "$seeds" ] || seeds=
    # shellcheck disable=SC2086
    if MLX_RAG_THREADS=1 "$build/$1" -seed="${FUZZ_SEED:-0}" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$build/crashes/$1/" \
        "$build/corpus/$1" $seeds > "$build/$1.log" 2>&1; then
        echo "clean  $1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$1.log") runs"
    else
        echo "FAILED $1: see $build/$1.log"
        tail -n 40 "$build/$1.log"
        touch "$build/failed"
    fi
}

rm -f "$build/failed"
running=0
for target in $targets; do
    one "$target" &
    running=$((running + 1))
    if [ "$running" -ge $((2 * jobs)) ]; then
        wait
        running=0
    fi
done
wait
[ ! -e "$build/failed" ]
