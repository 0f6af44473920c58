#!/bin/sh
# Runs the conformance tests and random programs on an installed mlx-c and
# compares with this engine: compare.sh OFFICIAL_PREFIX [BUILD [COUNT [FIRST]]]
# where OFFICIAL_PREFIX holds include/mlx/c and lib/libmlxc, and BUILD is a
# finished build of this repository.
set -eu
prefix=$1
build=${2:-build}
count=${3:-5000}
first=${4:-0}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

against_official() { # output sources...
    output=$1
    shift
    cc -O1 -D_GNU_SOURCE -DOFFICIAL_ENGINE -DGOLDEN="\"$here/../golden\"" -w -I"$here/.." \
        -I"$prefix/include" "$@" -o "$output" -L"$prefix/lib" -lmlxc -lcmocka -lpthread -lm \
        -Wl,-rpath,"$prefix/lib" -Wl,--allow-shlib-undefined
}

for source in "$here"/test_*.c; do
    name=$(basename "$source" .c)
    against_official "$work/$name" "$source"
    for program in "$work/$name" "$build/$name"; do
        if ! "$program" > "$work/log" 2>&1; then
            grep -E 'ERROR|LINE|FAILED' "$work/log" || tail -3 "$work/log"
            echo "$program failed"
            failed=1
        fi
    done
done

against_official "$work/random_programs" "$here"/random_programs.c "$here"/program*.c
"$build/random_programs" run "$first" "$count" "$work/own"
"$work/random_programs" run "$first" "$count" "$work/official" 2> /dev/null
"$build/random_programs" compare "$work/own" "$work/official" || failed=1
exit $failed
