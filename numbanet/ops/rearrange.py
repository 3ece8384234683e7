"""Joining, splitting, reversing, copying: what rearranges elements or makes several tensors of one."""

from __future__ import annotations

from math import prod

import numpy as np

from numbanet._tensor import Tensor, tensor
from numbanet.autograd.operation import Operation
from numbanet.backends.interface import channels_last as channels_last_order
from numbanet.backends.interface import order_of
from numbanet.dtypes import promote
from numbanet.errors import IndexRangeError, ShapeError, UsageError
from numbanet.ops.shape import expand, reshape, sizes_of, squeeze, transpose, unsqueeze, whole, wrap_dim, wrap_dims

__all__ = ["cat", "channel_shuffle", "channels_last", "chunk", "clone", "concat", "concatenate", "contiguous_format",
           "flip", "hstack", "pixel_shuffle", "pixel_unshuffle", "preserve_format", "repeat", "repeat_interleave",
           "roll", "split", "stack", "tile", "unbind", "vstack"]

contiguous_format, channels_last, preserve_format = "contiguous_format", "channels_last", "preserve_format"


class Concatenate(Operation):
    """Tensors one after another along an axis."""

    operation_name = "cat"

    def forward(self, backend, axis, *arrays):
        self.save(axis, [x.shape[axis] for x in arrays])
        return backend.concatenate(arrays, axis)

    def backward(self, backend, grad_y, needs):
        axis, sizes = self.saved
        return tuple(_slices(backend, grad_y, axis, sizes))


class Split(Operation):
    """Views of consecutive parts of an axis."""

    operation_name = "split"
    view = True

    def forward(self, backend, x, axis, sizes):
        self.save(axis)
        return tuple(_slices(backend, x, axis, sizes))

    def backward(self, backend, *grad_outputs, needs):
        axis, = self.saved
        return backend.concatenate(grad_outputs, axis)


def _slices(backend, x, axis, sizes):
    begin, lead = 0, tuple(whole(x.shape[:axis]))
    for size in sizes:
        yield backend.slice_view(x, (*lead, (begin, begin + size, 1)))
        begin += size


class Flip(Operation):
    """Elements in reverse order along axes."""

    operation_name = "flip"

    def forward(self, backend, x, axes):
        self.save(axes)
        return backend.flip(x, axes)

    def backward(self, backend, grad_y, needs):
        axes, = self.saved
        return backend.flip(grad_y, axes)


class Clone(Operation):
    """A copy; `order` "same" keeps the memory order."""

    operation_name = "clone"

    def forward(self, backend, x, order):
        return backend.copy(x) if order == "same" else backend.reorder(x, order)

    def backward(self, backend, grad_y, needs):
        return grad_y


def cat(tensors, dim=0):
    """Tensors one after another along `dim`; their dtypes are promoted, empty vectors (shape (0,)) are left out.

    Raises
    ------
    ShapeError
        No tensor, or sizes differ along another dimension.
    """
    given = list(tensors)
    if not given:
        raise ShapeError("cat: tensors expects at least one tensor, received none")
    if odd := [type(x).__name__ for x in given if not isinstance(x, Tensor)]:
        raise TypeError(f"cat: tensors expects tensors, received {', '.join(odd)}")
    kept = [x for x in given if x.shape != (0,)] or given[:1]
    dim = wrap_dim("cat", dim, kept[0].ndim)
    if kept[0].ndim == 0:
        raise ShapeError("cat: tensors without dimensions cannot be joined; use stack")
    dtype = given[0].dtype
    for x in given:
        dtype = promote(dtype, x.dtype)
    return Concatenate.apply(dim, *[x if x.dtype == dtype else x.to(dtype=dtype) for x in kept])


concat = concatenate = cat


def stack(tensors, dim=0):
    """Tensors of one shape one after another along a new dimension."""
    tensors = list(tensors)
    if not tensors:
        raise ShapeError("stack: tensors expects at least one tensor, received none")
    if any(x.shape != tensors[0].shape for x in tensors):
        raise ShapeError(f"stack: tensors expect one shape, received {', '.join(str(x.shape) for x in tensors)}")
    dim = wrap_dim("stack", dim, tensors[0].ndim + 1)
    return cat([unsqueeze(x, dim) for x in tensors], dim)


def hstack(tensors):
    """Joined along the second dimension, vectors along the first."""
    tensors = [reshape(x, 1) if x.ndim == 0 else x for x in tensors]
    return cat(tensors, 0 if tensors and tensors[0].ndim == 1 else 1)


