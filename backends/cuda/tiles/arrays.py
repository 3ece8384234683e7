"""Arrays of the backend as tile programs read them: views, copies where one cannot be read in place, workspace, planned launches.

A plan (tile, splits, launches) depends on addresses, shapes and strides alone, so that a repeated call finds its own again.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import convert
from numbanet.backends.cuda.tiles.arguments import View
from numbanet.backends.cuda.tiles.choose import Card
from numbanet.backends.cuda.tiles.shape import SHARED_LIMIT

FLOAT32 = np.dtype(np.float32)
NHWC = (0, 2, 3, 1)
planned = lru_cache(maxsize=4096)       # of functions of views: they are compared by their numbers


def view_of(x: DeviceArray) -> View:
    """The array's place, for a plan."""
    return View(address_of(x), x.shape, x.steps)


def address_of(x: DeviceArray) -> int:
    return x.device.address(x.lease.handle) + x.offset


def ordered(x: DeviceArray, order: tuple[int, ...], *axes: int) -> DeviceArray:
    """x, or a copy in a memory order where the last axis of it is not of unit stride, or one of `axes` is not where it would be there."""
    last = order[-1]
    if x.shape[last] == 1 or x.steps[last] == 1:
        step = x.shape[last]
        for axis in reversed(axes):
            if x.shape[axis] > 1 and x.steps[axis] != step:
                break
            step *= x.shape[axis]
        else:
            return x
    made = empty_like(x, order)
    convert(x, made)
    return made


def empty_like(x: DeviceArray, order: tuple[int, ...]) -> DeviceArray:
    return x.lease.allocator.empty(x.shape, x.dtype, order)


def shift_of(bias: DeviceArray | None) -> tuple[DeviceArray | None, int]:
    """(the bias as a dense float32 array, its address), or (None, 0)."""
    if bias is None:
        return None, 0
    if bias.dtype != FLOAT32 or bias.size > 1 and bias.steps[0] != 1:
        made = bias.lease.allocator.empty(bias.shape, FLOAT32)
        convert(bias, made)
        bias = made
    return bias, address_of(bias)


def room_for(out: DeviceArray, nbytes: int) -> tuple[DeviceArray | None, int]:
    """(workspace, its address); (None, 0) for no bytes."""
    if not nbytes:
        return None, 0
    room = out.lease.allocator.empty((nbytes // 4,), FLOAT32)
    return room, address_of(room)


@lru_cache(maxsize=64)
def card_of(device) -> Card:
    """What the model of costs knows of a GPU."""
    return Card(device.multiprocessors, SHARED_LIMIT.get(int(device.arch.removeprefix("sm_")), min(SHARED_LIMIT.values())))
