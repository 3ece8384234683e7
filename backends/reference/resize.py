"""Resizing: a matrix product along each axis, with the weights of `contract/resize.py` as the matrix."""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.resize import linear_sources, nearest_sources
from numbanet.backends.reference.registry import implements


def _nearest_matrix(size, outputs, scale, dtype):
    """(outputs, size): which input elements an output element sums."""
    matrix = np.zeros((outputs, size), dtype)
    matrix[np.arange(outputs), nearest_sources(size, outputs, scale)] = 1
    return matrix


def _linear_matrix(size, outputs, scale, align_corners, dtype):
    matrix = np.zeros((outputs, size), dtype)
    first, second, weight = linear_sources(size, outputs, scale, align_corners, dtype)
    np.add.at(matrix, (np.arange(outputs), first), 1 - weight)
    np.add.at(matrix, (np.arange(outputs), second), weight)
    return matrix


@implements
def resize2d_nearest_forward(x, output_size, scales, out):
    rows, columns = (nearest_sources(*sizes) for sizes in zip(x.shape[2:], output_size, scales))
    out[...] = x[:, :, rows[:, None], columns]


@implements
def resize2d_nearest_backward_input(grad_y, input_size, scales, out):
    rows, columns = (_nearest_matrix(*sizes, out.dtype) for sizes in zip(input_size, grad_y.shape[2:], scales))
    out[...] = np.einsum("ncij,ih,jw->nchw", grad_y, rows, columns)


@implements
def resize2d_bilinear_forward(x, output_size, scales, align_corners, out):
    rows, columns = (_linear_matrix(*sizes, align_corners, out.dtype) for sizes in zip(x.shape[2:], output_size, scales))
    out[...] = np.einsum("nchw,ih,jw->ncij", x, rows, columns)


@implements
def resize2d_bilinear_backward_input(grad_y, input_size, scales, align_corners, out):
    rows, columns = (_linear_matrix(*sizes, align_corners, out.dtype)
                     for sizes in zip(input_size, grad_y.shape[2:], scales))
    out[...] = np.einsum("ncij,ih,jw->nchw", grad_y, rows, columns)
