"""What a plan's call can do ahead; see `Backend.prepare`. All else is done by `recording.py`, which binds arguments and addresses."""

from __future__ import annotations

from collections.abc import Callable

from numbanet.backends.cuda import choose
from numbanet.backends.cuda.convolution_tiles import packed
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.registry import implements

WEIGHT = {"conv2d_forward": 1, "conv2d_fused": 1, "conv2d_with_statistics": 1}          # the position of the weight


def prepare(primitive: str, arguments: tuple, constant: frozenset[int]) -> Callable | None:
    """A convolution whose weight does not change, by tile programs: the weight is copied into their order once."""
    position = WEIGHT.get(primitive)
    given = arguments[position] if position in constant else None
    if not isinstance(given, DeviceArray) or not choose.has_tiles(given.device, given.dtype):
        return None
    geometry = next(a for a in arguments if hasattr(a, "weight_shape"))
    weight = packed(given, geometry)
    if weight is given:
        return None
    implementation = implements[primitive]

    def call(*operands):
        implementation(*operands[:position], weight, *operands[position + 1:])
    call.unread = (position,)
    return call
