"""Axes that lie one behind the other in all operands of a kernel are one axis: what most calls come down to is a flat loop."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=8192)
def merged(shape: tuple[int, ...], *steps: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """(shape, steps of each operand) over the fewest axes, the fastest of the first operand last, at least one.

    For kernels that may visit the elements in any order. Steps are in elements, 0 along axes that repeat.

    Examples
    --------
    >>> merged((2, 3, 4), (12, 4, 1), (12, 4, 1))
    ((24,), (1,), (1,))
    >>> merged((2, 3, 4), (12, 1, 3), (0, 1, 0))           # channels-last, and a value a channel
    ((8, 3), (3, 1), (0, 1))
    """
    axes = sorted((a for a in range(len(shape)) if shape[a] != 1), key=lambda a: [-s[a] for s in steps])
    return _joined([(shape[a], *[s[a] for s in steps]) for a in axes], len(steps))


@lru_cache(maxsize=8192)
def merged_in_order(shape: tuple[int, ...], *steps: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The same with the axes in their logical order, for kernels that need to know an element's position."""
    return _joined([(n, *s) for n, *s in zip(shape, *steps) if n != 1], len(steps))


def _joined(axes: list[tuple], operands: int) -> tuple[tuple[int, ...], ...]:
    result: list[tuple] = []
    for n, *steps in axes:
        if result and all(before == s * n for before, s in zip(result[-1][1:], steps)):
            result[-1] = (result[-1][0] * n, *steps)
        else:
            result.append((n, *steps))
    return tuple(zip(*(result or [(1, *(0,) * operands)])))


def broadcast_steps(x, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The steps of x where it is repeated to `shape`."""
    lead = len(shape) - len(x.shape)
    return (*(0,) * lead, *[0 if n == 1 else s for n, s in zip(x.shape, x.steps)])


@lru_cache(maxsize=8192)
def reshaped_strides(shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...], itemsize: int) -> tuple[int, ...] | None:
    """The strides (bytes) under which the same memory has the shape `new`, in logical order; None where a copy is needed.

    Examples
    --------
    >>> reshaped_strides((2, 6), (24, 4), (2, 3, 2), 4), reshaped_strides((6, 2), (4, 24), (12,), 4)
    ((24, 8, 4), None)
    """
    if 0 in shape:
        steps, strides_of_new = itemsize, []
        for n in reversed(new):
            strides_of_new.append(steps)
            steps *= max(n, 1)
        return tuple(reversed(strides_of_new))
    runs = _runs(shape, strides)                        # (elements, stride of the last) of axes that are one behind the other
    result, run, left = [0] * len(new), len(runs) - 1, None
    for axis in reversed(range(len(new))):
        if new[axis] == 1:
            result[axis] = result[axis + 1] * new[axis + 1] if axis + 1 < len(new) else itemsize
            continue
        if left is None or left == 1:
            if left == 1:
                run -= 1
            left, step = runs[run]
        if left % new[axis]:
            return None
        result[axis] = step
        left, step = left // new[axis], step * new[axis]
    return tuple(result)


def _runs(shape, strides) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for n, s in zip(shape, strides):
        if n == 1:
            continue
        if runs and runs[-1][1] == s * n:
            runs[-1] = (runs[-1][0] * n, s)
        else:
            runs.append((n, s))
    return runs
