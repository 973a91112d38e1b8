#!/usr/bin/env python3
"""Quantize an F16 GGUF with llama.cpp: llama_cpp_quantize.py IN.gguf OUT.gguf Q4_0|Q8_0|Q4_K_M [IMATRIX.npz]

Q4_0 and Q8_0 are used for all tensors alike. IMATRIX.npz is an importance matrix, see
benches/quality/llama_cpp_imatrix.py.
"""
import ctypes
import sys

import llama_cpp as lc

TYPES = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}


def importance(path):
    """The array that llama.cpp takes, ended by an entry without name."""
    import numpy as np
    matrix = np.load(path)
    entries = (lc.llama_model_imatrix_data * (len(matrix.files) + 1))()
    for entry, name in zip(entries, matrix.files):
        values = matrix[name]
        entry.name, entry.size = name.encode(), values.size
        entry.data = (ctypes.c_float * values.size)(*values)
    return entries


def main(source, target, name, imatrix=None):
    params = lc.llama_model_quantize_default_params()
    params.ftype = TYPES[name]
    params.pure = name in ("Q4_0", "Q8_0")
    params.nthread = 2
    entries = importance(imatrix) if imatrix else None
    if entries:
        params.imatrix = entries
    if lc.llama_model_quantize(source.encode(), target.encode(), params) != 0:
        sys.exit(f"llama.cpp cannot quantize {source}")


if __name__ == "__main__":
    main(*sys.argv[1:])
