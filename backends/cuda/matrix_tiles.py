"""Products of matrices by tile programs, for tensor cores: as `matrix.multiply`. `choose.py` says when; `tiles/` holds the programs."""

from __future__ import annotations

from math import prod

from numbanet.backends.cuda.layout import broadcast_steps, merged_in_order
from numbanet.backends.cuda.limits import NO_LIMITS
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import convert
from numbanet.backends.cuda.tiles.arguments import Epilogue, View, gemm, workspace_bytes
from numbanet.backends.cuda.tiles.arrays import address_of, card_of, empty_like, planned, room_for, shift_of
from numbanet.backends.cuda.tiles.choose import choose, math_of


def multiply(a: DeviceArray, b: DeviceArray, bias: DeviceArray | None, out: DeviceArray, low: float = NO_LIMITS[0],
             high: float = NO_LIMITS[1]) -> None:
    """out (..., M, N) = a (..., M, K) times b (..., K, N), plus bias (N,) unless that is None, limited to [low, high].

    What has no unit stride along one of its last two axes (out: along the last) is copied.
    """
    a, b, made = readable(a), readable(b), out if out.steps[-1] == 1 or out.shape[-1] == 1 else empty_like(out, tuple(range(out.ndim)))
    (M, N), K, batch = out.shape[-2:], a.shape[-1], out.shape[:-2]
    bias, shift = shift_of(bias)
    batches = prod(batch)
    tile, splits = choose(math_of(out.dtype), M, N, K, batches, card_of(out.device))
    room, at = room_for(out, workspace_bytes(M, N, batches, splits))
    steps = batch_steps(a, b, made)
    views = [View(address_of(x), (batches, *x.shape[-2:]), (step, *x.steps[-2:])) for x, step in zip((a, b, made), steps)]
    out.device.run_tiles(_planned(tile, *views, Epilogue(shift=shift, minimum=float(low), maximum=float(high)), splits, at))
    if made is not out:
        convert(made, out)


def readable(x: DeviceArray) -> DeviceArray:
    """x, or a row-major copy where neither of its last two axes is of unit stride."""
    if any(x.steps[axis] == 1 or x.shape[axis] == 1 for axis in (-1, -2)):
        return x
    made = empty_like(x, tuple(range(x.ndim)))
    convert(x, made)
    return made


@planned
def _planned(tile, a: View, b: View, y: View, epilogue: Epilogue, splits: int, workspace: int) -> tuple:
    return tuple(gemm(tile, a, b, y, epilogue, splits, workspace))


def batch_steps(a: DeviceArray, b: DeviceArray, out: DeviceArray) -> tuple[int, int, int] | None:
    """Elements from one matrix of each to the next; None where the axes of the batch do not lie one behind the other."""
    batch = out.shape[:-2]
    if 0 in batch:
        return 0, 0, 0
    shape, *steps = merged_in_order(batch, *[broadcast_steps(x, (*batch, *x.shape[-2:]))[:-2] for x in (a, b, out)])
    return tuple(s[0] for s in steps) if len(shape) == 1 else None
