"""Reading and writing at positions that are data.

Indices become *targets* first: where in the array each one points, in elements from its first. Reading is then a lookup. Writing sorts
the targets, stably, and gives each that occurs to one thread, which walks through its values in their order: no atomics, the same bits
every run.

The positions of the indices are K in all, the elements of the other axes R: value (r, k) goes to target k of slice r.
"""

from __future__ import annotations

from math import prod

import numpy as np

from numbanet.backends.cuda.compile import Sizes, kernel
from numbanet.backends.cuda.elementwise import full
from numbanet.backends.cuda.index import grid_stride, offset, quotient, split
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.layout import broadcast_steps, merged, merged_in_order
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import convert, on_host
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.shape import sliced
from numbanet.backends.cuda.sorting import INT64, ORDERS
from numbanet.backends.host import check_index_range


@kernel
def out_of_range(index, found, lowest, size, total, shape: Sizes, steps):
    """Whether there is an index outside of lowest ... size - 1; all threads that find one write the same."""
    for i in grid_stride(total):
        at = index[offset(i, shape, steps)]
        if at < lowest or at >= size:
            found[0] = 1


def has_out_of_range(index: DeviceArray, size: int, lowest: int = 0) -> bool:
    """Whether an index is not one of lowest ... size - 1: it waits for the answer, since what follows would touch other memory."""
    allocator = index.lease.allocator
    found = allocator.from_numpy(np.zeros(1, np.uint8))
    shape, steps = merged(index.shape, index.steps)
    launch(out_of_range, index.size, index, found, lowest, size, index.size, shape, steps)
    return bool(allocator.to_numpy(found)[0])


def _check(operation: str, index: DeviceArray, axis: int, size: int, lowest: int = 0) -> None:
    """Raise where an index is out of range."""
    if has_out_of_range(index, size, lowest):
        check_index_range(operation, on_host(index), axis, size, lowest)


@kernel
def add_targets(index, targets, is_first, size, step, total, shape: Sizes, steps):
    """targets += step * index; negative indices count from the end."""
    for i in grid_stride(total):
        at = index[offset(i, shape, steps)]
        at = at + size if at < 0 else at
        targets[i] = at * step if is_first else targets[i] + at * step


@kernel
def targets_along(index, targets, axis_step, total, shape: Sizes, index_steps, steps):
    """targets[o, j, r] = the place of [o, index[o, j, r], r] in an array whose step along the axis is `axis_step`, and 0 in `steps`."""
    for i in grid_stride(total):
        targets[i] = offset(i, shape, steps) + index[offset(i, shape, index_steps)] * axis_step


@kernel
def read_targets(x, targets, out, total, count: Sizes, rest: Sizes, x_rest, out_rest, common: Sizes, out_common):
    for i in grid_stride(total):
        r, k = split(i, count)
        out[offset(r, rest, out_rest) + offset(k, common, out_common)] = x[offset(r, rest, x_rest) + targets[k]]


@kernel
def write_targets(x, targets, order, values, accumulate, total, count, rest: Sizes, x_rest, values_rest, common: Sizes, values_common):
    """x at each target = the last of its values, or x + all of them in order; one thread a target and slice."""
    for i in grid_stride(total):
        r = quotient(i, count)
        k = i - r * count
        target = targets[order[k]]
        if k > 0 and targets[order[k - 1]] == target:
            continue                                    # a thread before this one has the target
        place, begin = offset(r, rest, x_rest) + target, offset(r, rest, values_rest)
        value = x[place]
        while k < count and targets[order[k]] == target:
            given = values[begin + offset(order[k], common, values_common)]
            value = value + given if accumulate else given
            k += 1
        x[place] = value


