#!/usr/bin/env python3
"""Which layers' inputs lose how much as INT8: score a model with some of them taken as two INT8.

    python3 benches/quality/inputs.py MODEL.kgl REFERENCE.kgl TEXT [--windows 40]

MODEL.kgl is a file of quantized weights; each row is the same file with `activations` of some of its weights set to
`q8x2` in the header. Prints a Markdown table. Needs a built `kinglet` (cargo build --release).
"""
import argparse
import json
import subprocess
import tempfile
from pathlib import Path

KINGLET = Path(__file__).resolve().parent.parent.parent / "target/release/kinglet"
HEAD, QKV, FFN = ["embed", "head"], ["q", "k", "v"], ["gate", "up"]
ROWS = [("none", []), ("head", HEAD), ("q, k, v", QKV), ("o", ["o"]), ("gate, up", FFN), ("down", ["down"]),
        ("head, q, k, v", HEAD + QKV), ("head, q, k, v, down", HEAD + QKV + ["down"]),
        ("head, q, k, v, gate, up", HEAD + QKV + FFN), ("all", HEAD + QKV + ["o"] + FFN + ["down"])]


def variant(source, parts):
    """The bytes of a file where the weights of these parts take their inputs as two INT8."""
    length = int.from_bytes(source[:8], "little")
    entries = json.loads(source[8:8 + length])
    header = json.loads(entries["__metadata__"]["header"])
    for name, weight in header["weights"].items():
        weight.pop("activations", None)
        if name.split(".")[-1] in parts and weight["kind"].startswith("q"):
            weight["activations"] = "q8x2"
    entries["__metadata__"].update(header=json.dumps(header), version="2")
    encoded = json.dumps(entries).encode()
    encoded += b" " * (-(len(encoded) + 8) % 4096)
    return len(encoded).to_bytes(8, "little") + encoded + source[8 + length:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--windows", type=int, default=40)
    args = parser.parse_args()
    source = args.model.read_bytes()
    print("| inputs taken as two INT8 | mean KL | p99 | top-1 |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "variant.kgl"
        for label, parts in ROWS:
            path.write_bytes(variant(source, parts))
            command = [KINGLET, "eval", "-m", path, "--text", args.text, "--reference", args.reference,
                       "--chunks", str(args.windows), "--json"]
            answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            print(f"| {label} | {answer['kl_mean']:.5f} | {answer['kl_p99']:.4f} | {100 * answer['top1_agreement']:.1f} % |",
                  flush=True)


if __name__ == "__main__":
    main()
