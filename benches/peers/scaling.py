"""How kinglet's speed changes with threads, with a core that another process keeps half busy, and with depth."""
import contextlib
import multiprocessing
import os
import statistics
import time

TESTS = {"prefill 512": {"prompt": 512}, "decode 128": {"generate": 128}}
DEPTH, GENERATE = 4096, 64
# Part of its core that the other process takes, and how long each turn is.
DUTY, PERIOD = 0.5, 0.02


def threads(rate, repeat):
    """{test: {threads: [tokens/s]}} for one thread and 1, 2 and 4 threads per core, taking turns."""
    cores = os.cpu_count()
    counts = dict.fromkeys([1, cores, 2 * cores, 4 * cores])
    return {test: _in_turn({count: lambda c=count: rate(threads=c, **flags) for count in counts}, repeat)
            for test, flags in TESTS.items()}


def busy_core(rate, repeat):
    """{test: {"free" or "busy": [tokens/s]}}, with a thread per core."""
    cores = os.cpu_count()

    def busy(flags):
        with _half_busy(max(os.sched_getaffinity(0))):
            return rate(threads=cores, **flags)

    return {test: _in_turn({"free": lambda: rate(threads=cores, **flags), "busy": lambda: busy(flags)}, repeat)
            for test, flags in TESTS.items()}


def depth(rate, repeat):
    """{kind of KV cache: {depth: [tokens/s]}} of decoding, with a thread per core."""
    def decode(kv, before):
        return lambda: rate(threads=os.cpu_count(), generate=GENERATE, depth=before, kv=kv)

    return {kv: _in_turn({before: decode(kv, before) for before in (0, DEPTH)}, repeat) for kv in ("q16", "q8", "k8v4")}


def thread_rows(found):
    """Lines of the table."""
    for test, rates in found.items():
        medians = {count: statistics.median(values) for count, values in rates.items()}
        alone, best = medians[1], max(medians.values())
        for count, median in medians.items():
            yield f"| {test} | {count} | {median / alone:.2f} | {median / best:.2f} |"


def busy_rows(found):
    """Lines of the table."""
    left = 1 - DUTY / os.cpu_count()
    for test, rates in found.items():
        kept = statistics.median(rates["busy"]) / statistics.median(rates["free"])
        yield f"| {test} | {kept:.2f} | {left:.2f} | {kept / left:.2f} |"


def depth_rows(found):
    """Lines of the table."""
    for kv, rates in found.items():
        yield f"| {kv} | {statistics.median(rates[DEPTH]) / statistics.median(rates[0]):.2f} |"


THREAD_HEADER = "| test | threads | of one thread | of the best |\n|---|---|---|---|"
BUSY_HEADER = "| test | speed kept | cores left, of all | ratio |\n|---|---|---|---|"
DEPTH_HEADER = f"| KV cache | decode after {DEPTH} tokens, of that at the start |\n|---|---|"


def _in_turn(measurements, repeat):
    """{name: [result]} of functions that take turns."""
    found = {name: [] for name in measurements}
    for _ in range(repeat):
        for name, measurement in measurements.items():
            found[name].append(measurement())
    return found


@contextlib.contextmanager
def _half_busy(core):
    """While another process keeps a core half busy."""
    process = multiprocessing.Process(target=_spin, args=(core,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _spin(core):
    os.sched_setaffinity(0, {core})
    while True:
        end = time.perf_counter() + DUTY * PERIOD
        while time.perf_counter() < end:
            pass
        time.sleep((1 - DUTY) * PERIOD)
