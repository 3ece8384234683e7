"""Whether a launch reads and writes 16 bytes at once: decided here for all kernels, from shapes, steps and addresses.

A launch is wide where its innermost axis divides by the width, and each array lies along it without gaps, beginning at a multiple of 16
bytes in every row, or repeats one element. The width is 4 elements, or 8 where there are 16-bit floats, so that an access moves 16 bytes,
or several times that. A thread of a wide launch does the work of as many neighbours and has as many bytes on their way; that is why small
launches are wide too. All others run element by element, by the same source (`pieces.py`).
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

from numbanet.backends.cuda.memory import DeviceArray
from numbanet.dtypes import is_floating_point

BYTES = 16


class Wide(NamedTuple):
    """An array whose elements a kernel takes in pieces of `width`: an argument of `launch`."""

    array: DeviceArray
    width: int


def width_of(*arrays: DeviceArray) -> int:
    """Elements of a piece, in a launch with these arrays."""
    return 8 if any(a.dtype.itemsize == 2 and is_floating_point(a.dtype) for a in arrays) else 4


def pieces(places: tuple[tuple[int, ...], ...], *arrays: DeviceArray) -> tuple[int, tuple, tuple]:
    """A launch as it is best made: (work for how many threads, places, arrays).

    Parameters
    ----------
    places
        Shape, and the steps of each array along its axes, as from :func:`~numbanet.backends.cuda.layout.merged`.
    arrays
        In the same order, what is written first.

    Returns
    -------
    tuple
        In a wide launch the innermost axis counts pieces, steps lead from one to the next, and arrays that lie along it are :class:`Wide`.
        Otherwise all is as given.
    """
    width = width_of(*arrays)
    wide = _wide(places, tuple([a.dtype.itemsize for a in arrays]), width)
    if wide is None or any(steps[-1] and not is_aligned(a, width) for a, steps in zip(arrays, places[1:])):
        return prod(places[0]), places, arrays
    return prod(wide[0]), wide, tuple([Wide(a, width) if steps[-1] else a for a, steps in zip(arrays, places[1:])])


def pieces_of_rows(rows: tuple, elements: tuple, *arrays: DeviceArray) -> tuple[int, tuple, tuple]:
    """The same for kernels that take rows and the elements of a row apart, the pieces lying along rows.

    Parameters
    ----------
    rows, elements
        Places of the rows' first elements, and of a row's elements from there.

    Returns
    -------
    tuple
        (elements of a piece, 1 where the launch is not wide; the places of both together, rows first; arrays).
    """
    _, places, arrays = pieces(tuple([of_rows + of_row for of_rows, of_row in zip(rows, elements)]), *arrays)
    return elements[0][-1] // places[0][-1] if places[0][-1] else 1, places, arrays


def maps(*arrays: DeviceArray) -> tuple[int, tuple[int, ...], tuple, list[tuple[int, ...]]]:
    """The same of maps (N, C, H, W), for kernels that count the positions of the first, channels innermost.

    Returns
    -------
    tuple
        (work for how many threads, (N, H, W, 1, channels or pieces of them), arrays, the steps of each along N, C, H, W).
    """
    N, C, H, W = arrays[0].shape
    steps = [[0 if n == 1 else s for n, s in zip(a.shape, a.steps)] for a in arrays]
    total, (shape, *steps), arrays = pieces(((N, H, W, C), *[(n, h, w, c) for n, c, h, w in steps]), *arrays)
    return total, (N, H, W, 1, shape[3]), arrays, [(n, c, h, w) for n, h, w, c in steps]


@lru_cache(maxsize=8192)
def _wide(places: tuple[tuple[int, ...], ...], itemsizes: tuple[int, ...], width: int) -> tuple | None:
    """The places of a wide launch, or None."""
    shape, *all_steps = places
    if shape[-1] % width or all_steps[0][-1] != 1:
        return None
    for steps, itemsize in zip(all_steps, itemsizes):
        if steps[-1] not in (0, 1) or steps[-1] and any(step * itemsize % _alignment(itemsize, width) for step in steps[:-1]):
            return None
    return ((*shape[:-1], shape[-1] // width), *[(*steps[:-1], steps[-1] * width) for steps in all_steps])


def is_aligned(array: DeviceArray, width: int) -> bool:
    """Whether a piece may begin at the first element."""
    return (array.device.address(array.lease.handle) + array.offset) % _alignment(array.dtype.itemsize, width) == 0


def _alignment(itemsize: int, width: int) -> int:
    return min(BYTES, itemsize * width)