def vstack(tensors):
    """Joined along the first dimension, vectors as rows."""
    return cat([x if x.ndim > 1 else reshape(x, 1, -1) for x in tensors], 0)


def split(x, split_size_or_sections, dim=0):
    """Consecutive parts along `dim`, as views: of one size (the last may be smaller) or of the given sizes."""
    dim = wrap_dim("split", dim, x.ndim)
    if x.ndim == 0:
        raise ShapeError("split: expected at least one dimension, received a tensor without any")
    size = x.shape[dim]
    if isinstance(split_size_or_sections, int):
        part = split_size_or_sections
        if part < 0 or part == 0 < size:
            raise ShapeError(f"split: split_size expects a positive number, received {part}")
        sizes = tuple(min(part, size - begin) for begin in range(0, size, part)) if size else (0,)
    else:
        sizes = tuple(split_size_or_sections)
        if sum(sizes) != size or min(sizes, default=0) < 0:
            raise ShapeError(f"split: sections expect sizes that sum to {size}, the size of dimension {dim}, received "
                             f"{sizes}")
    return Split.apply(x, dim, sizes)


def chunk(x, chunks, dim=0):
    """At most `chunks` parts along `dim`, all of one size except the last, as views."""
    if chunks < 1:
        raise UsageError(f"chunk: chunks expects at least 1, received {chunks}")
    size = x.shape[wrap_dim("chunk", dim, x.ndim)] if x.ndim else 0
    return split(x, -(-size // chunks), dim) if size else split(x, (0,) * chunks, dim)


def unbind(x, dim=0):
    """The slices along `dim`, as views."""
    dim = wrap_dim("unbind", dim, x.ndim)
    if x.ndim == 0:
        raise ShapeError("unbind: expected at least one dimension, received a tensor without any")
    return tuple(squeeze(part, dim) for part in Split.apply(x, dim, (1,) * x.shape[dim])) if x.shape[dim] else ()


def flip(x, *axes, dims=None):
    """The elements in reverse order along `dims`: ``flip(x, 0, 1)``, ``flip(x, (0, 1))`` or ``flip(x, dims=(0, 1))``."""
    dims = wrap_dims("flip", sizes_of(axes if dims is None else (dims,)), x.ndim)
    return Flip.apply(x, dims if x.ndim else ())


def roll(x, shifts, dims=None):
    """Elements moved by `shifts` along `dims` (None: the flat ones); what leaves at one end enters at the other."""
    if dims is None:
        return reshape(roll(reshape(x, -1), shifts, 0), x.shape)
    shifts, dims = (shifts,) if isinstance(shifts, int) else shifts, (dims,) if isinstance(dims, int) else dims
    if len(shifts) != len(dims):
        raise ShapeError(f"roll: shifts and dims expect equally many numbers, received {tuple(shifts)} and "
                         f"{tuple(dims)}")
    if x.ndim == 0:
        raise IndexRangeError("roll: dims expects none for a tensor without dimensions")
    for shift, dim in zip(shifts, dims):
        size = x.shape[wrap_dim("roll", dim, x.ndim)]
        if size and shift % size:
            head, tail = split(x, (size - shift % size, shift % size), dim)
            x = cat((tail, head), dim)
    return x


def repeat(x, *sizes):
    """x copied `sizes[i]` times along dimension i; more sizes than dimensions add leading ones."""
    sizes = sizes_of(sizes)
    lead = len(sizes) - x.ndim
    if lead < 0 or min(sizes, default=1) < 0:
        raise ShapeError(f"repeat: sizes expects at least {x.ndim} numbers of at least 0, received {sizes}")
    shape = (1,) * lead + x.shape
    paired = expand(reshape(x, *[m for n in shape for m in (1, n)]), *[m for r, n in zip(sizes, shape) for m in (r, n)])
    return reshape(clone(paired, memory_format=contiguous_format), *[r * n for r, n in zip(sizes, shape)])


def tile(x, *dims):
    """As :func:`repeat`; fewer numbers than dimensions count for the last ones."""
    dims = sizes_of(dims)
    return repeat(x, (1,) * (x.ndim - len(dims)) + dims)


def repeat_interleave(x, repeats, dim=None, *, output_size=None):
    """Each element `repeats` times in a row along `dim` (None: of the flat elements).

    `repeats` is an int, or a vector of one number for each element, which is read on the host and makes `output_size` (PyTorch's hint
    of the result's length) needless.
    """
    if dim is None or x.ndim == 0:
        x, dim = reshape(x, -1), 0
    dim = wrap_dim("repeat_interleave", dim, x.ndim)
    if isinstance(repeats, Tensor) and repeats.numel() == 1:
        repeats = int(repeats.item())
    if isinstance(repeats, Tensor):
        return _repeat_each(x, repeats, dim)
    if not isinstance(repeats, int) or repeats < 0:
        raise UsageError(f"repeat_interleave: repeats expects an int of at least 0 or a tensor of them, received {repeats!r}")
    spread = expand(unsqueeze(x, dim + 1), *x.shape[:dim + 1], repeats, *x.shape[dim + 1:])
    copied = clone(spread, memory_format=contiguous_format)
    return reshape(copied, *x.shape[:dim], x.shape[dim] * repeats, *x.shape[dim + 1:])


def _repeat_each(x, repeats, dim):
    counts = repeats.detach().numpy()
    if counts.shape != (x.shape[dim],) or counts.dtype.kind not in "iu" or counts.min(initial=0) < 0:
        raise ShapeError(f"repeat_interleave: repeats expects {x.shape[dim]} integers of at least 0, one for each element of dimension "
                         f"{dim}, received shape {counts.shape} of {counts.dtype}")
    return x.index_select(dim, tensor(np.repeat(np.arange(len(counts)), counts), device=x.device))


def clone(x, *, memory_format=preserve_format):
    """A copy that gradients pass through."""
    return Clone.apply(x, "same" if memory_format == preserve_format else _order(x, memory_format))


def contiguous(x, memory_format=contiguous_format):
    """x itself where its memory order is as asked, else a copy."""
    return x if is_contiguous(x, memory_format) else Clone.apply(x, _order(x, memory_format))


def is_contiguous(x, memory_format=contiguous_format) -> bool:
    """Whether the elements lie without gaps in row-major order (or channels last)."""
    step = x.array.dtype.itemsize
    for axis in reversed(_order(x, memory_format) or range(x.ndim)):
        if x.shape[axis] != 1 and x.array.strides[axis] != step:
            return 0 in x.shape
        step *= x.shape[axis]
    return True


def _order(x, memory_format):
    if memory_format == channels_last:
        if x.ndim not in (4, 5):
            raise ShapeError(f"memory_format: channels_last expects (N, C, H, W), received shape {x.shape}")
        return channels_last_order(x.ndim)
    if memory_format == preserve_format:
        return order_of(x.array)
    if memory_format != contiguous_format:
        raise UsageError("memory_format: expected contiguous_format, channels_last or preserve_format, received "
                         f"{memory_format!r}")
    return None


def pixel_shuffle(x, upscale_factor):
    """(..., C * r * r, H, W) to (..., C, H * r, W * r) (Shi et al., 2016)."""
    r, (*lead, C, H, W) = upscale_factor, _planes("pixel_shuffle", x)
    if r < 1 or C % (r * r):
        raise ShapeError(f"pixel_shuffle: expected channels divisible by {r} * {r}, received {C}")
    x = reshape(x, prod(lead), C // (r * r), r, r, H, W).permute(0, 1, 4, 2, 5, 3)
    return reshape(x, *lead, C // (r * r), H * r, W * r)


def pixel_unshuffle(x, downscale_factor):
    """The inverse of :func:`pixel_shuffle`."""
    r, (*lead, C, H, W) = downscale_factor, _planes("pixel_unshuffle", x)
    if r < 1 or H % r or W % r:
        raise ShapeError(f"pixel_unshuffle: expected height and width divisible by {r}, received {H} and {W}")
    x = reshape(x, prod(lead), C, H // r, r, W // r, r).permute(0, 1, 3, 5, 2, 4)
    return reshape(x, *lead, C * r * r, H // r, W // r)


def channel_shuffle(x, groups):
    """Channels of (N, C, ...) taken from each group in turn (Zhang et al., ShuffleNet, 2018)."""
    N, C, *spatial = x.shape
    if groups < 1 or C % groups:
        raise ShapeError(f"channel_shuffle: expected channels divisible by groups={groups}, received {C}")
    return reshape(transpose(reshape(x, N, groups, C // groups, *spatial), 1, 2), N, C, *spatial)


def _planes(operation, x):
    if x.ndim < 3:
        raise ShapeError(f"{operation}: x expects (..., C, H, W), received shape {x.shape}")
    return x.shape


for _function in (chunk, clone, contiguous, flip, is_contiguous, repeat, repeat_interleave, roll, split, tile, unbind):
    setattr(Tensor, _function.__name__, _function)
