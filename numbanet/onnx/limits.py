"""Sizes that operands ask for: results that would not fit into memory are refused before they are allocated."""

from __future__ import annotations

import math

import numpy as np

from numbanet._tensor import Tensor
from numbanet.errors import OnnxError
from numbanet.onnx.operators.registry import NodeInfo

MAX_ELEMENTS = (1 << 29) - 1        # of one value that an operator makes out of a shape: 2 GB of float32


def _numbers(value) -> list:
    if value is None:
        return []
    return np.ravel(value.detach().numpy() if isinstance(value, Tensor) else value).tolist()


def _product(sizes) -> int:
    """Of the absolute values, so that a negative size hides nothing."""
    return math.prod(abs(int(n)) for n in sizes)


def _of_shape(info, shape, *_):
    return _product(_numbers(shape))


def _of_expand(info, x, shape, *_):
    rank = max(len(x.shape), len(sizes := _numbers(shape)))
    pairs = zip([1] * (rank - len(x.shape)) + list(x.shape), [1] * (rank - len(sizes)) + sizes)
    return _product(n if size == 1 else size for n, size in pairs)


def _of_tile(info, x, *repeats):
    return math.prod(x.shape) * _product(_numbers(repeats[0])) if len(repeats) == 1 else 0


def _of_range(info, start, limit, delta, *_):
    (start,), (limit,), (delta,) = map(_numbers, (start, limit, delta))
    return max(0.0, (limit - start) / delta) if delta else 0


def _of_pad(info, x, pads=None, value=None, axes=None, *_):
    pads = _numbers(pads) or info.attributes.get("pads") or info.attributes.get("paddings") or []
    half = len(pads) // 2
    grown = list(x.shape)
    for axis, before, after in zip(_numbers(axes) or range(half), pads[:half], pads[half:]):
        grown[axis] += abs(before) + abs(after)
    return _product(grown)


def _of_resize(info, x, *operands):
    if len(operands) > 2 and operands[2] is not None:
        sizes = _numbers(operands[2])
        return _product(sizes) * (math.prod(x.shape[:len(x.shape) - len(sizes)]) if len(sizes) < len(x.shape) else 1)
    scales = [_numbers(o) for o in operands[-2:] if o is not None and o.shape]
    scales = scales[-1] if scales else info.attributes.get("scales", ())
    return math.prod(x.shape) * math.prod(map(abs, scales))


def _of_one_hot(info, indices, depth, *_):
    return math.prod(indices.shape) * _product(_numbers(depth))


ELEMENTS = {"ConstantOfShape": _of_shape, "Expand": _of_expand, "Tile": _of_tile, "Range": _of_range, "Pad": _of_pad, "Resize": _of_resize,
            "Upsample": _of_resize, "OneHot": _of_one_hot}


def check_size(info: NodeInfo, operands, limit: int = MAX_ELEMENTS) -> None:
    """Refuse a result whose size an operand asks for.

    Raises
    ------
    OnnxError
        The result would have more than `limit` elements.
    """
    elements = ELEMENTS.get(info.op_type)
    count = 0 if elements is None or not operands or operands[0] is None else elements(info, *operands)
    if not count <= limit:
        raise OnnxError(f"{info}: the result would have {count:.3g} elements; expected at most {limit}")
