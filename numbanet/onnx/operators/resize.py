"""Resize and Upsample along any axes, axis by axis.

For one axis of n elements resized by scale to o, output element i lies at input position (coordinate_transformation_mode)::

    half_pixel            (i + 0.5) / scale - 0.5                 asymmetric   i / scale
    half_pixel_symmetric  the same around the middle of both      align_corners   i * (n - 1) / (n * scale - 1)
    pytorch_half_pixel    as half_pixel, 0 where o is 1           tf_crop_and_resize   from roi's start to its end

nearest takes the element there; linear and cubic (Keys, 1981) are weighted sums of neighbours, that is, a product with a matrix (o, n).
"""

from __future__ import annotations

import math

import numpy as np

from numbanet._tensor import tensor
from numbanet.errors import OnnxError, ShapeError, UnsupportedOperationError
from numbanet.nn import functional as F
from numbanet.onnx.operators.registry import operator
from numbanet.ops.indexing import index_select
from numbanet.ops.linear import matmul


@operator("Upsample", since=7)
def upsample_by_attribute(node, x):
    """x enlarged by scales."""
    return _resized(node, x, None, node.attributes["scales"], None, "asymmetric", "floor")


@operator("Upsample", since=9, host=(1,))
def upsample(node, x, scales):
    """x enlarged by scales."""
    return _resized(node, x, None, scales.tolist(), None, "asymmetric", "floor")


@operator("Resize", since=10, host=(1,))
def resize_by_scales(node, x, scales):
    """x resized by scales."""
    return _resized(node, x, None, scales.tolist(), None, "asymmetric", "floor")


@operator("Resize", since=11, host=(1, 2, 3))
def resize(node, x, roi=None, scales=None, sizes=None):
    """x resized by scales or to sizes."""
    transformation = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    scales = None if scales is None or not scales.size else scales.tolist()
    sizes = None if sizes is None or not sizes.size else [int(n) for n in sizes]
    return _resized(node, x, None if roi is None or not roi.size else roi.tolist(), scales, sizes, transformation,
                    node.attributes.get("nearest_mode", "round_prefer_floor"))


