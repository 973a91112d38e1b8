#!/usr/bin/env python3
"""Compare the quality of kinglet's quantized models with llama.cpp's at equal file size.

    python3 benches/quality/run.py --json FILE [--models smollm2,gemma3] [--texts news,wiki] [--windows 40] [--ablation]

Takes SmolLM2-135M and Gemma 3 270M in full precision (GGUF files of package indexes with noise of half a step, see
benches/peers/smollm2_reference.py). llama.cpp quantizes them to each of its types, with and without an importance
matrix; kinglet converts them to the size of each of those files. What is calibrated is calibrated on the first half of
300 news documents. The texts that are scored are the other half ("news") and the start of Wikipedia ("wiki"), which no
choice was made on. --ablation adds, for the first model, kinglet's methods one by one at INT4.

Every row has its file size, the mean and 99th percentile of the divergence from full precision in nats, the part of
predictions whose first choice is the same, perplexity in parts of that of full precision, and the CPU time and peak
memory of the conversion. Rows are kept in FILE as they come: a run that was stopped goes on where it was, and a row
that is there is not measured again. Markdown tables go to standard output.
"""
import argparse
import bz2
import html
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / "peers"
sys.path.insert(0, str(PEERS))
import run as peers  # noqa: E402

CONVERT, KINGLET = peers.CONVERT, peers.KINGLET
FOLDER = peers.CACHE / "quality"
# Types of llama.cpp (Q4_0 and Q8_0 for every tensor), whether it uses an importance matrix for them, and the flags that
# kinglet converts to their size with: more bits have less to make up for, and need fewer windows of the text.
TYPES = [("Q4_0", True, [[]]), ("Q4_K_M", True, [["--windows", "16"]]),
         ("Q8_0", False, [["--windows", "16"], ["--windows", "16", "--precise"]])]
KINDS = [kind for kind, *_ in TYPES]
Q4, Q8 = ["--quant", "q4", "--embed", "q4"], ["--quant", "q8"]
ABLATION = [("q4: rounded to nearest", [*Q4, "--method", "rtn"]),
            ("q4: + scales searched, clipping", [*Q4, "--method", "search"]),
            ("q4: scales searched, channels scaled", [*Q4, "--method", "search", "--awq"]),
            ("q4: scales searched, heads rotated", [*Q4, "--method", "search", "--rotate", "heads"]),
            ("q4: scales searched, all rotated", [*Q4, "--method", "search", "--rotate", "all"]),
            ("q4: + GPTQ", Q4), ("q4: GPTQ, channels scaled", [*Q4, "--awq"]),
            ("q4: + GPTQ, biases", [*Q4, "--bias-correction"]),
            ("q4: + GPTQ, norms", [*Q4, "--norm-correction"]),
            ("q4: + GPTQ, rank 8", [*Q4, "--low-rank", "8"]), ("q4: + GPTQ, rank 32", [*Q4, "--low-rank", "32"]),
            ("q8: rounded to nearest", [*Q8, "--method", "rtn"]), ("q8: scales searched", [*Q8, "--method", "search"]),
            ("q8: scales searched, channels scaled", [*Q8, "--method", "search", "--awq"]),
            ("q8: + GPTQ", [*Q8, "--awq=false"]), ("q8: GPTQ, channels scaled", Q8)]
WIKIPEDIA = ("gensim==4.4.0",
             "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2")
WIKIPEDIA_BYTES = 180_000


def timed(*command):
    """CPU seconds and peak megabytes of a command."""
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command))} failed")
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}


def news():
    """The two halves of the news documents: to calibrate on, and to score."""
    lines = [line.strip() for line in peers.pull_file("lee-background").read_text(encoding="utf-8").split("\n")]
    lines = [line for line in lines if line]
    halves = FOLDER / "calibration.txt", FOLDER / "news.txt"
    for path, part in zip(halves, (lines[:150], lines[-150:])):
        path.write_text("\n".join(part), encoding="utf-8")
    return halves


