#!/bin/sh
# The engine compiled for aarch64 on another Debian machine and its kernel tests run
# under qemu-user: neon.sh BUILD JOBS. Two processors are played, so that the choice at
# run time is tested too: one with the dot product of bytes and one without.
set -eu
build=$1 jobs=$2
source=$(cd "$(dirname "$0")/.." && pwd)
with_dot=cortex-a76 without_dot=cortex-a53

# Libraries of the engine and its tests are there for aarch64; those of other rooms,
# which are not built, only have to be found.
PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/lib/$(gcc -print-multiarch)/pkgconfig:/usr/share/pkgconfig
export PKG_CONFIG_LIBDIR
cmake -S "$source" -B "$build" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64 \
    > "$build.log" 2>&1 || { cat "$build.log"; exit 1; }
rm -f "$build.log"

targets=$(cd "$source/tests" && ls engine/test_*.c conformance/test_*.c | sed 's|.*/||; s/\.c$//')
# shellcheck disable=SC2086
cmake --build "$build" -j"$jobs" --target $targets

tests() { ctest --test-dir "$build" --output-on-failure -j"$jobs" -R "$1"; }
QEMU_CPU=$with_dot tests "^($(echo $targets | tr ' ' '|'))\$"
QEMU_CPU=$without_dot tests '^test_(kernels_matmul|kernels_fp_quant|ops_quant)$'
