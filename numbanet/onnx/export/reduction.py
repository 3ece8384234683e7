"""Reductions, and what orders elements along an axis."""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.elementwise import BOOL
from numbanet.dtypes import is_floating_point
from numbanet.onnx.export.program import Size
from numbanet.onnx.export.registry import Operand, translates

INT32, INT64 = np.dtype(np.int32), np.dtype(np.int64)


def _reduce(b, op_type: str, x, axes, keepdims) -> str:
    """No axes reduce nothing here, and everything in ONNX."""
    if not axes:
        return x.name if isinstance(x, Operand) else x
    return b.node(op_type, x, np.array(axes, np.int64), keepdims=None if keepdims else 0)


def _sum_dtype(x) -> np.dtype:
    return x.dtype if is_floating_point(x.dtype) else INT64


def _register_sum(primitive: str, op_type: str) -> None:
    @translates(primitive)
    def translation(b, x, axes, keepdims):
        return _reduce(b, op_type, b.cast(x, _sum_dtype(x)), axes, keepdims)


_register_sum("sum", "ReduceSum")
_register_sum("prod", "ReduceProd")


@translates("mean")
def mean(b, x, axes, keepdims):
    if _is_of_whole_maps(x, axes, keepdims):
        return b.node("GlobalAveragePool", x)
    return _reduce(b, "ReduceMean", x, axes, keepdims)


def _is_of_whole_maps(x, axes, keepdims) -> bool:
    """Whether each channel of (N, C, ...) becomes one element, which ONNX calls global pooling."""
    return keepdims and len(x.shape) > 2 and axes == tuple(range(2, len(x.shape))) and is_floating_point(x.dtype)


def _of_numbers(b, op_type: str, x, axes, keepdims) -> str:
    """A reduction that ONNX does not define for booleans: by way of int32."""
    if x.dtype != BOOL:
        return _reduce(b, op_type, x, axes, keepdims)
    y = _reduce(b, op_type, b.cast(x, INT32), axes, keepdims)
    return b.cast(Operand(y, (), INT32), BOOL)


@translates("max_reduce")
def max_reduce(b, x, axes, keepdims):
    if _is_of_whole_maps(x, axes, keepdims):
        return b.node("GlobalMaxPool", x)
    return _of_numbers(b, "ReduceMax", x, axes, keepdims)


@translates("min_reduce")
def min_reduce(b, x, axes, keepdims):
    return _of_numbers(b, "ReduceMin", x, axes, keepdims)


@translates("any")
def any(b, x, axes, keepdims):
    """Whether there are any: a sum, for the maximum of nothing is not 0."""
    counted = b.cast(Operand(b.cast(x, BOOL), x.shape, BOOL), INT64)
    return b.cast(Operand(_reduce(b, "ReduceSum", Operand(counted, x.shape, INT64), axes, keepdims), (), INT64), BOOL)


@translates("all")
def all(b, x, axes, keepdims):
    return _of_numbers(b, "ReduceMin", Operand(b.cast(x, BOOL), x.shape, BOOL), axes, keepdims)


@translates("var")
def var(b, x, axes, correction, keepdims):
    deviation = b.node("Sub", x, _reduce(b, "ReduceMean", x, axes, True))
    total = _reduce(b, "ReduceSum", b.node("Mul", deviation, deviation), axes, keepdims)
    count = 1
    for axis in axes:
        count *= x.shape[axis] if not isinstance(x.shape[axis], Size) else 1
    following = [x.shape[axis] for axis in axes if isinstance(x.shape[axis], Size)]
    if not following:
        return b.node("Div", total, np.asarray(max(count - correction, 0), x.dtype))
    counted = b.node("ReduceProd", b.ints((count, *following)), np.array([0], np.int64), keepdims=0)
    divisor = b.node("Sub", b.cast(Operand(counted, (), INT64), x.dtype), np.asarray(correction, x.dtype))
    return b.node("Div", total, b.node("Max", divisor, np.asarray(0, x.dtype)))


@translates("argmax")
def argmax(b, x, axis, keepdims):
    return b.node("ArgMax", x, axis=axis, keepdims=int(keepdims))


@translates("argmin")
def argmin(b, x, axis, keepdims):
    return b.node("ArgMin", x, axis=axis, keepdims=int(keepdims))


def _with_index(b, x, axis, keepdims, reduce: str, arg: str):
    return (_of_numbers(b, reduce, x, (axis,), keepdims) if b.wanted[0] else None,
            b.node(arg, x, axis=axis, keepdims=int(keepdims)) if b.wanted[1] else None)


@translates("max_with_index")
def max_with_index(b, x, axis, keepdims):
    return _with_index(b, x, axis, keepdims, "ReduceMax", "ArgMax")


@translates("min_with_index")
def min_with_index(b, x, axis, keepdims):
    return _with_index(b, x, axis, keepdims, "ReduceMin", "ArgMin")


@translates("cumsum")
def cumsum(b, x, axis):
    return b.node("CumSum", b.cast(x, _sum_dtype(x)), np.asarray(axis, np.int64))


@translates("topk")
def topk(b, x, k, axis, largest):
    return b.node("TopK", x, b.ints((k,)), outputs=2, axis=axis, largest=int(largest))


@translates("sort")
def sort(b, x, axis, descending):
    return b.node("TopK", x, b.ints((x.shape[axis],)), outputs=2, axis=axis, largest=int(descending))
