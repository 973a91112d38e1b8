#!/usr/bin/env python3
"""The importance matrix of llama.cpp, as its `llama-imatrix` collects it: mean squares of the inputs of every weight
of a block, over windows of 512 tokens of a text.

    llama_cpp_imatrix.py MODEL.gguf TEXT OUT.npz

llama_cpp_quantize.py takes the file.
"""
import ctypes
import sys

import llama_cpp
import numpy as np
from llama_cpp_eval import WINDOW, Scorer, silence


class Tensor(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h."""


Tensor._fields_ = [
    ("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16), ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Tensor) * 10), ("view_src", ctypes.c_void_p), ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64), ("extra", ctypes.c_void_p), ("padding", ctypes.c_char * 8),
]


class Collector:
    """Sums the squares of the inputs of each weight while a model runs."""

    def __init__(self):
        self.squares, self.rows = {}, {}
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self.see)

    def see(self, pointer, ask, _data):
        node = ctypes.cast(pointer, ctypes.POINTER(Tensor)).contents
        if not node.src[0] or not node.src[1]:
            return not ask
        weight, x = node.src[0].contents, node.src[1].contents
        # A matrix of a block, and the floats that it is multiplied with.
        if not (weight.name.startswith(b"blk.") and weight.name.endswith(b".weight") and weight.ne[1] > 1):
            return not ask
        if ask:
            return True
        count = x.ne[0] * x.ne[1]
        values = np.ctypeslib.as_array(ctypes.cast(x.data, ctypes.POINTER(ctypes.c_float)), (count,))
        squares = np.square(values.reshape(-1, x.ne[0]), dtype=np.float64).sum(axis=0)
        name = weight.name.decode()
        self.squares[name] = self.squares.get(name, 0.0) + squares
        self.rows[name] = self.rows.get(name, 0) + x.ne[1]
        return True


def main(model, text, out):
    silence()
    collector = Collector()
    scorer = Scorer(model, collector.callback)
    tokens = scorer.tokenize(open(text, encoding="utf-8").read())
    for start in range(0, len(tokens) - WINDOW + 1, WINDOW):
        scorer.decode(tokens[start:start + WINDOW])
    means = {name: (squares / collector.rows[name]).astype(np.float32) for name, squares in collector.squares.items()}
    if not means:
        sys.exit("no matrix product was seen")
    np.savez(out, **means)


if __name__ == "__main__":
    main(*sys.argv[1:])
