"""Reductions over axes, positions of extrema, running sums and the largest elements."""

from __future__ import annotations

import numpy as np

from numbanet import dtypes
from numbanet.errors import ShapeError
from numbanet.onnx.operators.registry import operator
from numbanet.ops.factories import full
from numbanet.ops.reduction import logsumexp, topk


def _axes(node, x, axes) -> list[int] | None:
    """Axes to reduce; None where nothing is reduced."""
    axes = node.attributes.get("axes") if axes is None else np.ravel(axes).tolist()
    if not axes:
        return None if node.attributes.get("noop_with_empty_axes", 0) else list(range(x.ndim))
    if any(not -x.ndim <= a < x.ndim for a in axes):
        raise ShapeError(f"{node}: axes {axes} are out of range for x {x.shape}")
    return sorted({a % x.ndim for a in axes})


def _l1(x, axes, keep):
    return x.abs().sum(axes, keep)


def _l2(x, axes, keep):
    return x.norm(2, axes, keep) if dtypes.is_floating_point(x.dtype) else x.float().norm(2, axes, keep)


def _log_sum_exp(x, axes, keep):
    if 0 in x.shape:
        return x.exp().sum(axes, keep).log()
    return logsumexp(x, axes, keep) if dtypes.is_floating_point(x.dtype) else logsumexp(x.float(), axes, keep)


def _extremum(largest: bool):
    """amax or amin; of no elements the smallest or largest number of the dtype, of booleans any and all."""
    def reduce(x, axes, keep):
        if x.dtype == dtypes.bool:
            return x.any(axes, keep) if largest else x.all(axes, keep)
        if any(x.shape[a] == 0 for a in axes):
            limits = (np.finfo if dtypes.is_floating_point(x.dtype) else np.iinfo)(x.dtype)
            infinite = float("-inf") if largest else float("inf")
            value = infinite if dtypes.is_floating_point(x.dtype) else int(limits.min if largest else limits.max)
            shape = [1 if a in axes else n for a, n in enumerate(x.shape) if keep or a not in axes]
            return full(tuple(shape), value, dtype=x.dtype, device=x.device)
        return x.amax(axes, keep) if largest else x.amin(axes, keep)
    return reduce


def _product(x, axes, keep):
    for axis in reversed(axes):
        x = x.prod(axis, keep)
    return x


def _mean(x, axes, keep):
    return x.mean(axes, keep) if dtypes.is_floating_point(x.dtype) else x.double().mean(axes, keep)


REDUCTIONS = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceMean": _mean,
    "ReduceMax": _extremum(True),
    "ReduceMin": _extremum(False),
    "ReduceProd": _product,
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}


def _register(op_type: str, function) -> None:
    def reduce(node, x, axes=None):
        wanted = _axes(node, x, axes)
        if wanted is None:
            wanted = []
        keep = bool(node.attributes.get("keepdims", 1))
        if not wanted:          # over no axes: elementwise, as x with one more axis
            x, wanted, keep = x.unsqueeze(0), [0], False
        return function(x, wanted, keep).to(x.dtype)
    reduce.__doc__ = f"{op_type} over `axes`, in x's dtype."
    operator(op_type, host=(1,))(reduce)


for _name, _function in REDUCTIONS.items():
    _register(_name, _function)


def _position(op_type: str):
    def find(node, x):
        axis, keep = node.attributes.get("axis", 0), bool(node.attributes.get("keepdims", 1))
        method = x.argmax if op_type == "ArgMax" else x.argmin
        if not node.attributes.get("select_last_index", 0):
            return method(axis, keep)
        flipped = x.flip(axis % x.ndim)
        found = flipped.argmax(axis, keep) if op_type == "ArgMax" else flipped.argmin(axis, keep)
        return x.shape[axis] - 1 - found
    find.__doc__ = f"{op_type} along an axis; the first of equal elements, or the last where asked for."
    operator(op_type)(find)


_position("ArgMax")
_position("ArgMin")


@operator("CumSum", since=11, host=(1,))
def cumsum(node, x, axis):
    """The sum of the elements up to each one, itself excluded where `exclusive`, from the end where `reverse`."""
    axis = int(axis) % x.ndim
    y = x.flip(axis) if node.attributes.get("reverse", 0) else x
    total = y.cumsum(axis)
    total = total - y if node.attributes.get("exclusive", 0) else total
    return (total.flip(axis) if node.attributes.get("reverse", 0) else total).to(x.dtype)


@operator("TopK")
def topk_by_attribute(node, x):
    """The k largest elements along an axis, and their positions."""
    return tuple(topk(x, node.attributes["k"], node.attributes.get("axis", -1)))


@operator("TopK", since=10, host=(1,))
def top_k(node, x, k):
    """The k largest, or smallest, elements along an axis, in order, and their positions."""
    return tuple(topk(x, int(np.ravel(k)[0]), node.attributes.get("axis", -1), bool(node.attributes.get("largest", 1))))