class _Selection:
    """x[..., indices, ...]: targets, and the axes of x and of the selected array in the order (rest, common)."""

    def __init__(self, operation: str, x: DeviceArray, indices, axes: tuple[int, ...]):
        common = np.broadcast_shapes(*[i.shape for i in indices])
        self.count = prod(common)
        self.targets = x.lease.allocator.empty((self.count,), INT64)
        for position, (index, axis) in enumerate(zip(indices, axes)):
            _check(operation, index, axis, x.shape[axis], -x.shape[axis])
            shape, steps = merged_in_order(common, broadcast_steps(index, common))
            launch(add_targets, self.count, index, self.targets, int(position == 0), x.shape[axis], x.steps[axis], self.count, shape, steps)
        rest = [a for a in range(len(x.shape)) if a not in axes]
        self.rest, self.x_rest = tuple([x.shape[a] for a in rest]), tuple([x.steps[a] for a in rest])
        at = axes[0] if axes == tuple(range(axes[0], axes[0] + len(axes))) else 0
        self.common, self.common_axes = common, tuple(range(at, at + len(common)))
        self.total = prod(self.rest) * self.count

    def steps_of(self, selected_steps: tuple[int, ...]) -> tuple:
        """(rest, x's steps, the selected array's), (common, the selected array's)."""
        rest = tuple([s for a, s in enumerate(selected_steps) if a not in self.common_axes])
        return (*merged_in_order(self.rest, self.x_rest, rest),
                *merged_in_order(self.common, tuple([selected_steps[a] for a in self.common_axes])))


@implements
def index_get(x, indices, axes, out):
    selection = _Selection("index", x, indices, axes)
    launch(read_targets, selection.total, x, selection.targets, out, selection.total, selection.count, *selection.steps_of(out.steps))


def _write(x, selection: _Selection, values: DeviceArray, steps: tuple[int, ...], accumulate: bool) -> None:
    order, _ = ORDERS[False](selection.targets, 0)
    launch(write_targets, selection.total, x, selection.targets, order, values, int(accumulate), selection.total, selection.count,
           *selection.steps_of(steps))


@implements
def index_get_backward_input(grad_y, indices, axes, shape, out):
    full(out.shape, 0, out.dtype, out)
    _write(out, _Selection("index_backward_input", out, indices, axes), grad_y, grad_y.steps, True)


@implements
def index_put(x, indices, axes, values, accumulate):
    selection = _Selection("index_put", x, indices, axes)
    at = selection.common_axes[0] if selection.common_axes else 0
    shape = (*selection.rest[:at], *selection.common, *selection.rest[at:])
    _write(x, selection, values, broadcast_steps(values, shape), accumulate)


@implements
def slice_put(x, index, values):
    target = sliced(x, index)
    convert(values.view(target.shape, tuple([s * values.itemsize for s in broadcast_steps(values, target.shape)])), target)


def _targets_along(operation, index, axis, x_shape, steps) -> DeviceArray:
    _check(operation, index, axis, x_shape[axis])
    targets = index.lease.allocator.empty((index.size,), INT64)
    shape, index_steps, others = merged_in_order(index.shape, index.steps, tuple([0 if a == axis else s for a, s in enumerate(steps)]))
    launch(targets_along, index.size, index, targets, steps[axis], index.size, shape, index_steps, others)
    return targets


@implements
def gather(x, axis, index, out):
    targets = _targets_along("gather", index, axis, x.shape, x.steps)
    launch(read_targets, out.size, x, targets, out, out.size, out.size, (1,), (0,), (0,), *merged_in_order(out.shape, out.steps))


@implements
def scatter(x, axis, index, src, accumulate, out):
    if out is not x:
        convert(x, out)
    targets = _targets_along("scatter", index, axis, out.shape, out.steps)
    if type(src) is not DeviceArray:
        number = out.lease.allocator.empty((), out.dtype)
        full((), src, out.dtype, number)
        src, steps = number, (0,) * len(index.shape)
    else:
        steps = src.steps
    order, _ = ORDERS[False](targets, 0)
    launch(write_targets, index.size, out, targets, order, src, int(accumulate), index.size, index.size, (1,), (0,), (0,),
           *merged_in_order(index.shape, steps))
