"""From views of arrays to launches of tile programs: pure functions, no GPU.

A `View` is an address, a shape and strides in elements. `gemm` and the passes of convolution return launches to run in order;
`workspace_bytes` and `sums_shape` say what memory a split product or statistics need beside the operands. What a program cannot read in
place raises `BackendError` with the copy that would make it readable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, gcd, inf

from numbanet.backends.cuda.tiles import layout
from numbanet.backends.cuda.tiles.depthwise import Depthwise
from numbanet.backends.cuda.tiles.reduce import THREADS, SplitEpilogue
from numbanet.backends.cuda.tiles.shape import Operand, Program, Tile
from numbanet.errors import BackendError
from numbanet.geometry import ConvGeometry


@dataclass(frozen=True)
class View:
    """An array in the memory of a device."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]         # in elements


@dataclass(frozen=True)
class Launch:
    """One kernel call: `program` names the kernel, its threads a block and its dynamic shared memory."""

    program: Program | SplitEpilogue | Depthwise
    grid: tuple[int, int, int]
    arguments: tuple

    @property
    def threads(self) -> int:
        return self.program.threads

    @property
    def shared_bytes(self) -> int:
        return self.program.shared_bytes


@dataclass(frozen=True)
class Epilogue:
    """What is done to the product, see `epilogue.py`: scale and shift are addresses of float32, residual is a view of y's shape."""

    scale: int = 0
    shift: int = 0
    residual: View | None = None
    minimum: float = -inf
    maximum: float = inf
    sums: int = 0                    # address of the blocks' statistics, float32 of `sums_shape`


PLAIN = Epilogue()


@dataclass(frozen=True)
class _Side:
    """An operand: how it is read, where it begins, bytes from one batch (or group) to the next, its parameters."""

    operand: Operand
    address: int
    batch: int
    parameters: tuple[int, ...]


@dataclass(frozen=True)
class _Result:
    kind: str
    address: int
    batch: int                       # bytes
    parameters: tuple[int, ...]
    pairs: bool                      # two neighbouring columns lie in one aligned piece


def workspace_bytes(rows: int, columns: int, batches: int, splits: int) -> int:
    """What the partial results of a split product need."""
    return 4 * rows * columns * batches * splits if splits > 1 else 0


def sums_shape(rows: int, channels: int, tile: Tile) -> tuple[int, int, int]:
    """Of the statistics of blocks: (4, blocks of rows, channels), see `epilogue.py`."""
    return 4, ceil(rows / tile.rows), channels


# --- matrix products ------------------------------------------------------------------------------------------------

def gemm(tile: Tile, a: View, b: View, y: View, epilogue: Epilogue = PLAIN, splits: int = 1, workspace: int = 0) -> list[Launch]:
    """y (batch, rows, columns) = a (batch, rows, depth) @ b (batch, depth, columns); a batch stride of 0 repeats an operand.

    One of the last two axes of a and b has unit stride, and the last one of y.
    """
    batches, rows, columns = y.shape
    depth = a.shape[2]
    a_side = _matrix_side("a", a, tile, along=2)
    b_side = _matrix_side("b", b, tile, along=1)
    result = _matrix_result("y", y, tile)
    residual = None if epilogue.residual is None else _matrix_result("residual", epilogue.residual, tile)
    return _launches(tile, a_side, b_side, result, residual, epilogue, (rows, columns, depth), batches, 0, splits, workspace)


def _matrix_side(name: str, view: View, tile: Tile, along: int) -> _Side:
    across = 3 - along
    if _is_unit(view, along):
        along_depth, other = True, across
    elif _is_unit(view, across):
        along_depth, other = False, along
    else:
        raise BackendError(f"matrix product: {name} expects unit stride along one of its axes, received strides {view.strides} for "
                           f"shape {view.shape}; copy it first")
    stride = view.strides[other]
    extent = view.shape[along if along_depth else across]
    piece = _piece(view.address, tile.item, [*([stride] if view.shape[other] > 1 else []), extent], view.strides[0])
    operand = Operand("matrix", along_depth, piece)
    return _Side(operand, view.address, view.strides[0] * tile.item, (_offset(name, stride, view.shape[other]),))