def _resized(node, x, roi, scales, sizes, transformation, rounding):
    axes = [a % max(x.ndim, 1) for a in node.attributes.get("axes") or range(x.ndim)]
    if (scales is None) == (sizes is None):
        raise OnnxError(f"{node}: expected one of scales and sizes, received {'neither' if scales is None else 'both'}")
    if len(scales or sizes) != len(axes):
        raise ShapeError(f"{node}: expected {len(axes)} scales or sizes, received {scales or sizes}")
    if min(scales or sizes) <= 0:
        raise ShapeError(f"{node}: scales and sizes expect values above 0, received {scales or sizes}")
    mode = node.attributes.get("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        raise UnsupportedOperationError(f"{node}: mode expects nearest, linear or cubic, received {mode!r}")
    lengths = [x.shape[a] for a in axes]
    if sizes is not None:
        sizes, scales = _of_policy(node, lengths, sizes)
    else:
        sizes = [math.floor(n * s) for n, s in zip(lengths, scales)]
    if min(sizes) < 1:
        raise ShapeError(f"{node}: the output would be of size {sizes}, expected at least 1: x {x.shape}, scales {scales}")
    regions = [(0.0, 1.0)] * len(axes)
    if transformation == "tf_crop_and_resize":
        if roi is None or len(roi) != 2 * len(axes):
            raise ShapeError(f"{node}: roi expects {2 * len(axes)} values, received {roi}")
        regions = list(zip(roi, roi[len(axes):]))
    if (fused := _fused(node, x, dict(zip(axes, zip(sizes, scales))), mode, transformation, rounding)) is not None:
        return fused
    outside = None                  # elements whose position lies outside of x
    for axis, o, scale, region in zip(axes, sizes, scales, regions):
        n = x.shape[axis]
        if n == o and scale == 1 and region == (0.0, 1.0):
            continue
        positions = _positions(node, n, o, scale, region, transformation)
        if mode == "nearest":
            x = index_select(x, axis, tensor(_nearest(node, positions, n, rounding), device=x.device))
        else:
            weights = _weights(node, positions, n, min(scale, 1.0) if node.attributes.get("antialias", 0) else 1.0, mode)
            x = _weighted(x, axis, weights)
        if transformation == "tf_crop_and_resize":
            here = ((positions < 0) | (positions > n - 1)).reshape(-1, *(1,) * (x.ndim - axis - 1))
            outside = here if outside is None else outside | here
    if outside is None:
        return x
    return x.masked_fill(tensor(outside, device=x.device), float(node.attributes.get("extrapolation_value", 0.0)))


def _of_policy(node, lengths, sizes):
    """Output sizes and scales, with the aspect ratio kept where asked for."""
    policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
    scales = [o / n for o, n in zip(sizes, lengths)] if min(lengths) else [1.0] * len(sizes)
    if policy == "stretch":
        return sizes, scales
    if policy not in ("not_larger", "not_smaller"):
        raise UnsupportedOperationError(f"{node}: keep_aspect_ratio_policy expects stretch, not_larger or not_smaller, received {policy!r}")
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [math.floor(n * scale + 0.5) for n in lengths], [scale] * len(sizes)


def _fused(node, x, targets, mode, transformation, rounding):
    """The kernels of :func:`numbanet.nn.functional.interpolate`, where they compute just this; else None."""
    if x.ndim != 4 or any(x.shape[a] != o for a, (o, _) in targets.items() if a < 2) or node.attributes.get("antialias", 0):
        return None
    pairs = [targets.get(a, (x.shape[a], 1.0)) for a in (2, 3)]
    size = tuple(o for o, _ in pairs)
    if any(o != n * s for n, (o, s) in zip(x.shape[2:], pairs)):
        return None
    if mode == "nearest":
        whole = all(o % n == 0 for n, o in zip(x.shape[2:], size))
        floors = transformation == "asymmetric" and rounding == "floor"
        centred = transformation in ("half_pixel", "pytorch_half_pixel") and rounding in ("round_prefer_floor", "round_prefer_ceil")
        return F.interpolate(x, size, mode="nearest") if whole and (floors or centred) else None
    if mode == "linear" and transformation in ("half_pixel", "align_corners") and min(size) > 1:
        return F.interpolate(x, size, mode="bilinear", align_corners=transformation == "align_corners")
    return None


def _positions(node, n: int, o: int, scale: float, region, transformation: str) -> np.ndarray:
    """Where output elements lie in the input, (o,) float64."""
    i = np.arange(o, dtype=np.float64)
    if transformation == "asymmetric":
        return i / scale
    if transformation == "align_corners":
        length = n * scale                              # before rounding
        return i * (n - 1) / (length - 1) if o > 1 else np.zeros(1)
    if transformation == "tf_crop_and_resize":
        start, end = region
        return start * (n - 1) + i * (end - start) * (n - 1) / (o - 1) if o > 1 else np.full(1, 0.5 * (start + end) * (n - 1))
    if transformation == "pytorch_half_pixel" and o == 1:
        return np.zeros(1)
    if transformation in ("half_pixel", "pytorch_half_pixel"):
        return (i + 0.5) / scale - 0.5
    if transformation == "half_pixel_symmetric":        # the output's length before rounding is n * scale
        return n / 2 * (1 - o / (n * scale)) + (i + 0.5) / scale - 0.5
    raise UnsupportedOperationError(f"{node}: coordinate_transformation_mode {transformation!r} is not supported")


def _nearest(node, positions: np.ndarray, n: int, rounding: str) -> np.ndarray:
    """The element of each position, (o,) int64."""
    rules = {"round_prefer_floor": lambda p: np.ceil(p - 0.5), "round_prefer_ceil": lambda p: np.floor(p + 0.5),
             "floor": np.floor, "ceil": np.ceil}
    if rounding not in rules:
        raise UnsupportedOperationError(f"{node}: nearest_mode expects one of {', '.join(rules)}, received {rounding!r}")
    return np.clip(rules[rounding](positions), 0, n - 1).astype(np.int64)


def _weights(node, positions: np.ndarray, n: int, shrink: float, mode: str) -> np.ndarray:
    """What each input element counts for each output element, (o, n) float64; `shrink` below 1 widens the filter against aliasing."""
    reach = (1 if mode == "linear" else 2) / shrink
    first = np.floor(positions).astype(np.int64) - math.ceil(reach) + 1
    taps = first[:, None] + np.arange(2 * math.ceil(reach))                    # (o, taps), elements that may be outside
    distance = np.abs(taps - positions[:, None]) * shrink
    if mode == "linear":
        w = np.maximum(0.0, 1.0 - distance)
    else:
        a = node.attributes.get("cubic_coeff_a", -0.75)
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((distance - 5) * distance + 8) * distance * a - 4 * a
        w = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    if node.attributes.get("exclude_outside", 0):
        w = np.where((taps >= 0) & (taps < n), w, 0.0)
    if shrink < 1 or node.attributes.get("exclude_outside", 0):
        w = w / w.sum(1, keepdims=True)
    matrix = np.zeros((len(positions), n))
    np.add.at(matrix, (np.arange(len(positions))[:, None], np.clip(taps, 0, n - 1)), w)
    return matrix


def _weighted(x, axis: int, matrix: np.ndarray):
    """Sums over an axis with weights (o, n)."""
    weights = tensor(matrix, dtype=x.dtype, device=x.device)
    if axis == x.ndim - 1:
        return matmul(x, weights.t())
    shape = x.shape
    y = matmul(weights, x.reshape(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1:])))
    return y.reshape(*shape[:axis], len(matrix), *shape[axis + 1:])