def wiki():
    """Plain paragraphs of the first articles of Wikipedia, from a package's test data."""
    path = FOLDER / "wiki.txt"
    if path.exists():
        return path
    package, member = WIKIPEDIA
    peers.run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", FOLDER, package,
              stdout=sys.stderr)
    wheel = next(FOLDER.glob("gensim-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        pages = bz2.decompress(archive.read(member)).decode("utf-8")
    wheel.unlink()
    paragraphs, size = [], 0
    for page in re.findall(r"<text[^>]*>(.*?)</text>", pages, re.DOTALL):
        page = html.unescape(page)
        for pattern in (r"<!--.*?-->", r"<ref[^>/]*/>", r"<ref.*?</ref>", r"\{\|.*?\|\}"):
            page = re.sub(pattern, "", page, flags=re.DOTALL)
        while (inner := re.sub(r"\{\{[^{}]*\}\}", "", page)) != page:
            page = inner
        page = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", page)
        page = re.sub(r"\[\S+ ([^\]]*)\]", r"\1", page)
        page = re.sub(r"'{2,}|<[^>]*>", "", page)
        for line in page.split("\n"):
            # Prose alone: no headings, lists, tables, files or redirects.
            if len(line) > 200 and line[0].isalnum() and size < WIKIPEDIA_BYTES:
                paragraphs.append(line.strip())
                size += len(line.encode())
    path.write_text("\n".join(paragraphs), encoding="utf-8")
    return path


class Table:
    """Rows that are kept in a file as they come."""

    def __init__(self, path):
        self.path = path
        self.rows = json.loads(path.read_text()) if path.exists() else []

    def has(self, key):
        return any(all(row[k] == v for k, v in key.items()) for row in self.rows)

    def add(self, row):
        self.rows.append(row)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.rows, indent=1))
        part.replace(self.path)
        print(f"{row['model']} {row['engine']} {row['label']} {row['text']}: {row['kl_mean']:.4f}", file=sys.stderr)


def score(table, key, path, made, texts, evaluate):
    """A row for each text; `made` makes the file at `path` and returns what it cost."""
    missing = [(name, text) for name, text in texts.items() if not table.has({**key, "text": name})]
    if not missing:
        return
    cost = made(path)
    for name, text in missing:
        table.add({**key, "text": name, "bytes": path.stat().st_size, **cost, **evaluate(path, text)})


def llama(args, python, table, model, gguf, calibration, texts):
    """llama.cpp's rows; the sizes of its files, by type."""
    def evaluate(path, text):
        answer = peers.run(python, HERE / "llama_cpp_eval.py", path, gguf, text, args.windows, capture_output=True)
        return json.loads(answer.stdout)

    sizes = {}
    matrix = FOLDER / f"{model}-imatrix.npz"
    for kind, uses_matrix, _ in TYPES:
        for weighted in (False, True)[:1 + uses_matrix]:
            path = FOLDER / f"{model}-{kind}{'-imatrix' if weighted else ''}.gguf"

            def made(path):
                if weighted and not matrix.exists():
                    peers.run(python, HERE / "llama_cpp_imatrix.py", gguf, calibration, matrix, stdout=sys.stderr)
                flags = [matrix] if weighted else []
                return timed(python, PEERS / "llama_cpp_quantize.py", gguf, path, kind, *flags)

            label = f"{kind}, imatrix" if weighted else kind
            if not args.kinglet_only:
                score(table, {"model": model, "engine": "llama.cpp", "label": label}, path, made, texts, evaluate)
            if not weighted:
                if not path.exists():
                    made(path)
                sizes[kind] = path.stat().st_size
    return sizes


def size_of(number):
    """A file's size as `--size` takes it, rounded down."""
    return f"{number // 100_000 / 10}MB"


