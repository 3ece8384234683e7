"""Detectors as ONNX files: boxes and scores of all positions, or with ONNX's own operator those that remain of many."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import numbanet
from numbanet.detection.model import DecodedDetector
from numbanet.detection.prediction import ObjectDetector
from numbanet.detection.selection import MOST, OVERLAP, THRESHOLD
from numbanet.errors import UsageError
from numbanet.files import atomic_file
from numbanet.onnx import save
from numbanet.onnx.exporter import Exported
from numbanet.onnx.reading import onnx_package

STORED = ("task", "classes", "fitting")


def export_detector(detector: ObjectDetector, path, *, nms: bool = False, threshold: float = THRESHOLD, overlap: float = OVERLAP,
                    most: int = MOST, batch: int | None = None) -> Exported:
    """Write a detector as an ONNX file (opset 18).

    The input is a normalised picture (N, 3, H, W). Outputs are `boxes` (N, P, 4), left, top, right and bottom in its pixels, and
    `scores` (N, P, classes); with `nms` a third one, `selected` int64 (M, 3), of the operator NonMaxSuppression: picture, class and
    position of each object.

    Parameters
    ----------
    detector : ObjectDetector
    path : where to write
    nms : bool
    threshold, overlap, most
        With `nms`: the least score, of two boxes of a class that overlap by more the better one remains, and how many of a class at most.
    batch : int, optional
        For batches of that size only, instead of any.

    Raises
    ------
    BackendError
        The package `onnx` is not installed.
    """
    if not 0 <= threshold <= 1 or not 0 <= overlap <= 1 or most < 1:
        raise UsageError(f"export_detector: expected a threshold and an overlap from 0 to 1 and most of at least 1, received {threshold}, "
                         f"{overlap} and {most}")
    stored = {name: detector.metadata[name] for name in STORED if name in detector.metadata}
    example = numbanet.empty(batch or 1, 3, *detector.fitting.size)
    exported = save(DecodedDetector(detector.model), path, example, metadata=stored, output_names=("boxes", "scores"),
                    dynamic_batch=batch is None)
    return _with_suppression(exported, threshold, overlap, most) if nms else exported


def _with_suppression(exported: Exported, threshold: float, overlap: float, most: int) -> Exported:
    """The same file with the operator, and its answer as a third output."""
    from dataclasses import replace
    onnx = onnx_package()
    path = Path(exported.path)
    proto = onnx.load(path)
    constants = {"most": np.array([most], np.int64), "overlap": np.array([overlap], np.float32),
                 "threshold": np.array([threshold], np.float32)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, f"selected.{name}") for name, value in constants.items())
    proto.graph.node.extend([
        onnx.helper.make_node("Transpose", ["scores"], ["selected.scores"], "selected/Transpose", perm=[0, 2, 1]),
        onnx.helper.make_node("NonMaxSuppression", ["boxes", "selected.scores", *(f"selected.{name}" for name in constants)], ["selected"],
                              "selected/NonMaxSuppression")])     # its boxes are two corners, in any order: overlaps are the same
    proto.graph.output.append(onnx.helper.make_tensor_value_info("selected", onnx.TensorProto.INT64, ["M", 3]))
    onnx.checker.check_model(proto)
    with atomic_file(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    nodes = dict(exported.nodes)
    for name in ("Transpose", "NonMaxSuppression"):
        nodes[name] = nodes.get(name, 0) + 1
    return replace(exported, nodes=nodes, outputs={**exported.outputs, "selected": ("M", 3)})
