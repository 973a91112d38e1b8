#!/usr/bin/env python3
"""Quantize an F16 GGUF with llama.cpp, all tensors alike: llama_cpp_quantize.py IN.gguf OUT.gguf Q4_0|Q8_0|Q4_K_M"""
import sys

import llama_cpp as lc

TYPES = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}


def main(source, target, name):
    params = lc.llama_model_quantize_default_params()
    params.ftype = TYPES[name]
    params.pure = name in ("Q4_0", "Q8_0")
    params.nthread = 2
    if lc.llama_model_quantize(source.encode(), target.encode(), params) != 0:
        sys.exit(f"llama.cpp cannot quantize {source}")


if __name__ == "__main__":
    main(*sys.argv[1:])
