#!/usr/bin/env python3
"""How near the inner loops of the ARM kernels come to what the instruction set allows, by LLVM's models of CPUs.

    python3 benches/arm/loops.py [KINGLET] [--show]

Disassembles the ARM program (by default that which .ci/arm builds), takes the innermost loop of each kernel of q4 and
q8 and asks llvm-mca for its cycles on an endless run with every load in L1. "Of the products" is the share of the
rate at which its products alone would run on the same model; "of the arithmetic", of the rate of all that the format
makes a kernel compute (FORMAT below): what is missing goes to loads, addresses, the loop and waiting.
Needs Debian's package llvm-19, and installs it.
"""
import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "target/aarch64-unknown-linux-gnu/release/kinglet"
ITERATIONS = 200
# Products of 8-bit integers in one instruction, and how many of those make them.
MACS = {"sdot": 16, "smmla": 32, "smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8}
# What else the format makes every kernel compute: codes out of nibbles, sums of 16 bits to 32, and for each 32 columns
# the product of the scales, the sum as a float, and its addition.
FORMAT = {"and", "ushr", "fcvtl", "fcvtl2", "fmul", "scvtf", "fmla", "saddlp", "sadalp", "addp"}
# CPUs that LLVM 19 has models of. It has none of Cortex-A76 (it would take that of A57): Neoverse N1 is its twin for
# servers, as N2 is that of Cortex-A710 and V2 that of Cortex-X3. Its model of A57 serves for Cortex-A72.
# Cores that execute in order are left out: LLVM's models of them do not know that a sum is passed on early from one
# product to the next.
CPUS = {
    "neon": {"cortex-a72": "Cortex-A72"},
    "dotprod": {"neoverse-n1": "Cortex-A76 (Neoverse N1)"},
    "i8mm": {"neoverse-n2": "Cortex-A710 (Neoverse N2)", "neoverse-v2": "Cortex-X3 (Neoverse V2)"},
}
# Of i8mm, one token takes the kernels of the dot product.
KERNELS = [(kind, function) for kind in ("q4", "q8") for function in (f"{kind}_one", kind)]


def functions(program):
    """(name, [(address, instruction)]) of every function."""
    text = subprocess.run(["llvm-objdump-19", "-d", "-C", "--no-show-raw-insn", "--no-print-imm-hex", program],
                          check=True, capture_output=True, text=True).stdout
    for part in text.split("\n\n"):
        head, _, body = part.partition(">:\n")
        name = head.partition("<")[2]
        lines = re.findall(r"^ *([0-9a-f]+):\s+(.*?)$", body, re.M)
        yield name, [(int(at, 16), re.sub(r"\s+", " ", line)) for at, line in lines]


def innermost_loops(body):
    """The instructions of each loop with products that has none inside."""
    index = {at: i for i, (at, _) in enumerate(body)}
    spans = []
    for i, (_, line) in enumerate(body):
        if target := re.match(r"(?:b\.\w+|b|cbn?z|tbn?z) .*?(?:0x)?([0-9a-f]+) <", line):
            start = index.get(int(target[1], 16), i + 1)
            if start <= i and products([text for _, text in body[start:i + 1]]):
                spans.append((start, i))
    for start, end in spans:
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e in spans):
            yield [line for _, line in body[start:end + 1]]


def products(loop):
    """Multiply-accumulates of a loop."""
    return sum(MACS.get(line.split()[0], 0) for line in loop)


def rank(loop):
    """Of the loops of a kernel's tiles: the widest tile without minimums (which add without a conversion), and whole
    pairs of tokens (an odd one's double is converted in vain, or not at all)."""
    names = [line.split()[0] for line in loop]
    conversions = names.count("scvtf")
    return products(loop), names.count("fmla") == conversions, conversions, -len(loop)


def cycles(cpu, loop):
    """Cycles of one round."""
    text = "round:\n" + "\n".join(re.sub(r"(?:0x)?[0-9a-f]+ <.*>", "round", line) for line in loop)
    command = ["llvm-mca-19", "-mtriple=aarch64", "-mattr=+dotprod,+i8mm,+fullfp16", f"-mcpu={cpu}",
               f"-iterations={ITERATIONS}", "--json"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, input=text).stdout
    return json.loads(answer)["CodeRegions"][0]["SummaryView"]["TotalCycles"] / ITERATIONS


def limit(cpu, loop, names):
    """Cycles of the instructions of one round that have these names, were they independent and alone."""
    alone = []
    for line in loop:
        name, operands = line.split(maxsplit=1)
        if name in names and operands[0] == "v":
            # Sixteen targets in turn, and no sources among them, hide any latency.
            target, sources = operands.split(",", 1)
            target = re.sub(r"v\d+", f"v{len(alone) % 16}", target)
            alone.append(f"{name} {target},{re.sub(r'v[0-9]+', 'v31', sources)}")
    return cycles(cpu, alone)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", type=Path, default=PROGRAM)
    parser.add_argument("--show", action="store_true", help="print the loops too")
    args = parser.parse_args()
    if not shutil.which("llvm-mca-19"):
        for action in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", "llvm-19"]):
            subprocess.run(["apt-get", *action], check=True, stdout=sys.stderr)
    if not args.program.exists():
        sys.exit(f"{args.program} is missing: .ci/arm builds it")
    found = {}
    for name, body in functions(args.program):
        if match := re.search(r"aarch64::(neon|dotprod|i8mm)::matmul::(\w+)", name):
            found.setdefault(match.groups(), []).extend(innermost_loops(body))
    print("| kernels | loop | CPU model | instructions | products | MAC/cycle | of the products | of the arithmetic |")
    print("|---|---|---|---|---|---|---|---|")
    for isa, cpus in CPUS.items():
        for kind, function in KERNELS:
            loops = found.get((isa, function))
            if not loops:
                sys.exit(f"{args.program} has no loop with products in {isa}::matmul::{function}")
            loop = max(loops, key=rank)
            if args.show:
                print(f"{isa} {function}:\n    " + "\n    ".join(loop), file=sys.stderr)
            shape = "one token" if function.endswith("_one") else "several tokens"
            count = sum(line.split()[0] in MACS for line in loop)
            for cpu, name in cpus.items():
                taken = cycles(cpu, loop)
                alone, arithmetic = limit(cpu, loop, MACS), limit(cpu, loop, FORMAT | MACS.keys())
                print(f"| `{isa}` | {kind}, {shape} | {name} | {len(loop)} | {count} | {products(loop) / taken:.1f} | "
                      f"{100 * alone / taken:.0f} % | {100 * arithmetic / taken:.0f} % |")


if __name__ == "__main__":
    main()
