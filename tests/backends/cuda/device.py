"""Arrays in the emulator's memory, and launches of tile programs on it."""

from __future__ import annotations

import numpy as np

from numbanet.backends.cuda.tiles import build
from numbanet.backends.cuda.tiles.arguments import View
from tests.backends.cuda.emulator import Emulator, Memory

NHWC = (0, 2, 3, 1)


class Device:
    """A GPU of the emulator: arrays, launches, and what they cost."""

    def __init__(self, count_conflicts: bool = False):
        self.memory, self.count_conflicts, self.conflicts, self.calls = Memory(), count_conflicts, {}, {}
        self.placed = {}

    def put(self, array: np.ndarray, writable: bool = False, offset: int = 0) -> View:
        """A view of the same shape and the same order of strides, dense."""
        order = sorted(range(array.ndim), key=lambda axis: (-abs(array.strides[axis]), axis))
        dense = np.ascontiguousarray(array.transpose(order))
        address = self.memory.put(dense, writable, offset)
        strides = [0] * array.ndim
        for axis, stride in zip(order, dense.strides):
            strides[axis] = stride // array.itemsize
        view = View(address, array.shape, tuple(strides))
        self.placed[address] = (array.dtype, order)
        return view

    def empty(self, shape, dtype, order=None, offset: int = 0) -> View:
        """Room for a result, NaN so far; `order` lists the axes from the outermost to the innermost in memory."""
        order = range(len(shape)) if order is None else order
        return self.put(np.full([shape[axis] for axis in order], np.nan, dtype).transpose(np.argsort(order)), True, offset)

    def get(self, view: View) -> np.ndarray:
        _, order = self.placed[view.address]
        return self.memory.get(view.address).transpose(np.argsort(order))

    def room(self, size: int) -> int:
        """Address of `size` bytes of workspace, NaN so far."""
        return self.memory.put(np.full(max(size // 4, 1), np.nan, np.float32), True)

    def run(self, launches) -> None:
        for launch in launches:
            machine = Emulator(self.memory, launch.threads // 32, launch.shared_bytes, self.count_conflicts)
            machine.launch(build(launch.program, machine), launch.grid, launch.arguments)
            for total, part in ((self.conflicts, machine.conflicts), (self.calls, machine.calls)):
                for name, count in part.items():
                    total[name] = total.get(name, 0) + count


def integers(rng, shape, dtype, bound: int = 4, order=None) -> np.ndarray:
    """Small integers, whose products and sums are exact; `order` as in `Device.empty`."""
    order = range(len(shape)) if order is None else order
    values = rng.integers(-bound, bound + 1, [shape[axis] for axis in order]).astype(dtype)
    return values.transpose(np.argsort(order))



def cast(value, dtype):
    """An array in another dtype, in the same memory order; what is none as it is."""
    if not isinstance(value, np.ndarray):
        return value
    made = np.empty_like(value, dtype)
    made[...] = value
    return made
