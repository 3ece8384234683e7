"""Pooling: maximum and average over windows, regular and adaptive.

Two-dimensional pooling is the primitive. One dimension is a map of height 1; three are separable: planes, then depth.
"""

from __future__ import annotations

from numbanet.autograd.operation import Operation
from numbanet.errors import ShapeError
from numbanet.geometry import pool_geometry
from numbanet.ops.indexing import gather
from numbanet.ops.shape import permute, reshape

__all__ = ["adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
           "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d",
           "max_pool2d", "max_pool3d"]


class MaxPool2d(Operation):
    """Maximum over each window; on a tie the first element in row-major order takes the gradient. Gives (y, argmax)."""

    operation_name = "max_pool2d"

    def forward(self, backend, x, geometry):
        y, argmax = backend.max_pool2d_forward(x, geometry)        # both (N, C, OH, OW)
        self.save(argmax, geometry)                                # not x: backward never reads it
        return y, argmax

    def backward(self, backend, grad_y, _, needs):
        argmax, geometry = self.saved
        return backend.max_pool2d_backward_input(grad_y, argmax, geometry)


class AvgPool2d(Operation):
    """Mean over each window."""

    operation_name = "avg_pool2d"

    def forward(self, backend, x, geometry, count_include_pad, divisor_override):
        self.save(geometry, count_include_pad, divisor_override)
        return backend.avg_pool2d_forward(x, geometry, count_include_pad, divisor_override)

    def backward(self, backend, grad_y, needs):
        return backend.avg_pool2d_backward_input(grad_y, *self.saved)


class AdaptiveMaxPool2d(Operation):
    """Maximum over windows that cover the map in a given number of rows and columns. Gives (y, argmax)."""

    operation_name = "adaptive_max_pool2d"

    def forward(self, backend, x, output_size):
        y, argmax = backend.adaptive_max_pool2d_forward(x, output_size)
        self.save(argmax, x.shape[2:])
        return y, argmax

    def backward(self, backend, grad_y, _, needs):
        argmax, input_size = self.saved
        return backend.adaptive_max_pool2d_backward_input(grad_y, argmax, input_size)


class AdaptiveAvgPool2d(Operation):
    """Mean over windows that cover the map in a given number of rows and columns."""

    operation_name = "adaptive_avg_pool2d"

    def forward(self, backend, x, output_size):
        self.save(x.shape[2:])
        return backend.adaptive_avg_pool2d_forward(x, output_size)

    def backward(self, backend, grad_y, needs):
        input_size, = self.saved
        return backend.adaptive_avg_pool2d_backward_input(grad_y, input_size)


def _batched(operation: str, x, axes: int):
    """x with a batch axis, or a ShapeError."""
    if x.ndim == axes + 2:
        return x
    if x.ndim == axes + 1:
        return reshape(x, 1, *x.shape)
    legend = ", ".join("DHW"[-axes:] if axes > 1 else "L")
    raise ShapeError(f"{operation}: expected x (N, C, {legend}) or (C, {legend}), received shape {x.shape}")


def _unbatched(y, x):
    """y without the batch axis that x does not have."""
    return y if y.ndim == x.ndim else reshape(y, *y.shape[1:])


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Maximum over windows, as in `torch.nn.functional.max_pool2d`.

    Parameters
    ----------
    x : Tensor (N, C, H, W) or (C, H, W)
    kernel_size, stride, padding, dilation : int or a pair
        `stride` None is the window's size; `padding` also ((top, bottom), (left, right)). Padding counts as -inf.
    ceil_mode : bool
        Round output sizes up, so that windows may reach beyond the far border.
    return_indices : bool
        Also return the positions h * W + w of the maxima, int64.

    Returns
    -------
    Tensor (N, C, OH, OW), or a pair of them. NaN counts as the largest; of equal elements the first gets the gradient.

    Raises
    ------
    ShapeError
        The rank does not fit, a window is larger than the padded map, or padding exceeds half of the window.
    """
    batched = _batched("max_pool2d", x, 2)
    geometry = pool_geometry(batched.shape[2:], kernel_size, stride, padding, dilation, ceil_mode, "max_pool2d")
    y, argmax = MaxPool2d.apply(batched, geometry)
    return (_unbatched(y, x), _unbatched(argmax.long(), x)) if return_indices else _unbatched(y, x)


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """Mean over windows, as in `torch.nn.functional.avg_pool2d`.

    Parameters
    ----------
    x : Tensor (N, C, H, W) or (C, H, W)
    kernel_size, stride, padding, ceil_mode : see :func:`max_pool2d`
    count_include_pad : bool
        Whether zeros of the padding count as elements of the window.
    divisor_override : int, optional
        Divide each sum by it instead of by the number of elements.

    Returns
    -------
    Tensor (N, C, OH, OW)
    """
    batched = _batched("avg_pool2d", x, 2)
    _check_divisor("avg_pool2d", divisor_override)
    geometry = pool_geometry(batched.shape[2:], kernel_size, stride, padding, 1, ceil_mode, "avg_pool2d")
    return _unbatched(AvgPool2d.apply(batched, geometry, bool(count_include_pad), divisor_override), x)


def _check_divisor(operation: str, divisor) -> None:
    if divisor is not None and not (isinstance(divisor, int) and divisor):
        raise ShapeError(f"{operation}: divisor_override expects an int other than 0 or None, received {divisor!r}")


def _adaptive_size(operation: str, output_size, input_size) -> tuple[int, ...]:
    """One output size per axis; None keeps the input's."""
    axes = len(input_size)
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,)
    sizes = sizes * axes if len(sizes) == 1 else sizes
    sizes = tuple(n if size is None else size for size, n in zip(sizes, input_size)) if len(sizes) == axes else ()
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ShapeError(f"{operation}: output_size expects a positive int or {axes} of them, received {output_size!r}")
    return sizes


