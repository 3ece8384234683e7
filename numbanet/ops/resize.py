"""Resizing of feature maps."""

from __future__ import annotations

from math import floor

from numbanet.autograd.operation import Operation
from numbanet.errors import ShapeError, UnsupportedOperationError, UsageError
from numbanet.ops import pooling
from numbanet.ops.shape import reshape

__all__ = ["interpolate", "upsample"]


class ResizeNearest2d(Operation):
    """The nearest input element."""

    operation_name = "interpolate"

    def forward(self, backend, x, output_size, scales):
        self.save(x.shape[2:], scales)
        return backend.resize2d_nearest_forward(x, output_size, scales)

    def backward(self, backend, grad_y, needs):
        return backend.resize2d_nearest_backward_input(grad_y, *self.saved)


class ResizeBilinear2d(Operation):
    """Linear interpolation along both axes."""

    operation_name = "interpolate"

    def forward(self, backend, x, output_size, scales, align_corners):
        self.save(x.shape[2:], scales, align_corners)
        return backend.resize2d_bilinear_forward(x, output_size, scales, align_corners)

    def backward(self, backend, grad_y, needs):
        return backend.resize2d_bilinear_backward_input(grad_y, *self.saved)


RANKS = {"nearest": (3, 4), "linear": (3,), "bilinear": (4,), "area": (3, 4, 5)}       # of x, by mode


def interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None,
                antialias=False):
    """Resize the spatial axes, as in `torch.nn.functional.interpolate`.

    Parameters
    ----------
    x : Tensor (N, C, L) or (N, C, H, W)
    size : int or one per spatial axis, optional
    scale_factor : number or one per spatial axis, optional
        Instead of `size`: the output's size is floor(size * scale_factor), and the positions are computed from the factor
        unless `recompute_scale_factor`, which computes them from the sizes.
    mode : "nearest", "linear" (N, C, L), "bilinear" (N, C, H, W) or "area"
        "area" is adaptive average pooling.
    align_corners : bool, optional
        For the linear modes: the centres of the corner elements coincide, instead of their outer corners.

    Returns
    -------
    Tensor (N, C, OL) or (N, C, OH, OW)

    Raises
    ------
    UsageError
        Both or neither of `size` and `scale_factor`, or an option that the mode does not have.
    UnsupportedOperationError
        Bicubic and trilinear interpolation, antialiasing.
    """
    if mode not in RANKS or antialias or x.ndim == 5 and mode == "nearest":
        raise UnsupportedOperationError(f"interpolate: mode {mode!r}{' with antialias' if antialias else ''} of {x.ndim} "
                                        f"dimensions is not supported; supported are {', '.join(RANKS)} of (N, C, L) and (N, C, H, W)")
    if x.ndim not in RANKS[mode]:
        raise ShapeError(f"interpolate: mode {mode!r} expects x of {' or '.join(map(str, RANKS[mode]))} dimensions, "
                         f"received shape {x.shape}")
    if align_corners is not None and mode in ("nearest", "area"):
        raise UsageError(f"interpolate: align_corners is an option of the linear modes, received mode {mode!r}")
    output_size, scales = _sizes(x, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return getattr(pooling, f"adaptive_avg_pool{x.ndim - 2}d")(x, output_size)
    if x.ndim == 3:
        maps = reshape(x, *x.shape[:2], 1, x.shape[2])
        y = _resize(maps, (1, *output_size), (None, *scales), mode, bool(align_corners))
        return reshape(y, *x.shape[:2], y.shape[3])
    return _resize(x, output_size, scales, mode, bool(align_corners))


def _resize(x, output_size, scales, mode, align_corners):
    if mode == "nearest":
        return ResizeNearest2d.apply(x, output_size, scales)
    return ResizeBilinear2d.apply(x, output_size, scales, align_corners)


def _per_axis(name: str, value, axes: int) -> tuple:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    if len(values) != axes or any(isinstance(v, bool) or not isinstance(v, (int, float)) or v <= 0 for v in values):
        raise ShapeError(f"interpolate: {name} expects a positive number or {axes} of them, received {value!r}")
    return values


def _sizes(x, size, scale_factor, recompute) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The output's size and the factors that its positions are computed from (None: from the sizes)."""
    axes = x.ndim - 2
    if (size is None) == (scale_factor is None):
        raise UsageError(f"interpolate: expected one of size and scale_factor, received size={size!r} and "
                         f"scale_factor={scale_factor!r}")
    if size is not None:
        if recompute:
            raise UsageError("interpolate: recompute_scale_factor needs scale_factor, received size")
        sizes = _per_axis("size", size, axes)
        if any(not isinstance(n, int) for n in sizes):
            raise ShapeError(f"interpolate: size expects whole numbers, received {size!r}")
        return sizes, (None,) * axes
    factors = tuple(float(f) for f in _per_axis("scale_factor", scale_factor, axes))
    sizes = tuple(floor(n * f) for n, f in zip(x.shape[2:], factors))
    if min(sizes) < 1:
        raise ShapeError(f"interpolate: the output would be of size {sizes}, expected at least 1: input {x.shape[2:]} times "
                         f"scale_factor {scale_factor!r}")
    return sizes, (None,) * axes if recompute else factors


def upsample(x, size=None, scale_factor=None, mode="nearest", align_corners=None):
    """:func:`interpolate` by its old name."""
    return interpolate(x, size, scale_factor, mode, align_corners)
