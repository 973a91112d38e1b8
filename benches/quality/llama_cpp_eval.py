#!/usr/bin/env python3
"""Score a GGUF file as `kinglet eval` scores a .kgl file: windows of 512 tokens, second halves, against a reference.

    llama_cpp_eval.py MODEL.gguf REFERENCE.gguf TEXT WINDOWS

Writes one JSON object with the keys of `kinglet eval --json`.
"""
import ctypes
import json
import os
import sys

import llama_cpp
import numpy as np

WINDOW = 512


class Scorer:
    """A model with one context of one window."""

    def __init__(self, path, callback=None):
        params = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            sys.exit(f"{path}: cannot be loaded")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = WINDOW
        params.n_threads = params.n_threads_batch = os.cpu_count()
        if callback:
            params.cb_eval = callback
        self.context = llama_cpp.llama_init_from_model(self.model, params)

    def tokenize(self, text):
        data = text.encode()
        tokens = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), tokens, len(tokens), True, True)
        return list(tokens[:count])

    def decode(self, tokens):
        """Runs a window from an empty context, its first token replaced by BOS where the model wants one."""
        if llama_cpp.llama_vocab_get_add_bos(self.vocab):
            tokens = [llama_cpp.llama_vocab_bos(self.vocab)] + tokens[1:]
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        batch = llama_cpp.llama_batch_init(WINDOW, 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            batch.logits[index] = index >= WINDOW // 2
        failed = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_batch_free(batch)
        if failed:
            sys.exit("llama_decode failed")

    def logits(self, tokens):
        """Of the positions in the second half, the last one left out."""
        self.decode(tokens)
        size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        rows = []
        for index in range(WINDOW // 2, WINDOW - 1):
            row = llama_cpp.llama_get_logits_ith(self.context, index)
            pointer = ctypes.cast(row, ctypes.POINTER(ctypes.c_float))
            rows.append(np.ctypeslib.as_array(pointer, (size,)).copy())
        return np.array(rows, dtype=np.float64)


@llama_cpp.llama_log_callback
def _silent(level, text, data):
    pass


def silence():
    """Keeps llama.cpp's log from standard error."""
    llama_cpp.llama_log_set(_silent, ctypes.c_void_p())


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def main():
    model_path, reference_path, text_path, windows = sys.argv[1:]
    silence()
    model, reference = Scorer(model_path), Scorer(reference_path)
    tokens = model.tokenize(open(text_path, encoding="utf-8").read())
    losses, divergences, agreements = [], [], []
    for index in range(min(int(windows), len(tokens) // WINDOW)):
        window = tokens[index * WINDOW:(index + 1) * WINDOW]
        ours, theirs = log_softmax(model.logits(window)), log_softmax(reference.logits(window))
        following = window[WINDOW // 2 + 1:]
        losses.extend(-ours[np.arange(len(following)), following])
        divergences.extend((np.exp(theirs) * (theirs - ours)).sum(axis=1))
        agreements.extend(ours.argmax(axis=1) == theirs.argmax(axis=1))
    divergences = np.maximum(np.sort(divergences), 0.0)
    print(json.dumps({
        "perplexity": float(np.exp(np.mean(losses))),
        "tokens_scored": len(losses),
        "windows": len(losses) // (WINDOW - 1 - WINDOW // 2),
        "kl_mean": float(divergences.mean()),
        "kl_p99": float(divergences[-(-len(divergences) * 99 // 100) - 1]),
        "top1_agreement": float(np.mean(agreements)),
    }))


if __name__ == "__main__":
    main()