def adaptive_max_pool2d(x, output_size, return_indices=False):
    """Maximum over windows that cover the map in `output_size` rows and columns, as in PyTorch.

    Window i of OH over H rows holds rows floor(i * H / OH) to ceil((i + 1) * H / OH) - 1.

    Parameters
    ----------
    x : Tensor (N, C, H, W) or (C, H, W)
    output_size : int or a pair; None keeps the size of that axis
    return_indices : bool
        Also return the positions h * W + w of the maxima, int64.
    """
    batched = _batched("adaptive_max_pool2d", x, 2)
    y, argmax = AdaptiveMaxPool2d.apply(batched, _adaptive_size("adaptive_max_pool2d", output_size, batched.shape[2:]))
    return (_unbatched(y, x), _unbatched(argmax.long(), x)) if return_indices else _unbatched(y, x)


def adaptive_avg_pool2d(x, output_size):
    """Mean over windows that cover the map in `output_size` rows and columns; 1 is global average pooling.

    See :func:`adaptive_max_pool2d` for the windows and parameters.
    """
    batched = _batched("adaptive_avg_pool2d", x, 2)
    size = _adaptive_size("adaptive_avg_pool2d", output_size, batched.shape[2:])
    return _unbatched(AdaptiveAvgPool2d.apply(batched, size), x)


# One axis: (N, C, L) as a map of height 1, (N, C, 1, L)

def _axis(operation: str, value):
    """The parameter of the only axis: an int, or one in a sequence."""
    if isinstance(value, (tuple, list)) and value:
        if len(value) != 1:
            raise ShapeError(f"{operation}: expected one int for the only axis, received {value!r}")
        return value[0]
    return value


def _as_map(operation: str, x):
    batched = _batched(operation, x, 1)
    return reshape(batched, *batched.shape[:2], 1, batched.shape[2])


def _from_map(y, x):
    return reshape(y, *x.shape[:-1], y.shape[-1])


def _one_axis(operation: str, x, kernel_size, stride, padding, dilation, ceil_mode):
    kernel, step, pad, spread = (_axis(operation, v) for v in (kernel_size, stride, padding, dilation))
    step = kernel if step is None or step == () or step == [] else step
    return pool_geometry((1, x.shape[3]), (1, kernel), (1, step), (0, pad), (1, spread), ceil_mode, operation)


def max_pool1d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Maximum over windows of (N, C, L) or (C, L); see :func:`max_pool2d`."""
    flat = _as_map("max_pool1d", x)
    y, argmax = MaxPool2d.apply(flat, _one_axis("max_pool1d", flat, kernel_size, stride, padding, dilation, ceil_mode))
    return (_from_map(y, x), _from_map(argmax.long(), x)) if return_indices else _from_map(y, x)


def avg_pool1d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Mean over windows of (N, C, L) or (C, L); see :func:`avg_pool2d`."""
    flat = _as_map("avg_pool1d", x)
    geometry = _one_axis("avg_pool1d", flat, kernel_size, stride, padding, 1, ceil_mode)
    return _from_map(AvgPool2d.apply(flat, geometry, bool(count_include_pad), None), x)


def adaptive_max_pool1d(x, output_size, return_indices=False):
    """Maximum over `output_size` windows that cover (N, C, L) or (C, L); see :func:`adaptive_max_pool2d`."""
    flat = _as_map("adaptive_max_pool1d", x)
    y, argmax = AdaptiveMaxPool2d.apply(flat, (1, *_adaptive_size("adaptive_max_pool1d", output_size, x.shape[-1:])))
    return (_from_map(y, x), _from_map(argmax.long(), x)) if return_indices else _from_map(y, x)


def adaptive_avg_pool1d(x, output_size):
    """Mean over `output_size` windows that cover (N, C, L) or (C, L); see :func:`adaptive_avg_pool2d`."""
    flat = _as_map("adaptive_avg_pool1d", x)
    size = _adaptive_size("adaptive_avg_pool1d", output_size, x.shape[-1:])
    return _from_map(AdaptiveAvgPool2d.apply(flat, (1, *size)), x)


