"""What primitives that are bound by memory cost a GPU, predicted: bytes that warps move, and instructions that they issue.

    python -m tests.backends.cuda.executed.costs [PART OF A NAME ...]

prints a line a primitive, in multiples of the time that its operands and results take at the bandwidth of an H100 (3.35 TB/s): `sectors`,
what accesses touch of memory and caches, and `issue`, the time of the instructions if nothing else took any (132 multiprocessors that issue
4 instructions a cycle of 1.7 GHz). A primitive whose `issue` is well below 1 waits for memory; sectors above 1 come from caches, as the
neighbours of a window do, or are read twice. PTX is not what runs: an instruction of it counts as many as the assembler makes of it.
"""

from __future__ import annotations

import sys

import numpy as np

from numbanet import dtypes
from numbanet.geometry import pool_geometry
from tests.backends.cuda.executed.code import Program
from tests.backends.cuda.executed.device import installed
from tests.backends.cuda.executed.machine import Machine
from tests.backends.cuda.executed.source import Instruction
from tests.cases.case import channels_last

BANDWIDTH, ISSUED = 3.35e12, 132 * 4 * 1.7e9          # bytes, instructions of warps, a second
DIVISIONS = {"s32": 24, "u32": 20, "s64": 90, "u64": 70, "f32": 10, "f64": 30}


def instructions(one: Instruction) -> float:
    """How many instructions the assembler makes of one, about."""
    name, kind = one.opcode[0], one.opcode[-1]
    if name in ("cvta", "mov") or "param" in one.opcode or one.opcode in (("cvt", "u32", "u64"), ("cvt", "u64", "u32")):
        return 0                                        # constants and halves of registers, which instructions take as they are
    if name in ("div", "rem"):
        return DIVISIONS[kind] + (name == "rem") * 2
    if name == "sqrt":
        return 8
    if kind in ("s64", "u64", "b64") and name in ("mul", "mad"):
        return 1 if "wide" in one.opcode else 4
    if kind in ("s64", "u64", "b64") and name in ("add", "sub", "and", "or", "xor", "setp", "selp", "min", "max", "neg"):
        return 2
    return 1


def issue_slots(machine: Machine) -> float:
    """Instructions of warps in all that a machine has measured."""
    costs: dict[Program, list[float]] = {}
    for program, _ in machine.runs:
        costs[program] = [sum(map(instructions, block.instructions)) for block in program.kernel.blocks]
    return sum(count * costs[program][block] for (program, block), count in machine.runs.items())


def cases() -> dict[str, tuple]:
    """Primitives with arguments, by what the table calls them."""
    random, N, C, H = np.random.default_rng(0), 4, 64, 28

    def map_of(*shape, dtype=np.float32):
        return channels_last(random.standard_normal(shape).astype(dtype))

    def channel(low=0.5):
        return random.uniform(low, 2, C).astype(np.float32)
    found = {}
    window, labels = pool_geometry((H, H), (3, 3), 2, 1), random.integers(0, 1000, 256)
    for suffix, dtype in (("", np.float32), (", bfloat16", dtypes.as_dtype("bfloat16"))):
        x, y, small = map_of(N, C, H, H, dtype=dtype), map_of(N, C, H, H, dtype=dtype), map_of(N, C, H // 2, H // 2, dtype=dtype)
        positions = channels_last(random.integers(0, H * H, small.shape).astype(np.int32))
        found |= {f"{name}{suffix}": given for name, given in {
            "relu_forward": (x,), "relu_backward_input": (x, y), "add": (x, y), "silu_forward": (x,), "silu_backward_input": (x, y),
            "batch_norm_fused_forward": (x, channel(), channel(), None, 1e-5, 0.0, None),
            "batch_norm_fused_backward": (x, None, y, channel(), channel(), channel(), channel(), 1e-5, 0.0, None),
            "max_pool2d_forward": (x, window), "max_pool2d_backward_input": (small, positions, window),
            "avg_pool2d_forward": (x, window, True, None), "avg_pool2d_backward_input": (small, window, True, None),
            "adaptive_avg_pool2d_forward": (x, (1, 1)), "adaptive_avg_pool2d_backward_input": (map_of(N, C, 1, 1, dtype=dtype), (H, H)),
        }.items()}
    rows, table = random.standard_normal((256, 1000)).astype(np.float32), random.standard_normal((256, 768)).astype(np.float32)
    parameters = [[random.standard_normal((512, 512)).astype(np.float32), random.standard_normal(512).astype(np.float32)] for _ in range(3)]
    return found | {
        "softmax_forward": (rows, 1), "softmax_cross_entropy_forward": (rows, labels, None, -100, 0.0, "mean"),
        "layer_norm_forward": (table, 1, table[0], table[1], 1e-5), "local_response_norm_forward": (map_of(N, C, H, H), 5, 1e-4, 0.75, 2.0),
        "local_response_norm_backward_input": (map_of(N, C, H, H), map_of(N, C, H, H), 5, 1e-4, 0.75, 2.0),
        "dropout": (map_of(N, C, H, H), 0.5, (3, 4)), "concatenate": ([map_of(N, C, H, H), map_of(N, C, H, H)], 1),
        "reorder": (np.ascontiguousarray(map_of(N, C, H, H)), (0, 2, 3, 1)), "conv2d_backward_bias": (map_of(N, C, H, H),),
        "resize2d_bilinear_forward": (map_of(N, C, H, H), (2 * H, 2 * H), (None, None), False),
        "sgd_update": (*parameters, 0.1, 0.9, 0.0, 1e-4, False, 1.0),
    }


def _on(backend, given):
    """An argument whose arrays are on the device."""
    if isinstance(given, list):
        return [_on(backend, x) for x in given]
    return backend.from_numpy(given) if isinstance(given, np.ndarray) else given


def _bytes(given) -> int:
    """Of all arrays in an argument or a result."""
    return sum(map(_bytes, given)) if isinstance(given, (list, tuple)) else getattr(given, "nbytes", 0)


def main(words: list[str]) -> None:
    print(f"{'primitive':<48} {'sectors':>8} {'issue':>8} {'launches':>9}")
    with installed(1) as backend:
        device = backend.device
        device.multiprocessors, device.machine.measures = 132, True
        for name, given in cases().items():
            if words and not any(word in name for word in words):
                continue
            arrays = [_on(backend, a) for a in given]
            for counted in (device.machine.traffic, device.machine.runs, device.launched):
                counted.clear()
            result = getattr(backend, name.partition(",")[0])(*arrays)
            least = sum(map(_bytes, [arrays, result])) / BANDWIDTH
            moved = 32 * sum(sectors for _, sectors, _ in device.machine.traffic.values()) / BANDWIDTH
            issue = issue_slots(device.machine) / ISSUED
            print(f"{name:<48} {moved / least:8.2f} {issue / least:8.2f} {sum(device.launched.values()):9}")
            del arrays, result
            backend.allocator.trim()


if __name__ == "__main__":
    main(sys.argv[1:])