def kinglet(args, table, model, source, calibration, texts, jobs):
    reference = FOLDER / f"{model}-f16.kgl"

    def evaluate(path, text):
        if not reference.exists():
            timed(CONVERT, source, "-o", reference, "--quant", "f16")
        answer = peers.run(KINGLET, "eval", "-m", path, "--text", text, "--reference", reference,
                           "--chunks", args.windows, "--json", capture_output=True)
        return json.loads(answer.stdout)

    score(table, {"model": model, "engine": "kinglet", "label": "f16"}, reference,
          lambda path: timed(CONVERT, source, "-o", path, "--quant", "f16"), texts, evaluate)
    for label, flags in jobs:
        def made(path):
            return timed(CONVERT, source, "-o", path, "--calibration", calibration, *flags)

        key = {"model": model, "engine": "kinglet", "label": label}
        score(table, key, FOLDER / f"{model}-kinglet.kgl", made, texts, evaluate)


def markdown(rows, model, text):
    """The table of one model and text."""
    rows = [row for row in rows if row["model"] == model and row["text"] == text]
    full = next((row["perplexity"] for row in rows if row["label"] == "f16"), None)
    lines = [f"{model}, {text}, perplexity in full precision {full:.2f}:\n" if full else f"{model}, {text}:\n",
             "| file | MB | mean KL | p99 | top-1 | perplexity | conversion |", "|---|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["bytes"] // 1_000_000, row["engine"] == "kinglet", -row["kl_mean"])):
        if row["label"] == "f16":
            continue
        ratio = f"× {row['perplexity'] / full:.4f}" if full else f"{row['perplexity']:.2f}"
        lines.append(f"| {row['engine']} {row['label']} | {row['bytes'] / 1e6:.1f} | {row['kl_mean']:.4f} "
                     f"| {row['kl_p99']:.3f} | {100 * row['top1_agreement']:.1f} % | {ratio} "
                     f"| {row['cpu_seconds']:.0f} CPU s, {row['peak_mb']:.0f} MB |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="the file that keeps the rows")
    parser.add_argument("--models", type=lambda s: s.split(","), default=list(peers.MODELS), help="smollm2,gemma3")
    parser.add_argument("--texts", type=lambda s: s.split(","), default=["news", "wiki"], help="news,wiki")
    parser.add_argument("--sizes", type=lambda s: s.split(","), default=KINDS,
                        help="kinglet's sizes, by the types of llama.cpp: Q4_0,Q4_K_M,Q8_0")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--isa", choices=peers.CMAKE, default="avx512vnni", help="instruction set of llama.cpp")
    parser.add_argument("--kinglet-only", action="store_true", help="leave llama.cpp's rows out")
    parser.add_argument("--ablation", action="store_true", help="add kinglet's methods one by one")
    args = parser.parse_args()
    unknown = [*(set(args.models) - set(peers.MODELS)), *(set(args.texts) - {"news", "wiki"}),
               *(set(args.sizes) - set(KINDS))]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    peers.run("cargo", "build", "--release", "-p", "kinglet", "-p", "kinglet-convert", cwd=peers.ROOT,
              stdout=sys.stderr)
    python = peers.python_for(args.isa)
    calibration, news_text = news()
    texts = {name: news_text if name == "news" else wiki() for name in args.texts}
    table = Table(args.json)
    for model in args.models:
        source, gguf = peers.MODELS[model](python)
        sizes = llama(args, python, table, model, gguf, calibration, texts)
        jobs = [(" ".join(["--size", size_of(sizes[kind]), *flags]), ["--size", size_of(sizes[kind]), *flags])
                for kind, _, variants in TYPES if kind in args.sizes for flags in variants]
        if args.ablation and model == args.models[0]:
            jobs += ABLATION
        kinglet(args, table, model, source, calibration, texts, jobs)
    print("\n\n".join(markdown(table.rows, model, text) for model in args.models for text in args.texts))


if __name__ == "__main__":
    main()
