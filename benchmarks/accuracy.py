"""What speed costs in accuracy: relative errors in the L2 norm against double precision, under both float32 precisions.

    python benchmarks/accuracy.py [--models NAMES]

Convolutions are those of `cases.py` that have an algorithm of their own under "fast", on normal data; models are at initialisation, on
one normal image, and judged by their logits. (GoogLeNet's say nothing: its initial weights are so small that biases remain.)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numbanet  # noqa: E402
from benchmarks.cases import CONVOLUTIONS, OTHER_CONVOLUTIONS  # noqa: E402
from numbanet.backends import get_backend  # noqa: E402
from numbanet.geometry import conv_geometry  # noqa: E402

PRECISIONS = ("strict", "fast")
MODELS = "resnet18,resnet50,alexnet,densenet121,mobilenet_v2"


def distance(received, expected) -> float:
    return float(np.linalg.norm(received - expected) / np.linalg.norm(expected))


def convolution(shape: tuple) -> dict[str, dict[str, float]]:
    """Errors of the three passes by precision, for the case's batch."""
    batch, channels, filters, size, kernel, stride, padding, groups = shape
    backend, rng = get_backend("cpu"), np.random.default_rng(0)
    geometry = conv_geometry(channels, filters, (size, size), (kernel, kernel), stride, padding, 1, groups)
    x, grad_y = (rng.standard_normal((batch, *s, c), np.float32).transpose(0, 3, 1, 2)
                 for c, s in ((channels, geometry.input_size), (filters, geometry.output_size)))
    weight = rng.standard_normal(geometry.weight_shape, np.float32)
    passes = {"forward": lambda dtype: backend.conv2d_forward(x.astype(dtype), weight.astype(dtype), None, geometry),
              "backward-input": lambda dtype: backend.conv2d_backward_input(grad_y.astype(dtype), weight.astype(dtype), geometry),
              "backward-weight": lambda dtype: backend.conv2d_backward_weight(grad_y.astype(dtype), x.astype(dtype), geometry)}
    exact = {name: run(np.float64) for name, run in passes.items()}
    found = {}
    for precision in PRECISIONS:
        numbanet.set_float32_precision(precision)
        found[precision] = {name: distance(run(np.float32), exact[name]) for name, run in passes.items()}
    return found


def logits(name: str) -> dict[str, float]:
    """Errors of a compiled model by precision."""
    numbanet.manual_seed(0)
    model = numbanet.create_model(name).eval()
    x = numbanet.randn(1, *numbanet.zoo.model_info(name).input_size)
    found = {}
    for precision in PRECISIONS:
        numbanet.set_float32_precision(precision)
        found[precision] = numbanet.compile(model, x)(x).numpy()
    with numbanet.no_grad():
        exact = model.double()(x.double()).numpy()
    return {precision: distance(y, exact) for precision, y in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=MODELS, help=f"comma-separated (default: {MODELS})")
    arguments = parser.parse_args()
    print("| what | strict | fast |\n|---|---|---|")
    cases = {**CONVOLUTIONS, "5x5 64-192@27": OTHER_CONVOLUTIONS["5x5 64-192@27"]}
    for name, shape in cases.items():
        found = convolution(shape)
        for direction in found["fast"]:
            print(f"| conv {name}, {direction} | {found['strict'][direction]:.1e} | {found['fast'][direction]:.1e} |", flush=True)
    for name in filter(None, arguments.models.split(",")):
        found = logits(name)
        print(f"| logits of {name} | {found['strict']:.1e} | {found['fast']:.1e} |", flush=True)


if __name__ == "__main__":
    main()
