"""What inference fuses; what is missing here is composed of plain primitives (see `contract/fused.py`)."""

from __future__ import annotations

from numbanet import dtypes
from numbanet.backends.cuda import choose
from numbanet.backends.cuda.compile import kernel
from numbanet.backends.cuda.index import offset, thread, threads
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged
from numbanet.backends.cuda.limits import limits
from numbanet.backends.cuda.linear import multiply, transposed
from numbanet.backends.cuda.mathematics import larger, smaller
from numbanet.backends.cuda.pointwise import convert, converted
from numbanet.backends.cuda.pooling import max_pool2d_without_positions
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.windows import map_shape, walk_of


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
def channel_affine_kernel(x, scale, shift, out, low, high, total, shape, x_steps, scale_steps, shift_steps, out_steps):
    for i in range(thread(), total, threads()):
        value = x[offset(i, shape, x_steps)] * scale[offset(i, shape, scale_steps)] + shift[offset(i, shape, shift_steps)]
        out[offset(i, shape, out_steps)] = smaller(larger(value, low), high)


@implements
def channel_affine(x, scale, shift, minimum, maximum, out):
    low, high = (number(limit, x.dtype) for limit in limits(minimum, maximum))
    rest = (0,) * (x.ndim - 2)
    shape, out_steps, x_steps, *steps = merged(out.shape, out.steps, x.steps, (0, scale.steps[0], *rest), (0, shift.steps[0], *rest))
    launch(channel_affine_kernel, out.size, x, scale, shift, out, low, high, out.size, shape, x_steps, *steps, out_steps)


@implements
def max_pool2d_values(x, geometry, out):
    launch(max_pool2d_without_positions, out.size, x, out, out.size, map_shape(out, 1), geometry.input_size, geometry.kernel_size,
           walk_of(geometry), x.steps, out.steps)