def _matrix_result(name: str, view: View, tile: Tile) -> _Result:
    if not _is_unit(view, 2):
        raise BackendError(f"matrix product: {name} expects unit stride along its last axis, received strides {view.strides}")
    return _Result("matrix", view.address, view.strides[0] * tile.item, (_offset(name, view.strides[1], 1),),
                   _pairs(view, tile, view.strides[:2], view.shape[2]))


# --- convolution ----------------------------------------------------------------------------------------------------

def conv_forward(tile: Tile, x: View, weight: View, y: View, geometry: ConvGeometry, epilogue: Epilogue = PLAIN, splits: int = 1,
                 workspace: int = 0) -> list[Launch]:
    """y (N, K, OH, OW) from x (N, C, H, W) and weight (K, C/G, R, S), channels of unit stride; the weight in the order K, R, S, C."""
    g = geometry
    (R, S), C, K = g.kernel_size, g.channels_per_group, g.filters_per_group
    k_stride, c_stride, r_stride, s_stride = weight.strides
    if (C > 1 and c_stride != 1) or (S > 1 and s_stride != C) or (R > 1 and r_stride != S * C):
        raise BackendError(f"conv2d: weight expects its elements in the order K, R, S, C, received strides {weight.strides} for shape "
                           f"{weight.shape}; copy it into channels-last order first")
    a_side = _map_side("x", x, tile, g.output_size, g.stride, tuple(-p[0] for p in g.padding), g.dilation, (R, S), C, along_depth=True)
    b_side = _Side(Operand("matrix", True, _piece(weight.address, tile.item, [k_stride, R * S * C], K * k_stride if g.groups > 1 else 0)),
                   weight.address, K * k_stride * tile.item, (_offset("weight", k_stride, K),))
    result, residual = _map_results("y", y, epilogue.residual, tile, K, g.output_size, (1, 1), (0, 0))
    sizes = (x.shape[0] * g.output_size[0] * g.output_size[1], K, R * S * C)
    return _launches(tile, a_side, b_side, result, residual, epilogue, sizes, g.groups, K, splits, workspace)


def conv_backward_input(tile: Tile, grad_y: View, weight: View, grad_x: View, geometry: ConvGeometry, epilogue: Epilogue = PLAIN,
                        splits: int = 1, workspace: int = 0) -> list[Launch]:
    """grad_x (N, C, H, W) from grad_y (N, K, OH, OW) and weight (K, C/G, R, S), channels of unit stride.

    With stride s, pixels h of equal h % s read the same taps: each such phase is a convolution of stride 1 of its own, and nothing is
    multiplied with the zeros between.
    """
    g = geometry
    C, K = g.channels_per_group, g.filters_per_group
    if epilogue.sums:
        raise BackendError("conv2d_backward_input: statistics of its result are not made; they are of y")
    k_stride, c_stride, r_stride, s_stride = weight.strides
    if C > 1 and c_stride != 1:
        raise BackendError(f"conv2d_backward_input: weight expects unit stride along C, received strides {weight.strides} for shape "
                           f"{weight.shape}; copy it into channels-last order first")
    launches = []
    for h in _phases(g, 0):
        for w in _phases(g, 1):
            taps = h.count, w.count
            a_side = _map_side("grad_y", grad_y, tile, (h.pixels, w.pixels), (1, 1), (h.offset, w.offset), (h.dilation, w.dilation),
                               taps, K, along_depth=True)
            at = weight.address + (h.first_tap * r_stride + w.first_tap * s_stride) * tile.item
            parameters = (k_stride, h.tap_step * r_stride, w.tap_step * s_stride, K, *layout.magic(K), max(w.count, 1),
                          *layout.magic(max(w.count, 1)))
            multiples = [k_stride, parameters[1] if h.count > 1 else 0, parameters[2] if w.count > 1 else 0, C]
            piece = _piece(at, tile.item, multiples, K * k_stride if g.groups > 1 else 0)
            source = "matrix" if h.count * w.count <= 1 else "taps" if K % tile.depth == 0 else "filters"
            parameters = (k_stride,) if source == "matrix" else parameters
            b_side = _Side(Operand(source, False, piece), at, K * k_stride * tile.item, parameters)
            stride, start, pixels = g.stride, (h.phase, w.phase), (h.pixels, w.pixels)
            result, residual = _map_results("grad_x", grad_x, epilogue.residual, tile, C, pixels, stride, start)
            sizes = (grad_x.shape[0] * h.pixels * w.pixels, C, h.count * w.count * K)
            launches += _launches(tile, a_side, b_side, result, residual, epilogue, sizes, g.groups, C,
                                  min(splits, max(1, ceil(sizes[2] / tile.depth))), workspace)
    return launches


