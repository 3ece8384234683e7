"""The kernels of `@kernel` as the simulator launches them: the list that `numbanet warmup` compiles, and the budget of each.

    NUMBA_ENABLE_CUDASIM=1 NUMBANET_TEST_LAUNCHES=FILE python -m pytest tests/backends/cuda/simulated.py
    python -m tests.backends.cuda.plain_kernels FILE

writes both anew: `backends/cuda/launches.json`, types of arguments by kernel, and `kernel_budget.json`, the most registers of a thread on
sm_80 and sm_90, of kernels and of their wide launches. Look at the difference.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numbanet.backends.cuda
from numbanet.backends.cuda.dry import Wanted, compile_all

LAUNCHES = Path(numbanet.backends.cuda.__file__).with_name("launches.json")
BUDGET = Path(__file__).with_name("kernel_budget.json")
ARCHS = ("sm_80", "sm_90")
SLACK = 1.1                  # of registers, from one release of the compilers to the next


def of_float32(launches) -> dict[str, list[tuple[str, ...]]]:
    """By kernel the launches of float32 and integers; of a kernel that has none, all."""
    found: dict[str, list] = {}
    for name, types in launches:
        found.setdefault(name, []).append(tuple(types))
    return {name: sorted([t for t in all_types if not any("float64" in x or "float16" in x for x in t)] or all_types)
            for name, all_types in sorted(found.items())}


def heaviest(launches) -> dict[str, Wanted]:
    """Of each kernel the float32 launch of the most axes, which needs the most registers, and the same of its wide launches, by the words
    that the budget has for them; another where there is none in float32."""
    best: dict[str, tuple] = {}
    for name, types in launches:
        label = f"{name}, wide" if is_wide(types) else name
        best[label] = max(best.get(label, (name, types)), (name, types), key=lambda launch: _weight(launch[1]))
    return {label: Wanted(*launch) for label, launch in sorted(best.items())}


def is_wide(types: tuple[str, ...]) -> bool:
    """Whether a launch of these types takes pieces of an array."""
    return any(t.startswith("*") and "x" in t for t in types)


def _weight(types: tuple[str, ...]) -> tuple[bool, bool, int]:
    return (not any("64" in t for t in types), not any("float16" in t for t in types),
            sum(int(t.partition("x")[2]) for t in types if t.startswith(("int32x", "sizex"))))


if __name__ == "__main__":
    assert len(sys.argv) == 2, "usage: python -m tests.backends.cuda.plain_kernels FILE"
    given = sorted((name, tuple(types)) for name, types in json.loads(Path(sys.argv[1]).read_text()))
    lines = [f"{json.dumps(name)}: [\n" + ",\n".join(f"  {json.dumps(types, separators=(',', ':'))}" for types in launches) + "]"
             for name, launches in of_float32(given).items()]
    LAUNCHES.write_text("{\n" + ",\n".join(lines) + "\n}\n")             # a line a launch
    budget: dict[str, int] = {}
    for arch in ARCHS:
        chosen = heaviest(given)
        for label, (_, made) in zip(chosen, compile_all(chosen.values(), arch, os.cpu_count())):
            budget[label] = max(budget.get(label, 0), min(255, int(made.registers * SLACK)))
    BUDGET.write_text(json.dumps(dict(sorted(budget.items())), indent=1) + "\n")
