"""Convolution and transposed convolution over one, two or three spatial axes.

The primitives have two axes. One axis is a map of height 1; a third is folded into the channels, one copy of them for
each of its taps.
"""

from __future__ import annotations

from functools import partial

from numbanet.autograd.operation import Operation
from numbanet.errors import ShapeError
from numbanet.geometry import conv_geometry, pool_geometry
from numbanet.ops.factories import zeros
from numbanet.ops.rearrange import cat, stack
from numbanet.ops.shape import permute, reshape


class Conv2d(Operation):
    """Cross-correlation of (N, C, H, W) with (K, C/G, R, S); see `backends/contract/convolution.py`."""

    operation_name = "conv2d"

    def forward(self, backend, x, weight, bias, geometry):
        y = backend.conv2d_forward(x, weight, bias, geometry)       # (N, K, OH, OW)
        self.save(x, weight, geometry, bias is not None)
        return y

    def backward(self, backend, grad_y, needs):
        return self.backward_linear(backend, grad_y, needs)

    def backward_linear(self, backend, grad_y, needs):
        x, weight, geometry, has_bias = self.saved[:4]
        grad_x = backend.conv2d_backward_input(grad_y, weight, geometry) if needs[0] else None
        grad_weight = backend.conv2d_backward_weight(grad_y, x, geometry) if needs[1] else None
        if not has_bias:
            return grad_x, grad_weight
        return grad_x, grad_weight, backend.conv2d_backward_bias(grad_y) if needs[2] else None


class Conv2dReLU(Conv2d):
    """:class:`Conv2d`, then max(y, 0) in the same pass over y, so that the values before it are never in memory."""

    operation_name = "conv2d_relu"
    overwrites_gradient = True

    def forward(self, backend, x, weight, bias, geometry):
        y = backend.conv2d_fused(x, weight, bias, None, geometry, 0.0, None)
        self.save(x, weight, geometry, bias is not None, y)
        return y

    def backward(self, backend, grad_y, needs):
        *_, y = self.saved
        return self.backward_linear(backend, backend.relu_backward_input(grad_y, y, out=self.out), needs)


class Conv2dReLUMaxPool2d(Conv2d):
    """:class:`Conv2dReLU`, then the maximum over windows, of which backward reads the result only.

    A maximum of 0 has no gradient, wherever it was, so ReLU's backward comes before pooling's, on the smaller map.
    """

    operation_name = "conv2d_relu_max_pool2d"
    overwrites_gradient = True

    def forward(self, backend, x, weight, bias, geometry, window):
        y, argmax = backend.max_pool2d_forward(backend.conv2d_fused(x, weight, bias, None, geometry, 0.0, None), window)
        self.save(x, weight, geometry, bias is not None, y, argmax, window)
        return y

    def backward(self, backend, grad_y, needs):
        *_, y, argmax, window = self.saved
        grad_maxima = backend.relu_backward_input(grad_y, y, out=self.out)
        return self.backward_linear(backend, backend.max_pool2d_backward_input(grad_maxima, argmax, window), needs)


class ConvTranspose2d(Operation):
    """The linear map adjoint to a convolution of `geometry`, which leads from y (N, K, OH, OW) to x (N, C, H, W).

    weight (C, K/G, R, S). So forward is the convolution's backward-input, and the other way round.
    """

    operation_name = "conv_transpose2d"

    def forward(self, backend, x, weight, bias, geometry):
        y = backend.conv2d_backward_input(x, weight, geometry)      # (N, K, OH, OW)
        self.save(x, weight, geometry, bias is not None)
        return y if bias is None else backend.add(y, backend.reshape(bias, (1, geometry.channels, 1, 1)))

    def backward(self, backend, grad_y, needs):
        x, weight, geometry, has_bias = self.saved
        grad_x = backend.conv2d_forward(grad_y, weight, None, geometry) if needs[0] else None
        grad_weight = backend.conv2d_backward_weight(x, grad_y, geometry) if needs[1] else None
        if not has_bias:
            return grad_x, grad_weight
        return grad_x, grad_weight, backend.conv2d_backward_bias(grad_y) if needs[2] else None


