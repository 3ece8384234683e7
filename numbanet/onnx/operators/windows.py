"""What convolution and pooling share: padding and windows from a node's attributes.

Letters: n size of an axis, f taps, d dilation, s stride, p padding, o output size.
"""

from __future__ import annotations

from math import ceil

from numbanet.errors import OnnxError, ShapeError


def per_axis(node, name: str, axes: int, default: int = 1) -> tuple[int, ...]:
    """An attribute with one int for each spatial axis."""
    values = tuple(node.attributes.get(name) or (default,) * axes)
    if len(values) != axes:
        raise ShapeError(f"{node}: {name} expects {axes} values, received {list(values)}")
    return values


def padding_of(node, sizes, kernel, stride, dilation) -> tuple[tuple[int, int], ...]:
    """(before, after) for each spatial axis, from `pads` or `auto_pad`."""
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = tuple(node.attributes.get("pads") or (0,) * (2 * len(sizes)))
        if len(pads) != 2 * len(sizes):
            raise ShapeError(f"{node}: pads expects {2 * len(sizes)} values, received {list(pads)}")
        return tuple(zip(pads[:len(sizes)], pads[len(sizes):]))
    if auto == "VALID":
        return ((0, 0),) * len(sizes)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise OnnxError(f"{node}: auto_pad expects NOTSET, VALID, SAME_UPPER or SAME_LOWER, received {auto!r}")
    totals = (max(0, (ceil(n / s) - 1) * s + d * (f - 1) + 1 - n) for n, f, s, d in zip(sizes, kernel, stride, dilation))
    return tuple(halves(total, auto) for total in totals)


def halves(total: int, auto: str) -> tuple[int, int]:
    """A padding in two; the odd element goes behind with SAME_UPPER, before with SAME_LOWER."""
    less, more = total // 2, total - total // 2
    return (more, less) if auto == "SAME_LOWER" else (less, more)


def positive(node, **values) -> None:
    """Raise where a stride, dilation or kernel size is not at least 1."""
    for name, sizes in values.items():
        if min(sizes, default=1) < 1:
            raise ShapeError(f"{node}: {name} expects values of at least 1, received {list(sizes)}")
