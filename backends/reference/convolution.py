"""Convolution, one matrix product per tap (r, s). See `contract/convolution.py` for the formula and the letters."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference.registry import implements


def taps(geometry):
    """For each tap: (r, s), the output rows and columns whose input exists, and those inputs' slices."""
    (H, W), (OH, OW) = geometry.input_size, geometry.output_size
    for r in range(geometry.kernel_size[0]):
        for s in range(geometry.kernel_size[1]):
            rows = _inside(OH, H, r, geometry.stride[0], geometry.padding[0][0], geometry.dilation[0])
            columns = _inside(OW, W, s, geometry.stride[1], geometry.padding[1][0], geometry.dilation[1])
            if rows and columns:
                yield r, s, rows[0], columns[0], rows[1], columns[1]


def _inside(outputs, inputs, tap, stride, padding, dilation):
    valid = [o for o in range(outputs) if 0 <= o * stride + tap * dilation - padding < inputs]
    if not valid:
        return None
    first, last = valid[0], valid[-1]
    begin = first * stride + tap * dilation - padding
    return slice(first, last + 1), slice(begin, begin + (last - first) * stride + 1, stride)


def channel_groups(geometry):
    """Slices of input channels and of filters for each group."""
    c, k = geometry.channels_per_group, geometry.filters_per_group
    for g in range(geometry.groups):
        yield slice(g * c, (g + 1) * c), slice(g * k, (g + 1) * k)


@implements
def conv2d_forward(x, weight, bias, geometry, out):
    out[...] = 0 if bias is None else bias.reshape(1, -1, 1, 1)
    for channels, filters in channel_groups(geometry):
        for r, s, oh, ow, h, w in taps(geometry):
            out[:, filters, oh, ow] += np.einsum("nchw,kc->nkhw", x[:, channels, h, w], weight[filters, :, r, s])


@implements
def conv2d_backward_input(grad_y, weight, geometry, out):
    out[...] = 0
    for channels, filters in channel_groups(geometry):
        for r, s, oh, ow, h, w in taps(geometry):
            out[:, channels, h, w] += np.einsum("nkhw,kc->nchw", grad_y[:, filters, oh, ow], weight[filters, :, r, s])


@implements
def conv2d_backward_weight(grad_y, x, geometry, out):
    out[...] = 0
    for channels, filters in channel_groups(geometry):
        for r, s, oh, ow, h, w in taps(geometry):
            out[filters, :, r, s] = np.einsum("nkhw,nchw->kc", grad_y[:, filters, oh, ow], x[:, channels, h, w])


@implements
def conv2d_backward_bias(grad_y, out):
    grad_y.sum((0, 2, 3), out=out)
