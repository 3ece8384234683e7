"""Convolution and transposed convolution."""

from __future__ import annotations

import math
from functools import partial

from numbanet.errors import ShapeError, UsageError
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.nn.layers.sizes import per_axis
from numbanet.nn.module import Module
from numbanet.nn.parameter import Parameter
from numbanet.ops.convolution import conv2d_relu, conv2d_relu_max_pool2d
from numbanet.ops.factories import empty

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """Weight, bias and window of a convolution over `rank` spatial axes."""

    rank: int
    transposed = False

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, output_padding, dilation, groups, bias,
                 padding_mode, device, dtype):
        super().__init__()
        layer = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise UsageError(f"{layer}: groups expects a divisor of in_channels={in_channels} and of "
                             f"out_channels={out_channels}, received {groups}")
        modes = ("zeros",) if self.transposed else _PADDING_MODES
        if padding_mode not in modes:
            raise UsageError(f"{layer}: padding_mode expects {' or '.join(modes)}, received {padding_mode!r}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.groups, self.padding_mode = groups, padding_mode
        self.kernel_size = per_axis(kernel_size, self.rank, "kernel_size", layer)
        self.stride = per_axis(stride, self.rank, "stride", layer)
        self.dilation = per_axis(dilation, self.rank, "dilation", layer)
        self.output_padding = per_axis(output_padding, self.rank, "output_padding", layer)
        if isinstance(padding, str):
            if padding not in ("same", "valid") or self.transposed:
                raise UsageError(f"{layer}: padding expects numbers{'' if self.transposed else ', same or valid'}, "
                                 f"received {padding!r}")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise UsageError(f"{layer}: padding='same' expects stride 1, received {self.stride}; "
                                 "give the padding in numbers")
            self.padding = padding
        else:
            self.padding = per_axis(padding, self.rank, "padding", layer)
        channels, filters = (out_channels, in_channels) if self.transposed else (in_channels, out_channels)
        shape = (filters, channels // groups, *self.kernel_size)
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty((out_channels,), device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """U(-r, r) with r = 1 / sqrt(fan_in), for weight and bias."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init.fans(self.weight)
            bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
            init.uniform_(self.bias, -bound, bound)

    def _border(self) -> tuple[int, ...]:
        """The padding as `functional.pad` takes it: (before, after) from the last axis to the first."""
        if self.padding == "valid":
            return (0, 0) * self.rank
        border = []
        for axis in reversed(range(self.rank)):
            if self.padding == "same":
                total = self.dilation[axis] * (self.kernel_size[axis] - 1)
                border += [total // 2, total - total // 2]
            else:
                border += [self.padding[axis]] * 2
        return tuple(border)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        ones, zeros = (1,) * self.rank, (0,) * self.rank
        for name, plain in (("padding", zeros), ("dilation", ones), ("output_padding", zeros), ("groups", 1)):
            value = getattr(self, name)
            if value != plain:
                text += f", {name}={value}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else f"{text}, padding_mode={self.padding_mode}"


class _Convolution(_Conv):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True,
                 padding_mode="zeros", device=None, dtype=None):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, 0, dilation, groups, bias,
                         padding_mode, device, dtype)

    def _convolve(self, function, x):
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._border(), self.padding_mode), 0
        return function(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Convolution):
    """Convolution over (N, C, L); see :func:`numbanet.functional.conv1d`."""

    rank = 1

    def forward(self, x):
        return self._convolve(F.conv1d, x)


class Conv2d(_Convolution):
    """Convolution over (N, C, H, W); see :func:`numbanet.functional.conv2d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or a pair
    padding : int, a pair, "same" or "valid"
    groups : int
    bias : bool
    padding_mode : "zeros", "reflect", "replicate" or "circular"
    """

    rank = 2

    def forward(self, x):
        return self._convolve(F.conv2d, x)

    def forward_relu(self, x):
        """What a ReLU makes of :meth:`forward`'s result."""
        return self._convolve(conv2d_relu, x)

    def forward_relu_pool(self, x, pool):
        """What a ReLU and the MaxPool2d `pool` make of :meth:`forward`'s result."""
        window = pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
        return self._convolve(partial(conv2d_relu_max_pool2d, window), x)


class Conv3d(_Convolution):
    """Convolution over (N, C, D, H, W); see :func:`numbanet.functional.conv3d`."""

    rank = 3

    def forward(self, x):
        return self._convolve(F.conv3d, x)


class _ConvTranspose(_Conv):
    transposed = True

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1,
                 bias=True, dilation=1, padding_mode="zeros", device=None, dtype=None):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, output_padding, dilation, groups,
                         bias, padding_mode, device, dtype)

    def _transpose(self, function, x, output_size):
        output_padding = self.output_padding if output_size is None else self._output_padding(x, output_size)
        return function(x, self.weight, self.bias, self.stride, self.padding, output_padding, self.groups,
                        self.dilation)

    def _output_padding(self, x, output_size) -> tuple[int, ...]:
        """What must be added to the smallest output to reach `output_size`."""
        wanted = tuple(output_size)[-self.rank:]
        result = []
        for axis, size in enumerate(wanted):
            smallest = ((x.shape[axis - self.rank] - 1) * self.stride[axis] - 2 * self.padding[axis]
                        + self.dilation[axis] * (self.kernel_size[axis] - 1) + 1)
            if len(wanted) != self.rank or not smallest <= size < smallest + self.stride[axis]:
                raise ShapeError(f"{type(self).__name__}: output_size expects, along axis {axis}, a size from "
                                 f"{smallest} to {smallest + self.stride[axis] - 1} for an input of shape "
                                 f"{tuple(x.shape)}, received {size}")
            result.append(size - smallest)
        return tuple(result)


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution over (N, C, L); see :func:`numbanet.functional.conv_transpose1d`."""

    rank = 1

    def forward(self, x, output_size=None):
        return self._transpose(F.conv_transpose1d, x, output_size)


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution over (N, C, H, W); see :func:`numbanet.functional.conv_transpose2d`."""

    rank = 2

    def forward(self, x, output_size=None):
        return self._transpose(F.conv_transpose2d, x, output_size)
