#!/usr/bin/env bash
# One report for all-MiniLM-L6-v2 and one for SmolLM2-135M: kinglet at f16, q8 and q4, beside ONNX Runtime's INT8
# and llama.cpp's Q4_0, Q4_K_M and Q8_0, by one protocol: benches/report.sh [FOLDER]
# Writes FOLDER/all-minilm-l6-v2/report.html and FOLDER/smollm2-135m/report.html (default: ./report), with the same
# as Markdown and JSON beside. Everything fetched or built is kept in the user's cache folder; llama.cpp takes
# minutes to build the first time. PEERS=no leaves the other engines out; THREADS=2 chooses the threads of all.
set -euo pipefail
out=$(realpath -m "${1:-report}")
cd "$(dirname "$0")/.."

threads=${THREADS:+--threads $THREADS}
cargo build --release -p kinglet -p kinglet-convert
convert=target/release/kinglet-convert

# The last half of the news documents is the text to measure on, the first the one to calibrate on.
background=$($convert pull lee-background)
similarity=$($convert pull lee-similarity)
mkdir -p "$out"
documents=$(sed 's/^ *//; s/ *$//; /^$/d' "$background")
head -n 150 <<< "$documents" > "$out/calibration.txt"
tail -n 150 <<< "$documents" > "$out/news.txt"

# report NAME INPUT ENGINE VARIANTS [FLAG...]: a variant is a name with the flags of its conversion.
report() {
    local folder=$out/$1 input=$2 engine=$3 files=() rows=() variant name flags
    mkdir -p "$folder"
    while read -r name flags; do
        echo "$1: $name" >&2
        # shellcheck disable=SC2086 # the flags are several words
        $convert "$input" -o "$folder/$name.kgl" $flags > /dev/null
        files+=("$folder/$name.kgl")
    done <<< "$4"
    if [ "${PEERS:-yes}" != no ]; then
        # shellcheck disable=SC2086
        python3 benches/peers/rows.py "$engine" --like "${files[0]}" --text "$out/news.txt" \
            --out "$folder/$engine.json" $threads "${@:5}"
        rows=(--rows "$folder/$engine.json")
    fi
    # shellcheck disable=SC2086
    $convert compare "${files[@]}" --text "$out/news.txt" --out "$folder" $threads "${rows[@]}" "${@:5}"
}

minilm=$($convert pull all-minilm-l6-v2)
report all-minilm-l6-v2 "$minilm" onnx "\
f16 --quant f16
q8 --quant q8
q4 --quant q4
q4-rounded --quant q4 --method rtn" --similarity "$similarity/lee.cor" "$similarity/similarities0-1.txt"

# What a package carries of SmolLM2 lies on a 4-bit grid, on which every q4 looks lossless: a reference of full
# precision is made of it, and kinglet's files get the sizes of llama.cpp's.
smollm2=$(python3 benches/peers/rows.py reference)
tuned="--calibration $out/calibration.txt"
report smollm2-135m "$smollm2/hf" llama.cpp "\
f16 --quant f16
q8 --quant q8 $tuned
q4 --quant q4 $tuned
q4-rounded --quant q4 --method rtn
size-105.5MB --size 105.5MB $tuned
size-77.6MB --size 77.6MB $tuned"