# Three axes: over planes (N * D, C, H, W), then over the depth of (N, C, D, OH * OW). Sums and maxima are separable,
# and so is the rule for ties: the first plane, and in it the first position.

def _three(operation: str, value):
    values = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise ShapeError(f"{operation}: expected an int or 3 ints, received {value!r}")
    return values


def _planes(x):
    """(N, C, D, H, W) as N * D maps (N * D, C, H, W)."""
    N, C, D, H, W = x.shape
    if D == 0:
        raise ShapeError(f"pooling: x expects a depth of at least 1, received shape {x.shape}")
    return reshape(permute(x, 0, 2, 1, 3, 4), N * D, C, H, W)


def _depth(y, D):
    """Results of the planes, (N * D, C, OH, OW), as maps whose rows are the depth, (N, C, D, OH * OW)."""
    ND, C, OH, OW = y.shape
    return reshape(permute(reshape(y, ND // D, D, C, OH, OW), 0, 2, 1, 3, 4), ND // D, C, D, OH * OW)


def _separably(operation: str, x, planes, depth):
    """`depth` of a map whose rows are the depth, after `planes` of every plane."""
    batched = _batched(operation, x, 3)
    y = planes(_planes(batched))                            # (N * D, C, OH, OW)
    OH, OW = y.shape[2:]
    y = depth(_depth(y, batched.shape[2]))                  # (N, C, OD, OH * OW)
    return _unbatched(reshape(y, *y.shape[:3], OH, OW), x)


def _separable_maximum(operation: str, x, planes, depth, return_indices: bool):
    """:func:`_separably`, on request with positions d * H * W + h * W + w; the functions take (map, return_indices)."""
    if not return_indices:
        return _separably(operation, x, lambda t: planes(t, False), lambda t: depth(t, False))
    batched = _batched(operation, x, 3)
    D, H, W = batched.shape[2:]
    y, position = planes(_planes(batched), True)            # h * W + w, (N * D, C, OH, OW)
    OH, OW = y.shape[2:]
    y, row = depth(_depth(y, D), True)                      # d * (OH * OW) + its column, (N, C, OD, OH * OW)
    d = row // (OH * OW)
    indices = d * (H * W) + gather(_depth(position, D), 2, d)
    return tuple([_unbatched(reshape(t, *y.shape[:3], OH, OW), x) for t in (y, indices)])


def max_pool3d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Maximum over windows of (N, C, D, H, W) or (C, D, H, W); see :func:`max_pool2d`."""
    k, p, d = (_three("max_pool3d", v) for v in (kernel_size, padding, dilation))
    s = k if stride is None else _three("max_pool3d", stride)
    return _separable_maximum("max_pool3d", x, lambda t, positions: max_pool2d(t, k[1:], s[1:], p[1:], d[1:], ceil_mode, positions),
                              lambda t, positions: max_pool2d(t, (k[0], 1), (s[0], 1), (p[0], 0), (d[0], 1), ceil_mode, positions),
                              return_indices)


def avg_pool3d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """Mean over windows of (N, C, D, H, W) or (C, D, H, W); see :func:`avg_pool2d`."""
    _check_divisor("avg_pool3d", divisor_override)
    k, p = (_three("avg_pool3d", v) for v in (kernel_size, padding))
    s = k if stride is None else _three("avg_pool3d", stride)
    plane_divisor = None if divisor_override is None else 1
    return _separably(
        "avg_pool3d", x, lambda t: avg_pool2d(t, k[1:], s[1:], p[1:], ceil_mode, count_include_pad, plane_divisor),
        lambda t: avg_pool2d(t, (k[0], 1), (s[0], 1), (p[0], 0), ceil_mode, count_include_pad, divisor_override))


def adaptive_max_pool3d(x, output_size, return_indices=False):
    """Maximum over windows that cover (N, C, D, H, W) or (C, D, H, W); see :func:`adaptive_max_pool2d`."""
    size = _adaptive_size("adaptive_max_pool3d", output_size, x.shape[-3:])
    return _separable_maximum("adaptive_max_pool3d", x, lambda t, positions: adaptive_max_pool2d(t, size[1:], positions),
                              lambda t, positions: adaptive_max_pool2d(t, (size[0], t.shape[3]), positions), return_indices)


def adaptive_avg_pool3d(x, output_size):
    """Mean over windows that cover (N, C, D, H, W) or (C, D, H, W); see :func:`adaptive_avg_pool2d`."""
    size = _adaptive_size("adaptive_avg_pool3d", output_size, x.shape[-3:])
    return _separably("adaptive_avg_pool3d", x, lambda t: adaptive_avg_pool2d(t, size[1:]),
                      lambda t: adaptive_avg_pool2d(t, (size[0], t.shape[3])))
