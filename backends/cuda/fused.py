"""What inference fuses; what is missing here is composed of plain primitives (see `contract/fused.py`)."""

from __future__ import annotations

from numbanet import dtypes
from numbanet.backends.cuda import choose
from numbanet.backends.cuda.compile import Sizes, kernel
from numbanet.backends.cuda.index import grid_stride, offset
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged
from numbanet.backends.cuda.limits import limits
from numbanet.backends.cuda.linear import multiply, transposed
from numbanet.backends.cuda.mathematics import clamped
from numbanet.backends.cuda.pointwise import convert, converted
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces


@implements
def conv2d_fused(x, weight, bias, residual, geometry, minimum, maximum, out):
    kernels = choose.convolution("forward", geometry, x, weight, out)
    kernels.forward(x, weight, bias, residual, geometry, *limits(minimum, maximum), out)


@implements
def linear_fused(x, weight, bias, minimum, maximum, out):
    multiply(x, transposed(weight), bias, out, *limits(minimum, maximum))


@implements
def round_to_bfloat16(x, out):
    convert(converted(converted(x, dtypes.float32), dtypes.bfloat16), out)


@kernel
def channel_affine_kernel(x, scale, shift, out, low, high, total, shape: Sizes, x_steps, scale_steps, shift_steps, out_steps):
    for i in grid_stride(total):
        value = x[offset(i, shape, x_steps)] * scale[offset(i, shape, scale_steps)] + shift[offset(i, shape, shift_steps)]
        out[offset(i, shape, out_steps)] = clamped(value, low, high)


@implements
def channel_affine(x, scale, shift, minimum, maximum, out):
    low, high = (number(limit, x.dtype) for limit in limits(minimum, maximum))
    rest = (0,) * (x.ndim - 2)
    places = merged(out.shape, out.steps, x.steps, (0, scale.steps[0], *rest), (0, shift.steps[0], *rest))
    total, (shape, out_steps, *steps), (out, *given) = pieces(places, out, x, scale, shift)
    launch(channel_affine_kernel, total, *given, out, low, high, total, shape, *steps, out_steps)
