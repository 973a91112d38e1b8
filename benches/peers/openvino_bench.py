#!/usr/bin/env python3
"""Measure OpenVINO GenAI, a model folder as openvino_model.py makes it.

Reads one JSON object per line from standard input, {"model", "threads", "prompt", "generate", "depth"}, and answers
each with {"prefill": tokens/s or null, "decode": tokens/s or null}, measured once by OpenVINO's own clock: the time
to the first token, and the mean time of the tokens after it. The model stays loaded between lines, so that a caller
can alternate with other engines. ONEDNN_MAX_CPU_ISA limits the instruction set.
"""
import json
import os
import random
import sys

import numpy as np
import openvino
from openvino_genai import GenerationConfig, LLMPipeline, TokenizedInputs

VOCABULARY = 49152
PIPES = {}


def load(path, threads):
    if (path, threads) not in PIPES:
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if "AMX" not in os.environ.get("ONEDNN_MAX_CPU_ISA", ""):
            # Floats as they are where a CPU could take them as BF16, as is the default with AMX; weights and
            # activations of matrices are INT8 and INT4 all the same.
            options["INFERENCE_PRECISION_HINT"] = "f32"
        PIPES[path, threads] = LLMPipeline(path, "CPU", **options)
    return PIPES[path, threads]


def generate(pipe, prompt, count):
    """OpenVINO's measurements of `count` tokens after a prompt that no cache has seen."""
    tokens = np.array([[random.randrange(VOCABULARY) for _ in range(prompt)]])
    config = GenerationConfig(max_new_tokens=count, min_new_tokens=count, ignore_eos=True, do_sample=False)
    inputs = TokenizedInputs(openvino.Tensor(tokens), openvino.Tensor(np.ones_like(tokens)))
    return pipe.generate(inputs, config).perf_metrics


def measure(job):
    pipe = load(job["model"], job["threads"])
    result = {"prefill": None, "decode": None}
    if job["prompt"]:
        generate(pipe, job["prompt"], 1)  # warm up
        result["prefill"] = 1000 * job["prompt"] / generate(pipe, job["prompt"], 1).get_ttft().mean
    if job["generate"]:
        before = max(1, job["depth"])
        generate(pipe, before, 2)  # warm up
        result["decode"] = 1000 / generate(pipe, before, job["generate"] + 1).get_tpot().mean
    return result


def main():
    for line in sys.stdin:
        print(json.dumps(measure(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
