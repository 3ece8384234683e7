"""Windows that cover the whole map, as in LeNet-5's C5: full connections, and so products of matrices of samples.

    y = x W^T,   grad_x = grad_y W,   grad_W = grad_y^T x       x (N, C * R * S), y (N, K), W (K, C * R * S)

Weights are read as they lie: only maps, which are smaller, are brought into their order.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu import memory
from numbanet.backends.cpu.gemm import gemm
from numbanet.backends.cpu.layout import copy_into
from numbanet.backends.cpu.registry import implements
from numbanet.geometry import ConvGeometry


def covers_the_map(geometry: ConvGeometry) -> bool:
    """One window, of all of the map; a 1x1 layer of one pixel is one, too."""
    return (geometry.groups == 1 and geometry.kernel_size == geometry.input_size and geometry.output_size == (1, 1)
            and not any(map(any, geometry.padding)) and geometry.dilation == (1, 1))


def _rows(x):
    """x (N, C, H, W) as (N, C * H * W): a view, or a copy."""
    if x.flags.c_contiguous:
        return x.reshape(len(x), -1)
    rows = memory.empty(x.shape, x.dtype)
    copy_into(x, rows)
    return rows.reshape(len(x), -1)


def forward(x, weight, bias, minimum, maximum, out) -> None:
    implements["linear_fused"](_rows(x), weight.reshape(len(weight), -1), bias, minimum, maximum, out[:, :, 0, 0])


def backward_input(grad_y, weight, out) -> None:
    rows = out if out.flags.c_contiguous else memory.empty(out.shape, out.dtype)
    gemm(grad_y[:, :, 0, 0], weight.reshape(len(weight), -1), rows.reshape(len(out), -1))
    if rows is not out:
        copy_into(rows, out)


def backward_weight(grad_y, x, out) -> None:
    rows = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
    gemm(grad_y[:, :, 0, 0].T, _rows(x), rows.reshape(len(out), -1))
    if rows is not out:
        np.copyto(out, rows)
