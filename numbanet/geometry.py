"""Sizes of sliding windows: the only place where output sizes of convolution and pooling are computed and checked.

For one axis of N elements, a window of F taps at dilation D, padding P (before and after) and stride S::

    extent = D * (F - 1) + 1        # what the window spans
    output = floor((N + P_before + P_after - extent) / S) + 1

Geometries are immutable, hashable and cached, so equal arguments give the same object.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from numbanet.errors import ShapeError


def _axes(value, rank: int, name: str, operation: str, minimum: int) -> tuple[int, ...]:
    """`value` as one int per spatial axis."""
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) == 1:
        values = values * rank
    if len(values) != rank or any(not isinstance(v, int) and not hasattr(v, "__index__") for v in values):
        raise ShapeError(f"{operation}: {name} expects an int or {rank} ints, received {value!r}")
    values = tuple(int(v) for v in values)
    if min(values) < minimum:
        raise ShapeError(f"{operation}: {name} expects values of at least {minimum}, received {value!r}")
    return values


def _hashable(value):
    return value if isinstance(value, (int, str)) or value is None else tuple(
        _hashable(v) if isinstance(v, (list, tuple)) else v for v in value)


@dataclass(frozen=True, slots=True, eq=False)     # cached: the same arguments give the same object
class ConvGeometry:
    """How a convolution with `channels` inputs and `filters` outputs walks over an input of `input_size`."""

    channels: int
    filters: int
    groups: int
    input_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]      # (before, after) for each axis
    dilation: tuple[int, ...]
    output_size: tuple[int, ...]

    @property
    def channels_per_group(self) -> int:
        return self.channels // self.groups

    @property
    def filters_per_group(self) -> int:
        return self.filters // self.groups

    @property
    def is_depthwise(self) -> bool:
        return self.groups == self.channels and self.groups > 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.filters, self.channels // self.groups, *self.kernel_size)

    def multiply_adds(self, batch: int = 1) -> int:
        """Multiply-adds of one forward pass, border taps included, as papers count them."""
        total = batch * self.filters * self.channels_per_group
        for size in (*self.output_size, *self.kernel_size):
            total *= size
        return total

    def unread(self) -> tuple[int, ...]:
        """Rows of the padded input at the far end of each axis that no window reads: where (N - F + 2P) / S is not whole."""
        return tuple((n + sum(p) - (d * (f - 1) + 1)) % s for n, f, s, p, d in zip(
            self.input_size, self.kernel_size, self.stride, self.padding, self.dilation))

    def __reduce__(self):
        return conv_geometry, (self.channels, self.filters, self.input_size, self.kernel_size, self.stride, self.padding,
                               self.dilation, self.groups, "conv")


@dataclass(frozen=True, slots=True, eq=False)
class PoolGeometry:
    """How a pooling window walks over an input of `input_size`."""

    input_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    ceil_mode: bool
    output_size: tuple[int, ...]

    unread = ConvGeometry.unread

    def __reduce__(self):
        return pool_geometry, (self.input_size, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, "pool")


def _pairs(padding, rank: int, operation: str) -> tuple[tuple[int, int], ...]:
    """Padding as (before, after) per axis: an int, one int per axis, or one pair per axis."""
    if isinstance(padding, (list, tuple)) and padding and all(isinstance(p, (list, tuple)) for p in padding):
        if len(padding) != rank:
            raise ShapeError(f"{operation}: padding expects {rank} pairs (before, after), received {padding!r}")
        return tuple(_axes(p, 2, "padding", operation, 0) for p in padding)
    return tuple((p, p) for p in _axes(padding, rank, "padding", operation, 0))


def conv_geometry(channels, filters, input_size, kernel_size, stride=1, padding=0, dilation=1, groups=1,
                  operation="conv2d") -> ConvGeometry:
    """The checked :class:`ConvGeometry`. `padding`: int, ints, pairs (before, after), "same" or "valid"."""
    return _conv_geometry(channels, filters, tuple(input_size), tuple(kernel_size), _hashable(stride), _hashable(padding),
                          _hashable(dilation), groups, operation)


@lru_cache(maxsize=4096)
def _conv_geometry(channels, filters, input_size, kernel_size, stride, padding, dilation, groups, operation):
    rank = len(input_size)
    kernel_size = _axes(kernel_size, rank, "kernel_size", operation, 1)
    stride = _axes(stride, rank, "stride", operation, 1)
    dilation = _axes(dilation, rank, "dilation", operation, 1)
    if not isinstance(groups, int) or groups < 1 or channels % groups or filters % groups:
        raise ShapeError(f"{operation}: groups expects a divisor of {channels} input channels and of {filters} filters, "
                         f"received {groups!r}")
    extents = tuple(d * (f - 1) + 1 for f, d in zip(kernel_size, dilation))
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ShapeError(f"{operation}: padding='same' expects stride 1, received stride {stride}; give the padding in numbers")
        # The odd element goes to the far side, as in PyTorch, Keras and ONNX (SAME_UPPER).
        pairs = tuple(((e - 1) // 2, e - 1 - (e - 1) // 2) for e in extents)
    elif padding == "valid":
        pairs = ((0, 0),) * rank
    elif isinstance(padding, str):
        raise ShapeError(f"{operation}: padding expects numbers, 'same' or 'valid', received {padding!r}")
    else:
        pairs = _pairs(padding, rank, operation)
    output_size = tuple((n + sum(p) - e) // s + 1 for n, p, e, s in zip(input_size, pairs, extents, stride))
    if min(output_size) < 1:
        raise ShapeError(f"{operation}: the output would be of size {output_size}, expected at least 1: input {input_size} with "
                         f"padding {pairs} is smaller than the window, which spans {extents}; enlarge the input or the padding")
    return ConvGeometry(channels, filters, groups, input_size, kernel_size, stride, pairs, dilation, output_size)


def pool_geometry(input_size, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, operation="pool2d") -> PoolGeometry:
    """The checked :class:`PoolGeometry`; `stride` None means the window's size, as in PyTorch."""
    return _pool_geometry(tuple(input_size), _hashable(kernel_size), _hashable(stride), _hashable(padding),
                          _hashable(dilation), bool(ceil_mode), operation)


@lru_cache(maxsize=4096)
def _pool_geometry(input_size, kernel_size, stride, padding, dilation, ceil_mode, operation):
    rank = len(input_size)
    kernel_size = _axes(kernel_size, rank, "kernel_size", operation, 1)
    stride = kernel_size if stride is None or stride == () else _axes(stride, rank, "stride", operation, 1)
    dilation = _axes(dilation, rank, "dilation", operation, 1)
    pairs = _pairs(padding, rank, operation)
    if any(2 * max(p) > f for p, f in zip(pairs, kernel_size)):
        raise ShapeError(f"{operation}: padding expects at most half of the window {kernel_size}, received {padding!r}")
    output_size = []
    for n, (before, after), f, d, s in zip(input_size, pairs, kernel_size, dilation, stride):
        steps = (n + before + after - (d * (f - 1) + 1)) / s
        size = (ceil(steps) if ceil_mode else int(steps // 1)) + 1
        if ceil_mode and (size - 1) * s >= n + before:      # the last window must start inside input or leading padding
            size -= 1
        output_size.append(size)
    if min(output_size) < 1:
        raise ShapeError(f"{operation}: the output would be of size {tuple(output_size)}, expected at least 1: input {input_size} with "
                         f"padding {padding!r} is smaller than the window {kernel_size} (dilation {dilation})")
    return PoolGeometry(input_size, kernel_size, stride, pairs, dilation, ceil_mode, tuple(output_size))
