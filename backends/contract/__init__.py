"""Every primitive of numbanet, one file per family, under the same names as in `reference/`, `cpu/` and `ops/`."""

import importlib

FAMILIES = ("activation", "boxes", "buckets", "convolution", "elementwise", "elementwise_chain", "fused", "fused_training", "image",
            "indexing", "linear", "loss", "normalization", "optimizer", "padding", "pooling", "preactivation", "random", "reduction",
            "resize", "search", "shape", "softmax")

for _family in FAMILIES:
    importlib.import_module(f"{__name__}.{_family}")
