"""Convolution against PyTorch: a table of times and ratios for ResNet's and LeNet-5's layers, three passes each.

Run: python benchmarks/convolution_against_torch.py [--rounds 3] [--repeats 7] [--shapes resnet|lenet|other|all]

Each side is measured in processes of its own, which alternate, so that neither's threads disturb the other and slow
changes of the machine hit both. A time is the median over a process's repeats; the table shows the median over the
rounds. Memory is channels-last for both. A ratio above 1 means that numbanet is faster.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time

PASSES = ("forward", "backward-input", "backward-weight")
SIZES = ((64, 56), (128, 28), (256, 14), (512, 7))
# name: (batch, channels, filters, input size, kernel, stride, padding, groups)
RESNET = {
    **{f"3x3 {c}@{n}": (8, c, c, n, 3, 1, 1, 1) for c, n in SIZES},
    **{f"1x1 {c}-{4 * c}@{n}": (8, c, 4 * c, n, 1, 1, 0, 1) for c, n in SIZES},
    **{f"1x1 {4 * c}-{c}@{n}": (8, 4 * c, c, n, 1, 1, 0, 1) for c, n in SIZES},
}
LENET = {
    **{f"LeNet-5 C1, batch {b}": (b, 1, 6, 32, 5, 1, 0, 1) for b in (64, 256)},
    **{f"LeNet-5 C3, batch {b}": (b, 6, 16, 14, 5, 1, 0, 1) for b in (64, 256)},
}
OTHER = {
    "7x7/2 3-64@224": (8, 3, 64, 224, 7, 2, 3, 1),
    "11x11/4 3-64@224": (8, 3, 64, 224, 11, 4, 2, 1),
    "3x3/2 128@56": (8, 128, 128, 56, 3, 2, 1, 1),
    "5x5 64-192@27": (8, 64, 192, 27, 5, 1, 2, 1),
    "depthwise 96@56": (8, 96, 96, 56, 3, 1, 1, 96),
    "32 groups 128@56": (8, 128, 128, 56, 3, 1, 1, 32),
}
SHAPES = {"resnet": RESNET, "lenet": LENET, "other": OTHER, "all": RESNET | LENET | OTHER}


def numbanet_passes(batch, channels, filters, size, kernel, stride, padding, groups):
    """The three passes as functions without arguments."""
    import numpy as np

    from numbanet.backends import get_backend
    from numbanet.backends.interface import channels_last
    from numbanet.geometry import conv_geometry

    cpu, rng = get_backend("cpu"), np.random.default_rng(0)
    g = conv_geometry(channels, filters, (size, size), (kernel, kernel), stride, padding, 1, groups)

    def made(shape, order=None):
        array = cpu.empty(shape, np.dtype(np.float32), order)
        array[...] = rng.standard_normal(shape, np.float32)
        return array
    x = made((batch, channels, *g.input_size), channels_last(4))
    grad_y = made((batch, filters, *g.output_size), channels_last(4))
    weight = made(g.weight_shape)
    return (lambda: cpu.conv2d_forward(x, weight, None, g), lambda: cpu.conv2d_backward_input(grad_y, weight, g),
            lambda: cpu.conv2d_backward_weight(grad_y, x, g))


def torch_passes(batch, channels, filters, size, kernel, stride, padding, groups):
    """The same in PyTorch."""
    import torch

    x = torch.randn(batch, channels, size, size).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(filters, channels // groups, kernel, kernel).contiguous(memory_format=torch.channels_last)
    y = torch.nn.functional.conv2d(x, weight, None, stride, padding, 1, groups)

    def backward(wanted):
        return torch.ops.aten.convolution_backward(y, x, weight, None, (stride,) * 2, (padding,) * 2, (1, 1), False,
                                                   (0, 0), groups, wanted)
    return (lambda: torch.nn.functional.conv2d(x, weight, None, stride, padding, 1, groups),
            lambda: backward((True, False, False)), lambda: backward((False, True, False)))


def measure(side: str, shapes: dict, repeats: int) -> dict:
    """Median milliseconds by shape and pass, after a warm-up."""
    passes = {"numbanet": numbanet_passes, "torch": torch_passes}[side]
    result = {}
    for name, shape in shapes.items():
        result[name] = []
        for run in passes(*shape):
            run(), run()
            times = []
            for _ in range(repeats):
                begin = time.perf_counter()
                run()
                times.append(time.perf_counter() - begin)
            result[name].append(1e3 * statistics.median(times))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--shapes", choices=SHAPES, default="all")
    parser.add_argument("--side", choices=("numbanet", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    shapes = SHAPES[options.shapes]
    if options.side:
        print(json.dumps(measure(options.side, shapes, options.repeats)))
        return
    rounds = {"numbanet": [], "torch": []}
    for _ in range(options.rounds):
        for side, results in rounds.items():
            command = [sys.executable, __file__, "--side", side, "--repeats", str(options.repeats),
                       "--shapes", options.shapes]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(f"{'':22}" + "".join(f"{name:>26}" for name in PASSES))
    print(f"{'milliseconds':22}" + f"{'numbanet':>10}{'torch':>8}{'ratio':>8}" * 3)
    ratios = []
    for name in shapes:
        line = f"{name:22}"
        for index in range(3):
            mine, theirs = (statistics.median(r[name][index] for r in rounds[side]) for side in ("numbanet", "torch"))
            ratios.append(theirs / mine)
            line += f"{mine:10.2f}{theirs:8.2f}{theirs / mine:8.2f}"
        print(line)
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"geometric mean of the ratios {mean:.2f}, least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
