#!/usr/bin/env python3
"""Measure llama.cpp as `llama-bench` does, through the llama-cpp-python package.

Reads one JSON object per line from standard input, {"model", "threads", "prompt", "generate", "depth"}, and
answers each with {"prefill": tokens/s or null, "decode": tokens/s or null}, measured once. The model stays
loaded between lines, so that a caller can alternate with other engines.

    llama_cpp_bench.py --probe MODEL.gguf THREADS TOKENS

says what the first token after a prompt of so many tokens costs a process that does nothing else.
"""
import ctypes
import json
import random
import sys
import time

import llama_cpp as lc

from memory import peak_beyond, resident

MODELS = {}


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def quiet(level, text, data):
    """Drop llama.cpp's log."""


def load(path):
    if path not in MODELS:
        MODELS[path] = lc.llama_model_load_from_file(path.encode(), lc.llama_model_default_params())
        if not MODELS[path]:
            sys.exit(f"llama.cpp cannot load {path}")
    return MODELS[path]


def decode(ctx, tokens):
    array = (lc.llama_token * len(tokens))(*tokens)
    if lc.llama_decode(ctx, lc.llama_batch_get_one(array, len(tokens))) != 0:
        sys.exit("llama_decode failed")
    lc.llama_synchronize(ctx)


def measure(job):
    model = load(job["model"])
    vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    prompt, generate, depth = job["prompt"], job["generate"], job["depth"]
    params = lc.llama_context_default_params()
    params.n_ctx = prompt + generate + depth + 1
    params.n_batch, params.n_ubatch = 2048, 512
    params.n_threads = params.n_threads_batch = job["threads"]
    ctx = lc.llama_init_from_model(model, params)
    tokens = [random.randrange(vocab) for _ in range(prompt + generate + depth)]
    decode(ctx, tokens[:1])  # warm up
    lc.llama_memory_clear(lc.llama_get_memory(ctx), True)
    if depth:
        decode(ctx, tokens[:depth])
    result = {"prefill": None, "decode": None}
    start = time.perf_counter()
    if prompt:
        decode(ctx, tokens[:prompt])
        result["prefill"] = prompt / (time.perf_counter() - start)
    start = time.perf_counter()
    for token in tokens[:generate]:
        decode(ctx, [token])
    if generate:
        result["decode"] = generate / (time.perf_counter() - start)
    lc.llama_free(ctx)
    return result


def probe(path, threads, prompt):
    before = resident()
    start = time.perf_counter()
    model = load(path)
    vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    params = lc.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = prompt + 1, 2048, 512
    params.n_threads = params.n_threads_batch = threads
    ctx = lc.llama_init_from_model(model, params)
    decode(ctx, [i * 7919 % vocab for i in range(prompt)])
    logits = lc.llama_get_logits_ith(ctx, -1)
    max(range(vocab), key=logits.__getitem__)
    return {"first_result_seconds": time.perf_counter() - start, "peak_memory": peak_beyond(before)}


def main():
    lc.llama_log_set(quiet, ctypes.c_void_p(0))
    lc.llama_backend_init()
    if sys.argv[1:2] == ["--info"]:
        print(lc.llama_print_system_info().decode())
        return
    if sys.argv[1:2] == ["--probe"]:
        print(json.dumps(probe(sys.argv[2], *map(int, sys.argv[3:]))))
        return
    for line in sys.stdin:
        print(json.dumps(measure(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