def conv_backward_weight(tile: Tile, grad_y: View, x: View, grad_weight: View, geometry: ConvGeometry, epilogue: Epilogue = PLAIN,
                         splits: int = 1, workspace: int = 0) -> list[Launch]:
    """grad_weight (K, C/G, R, S), of any strides, from grad_y (N, K, OH, OW) and x (N, C, H, W), channels of unit stride."""
    g = geometry
    (R, S), C, K = g.kernel_size, g.channels_per_group, g.filters_per_group
    if epilogue.scale or epilogue.shift or epilogue.sums:
        raise BackendError("conv2d_backward_weight: the epilogue adds and limits only")
    a_side = _map_side("grad_y", grad_y, tile, g.output_size, (1, 1), (0, 0), (1, 1), (1, 1), K, along_depth=False)
    b_side = _map_side("x", x, tile, g.output_size, g.stride, tuple(-p[0] for p in g.padding), g.dilation, (R, S), C, along_depth=False)
    result = _weight_result(grad_weight, tile, g)
    residual = None if epilogue.residual is None else _weight_result(epilogue.residual, tile, g)
    sizes = (K, R * S * C, x.shape[0] * g.output_size[0] * g.output_size[1])
    return _launches(tile, a_side, b_side, result, residual, epilogue, sizes, g.groups, 0, splits, workspace)


@dataclass(frozen=True)
class _Phase:
    """Along one axis: the pixels phase, phase + stride, ... and the taps first_tap, first_tap + tap_step, ... that they read."""

    phase: int
    pixels: int
    first_tap: int
    tap_step: int
    count: int
    offset: int              # of the first pixel's first tap in grad_y
    dilation: int


