"""What a step of a tile program costs: instructions of its loop, by NVIDIA's disassembler.

    python -m tests.backends.cuda.disassembly sm_90 "gemm nt tf32 128x128" "conv forward bf16 128x128"

prints a line a kernel of the catalog. `nvdisasm`, of the CUDA toolkit, has to be on the PATH; the package triton holds one too.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from numbanet.backends.cuda.cubin import Cubin
from numbanet.backends.cuda.tiles.catalog import catalog, cubin_of

PRODUCTS = ("HMMA", "FFMA")


def instructions(made: Cubin) -> tuple[list[str], dict[str, int]]:
    """(instructions, the number of the one that a label stands before)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(made.code)
        text = subprocess.run(["nvdisasm", "-c", str(path)], capture_output=True, text=True, check=True).stdout
    found, labels = [], {}
    for line in text.splitlines():
        label, instruction = re.match(r"\s*(\.L_\w+):", line), re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line)
        if label:
            labels[label[1]] = len(found)
        elif instruction:
            found.append(re.sub(r"^@!?U?P\w+\s+", "", instruction[1]))
    return found, labels


def loop(made: Cubin) -> list[str]:
    """The loop, from a label to the jump back to it, that has the most products."""
    found, labels = instructions(made)
    loops = [found[labels[label[1]]:i + 1] for i, one in enumerate(found)
             if (label := re.match(r"BRA\b.*?(\.L_\w+)", one)) and labels.get(label[1], i + 1) <= i]
    return max(loops, key=lambda body: sum(one.startswith(PRODUCTS) for one in body))


if __name__ == "__main__":
    assert len(sys.argv) > 2, "usage: python -m tests.backends.cuda.disassembly ARCH KERNEL ..."
    for name in sys.argv[2:]:
        made = cubin_of(catalog()[name], sys.argv[1])
        body = loop(made)
        kinds = Counter(re.split(r"[.\s]", one)[0] for one in body).most_common(8)
        print(f"{name:<40} {made.registers} registers, {len(body)} in the loop: {', '.join(f'{n} {kind}' for kind, n in kinds)}")
