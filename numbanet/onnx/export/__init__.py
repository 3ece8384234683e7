"""Translations of primitives to ONNX, one file a family, under the names of `backends/contract/`."""

import importlib

FAMILIES = ("activation", "convolution", "elementwise", "indexing", "linear", "loss", "normalization", "padding", "pooling", "reduction",
            "resize", "shape", "softmax")


def load_translations() -> None:
    """Import all families, which registers their translations."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