def _phases(geometry: ConvGeometry, axis: int) -> list[_Phase]:
    size, taps = geometry.input_size[axis], geometry.kernel_size[axis]
    stride, dilation, padding = geometry.stride[axis], geometry.dilation[axis], geometry.padding[axis][0]
    step = stride // gcd(stride, dilation)
    phases = []
    for phase in range(min(stride, size)):
        pixels = ceil((size - phase) / stride)
        first = next((r for r in range(min(step, taps)) if (phase + padding - r * dilation) % stride == 0), None)
        if first is None:
            phases.append(_Phase(phase, pixels, 0, step, 0, 0, 0))
        else:
            phases.append(_Phase(phase, pixels, first, step, ceil((taps - first) / step), (phase + padding - first * dilation) // stride,
                                 -(step * dilation // stride)))
    return phases


def _map_side(name, view: View, tile: Tile, pixels, step, offset, dilation, taps, channels: int, along_depth: bool) -> _Side:
    """Windows (or, without taps, pixels) of a map; `channels` of a group. Pixels that lie at equal distances are rows of a matrix."""
    distance = _distance(view)
    is_matrix = taps[0] * taps[1] == 1 and distance is not None and (*pixels, *step, *offset) == (*view.shape[2:], 1, 1, 0, 0)
    side = _pixels_side(name, view, tile, pixels, step, offset, dilation, taps, channels, along_depth)
    return replace(side, operand=replace(side.operand, source="matrix"), parameters=(distance,)) if is_matrix else side


def _pixels_side(name, view: View, tile: Tile, pixels, step, offset, dilation, taps, channels: int, along_depth: bool) -> _Side:
    """The same, pixels being pixels."""
    n_stride, c_stride, h_stride, w_stride = view.strides
    if view.shape[1] > 1 and c_stride != 1:
        raise BackendError(f"conv2d: {name} expects unit stride along its channels, received strides {view.strides} for shape "
                           f"{view.shape}; copy it into channels-last order first")
    height, width = view.shape[2:]
    strides = [s for s, size in zip((n_stride, h_stride, w_stride), (view.shape[0], height, width)) if size > 1]
    is_windows = taps[0] * taps[1] > 1
    piece = _piece(view.address, tile.item, [*strides, channels], 0)
    reach = sum(abs(s) * size for s, size in zip((n_stride, h_stride, w_stride), (view.shape[0], height, width)))
    _offset(name, reach, 1)
    parameters = (n_stride, h_stride, w_stride, *_divided(pixels[0] * pixels[1]), *_divided(pixels[1]), *step, *offset, height, width)
    if is_windows:
        parameters += (*_divided(channels), *_divided(taps[1]), *dilation)
    return _Side(Operand("windows" if is_windows else "pixels", along_depth, piece), view.address, channels * tile.item, parameters)


def _map_results(name: str, view: View, residual: View | None, tile: Tile, channels: int, pixels, step, start):
    """(the result, what is added to it): pixels of maps, or rows of matrices where those of both lie at equal distances."""
    views = {name: view} if residual is None else {name: view, "residual": residual}
    results = [_map_result(*item, tile, channels, pixels, step, start) for item in views.items()]
    distances = [_distance(one) for one in views.values()]
    if None not in distances and (*pixels, *step) == (*view.shape[2:], 1, 1):
        results = [replace(result, kind="matrix", parameters=(distance,)) for result, distance in zip(results, distances)]
    return (*results, None)[:2]


def _map_result(name, view: View, tile: Tile, channels: int, pixels, step, start) -> _Result:
    n_stride, c_stride, h_stride, w_stride = view.strides
    if view.shape[1] > 1 and c_stride != 1:
        raise BackendError(f"conv2d: {name} expects unit stride along its channels, received strides {view.strides} for shape {view.shape}")
    at = view.address + (start[0] * h_stride + start[1] * w_stride) * tile.item
    parameters = (n_stride, h_stride * step[0], w_stride * step[1], *_divided(pixels[0] * pixels[1]), *_divided(pixels[1]))
    _offset(name, sum(abs(s) * size for s, size in zip((n_stride, h_stride, w_stride), (view.shape[0], *view.shape[2:]))), 1)
    return _Result("pixels", at, channels * tile.item, parameters,
                   _pairs(replace(view, address=at), tile, [n_stride, h_stride, w_stride, channels], channels))


def _weight_result(view: View, tile: Tile, geometry: ConvGeometry) -> _Result:
    k_stride, c_stride, r_stride, s_stride = view.strides
    C, S = geometry.channels_per_group, geometry.kernel_size[1]
    parameters = (k_stride, r_stride, s_stride, c_stride, *_divided(C), *_divided(S))
    pairs = c_stride == 1 and C % 2 == 0 and _pairs(view, tile, [k_stride, r_stride, s_stride], C)
    return _Result("filters", view.address, geometry.filters_per_group * k_stride * tile.item, parameters, pairs)


# --- depthwise convolution ------------------------------------------------------------------------------------------

def depthwise_forward(math: str, x: View, weight: View, y: View, geometry: ConvGeometry, epilogue: Epilogue = PLAIN) -> list[Launch]:
    """y (N, C, OH, OW) of one filter a channel: x (N, C, H, W), weight (C, 1, R, S) with its elements in the order R, S, C."""
    g = geometry
    return _depthwise(math, "forward", x, weight, y, g, epilogue, g.output_size, g.stride, tuple(-p[0] for p in g.padding))


def depthwise_backward_input(math: str, grad_y: View, weight: View, grad_x: View, geometry: ConvGeometry,
                             epilogue: Epilogue = PLAIN) -> list[Launch]:
    """grad_x (N, C, H, W) from grad_y (N, C, OH, OW); weight as in `depthwise_forward`."""
    g = geometry
    return _depthwise(math, "backward_input", grad_y, weight, grad_x, g, epilogue, g.input_size, (1, 1), tuple(p[0] for p in g.padding))


def depthwise_backward_weight(math: str, grad_y: View, x: View, grad_weight: View, geometry: ConvGeometry, epilogue: Epilogue = PLAIN,
                              splits: int = 1, workspace: int = 0) -> list[Launch]:
    """grad_weight (C, 1, R, S), of any strides. The workspace, `workspace_bytes(C, R * S, 1, splits)` and never 0, holds the parts."""
    g = geometry
    if epilogue.scale or epilogue.shift or epilogue.sums:
        raise BackendError("conv2d_backward_weight: the epilogue adds and limits only")
    C, taps = _depthwise_channels(g), g.kernel_size[0] * g.kernel_size[1]
    rows = x.shape[0] * g.output_size[0] * g.output_size[1]
    pixels, grad_pixels = (_pixels_side(name, view, tile_of(math), g.output_size, step, offset, (1, 1), (1, 1), C, False).parameters
                           for name, view, step, offset in (("x", x, g.stride, tuple(-p[0] for p in g.padding)),
                                                            ("grad_y", grad_y, (1, 1), (0, 0))))
    pairs = all(_pairs(view, tile_of(math), [view.strides[i] for i in (0, 2, 3)], C) for view in (x, grad_y))
    splits = min(splits, max(1, rows))
    split_bytes = 4 * C * taps
    part = Launch(Depthwise(math, "backward_weight"), (ceil(C / 64), taps, splits), (
        (grad_y.address, x.address, workspace, split_bytes), (rows, C, int(pairs), ceil(rows / splits), taps), pixels,
        (*_divided(g.kernel_size[1]), *g.dilation), grad_pixels))
    residual = None if epilogue.residual is None else _weight_result(epilogue.residual, tile_of(math), g)
    result = _weight_result(grad_weight, tile_of(math), g)
    return [part, _finish(math, result, residual, epilogue, C, taps, 1, 0, splits, split_bytes, workspace)]


def _depthwise(math, direction, x, weight, y, geometry, epilogue, pixels, step, offset) -> list[Launch]:
    g, tile = geometry, tile_of(math)
    C = _depthwise_channels(g)
    if epilogue.sums:
        raise BackendError("depthwise convolution: statistics of its result are not made")
    if weight.strides[0] != 1:
        raise BackendError(f"conv2d: the weight of a depthwise convolution expects its elements in the order R, S, C, received strides "
                           f"{weight.strides} for shape {weight.shape}; copy it first")
    side = _pixels_side("x", x, tile, pixels, step, offset, (1, 1), (1, 1), C, True)
    result, residual = (None if view is None else _map_result(name, view, tile, C, pixels, (1, 1), (0, 0))
                        for name, view in (("y", y), ("residual", epilogue.residual)))
    rows, half = y.shape[0] * pixels[0] * pixels[1], ceil(C / 2)
    if rows * half >= layout.LIMIT:
        raise BackendError(f"depthwise convolution of {rows} pixels and {C} channels: expected fewer than {2 * layout.LIMIT} elements; "
                           f"split it")
    if rows == 0:
        return []
    pairs = result.pairs and (residual is None or residual.pairs) and _pairs(x, tile, [x.strides[i] for i in (0, 2, 3)], C) and _pairs(
        weight, tile, weight.strides[2:], C)
    taps = (*g.kernel_size, *g.dilation, *weight.strides[2:], *_divided(g.stride[0]), *_divided(g.stride[1]))
    return [Launch(Depthwise(math, direction), (ceil(rows * half / THREADS), 1, 1), (
        (x.address, weight.address, y.address, residual.address if residual else 0, epilogue.scale, epilogue.shift),
        (rows, C, int(pairs), *_divided(half)), (epilogue.minimum, epilogue.maximum), side.parameters, taps, result.parameters,
        residual.parameters if residual else result.parameters))]


def _depthwise_channels(geometry: ConvGeometry) -> int:
    if geometry.channels != geometry.groups or geometry.filters != geometry.groups:
        raise BackendError(f"depthwise convolution expects one filter a channel, received {geometry.channels} channels, {geometry.filters} "
                           f"filters and {geometry.groups} groups; the grouped product takes these")
    return geometry.channels


def tile_of(math: str) -> Tile:
    """A tile that stands for the type of arrays alone."""
    return Tile(math, 32, 32, 32, 1, 1, 2)


# --- what all share -------------------------------------------------------------------------------------------------

def _launches(tile, a: _Side, b: _Side, y: _Result, residual: _Result | None, epilogue: Epilogue, sizes, batches, channels, splits,
              workspace) -> list[Launch]:
    rows, columns, depth = sizes
    if max(sizes) + max(tile.rows, tile.columns, tile.depth) >= layout.LIMIT:
        raise BackendError(f"matrix product of {rows} x {depth} and {depth} x {columns}: expected sizes below {layout.LIMIT}; split it")
    if rows == 0 or columns == 0 or batches == 0:
        return []
    if epilogue.sums and splits > 1:
        raise BackendError("statistics of columns expect a product that is not split")
    tile_rows, tile_columns = ceil(rows / tile.rows), ceil(columns / tile.columns)
    log_group = min(3, tile_rows.bit_length() - 1)
    raster = (tile_columns, *layout.magic(tile_columns << log_group), log_group)
    grid = ((ceil(tile_rows / (1 << log_group)) << log_group) * tile_columns, batches, splits)
    per_split = ceil(depth / splits / tile.depth) * tile.depth if depth else tile.depth
    pairs = y.pairs and (residual is None or residual.pairs)
    all_channels = channels * batches if channels else columns
    common = (residual.address if residual else 0, epilogue.scale, epilogue.shift)
    residual_batch = residual.batch if residual else 0
    y_parameters = y.parameters
    residual_parameters = residual.parameters if residual else y.parameters
    limits = (epilogue.minimum, epilogue.maximum)
    if splits == 1:
        pointers = (a.address, b.address, y.address, *common, epilogue.sums, y.batch, residual_batch, 0, a.batch, b.batch)
        return [Launch(Program(tile, a.operand, b.operand, y.kind, bool(epilogue.sums)), grid, (
            pointers, (rows, columns, depth, per_split, int(pairs), channels, all_channels, *raster), limits, a.parameters, b.parameters,
            y_parameters, residual_parameters))]
    if not workspace:
        raise BackendError(f"a product in {splits} splits expects a workspace of {workspace_bytes(rows, columns, batches, splits)} bytes")
    split_bytes = 4 * batches * rows * columns
    pointers = (a.address, b.address, workspace, 0, 0, 0, 0, 4 * rows * columns, 0, split_bytes, a.batch, b.batch)
    partial = Launch(Program(tile, a.operand, b.operand, "partial"), grid, (
        pointers, (rows, columns, depth, per_split, int(columns % 2 == 0), 0, columns, *raster), limits, a.parameters, b.parameters,
        (columns,), (columns,)))
    return [partial, _finish(tile.math, y, residual, epilogue, rows, columns, batches, channels, splits, split_bytes, workspace)]


def _finish(math, y: _Result, residual: _Result | None, epilogue, rows, columns, batches, channels, splits, split_bytes,
            workspace) -> Launch:
    """The launch that adds up splits."""
    half = ceil(columns / 2)
    if rows * half >= layout.LIMIT:
        raise BackendError(f"a product of {rows} x {columns} in splits: expected fewer than {2 * layout.LIMIT} elements; do not split it")
    pairs = y.pairs and (residual is None or residual.pairs)
    return Launch(SplitEpilogue("float32" if math == "tf32" else math, y.kind), (ceil(rows * half / THREADS), batches, 1), (
        (workspace, y.address, residual.address if residual else 0, epilogue.scale, epilogue.shift, y.batch,
         residual.batch if residual else 0, split_bytes),
        (rows, columns, splits, int(pairs), channels, half, *layout.magic(half)), (epilogue.minimum, epilogue.maximum), y.parameters,
        residual.parameters if residual else y.parameters))


def _distance(view: View) -> int | None:
    """Elements from one pixel of a map (N, C, H, W) to the next, in order; None where they differ."""
    distance, count = None, 1
    for axis in (3, 2, 0):
        if view.shape[axis] > 1:
            distance = view.strides[axis] if distance is None else distance
            if view.strides[axis] != distance * count:
                return None
            count *= view.shape[axis]
    return distance or 0


def _is_unit(view: View, axis: int) -> bool:
    return view.strides[axis] == 1 or view.shape[axis] == 1


def _divided(n: int) -> tuple[int, int, int]:
    return (n, *layout.magic(n))


def _piece(address: int, item: int, multiples, batch: int) -> int:
    """The largest copy that address, strides and the size along the copies (in elements) are multiples of: each exists whole or not."""
    together = gcd(address, *(s * item for s in multiples), batch * item, 16)
    return max(p for p in (2, 4, 8, 16) if together % p == 0)


def _pairs(view: View, tile: Tile, strides, columns: int) -> bool:
    """Whether columns 2i and 2i + 1 can be stored at once."""
    return columns % 2 == 0 and view.address % (2 * tile.item) == 0 and all(s % 2 == 0 for s in strides)


def _offset(name: str, stride: int, count: int) -> int:
    if abs(stride) * count >= 1 << 31:
        raise BackendError(f"{name}: its elements lie up to {abs(stride) * count} apart, expected less than {1 << 31}; split the batch")
    return stride
