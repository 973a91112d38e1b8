#!/usr/bin/env python3
"""Make OpenVINO models of a decoder in full precision: openvino_model.py MODEL.gguf FOLDER

Writes FOLDER/int4 (groups of 64) and FOLDER/int8 (per channel): every layer, the embedding and the head, with zero
points, NNCF's own default and faster in OpenVINO than without.
"""
import shutil
import sys
from pathlib import Path

import nncf
import openvino
from openvino_genai import LLMPipeline

KINDS = {
    "int4": {"mode": nncf.CompressWeightsMode.INT4_ASYM, "group_size": 64, "ratio": 1.0, "all_layers": True},
    "int8": {"mode": nncf.CompressWeightsMode.INT8_ASYM},
}


def main(source, folder):
    full = Path(folder) / "full"
    full.mkdir(parents=True, exist_ok=True)
    link = full / "model.gguf"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(source).resolve())
    # Reads the file as a graph with a cache, and writes it beside the file.
    LLMPipeline(str(link), "CPU", enable_save_ov_model=True)
    for kind, options in KINDS.items():
        model = openvino.Core().read_model(full / "openvino_model.xml")
        target = Path(folder) / kind
        target.mkdir(exist_ok=True)
        for file in full.glob("openvino_*tokenizer.*"):
            shutil.copy(file, target)
        openvino.save_model(nncf.compress_weights(model, **options), target / "openvino_model.xml")
    shutil.rmtree(full)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
