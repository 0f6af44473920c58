#!/bin/sh
# Clang's warnings as errors, clang-tidy, cppcheck, clang-format and the house
# rules that a machine can check: lint.sh BUILD JOBS.
set -eu
build=$1 jobs=$2
cd "$(dirname "$0")/.."

cmake -S . -B "$build" -DFUZZ=ON -DCMAKE_C_COMPILER=clang > /dev/null # fuzz.sh builds here too
cmake --build "$build" -j"$jobs"

git ls-files 'src/*.c' | xargs -P "$jobs" -n 8 clang-tidy -p "$build" --quiet 2> /dev/null

cppcheck -j "$jobs" --quiet --std=c11 --enable=warning,performance,portability \
    --inline-suppr --suppressions-list=scripts/cppcheck.txt --error-exitcode=1 -I src -I src/engine src

git ls-files '*.c' '*.h' | xargs clang-format --dry-run --Werror

long=$(git ls-files '*.c' '*.h' | xargs wc -l | awk '$2 != "total" && $2 !~ /_data\.c$/ && $1 > 800 {print $2 " has " $1 " lines"}')
if [ -n "$long" ]; then
    echo "Files past 800 lines hold two ideas:" >&2
    echo "$long" >&2
    exit 1
fi

# A room uses only the rooms under it; engine internals stay in the engine.
rooms="base engine mx text hub nn models lm data tune rag cli"
allowed() {
    case $1 in
        base) echo base ;;
        engine) echo "base engine core cpu ops io grad mlx" ;;
        mx) echo "base mlx mx" ;;
        text) echo "base text" ;;
        hub) echo "base mlx mx hub" ;;
        nn) echo "base mlx mx nn" ;;
        models) echo "base mlx mx nn hub models" ;;
        lm) echo "base mlx mx nn hub models text lm" ;;
        data) echo "base data" ;;
        tune) echo "base mlx mx nn hub models text lm data tune" ;;
        rag) echo "base mlx mx text lm data rag" ;;
        cli) echo "base mlx mx nn hub models text lm data tune rag cli" ;;
    esac
}
bad=0
for room in $rooms; do
    for used in $(grep -rhoE '^#include "[a-z]+/' "src/$room" | sed 's/.*"//;s,/,,' | sort -u); do
        case " $(allowed "$room") " in
            *" $used "*) ;;
            *) echo "src/$room may not use $used/" >&2; bad=1 ;;
        esac
    done
done
exit $bad
