"""Padding layers. `padding` is one int for every side, or (left, right), (left, right, top, bottom)."""

from __future__ import annotations

from numbanet.errors import ShapeError
from numbanet.nn import functional as F
from numbanet.nn.module import Module


class _Pad(Module):
    rank: int
    mode: str

    def __init__(self, padding):
        super().__init__()
        sides = (padding,) * (2 * self.rank) if isinstance(padding, int) else tuple(padding)
        if len(sides) != 2 * self.rank:
            raise ShapeError(f"{type(self).__name__}: padding expects an int or {2 * self.rank} ints, "
                             f"received {padding!r}")
        self.padding = sides

    def forward(self, x):
        return F.pad(x, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding, value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, x):
        return F.pad(x, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Pads (N, C, L) with `value`; negative padding crops."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """Pads (N, C, H, W) with `value`; negative padding crops."""

    rank = 2


class _ZeroPad(_ConstantPad):
    def __init__(self, padding):
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    """Pads (N, C, L) with zeros; negative padding crops."""

    rank = 1


class ZeroPad2d(_ZeroPad):
    """Pads (N, C, H, W) with zeros; negative padding crops."""

    rank = 2


class ReflectionPad1d(_Pad):
    """Mirrors (N, C, L) at its border elements."""

    rank, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """Mirrors (N, C, H, W) at its border elements."""

    rank, mode = 2, "reflect"


class ReplicationPad1d(_Pad):
    """Repeats the border elements of (N, C, L)."""

    rank, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """Repeats the border elements of (N, C, H, W)."""

    rank, mode = 2, "replicate"


class CircularPad1d(_Pad):
    """Continues (N, C, L) from its other end."""

    rank, mode = 1, "circular"


class CircularPad2d(_Pad):
    """Continues (N, C, H, W) from its other ends."""

    rank, mode = 2, "circular"
