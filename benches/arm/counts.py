#!/usr/bin/env python3
"""Compare the instructions that kinglet and llama.cpp take per token on ARM, without ARM hardware.

    python3 benches/arm/counts.py [--cpu cortex-a76,max] [--profile] [--json FILE]

Both run SmolLM2-135M on one thread under QEMU, with a plugin (instructions.c) that counts. Each test runs once and
twice in one process; the difference is one run without loading. llama.cpp is the one of llama-cpp-python,
cross-compiled for the same CPU, and repacks its weights for it at load; the models are those of benches/peers/run.py.
kinglet's program is the one that .ci/arm builds. Writes a Markdown table, in millions of instructions per token, that
does not depend on the machine. Installs Debian's cross compiler and QEMU, and keeps what it builds in the user's cache
folder.
"""
import argparse
import collections
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "peers"))
import run as peers

CACHE = peers.CACHE / "arm"
TARGET = "aarch64-unknown-linux-gnu"
KINGLET = ROOT / "target" / TARGET / "release/kinglet"
# What `-mcpu=native` gives on such a CPU, scalable vectors aside.
ARCH = {"cortex-a76": "armv8.2-a+dotprod+fp16", "max": "armv8.6-a+dotprod+i8mm+fp16"}
ISA = {"cortex-a76": "dotprod", "max": "i8mm"}
# Prompt and generated tokens.
TESTS = [(64, 0, "prefill 64"), (0, 8, "decode 8")]


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, **options)


def install():
    needs = {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64": "qemu-user", "cmake": "cmake",
             "ninja": "ninja-build", "cc": "gcc"}
    missing = [package for program, package in needs.items() if not shutil.which(program)]
    if missing:
        run("apt-get", "update", "-q", stdout=sys.stderr)
        run("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing, stdout=sys.stderr)


@functools.cache
def plugin():
    """The counting plugin, built for this QEMU."""
    version = run("qemu-aarch64", "--version", capture_output=True, text=True).stdout
    interface = 1 if int(re.search(r"version (\d+)", version)[1]) < 9 else 2
    target = CACHE / f"instructions-{interface}.so"
    run("cc", "-O2", "-shared", "-fPIC", f"-DVERSION={interface}", "-o", target, HERE / "instructions.c")
    return target


def environment():
    """The Python of a peer's environment: it has what the reference model and llama.cpp's quantizer need."""
    ready = [isa for isa in peers.CMAKE if (peers.CACHE / f"venv-{isa}" / "ready").exists()]
    return peers.python_for((ready or ["avx2"])[0])


def llama_cpp(python, cpu):
    """The program that runs llama.cpp, cross-compiled for the CPU."""
    program = CACHE / f"llama_cpp_bench-{cpu}"
    if program.exists():
        return program
    package = f"llama_cpp_python-{peers.LLAMA_CPP_PYTHON}"
    source, build = CACHE / package / "vendor/llama.cpp", CACHE / "build"
    if not source.exists():
        run(python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python", "-d", CACHE,
            f"llama-cpp-python=={peers.LLAMA_CPP_PYTHON}", stdout=sys.stderr)
        with tarfile.open(CACHE / f"{package}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    options = {"CMAKE_BUILD_TYPE": "Release", "CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": "aarch64",
               "CMAKE_C_COMPILER": "aarch64-linux-gnu-gcc", "CMAKE_CXX_COMPILER": "aarch64-linux-gnu-g++",
               "BUILD_SHARED_LIBS": "OFF", "GGML_NATIVE": "OFF", "GGML_OPENMP": "OFF", "GGML_CPU_ARM_ARCH": ARCH[cpu]}
    options |= {f"LLAMA_BUILD_{part}": "OFF" for part in ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER")}
    print(f"building llama.cpp for {cpu} (minutes)", file=sys.stderr)
    run("cmake", "-G", "Ninja", "-S", source, "-B", build, *(f"-D{key}={value}" for key, value in options.items()),
        stdout=subprocess.DEVNULL)
    run("ninja", "-C", build, "llama", stdout=sys.stderr)
    libraries = [build / "src/libllama.a"]
    libraries += [build / f"ggml/src/lib{name}.a" for name in ("ggml", "ggml-cpu", "ggml-base")]
    run("aarch64-linux-gnu-g++", "-O2", "-static", "-I", source / "include", "-I", source / "ggml/include",
        HERE / "llama_cpp_bench.cpp", "-Wl,--start-group", *libraries, "-Wl,--end-group", "-o", program)
    return program


def count(cpu, *command):
    """Instructions of a run, by function."""
    with tempfile.NamedTemporaryFile() as file:
        run("qemu-aarch64", "-cpu", cpu, "-plugin", f"{plugin()},out={file.name}", *command,
            stdout=subprocess.DEVNULL, env=dict(os.environ, KINGLET_ISA=ISA[cpu]))
        counts = collections.Counter()
        for line in Path(file.name).read_text().splitlines():
            number, _, symbol = line.partition(" ")
            counts[symbol] += int(number)
    return counts


def once(cpu, *command):
    """Instructions of one of the runs that the last argument counts, by function."""
    twice, single = count(cpu, *command, 2), count(cpu, *command, 1)
    twice.subtract(single)
    return twice


def measure(cpu, ours, theirs, peer):
    """(test, tokens, instructions of llama.cpp, of kinglet), the latter two by function."""
    for prompt, generate, test in TESTS:
        yield (test, prompt + generate,
               once(cpu, peer, theirs, prompt, generate),
               once(cpu, KINGLET, "bench", "-m", ours, "-p", prompt, "-n", generate, "-t", 1, "-r"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", type=lambda s: s.split(","), default=list(ARCH), help="emulated CPUs")
    parser.add_argument("--profile", action="store_true", help="show the functions that take the most")
    parser.add_argument("--json", type=Path, help="write the counts by function there")
    args = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    install()
    if not KINGLET.exists():
        sys.exit(f"{KINGLET} is missing: .ci/arm builds it")
    run("cargo", "build", "--release", "-p", "kinglet-convert", cwd=ROOT, stdout=sys.stderr)
    python = environment()
    models = peers.models(python, *peers.smollm2(python), openvino=None)
    pairs = [(kind, peer, files) for (kind, peer, _), files in zip(peers.KINDS, models)]
    rows = []
    print("| CPU | test | llama.cpp | kinglet | ratio |\n|---|---|---|---|---|")
    for cpu in args.cpu:
        peer = llama_cpp(python, cpu)
        for ours, theirs, files in pairs:
            for test, tokens, a, b in measure(cpu, files["kinglet"], files["llama.cpp"], peer):
                a_total, b_total = a.total() / tokens / 1e6, b.total() / tokens / 1e6
                print(f"| {cpu} ({ISA[cpu]}) | {theirs} / {ours}, {test} | {a_total:.1f} | {b_total:.1f} | "
                      f"{b_total / a_total:.2f} |", flush=True)
                for label, counts in ((f"llama.cpp {theirs}", a), (f"kinglet {ours}", b)):
                    rows.append({"cpu": cpu, "engine": label, "test": test, "tokens": tokens,
                                 "instructions": counts.total(), "functions": dict(counts.most_common())})
                    if args.profile:
                        for name, number in counts.most_common(12):
                            share = 100 * number / counts.total()
                            print(f"{label} {share:5.1f} % {number / tokens / 1e6:8.2f} {name}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
