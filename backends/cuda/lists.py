"""Many arrays in one launch: their elements, or pieces, are counted through, array k holding those from starts[k] on.

A list of arrays is an argument of `launch`; a kernel finds with `element_of` whose turn it is. Arrays that can be read in pieces
(`wide.py`) are one launch, in which pieces are counted, `step` elements each; the others are another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from numbanet.backends.cuda.compile import device
from numbanet.backends.cuda.constants import on_device
from numbanet.backends.cuda.index import narrow, quotient
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.wide import Wide, is_aligned, width_of


@device
def element_of(i, starts, count, step):
    """(which of `count` arrays has position i, which of its elements that is)."""
    low, high = narrow(0, count), count
    while high - low > 1:
        middle = quotient(low + high, 2)
        if starts[middle] <= i:
            low = middle
        else:
            high = middle
    return low, (i - starts[low]) * step


def together(lists: list[list[DeviceArray]], fits: Callable[[int, int], bool] = lambda k, width: True) -> Iterator[tuple]:
    """The launches over arrays that are not empty: those at one position of all lists have one size, those of a list one dtype.

    Parameters
    ----------
    lists
    fits
        Whether the arrays at position k may be taken in pieces of a width, where nothing in themselves speaks against it.

    Yields
    ------
    tuple
        (positions, elements of a step, the arrays at these of each list, where the elements of each begin, how many steps in all).
    """
    own = lists[0]
    width = width_of(*[of[0] for of in lists])
    is_wide = [p.size % width == 0 and fits(k, width) and all(is_aligned(x, width) for x in arrays)
               for k, (p, arrays) in enumerate(zip(own, zip(*lists)))]
    for step in (width, 1):
        members = [k for k, wide in enumerate(is_wide) if wide == (step == width)]
        if members:
            arrays = [[Wide(of[k], step) if step > 1 else of[k] for k in members] for of in lists]
            starts = np.cumsum([0, *[own[k].size // step for k in members]])
            yield members, step, arrays, table(own[0], starts[:-1], int(starts[-1])), int(starts[-1])


def table(near: DeviceArray, numbers, end: int) -> DeviceArray:
    """Numbers below `end` on the device of an array."""
    return on_device(near.lease.allocator, np.asarray(numbers, np.int32 if end < 2**31 else np.int64))
