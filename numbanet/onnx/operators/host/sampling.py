"""Images at other positions: resizing, grids, deformable convolution, in NumPy."""

from __future__ import annotations

import itertools
import math

import numpy as np

from numbanet.errors import ShapeError, UsageError
from numbanet.onnx.operators.host.common import is_integer, normal_axes
from numbanet.onnx.operators.host.windows import spatial
from numbanet.onnx.operators.registry import host_operator


def _cubic(distance, a: float):
    """Keys' cubic convolution kernel (IEEE TASSP 1981)."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _source_coordinates(mode: str, n: int, out: int, scale: float, start: float, end: float):
    """Where in the input each of `out` outputs lies."""
    x = np.arange(out, dtype=np.float64)
    length = scale * n                                      # the output's length before it was rounded
    if mode == "half_pixel":
        return (x + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        return n / 2 * (1 - out / length) + (x + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (x + 0.5) / scale - 0.5 if length > 1 else np.zeros(out)
    if mode == "align_corners":
        return x * (n - 1) / (length - 1) if length != 1 else np.zeros(out)
    if mode == "asymmetric":
        return x / scale
    if mode == "tf_half_pixel_for_nn":
        return (x + 0.5) / scale
    if mode == "tf_crop_and_resize":
        return start * (n - 1) + x * (end - start) * (n - 1) / (out - 1) if out > 1 else np.full(out, 0.5 * (start + end) * (n - 1))
    raise UsageError(f"Resize: unknown coordinate_transformation_mode {mode!r}")


def _nearest_positions(coordinates, mode: str):
    if mode == "round_prefer_floor":
        return np.ceil(coordinates - 0.5)
    return {"round_prefer_ceil": lambda x: np.floor(x + 0.5), "floor": np.floor, "ceil": np.ceil}[mode](coordinates)


def _resize_taps(coordinates, n: int, scale: float, attributes):
    """Positions and weights, both (taps, out), of the inputs that make each output along one axis."""
    mode = attributes.get("mode", "nearest")
    if mode == "nearest":
        positions = _nearest_positions(coordinates, attributes.get("nearest_mode", "round_prefer_floor"))[None]
        return np.clip(positions, 0, n - 1).astype(np.int64), np.ones((1, len(coordinates)))
    stretch = min(scale, 1.0) if attributes.get("antialias", 0) else 1.0
    radius = (1 if mode == "linear" else 2) / stretch
    positions = np.floor(coordinates) + np.arange(-math.ceil(radius) + 1, math.ceil(radius) + 1)[:, None]
    distance = (positions - coordinates) * stretch
    weights = np.maximum(0, 1 - np.abs(distance)) if mode == "linear" else _cubic(distance, attributes.get("cubic_coeff_a", -0.75))
    if attributes.get("exclude_outside", 0):
        weights = np.where((positions < 0) | (positions >= n), 0, weights)
    return np.clip(positions, 0, n - 1).astype(np.int64), weights / weights.sum(0)


def _resize_sizes(node, x, axes, scales, sizes):
    """(output length, scale) of each resized axis."""
    if sizes is None:
        return [(math.floor(x.shape[axis] * scale), scale) for axis, scale in zip(axes, scales)]
    ratios = [size / x.shape[axis] for axis, size in zip(axes, sizes)]
    policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return list(zip(sizes, ratios))
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [(math.floor(scale * x.shape[axis] + 0.5), scale) for axis in axes]


@host_operator("Resize")
@host_operator("Upsample")
def resize(node, x, *operands):
    """Resampling along one axis after another: nearest, linear or cubic, with every coordinate mode, antialiased on request."""
    legacy = node.op_type == "Upsample" or node.version < 11
    roi, scales, sizes = (None, *operands, None)[:3] if legacy else (*operands, None, None, None)[:3]
    attributes = node.attributes | ({"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"} if legacy else {})
    axes = normal_axes(node, attributes.get("axes", range(x.ndim)), x.ndim)
    scales = attributes.get("scales") if scales is None or scales.size == 0 else scales.tolist()
    sizes = None if sizes is None or sizes.size == 0 else [int(n) for n in sizes]
    mode = attributes.get("coordinate_transformation_mode", "half_pixel")
    roi = [0.0] * len(axes) + [1.0] * len(axes) if roi is None or roi.size == 0 else roi.tolist()
    crop, nearest = mode == "tf_crop_and_resize", attributes.get("mode", "nearest") == "nearest"
    lengths = _resize_sizes(node, x, axes, scales, sizes)
    if crop and sizes is None:
        lengths = [(math.floor(x.shape[axis] * (end - start) * scale), scale)
                   for axis, (_, scale), start, end in zip(axes, lengths, roi, roi[len(axes):])]
    target = list(x.shape)
    for axis, (out, _) in zip(axes, lengths):
        target[axis] = out
    if min(target, default=0) <= 0 or not x.size:
        return np.zeros(target, x.dtype)
    y, outside = x if nearest else x.astype(np.float64), np.zeros((1,) * x.ndim, bool)
    for axis, (out, scale), start, end in zip(axes, lengths, roi, roi[len(axes):]):
        n = x.shape[axis]
        if out == n and scale == 1 and not crop:
            continue
        coordinates = _source_coordinates(mode, n, out, scale, start, end)
        positions, weights = _resize_taps(coordinates, n, scale, attributes)
        along = (-1,) + (1,) * (x.ndim - 1 - axis)
        if nearest:
            y = np.take(y, positions[0], axis)
        else:
            y = sum(np.take(y, tap, axis) * weight.reshape(along) for tap, weight in zip(positions, weights))
        if crop:
            outside = outside | ((coordinates < 0) | (coordinates > n - 1)).reshape(along)
    if outside.any():
        y = np.where(outside, attributes.get("extrapolation_value", 0.0), y)
    if is_integer(x.dtype) and y.dtype.kind == "f":
        y = np.clip(np.rint(y), np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    return y.astype(x.dtype, copy=False)


def _reflect(x, low: float, high: float):
    """Coordinates folded into [low, high]."""
    span = high - low
    if span == 0:
        return np.zeros_like(x)
    phase = np.mod(x - low, 2 * span)
    return low + np.minimum(phase, 2 * span - phase)


@host_operator("GridSample")
def grid_sample(node, x, grid):
    """Values of x (N, C, D1, ..., Dr) at the positions of grid (N, O1, ..., Or, r), in -1 to 1, of Dr first."""
    mode = node.attributes.get("mode", "linear")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)       # their names before opset 20
    padding, corners = node.attributes.get("padding_mode", "zeros"), node.attributes.get("align_corners", 0)
    sizes = x.shape[2:]

    def inside(coordinate, n):
        if padding == "reflection":
            coordinate = _reflect(coordinate, 0, n - 1) if corners else _reflect(coordinate, -0.5, n - 0.5)
        return coordinate if padding == "zeros" else np.clip(coordinate, 0, n - 1)

    taps = []                                   # for each axis: (position, weight) of each neighbour, both (N, O1, ...)
    for axis, n in enumerate(sizes):
        g = grid[..., len(sizes) - 1 - axis].astype(np.float64)
        coordinate = (g + 1) / 2 * (n - 1) if corners else ((g + 1) * n - 1) / 2
        coordinate = coordinate if mode == "cubic" else inside(coordinate, n)
        base = np.floor(coordinate)
        if mode == "nearest":
            taps.append([(np.rint(coordinate), 1.0)])
        elif mode == "linear":
            taps.append([(base, 1 - (coordinate - base)), (base + 1, coordinate - base)])
        else:
            taps.append([(inside(base + t, n), _cubic(base + t - coordinate, -0.75)) for t in (-1, 0, 1, 2)])
    y = np.zeros((len(x), *grid.shape[1:-1], x.shape[1]))
    batch = np.arange(len(x)).reshape((-1,) + (1,) * (grid.ndim - 2))
    for choice in itertools.product(*taps):
        weight, positions = 1.0, []
        for (position, part), n in zip(choice, sizes):
            weight = weight * part * ((position >= 0) & (position < n))
            positions.append(np.clip(position, 0, n - 1).astype(np.int64))
        y += np.asarray(weight)[..., None] * x[(batch, slice(None), *positions)]            # (N, O1, ..., C)
    return np.moveaxis(y, -1, 1).astype(x.dtype)


@host_operator("AffineGrid")
def affine_grid(node, theta, size):
    """Sampling grid (N, D1, ..., rank) of each affine map theta (N, rank, rank + 1) for an output of shape `size`."""
    spatial = [int(n) for n in size[2:]]
    if node.attributes.get("align_corners", 0):
        axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in spatial]
    else:
        axes = [(2 * np.arange(n) + 1) / n - 1 for n in spatial]
    mesh = np.meshgrid(*axes, indexing="ij")[::-1]                          # the last dimension comes first: x, y, z
    points = np.stack([*mesh, np.ones(spatial)], -1)                        # (D1, ..., rank + 1)
    return np.einsum("...k,nrk->n...r", points, theta.astype(np.float64)).astype(theta.dtype)


def bilinear(image, y, x):
    """The four weighted neighbours (4, C, ...) of image (C, H, W) at real coordinates; zero beyond the border."""
    H, W = image.shape[1:]
    y0, x0 = np.floor(y), np.floor(x)
    terms = []
    for yy, wy in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
        for xx, wx in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            valid = (yy >= 0) & (yy < H) & (xx >= 0) & (xx < W)
            value = image[:, np.clip(yy, 0, H - 1).astype(np.int64), np.clip(xx, 0, W - 1).astype(np.int64)]
            terms.append(value * (wy * wx * valid))
    return np.stack(terms)


@host_operator("DeformConv")
def deform_conv(node, x, w, offset, bias=None, mask=None):
    """Convolution (N, K, OH, OW) whose taps are moved by learned offsets (Dai et al. 2017), and weighted by a mask (Zhu et al. 2019)."""
    if x.ndim != 4:
        raise ShapeError(f"{node}: expected x of 4 dimensions (N, C, H, W), received {x.shape}")
    (N, C, _, _), (K, _, R, S), (OH, OW) = x.shape, w.shape, offset.shape[2:]
    strides, dilations, begins, _ = spatial(node, x.shape[2:], (R, S))
    groups, offset_groups = node.attributes.get("group", 1), node.attributes.get("offset_group", 1)
    offset = offset.reshape(N, offset_groups, R, S, 2, OH, OW)
    mask = np.ones((N, offset_groups, R, S, OH, OW)) if mask is None else mask.reshape(N, offset_groups, R, S, OH, OW)
    rows = (np.arange(OH) * strides[0] - begins[0])[None, None, :, None] + (np.arange(R) * dilations[0])[:, None, None, None]
    columns = (np.arange(OW) * strides[1] - begins[1])[None, None, None, :] + (np.arange(S) * dilations[1])[None, :, None, None]
    taps = np.empty((N, C, R, S, OH, OW))
    for n, g in itertools.product(range(N), range(offset_groups)):
        channels = slice(g * C // offset_groups, (g + 1) * C // offset_groups)
        moved = offset[n, g].astype(np.float64)                             # (R, S, 2, OH, OW)
        taps[n, channels] = bilinear(x[n, channels], rows + moved[:, :, 0], columns + moved[:, :, 1]).sum(0) * mask[n, g]
    taps = taps.reshape(N, groups, C // groups, R, S, OH, OW)
    y = np.einsum("ngcrsyx,gkcrs->ngkyx", taps, w.reshape(groups, K // groups, C // groups, R, S)).reshape(N, K, OH, OW)
    return (y if bias is None else y + bias[:, None, None]).astype(x.dtype)
