"""Reductions over axes, in NumPy."""

from __future__ import annotations

import numpy as np

from numbanet.onnx.operators.host.common import is_integer, normal_axes, operand_or_attribute
from numbanet.onnx.operators.registry import host_operator


def _log_sum_exp(x, axes, keepdims):
    wide = x.astype(np.float64)
    largest = np.max(wide, axes, keepdims=True, initial=-np.inf)
    finite = np.where(np.isfinite(largest), largest, 0)
    y = np.log(np.sum(np.exp(wide - finite), axes, keepdims=True)) + finite
    return y if keepdims else np.squeeze(y, axes)


def _extremum(reduce, largest: bool):
    def extremum(x, axes, keepdims):
        if x.size:
            return reduce(x, axes, keepdims=keepdims)
        if x.dtype == bool:
            bound = not largest
        elif is_integer(x.dtype):
            bound = np.iinfo(x.dtype).min if largest else np.iinfo(x.dtype).max
        else:
            bound = -np.inf if largest else np.inf
        return reduce(x, axes, keepdims=keepdims, initial=bound)
    return extremum


def _register_reduction(name: str, compute) -> None:
    def reduce(node, x, axes=None):
        axes = operand_or_attribute(node, axes, "axes")
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            axes = ()                               # what the operator does to each element still applies
        elif not axes:
            axes = tuple(range(x.ndim))
        axes = normal_axes(node, axes, x.ndim)
        with np.errstate(all="ignore"):
            y = compute(x, axes, bool(node.attributes.get("keepdims", 1)))
        return np.asarray(y).astype(x.dtype, copy=False)
    reduce.__doc__ = f"{name} over axes."
    host_operator(name)(reduce)


for _name, _function in {
        "ReduceSum": lambda x, axes, keepdims: np.sum(x, axes, keepdims=keepdims),
        "ReduceProd": lambda x, axes, keepdims: np.prod(x, axes, keepdims=keepdims),
        "ReduceMean": lambda x, axes, keepdims: np.mean(x, axes, keepdims=keepdims),
        "ReduceMax": _extremum(np.max, largest=True),
        "ReduceMin": _extremum(np.min, largest=False),
        "ReduceL1": lambda x, axes, keepdims: np.sum(np.abs(x), axes, keepdims=keepdims),
        "ReduceL2": lambda x, axes, keepdims: np.sqrt(np.sum(np.square(x, dtype=np.float64), axes, keepdims=keepdims)),
        "ReduceSumSquare": lambda x, axes, keepdims: np.sum(np.square(x), axes, keepdims=keepdims),
        "ReduceLogSum": lambda x, axes, keepdims: np.log(np.sum(x, axes, keepdims=keepdims)),
        "ReduceLogSumExp": _log_sum_exp}.items():
    _register_reduction(_name, _function)