def conv1d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """One-dimensional convolution (cross-correlation), as in `torch.nn.functional.conv1d`.

    Parameters
    ----------
    x : Tensor (N, C, L), or (C, L) without a batch
    weight : Tensor (K, C / groups, S)
    bias, stride, padding, dilation, groups
        As in :func:`conv2d`, for one axis.

    Returns
    -------
    Tensor (N, K, OL)
    """
    if x.ndim == 2:
        return _without_batch(conv1d, x, weight, bias, stride, padding, dilation, groups)
    _check("conv1d", x, weight, bias, 1, groups)
    line = _geometry("conv1d", x, weight, stride, padding, dilation, groups)
    geometry = conv_geometry(line.channels, line.filters, (1, *line.input_size), (1, *line.kernel_size),
                             (1, *line.stride), ((0, 0), *line.padding), (1, *line.dilation), groups, "conv1d")
    return _lines(Conv2d.apply(_planes(x), _planes(weight), bias, geometry))


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Two-dimensional convolution (cross-correlation), as in `torch.nn.functional.conv2d`.

    Parameters
    ----------
    x : Tensor (N, C, H, W), or (C, H, W) without a batch
    weight : Tensor (K, C / groups, R, S)
    bias : Tensor (K,), optional
    stride, padding, dilation : int or a pair; `padding` also "same", "valid" or ((top, bottom), (left, right))
    groups : int

    Returns
    -------
    Tensor (N, K, OH, OW), each size floor((size + padding - dilation * (kernel - 1) - 1) / stride) + 1

    Raises
    ------
    ShapeError
        Ranks, channels or sizes do not fit.
    """
    return _conv2d(Conv2d, (), x, weight, bias, stride, padding, dilation, groups)


def conv2d_relu(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """relu(conv2d(...)) as one operation: the same numbers, without the map between the two."""
    return _conv2d(Conv2dReLU, (), x, weight, bias, stride, padding, dilation, groups)


def conv2d_relu_max_pool2d(window, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """max_pool2d(relu(conv2d(...)), *window) as one operation: the same numbers, without the maps between them."""
    return _conv2d(Conv2dReLUMaxPool2d, window, x, weight, bias, stride, padding, dilation, groups)


def _conv2d(operation, window, x, weight, bias, stride, padding, dilation, groups):
    if x.ndim == 3:
        return _without_batch(partial(_conv2d, operation, window), x, weight, bias, stride, padding, dilation, groups)
    _check("conv2d", x, weight, bias, 2, groups)
    geometry = _geometry("conv2d", x, weight, stride, padding, dilation, groups)
    if not window:
        return operation.apply(x, weight, bias, geometry)
    return operation.apply(x, weight, bias, geometry, pool_geometry(geometry.output_size, *window, "max_pool2d"))


def conv3d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Three-dimensional convolution (cross-correlation), as in `torch.nn.functional.conv3d`.

    Parameters
    ----------
    x : Tensor (N, C, D, H, W), or (C, D, H, W) without a batch
    weight : Tensor (K, C / groups, Q, R, S)
    bias, stride, padding, dilation, groups
        As in :func:`conv2d`, for three axes.

    Returns
    -------
    Tensor (N, K, OD, OH, OW)

    Notes
    -----
    Each of the N * OD output planes is a two-dimensional convolution of the Q planes under it, taken as channels.
    """
    if x.ndim == 4:
        return _without_batch(conv3d, x, weight, bias, stride, padding, dilation, groups)
    _check("conv3d", x, weight, bias, 3, groups)
    g = _geometry("conv3d", x, weight, stride, padding, dilation, groups)
    N, (C, K), (OD, OH, OW), (Q, R, S) = x.shape[0], (g.channels, g.filters), g.output_size, g.kernel_size
    x = _pad_depth(x, g.padding[0])
    step, spread, last = g.stride[0], g.dilation[0], (OD - 1) * g.stride[0] + 1
    taps = [x[:, :, q * spread:q * spread + last:step] for q in range(Q)]                       # Q of (N, C, OD, H, W)
    x = reshape(permute(stack(taps, 2), 0, 3, 1, 2, 4, 5), N * OD, C * Q, *x.shape[3:])
    geometry = conv_geometry(C * Q, K, g.input_size[1:], (R, S), g.stride[1:], g.padding[1:], g.dilation[1:], groups,
                             "conv3d")
    y = Conv2d.apply(x, reshape(weight, K, C // groups * Q, R, S), bias, geometry)              # (N * OD, K, OH, OW)
    return permute(reshape(y, N, OD, K, OH, OW), 0, 2, 1, 3, 4)


def conv_transpose1d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """One-dimensional transposed convolution, as in `torch.nn.functional.conv_transpose1d`.

    Parameters
    ----------
    x : Tensor (N, C, L), or (C, L) without a batch
    weight : Tensor (C, K / groups, S)
    bias, stride, padding, output_padding, groups, dilation
        As in :func:`conv_transpose2d`, for one axis.

    Returns
    -------
    Tensor (N, K, OL)
    """
    if x.ndim == 2:
        return _without_batch(conv_transpose1d, x, weight, bias, stride, padding, output_padding, groups, dilation)
    _check_transposed("conv_transpose1d", x, weight, bias, 1, groups)
    stride, padding, output_padding, dilation = ((b, *_axes("conv_transpose1d", v, 1)) for b, v in (
        (1, stride), (0, padding), (0, output_padding), (1, dilation)))
    x, weight = _planes(x), _planes(weight)
    geometry = _transposed_geometry("conv_transpose1d", x, weight, stride, padding, output_padding, groups, dilation)
    return _lines(ConvTranspose2d.apply(x, weight, bias, geometry))


def conv_transpose2d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Two-dimensional transposed convolution, as in `torch.nn.functional.conv_transpose2d`.

    Parameters
    ----------
    x : Tensor (N, C, H, W), or (C, H, W) without a batch
    weight : Tensor (C, K / groups, R, S)
    bias : Tensor (K,), optional
    stride, padding, dilation : int or a pair
        Of the convolution that this one is the transpose of.
    output_padding : int or a pair
        Rows and columns more at the far side, fewer than the larger of stride and dilation.
    groups : int

    Returns
    -------
    Tensor (N, K, OH, OW), each size (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1

    Raises
    ------
    ShapeError
        Ranks, channels or sizes do not fit.

    References
    ----------
    Dumoulin and Visin (2016), A guide to convolution arithmetic for deep learning, arXiv:1603.07285.
    """
    if x.ndim == 3:
        return _without_batch(conv_transpose2d, x, weight, bias, stride, padding, output_padding, groups, dilation)
    _check_transposed("conv_transpose2d", x, weight, bias, 2, groups)
    stride, padding, output_padding, dilation = (
        _axes("conv_transpose2d", v, 2) for v in (stride, padding, output_padding, dilation))
    geometry = _transposed_geometry("conv_transpose2d", x, weight, stride, padding, output_padding, groups, dilation)
    return ConvTranspose2d.apply(x, weight, bias, geometry)


def _transposed_geometry(operation, x, weight, stride, padding, output_padding, groups, dilation):
    """The convolution from y to x."""
    if any(not 0 <= o < max(s, d) for o, s, d in zip(output_padding, stride, dilation)):
        raise ShapeError(f"{operation}: output_padding expects values below the larger of stride and dilation, "
                         f"received {output_padding} with stride {stride} and dilation {dilation}")
    sizes = tuple((n - 1) * s - 2 * p + d * (f - 1) + o + 1 for n, s, p, d, f, o in zip(
        x.shape[2:], stride, padding, dilation, weight.shape[2:], output_padding))
    if min(sizes) < 1:
        raise ShapeError(f"{operation}: the output would be of size {sizes}, expected at least 1: input {x.shape[2:]} "
                         f"with padding {padding}; reduce the padding")
    # With a stride's worth of added rows the convolution would read one window more, were its padding not cut there.
    pairs = tuple((p, p if o < s else max(0, p - o)) for p, o, s in zip(padding, output_padding, stride))
    geometry = conv_geometry(weight.shape[1] * groups, weight.shape[0], sizes, weight.shape[2:], stride, pairs,
                             dilation, groups, operation)
    if geometry.output_size != tuple(x.shape[2:]):
        raise ShapeError(f"{operation}: output_padding {output_padding} with stride {stride} and padding {padding} "
                         "adds rows that no window reaches; pad the result instead")
    return geometry


def _geometry(operation, x, weight, stride, padding, dilation, groups):
    return conv_geometry(x.shape[1], weight.shape[0], x.shape[2:], weight.shape[2:], stride, padding, dilation, groups,
                         operation)


def _axes(operation: str, value, rank: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    values = values * rank if len(values) == 1 else values
    if len(values) != rank:
        raise ShapeError(f"{operation}: expected an int or {rank} ints, received {value!r}")
    return values


_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


def _check(operation: str, x, weight, bias, rank: int, groups) -> None:
    _check_ranks(operation, x, weight, rank)
    if x.shape[1] != weight.shape[1] * groups:
        raise ShapeError(f"{operation}: weight expects {weight.shape[1] * groups} input channels, x has {x.shape[1]} "
                         f"(x {x.shape}, weight {weight.shape}, groups={groups})")
    _check_bias(operation, bias, weight.shape[0])


def _check_transposed(operation: str, x, weight, bias, rank: int, groups) -> None:
    _check_ranks(operation, x, weight, rank)
    if x.shape[1] != weight.shape[0]:
        raise ShapeError(f"{operation}: weight expects {weight.shape[0]} input channels, x has {x.shape[1]} "
                         f"(x {x.shape}, weight {weight.shape})")
    _check_bias(operation, bias, weight.shape[1] * groups)


def _check_ranks(operation: str, x, weight, rank: int) -> None:
    if x.ndim != rank + 2 or weight.ndim != rank + 2:
        raise ShapeError(f"{operation}: expected x (N, C, {_AXES[rank]}) and weight with {rank + 2} dimensions, "
                         f"received {x.shape} and {weight.shape}")


def _check_bias(operation: str, bias, filters: int) -> None:
    if bias is not None and bias.shape != (filters,):
        raise ShapeError(f"{operation}: bias expects shape {(filters,)}, received {bias.shape}")


def _without_batch(function, x, *arguments):
    y = function(reshape(x, 1, *x.shape), *arguments)
    return reshape(y, *y.shape[1:])


def _planes(x):
    """(A, B, L) as (A, B, 1, L)."""
    return reshape(x, *x.shape[:2], 1, x.shape[2])


def _lines(y):
    """(A, B, 1, L) as (A, B, L)."""
    return reshape(y, *y.shape[:2], y.shape[3])


def _pad_depth(x, pair):
    """Zero planes before and behind (N, C, D, H, W)."""
    before, after = ([zeros(*x.shape[:2], count, *x.shape[3:], dtype=x.dtype, device=x.device)] if count else []
                     for count in pair)
    return cat([*before, x, *after], 2) if before or after else x
