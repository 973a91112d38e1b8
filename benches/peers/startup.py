"""Start-up and memory of programs that continue a text: from their start to the first token, and the most that they
have in memory."""
import os
import statistics
import subprocess
import sys
import time

PROMPT = "The capital of France is"
LONG_PROMPT = "the" + " the" * 511
CONTEXT, TOKENS = 1024, 32
# What kinglet may take beside weights and KV cache.
BESIDE = 30e6


def first_token(command):
    """Seconds from the start of a program to the first byte that it prints."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
    found = process.stdout.read(1)
    seconds = time.perf_counter() - start
    process.communicate()
    if process.returncode or not found:
        sys.exit(f"{command[0]} failed")
    return seconds


def peak_memory(command):
    """The most bytes that a program had resident, mapped files included."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    return usage.ru_maxrss * 1024


def measure(commands, repeat):
    """Start-up in seconds, engines taking turns, and peak memory: {engine: {"startup": [...], "peak_memory"}}.

    commands: {engine: command(prompt, context, tokens)}
    """
    found = {engine: {"startup": []} for engine in commands}
    for engine, command in commands.items():
        first_token(command(PROMPT, CONTEXT, 1))  # files are in memory after this
        found[engine]["peak_memory"] = peak_memory(command(LONG_PROMPT, CONTEXT, TOKENS))
    for _ in range(repeat):
        for engine, command in commands.items():
            found[engine]["startup"].append(first_token(command(PROMPT, CONTEXT, 1)))
    return found


def rows(kind, found, memory):
    """Lines of the table; memory: kinglet's {"weights", "kv_cache"} in bytes."""
    ours, theirs = found["kinglet"], found["llama.cpp"]
    a, b = (1000 * statistics.median(engine["startup"]) for engine in (theirs, ours))
    yield f"| {kind}, start to first token, ms | {a:.0f} | {b:.0f} | {b / a:.2f} | 0.33 of llama.cpp |"
    limit = memory["weights"] + memory["kv_cache"] + BESIDE
    a, b = (engine["peak_memory"] for engine in (theirs, ours))
    yield (f"| {kind}, peak memory, MB | {a / 1e6:.1f} | {b / 1e6:.1f} | {b / a:.2f} "
           f"| {limit / 1e6:.1f} = weights + KV cache + 30 |")


HEADER = "| | llama.cpp | kinglet | ratio | at most |\n|---|---|---|---|---|"
