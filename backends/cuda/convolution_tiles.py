"""Convolution by tile programs, for tensor cores: arrays in, launches out. `choose.py` says when; `tiles/` holds the programs.

    forward           y      = x windows (N OH OW, R S C/G)        times weight (R S C/G, K/G)
    backward_input    grad_x = grad_y windows, a phase at a time   times weight (R S K/G, C/G)
    backward_weight   grad_w = grad_y (K/G, N OH OW)               times x windows (N OH OW, R S C/G)

each for every group; one filter a channel takes the depthwise programs. Maps are read in place where their channels are neighbours in
memory, weights where their elements lie in the order K, R, S, C (depthwise: R, S, C); anything else is copied first.
"""

from __future__ import annotations

from numbanet.backends.cuda.limits import NO_LIMITS
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import convert
from numbanet.backends.cuda.tiles import arguments as tiles
from numbanet.backends.cuda.tiles.arguments import Epilogue, View, sums_shape, workspace_bytes
from numbanet.backends.cuda.tiles.arrays import (
    FLOAT32,
    NHWC,
    address_of,
    card_of,
    empty_like,
    ordered,
    planned,
    room_for,
    shift_of,
    view_of,
)
from numbanet.backends.cuda.tiles.choose import choose, depthwise_splits, is_depthwise, math_of, product_of
from numbanet.geometry import ConvGeometry

KRSC = NHWC                  # of a weight (K, C/G, R, S)
RSC = (2, 3, 1, 0)           # of the weight of a depthwise convolution, (C, 1, R, S)
_PLAN = {"forward": tiles.conv_forward, "backward_input": tiles.conv_backward_input, "backward_weight": tiles.conv_backward_weight}
_PLAN_DEPTHWISE = {"forward": tiles.depthwise_forward, "backward_input": tiles.depthwise_backward_input}


def forward(x, weight, bias, residual, geometry, low, high, out, sums: DeviceArray | None = None) -> None:
    """y = convolution + bias + residual, limited; bias and residual may be None. Statistics of y go to `sums`, see `room_for_sums`."""
    bias, shift = shift_of(bias)
    residual = None if residual is None else ordered(residual, NHWC)
    _run("forward", ordered(x, NHWC), packed(weight, geometry), out, geometry, shift, residual, low, high, sums)


def is_whole(geometry, batch: int, dtype, device) -> bool:
    """Whether the forward pass of a convolution computes each element of y in one block, which then knows what statistics it has."""
    return not is_depthwise(geometry) and _chosen("forward", geometry, batch, dtype, device)[1] == 1


def room_for_sums(geometry, x, out) -> DeviceArray:
    """(4, blocks, K) for the statistics of a convolution's result, where `is_whole`: the parts that `normalization/moments.py` merges."""
    rows, *_ = product_of("forward", geometry, x.shape[0])
    tile, _ = _chosen("forward", geometry, x.shape[0], x.dtype, out.device)
    return out.lease.allocator.empty(sums_shape(rows, geometry.filters, tile), FLOAT32)


def backward_input(grad_y, weight, added, geometry, out) -> None:
    """The gradient with respect to x, plus `added` unless it is None."""
    added = None if added is None else ordered(added, NHWC)
    _run("backward_input", ordered(grad_y, NHWC), packed(weight, geometry), out, geometry, 0, added, *NO_LIMITS)


def backward_weight(grad_y, x, geometry, out) -> None:
    """The gradient with respect to weight."""
    grad_y, x, math = ordered(grad_y, NHWC), ordered(x, NHWC), math_of(x.dtype)
    card = card_of(out.device)
    rows, columns, depth, batches = product_of("backward_weight", geometry, x.shape[0])
    if is_depthwise(geometry):
        splits = depthwise_splits(depth, columns, out.shape[0], card)
        room, at = room_for(out, 4 * splits * out.size)
        out.device.run_tiles(_depthwise_weight(math, view_of(grad_y), view_of(x), view_of(out), geometry, splits, at))
        return
    tile, splits = choose(math, rows, columns, depth, batches, card)
    room, at = room_for(out, workspace_bytes(rows, columns, batches, splits))
    out.device.run_tiles(_planned("backward_weight", tile, view_of(grad_y), view_of(x), view_of(out), geometry, Epilogue(), splits, at))


def packed(weight: DeviceArray, geometry: ConvGeometry) -> DeviceArray:
    """The weight in the order that the programs read."""
    return ordered(weight, RSC) if is_depthwise(geometry) else ordered(weight, KRSC, 2, 3)


def _chosen(direction: str, geometry, batch: int, dtype, device) -> tuple:
    """(tile, splits) of a pass."""
    return choose(math_of(dtype), *product_of(direction, geometry, batch), card_of(device))


def _run(direction: str, x, weight, out, geometry, shift: int, residual, low: float, high: float, sums=None) -> None:
    made = out if out.shape[1] == 1 or out.steps[1] == 1 else empty_like(out, NHWC)
    epilogue = Epilogue(shift=shift, residual=None if residual is None else view_of(residual), minimum=float(low), maximum=float(high),
                        sums=0 if sums is None else address_of(sums))
    if is_depthwise(geometry):
        launches = _depthwise(direction, math_of(x.dtype), view_of(x), view_of(weight), view_of(made), geometry, epilogue)
    else:
        rows, columns, _, batches = product_of(direction, geometry, x.shape[0])
        tile, splits = _chosen(direction, geometry, x.shape[0], x.dtype, out.device)
        room, at = room_for(out, workspace_bytes(rows, columns, batches, splits))
        launches = _planned(direction, tile, view_of(x), view_of(weight), view_of(made), geometry, epilogue, splits, at)
    out.device.run_tiles(launches)
    if made is not out:
        convert(made, out)


@planned
def _planned(direction: str, tile, a: View, b: View, y: View, geometry, epilogue: Epilogue, splits: int, workspace: int) -> tuple:
    return tuple(_PLAN[direction](tile, a, b, y, geometry, epilogue, splits, workspace))


@planned
def _depthwise(direction: str, math: str, x: View, weight: View, y: View, geometry, epilogue: Epilogue) -> tuple:
    return tuple(_PLAN_DEPTHWISE[direction](_stored(math), x, weight, y, geometry, epilogue))


@planned
def _depthwise_weight(math: str, grad_y: View, x: View, out: View, geometry, splits: int, workspace: int) -> tuple:
    return tuple(tiles.depthwise_backward_weight(_stored(math), grad_y, x, out, geometry, splits=splits, workspace=workspace))


def _stored(math: str) -> str:
    """Depthwise convolution is no matrix product: float32 is float32."""
    return "float32" if math == "tf32" else math
