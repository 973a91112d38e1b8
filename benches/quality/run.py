#!/usr/bin/env python3
"""Compare the quality of kinglet's quantized models with llama.cpp's at equal file size.

    python3 benches/quality/run.py --calibration TXT --text TXT [--windows 40] [--json FILE]

Takes the full-precision SmolLM2-135M reference of `benches/peers/run.py`. llama.cpp quantizes it to each of its
types; kinglet converts it to the size of each of those files, calibrated on one text and scored on another. Every row
has its file size, the mean and 99th percentile of the divergence from full precision in nats, the part of predictions
whose first choice is the same, perplexity, and the time and peak memory of the conversion. llama.cpp quantizes without an
importance matrix: its Python package offers none. Markdown goes to standard output.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / "peers"
sys.path.insert(0, str(PEERS))
import run as peers  # noqa: E402

# Type of llama.cpp, and the size that kinglet may use for it, in bytes.
SIZES = [("Q4_0", 77_600_000), ("Q4_K_M", 105_500_000), ("Q8_0", 144_800_000)]
ROUNDED = [("q4, rounded", ["--quant", "q4", "--embed", "q4", "--method", "rtn"]),
           ("q8, rounded", ["--quant", "q8", "--method", "rtn"])]


def timed(*command):
    """Seconds and peak megabytes of a command."""
    start = time.monotonic()
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def kinglet_rows(args, folder):
    convert, kinglet = (peers.ROOT / "target/release" / name for name in ("kinglet-convert", "kinglet"))
    reference = folder / "quality-f16.kgl"
    peers.run(convert, folder / "hf", "-o", reference, "--quant", "f16", stdout=subprocess.DEVNULL)
    jobs = [(label, flags) for label, flags in ROUNDED]
    for peer, size in SIZES:
        flags = ["--size", size, "--calibration", args.calibration]
        jobs.append((f"size of {peer}", flags))
    for label, flags in jobs:
        output = folder / "quality.kgl"
        seconds, memory = timed(convert, folder / "hf", "-o", output, *flags)
        answer = peers.run(kinglet, "eval", "-m", output, "--text", args.text, "--reference", reference,
                           "--chunks", args.windows, "--json", capture_output=True)
        yield {"engine": "kinglet", "label": label, "bytes": output.stat().st_size, "seconds": seconds,
               "peak_mb": memory, **json.loads(answer.stdout)}


def llama_rows(args, folder):
    python = peers.python_for(args.isa)
    reference = folder / "reference-f16.gguf"
    for kind, _ in SIZES:
        output = folder / f"quality-{kind}.gguf"
        if not output.exists():
            peers.run(python, PEERS / "llama_cpp_quantize.py", reference, output, kind,
                      stdout=sys.stderr, stderr=subprocess.DEVNULL)
        answer = peers.run(python, HERE / "llama_cpp_eval.py", output, reference, args.text, args.windows,
                           capture_output=True)
        yield {"engine": "llama.cpp", "label": kind, "bytes": output.stat().st_size, **json.loads(answer.stdout)}


def line(row):
    cost = f"{row['seconds']:.0f} s, {row['peak_mb']:.0f} MB" if "seconds" in row else ""
    return (f"| {row['engine']} {row['label']} | {row['bytes'] / 1e6:.1f} | {row['kl_mean']:.4f} | {row['kl_p99']:.3f} "
            f"| {100 * row['top1_agreement']:.1f} % | {row['perplexity']:.2f} | {cost} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=Path, required=True, help="the text that kinglet calibrates on")
    parser.add_argument("--text", type=Path, required=True, help="the text that is scored")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--isa", choices=peers.CMAKE, default="avx512vnni", help="instruction set of llama.cpp")
    parser.add_argument("--kinglet-only", action="store_true", help="leave llama.cpp out")
    parser.add_argument("--json", type=Path, help="write every row there")
    args = parser.parse_args()
    peers.CACHE.mkdir(parents=True, exist_ok=True)
    peers.run("cargo", "build", "--release", "-p", "kinglet", "-p", "kinglet-convert", cwd=peers.ROOT,
              stdout=sys.stderr)
    folder = peers.reference(peers.python_for(args.isa))
    rows = []
    print("| model | MB | mean KL | p99 | top-1 | perplexity | conversion |\n|---|---|---|---|---|---|---|")
    sources = [kinglet_rows] if args.kinglet_only else [kinglet_rows, llama_rows]
    for row in (row for source in sources for row in source(args, folder)):
        rows.append(row)
        print(line(row), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
