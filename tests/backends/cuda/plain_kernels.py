"""The kernels of `@kernel` as the simulator launches them: the list that `numbanet warmup` compiles, and the budget of each.

    NUMBA_ENABLE_CUDASIM=1 NUMBANET_TEST_LAUNCHES=FILE python -m pytest tests/backends/cuda/simulated.py
    python -m tests.backends.cuda.plain_kernels FILE

writes both anew: `backends/cuda/launches.json`, types of arguments by kernel, and `kernel_budget.json`, the most registers of a thread on
sm_80 and sm_90. Look at the difference.
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


def heaviest(launches) -> list[tuple[str, tuple[str, ...]]]:
    """Of each kernel the float32 launch of the most axes, which needs the most registers; another where there is none in float32."""
    best: dict[str, tuple] = {}
    for name, types in launches:
        best[name] = max(best.get(name, types), types, key=_weight)
    return sorted(best.items())


def _weight(types: tuple[str, ...]) -> tuple[bool, int]:
    return not any("64" in t for t in types), sum(int(t[6:]) for t in types if t.startswith("int32x"))


if __name__ == "__main__":
    assert len(sys.argv) == 2, "usage: python -m tests.backends.cuda.plain_kernels FILE"
    given = sorted((name, tuple(types)) for name, types in json.loads(Path(sys.argv[1]).read_text()))
    lines = [f"{json.dumps(name)}: [\n" + ",\n".join(f"  {json.dumps(types, separators=(',', ':'))}" for types in launches) + "]"
             for name, launches in of_float32(given).items()]
    LAUNCHES.write_text("{\n" + ",\n".join(lines) + "\n}\n")             # a line a launch
    budget: dict[str, int] = {}
    for arch in ARCHS:
        for one, made in compile_all([Wanted(*launch) for launch in heaviest(given)], arch, os.cpu_count()):
            budget[one.name] = max(budget.get(one.name, 0), min(255, int(made.registers * SLACK)))
    BUDGET.write_text(json.dumps(dict(sorted(budget.items())), indent=1) + "\n")
