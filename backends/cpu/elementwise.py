"""Elementwise arithmetic: out[o] = f(a[o], b[o]) over flat memory, one kernel with the function as a runtime switch.

The switch stands outside of the loop over a block of elements, so it costs nothing, and one compilation serves all
functions. Operands that do not lie as the output does (broadcast, permuted, scalar) are gathered to a block in the L1 cache
first (see `broadcast.py`), so that each function is one loop over contiguous memory, which LLVM vectorises.

The functions of one float32 operand that networks use are SIMD kernels, in `pointwise.py`. What NumPy does here is not the
hot path of any network: integers, booleans, 16-bit floats, comparisons, rounding and trigonometry, and float64 functions of
one operand, which serve to check gradients.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu import pointwise
from numbanet.backends.cpu.broadcast import FLAT, gather, is_dense, operands
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.layout import copy_into
from numbanet.backends.cpu.registry import implements
from numbanet.backends.reference import elementwise as numpy

BLOCK = 2048            # elements: three operands in float64 take 48 KiB, which L1 and L2 share
TASK = 8 * BLOCK        # what is smaller than one task runs without a parallel region

(ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM,
 RELU_BACKWARD, SIGMOID_BACKWARD, TANH_BACKWARD) = range(9)


@kernel("void(i8, const T[::1], const T[::1], T[::1], const i8[::1])", dtypes=("float32", "float64"), parallel=True)
def binary(function, a, b, out, plan):
    tasks = (out.size + TASK - 1) // TASK
    if tasks == 1:
        binary_range(function, a, b, out, plan, 0, out.size)
    else:
        for task in prange(tasks):
            binary_range(function, a, b, out, plan, task * TASK, min(task * TASK + TASK, out.size))


@worker
def binary_range(function, a, b, out, plan, first, last):
    """Elements first, ..., last - 1, a block at a time."""
    a_block, b_block = np.empty(BLOCK, a.dtype), np.empty(BLOCK, b.dtype)
    a_gathers, b_gathers = plan[4] != FLAT, plan[7] != FLAT
    for begin in range(first, last, BLOCK):
        count = min(BLOCK, last - begin)
        a_part, b_part = a_block[:count], b_block[:count]
        if a_gathers:
            gather(a, plan, 2, begin, count, a_block)
        else:
            a_part = a[begin:begin + count]
        if b_gathers:
            gather(b, plan, 5, begin, count, b_block)
        else:
            b_part = b[begin:begin + count]
        apply(function, a_part, b_part, out[begin:begin + count])


@worker
def apply(function, a, b, out):
    """out[i] = f(a[i], b[i])."""
    n = out.size
    if function == ADD:
        for i in range(n):
            out[i] = a[i] + b[i]
    elif function == SUBTRACT:
        for i in range(n):
            out[i] = a[i] - b[i]
    elif function == MULTIPLY:
        for i in range(n):
            out[i] = a[i] * b[i]
    elif function == DIVIDE:
        for i in range(n):
            out[i] = a[i] / b[i]
    elif function == MAXIMUM:
        for i in range(n):
            out[i] = a[i] if a[i] > b[i] or a[i] != a[i] else b[i]
    elif function == MINIMUM:
        for i in range(n):
            out[i] = a[i] if a[i] < b[i] or a[i] != a[i] else b[i]
    elif function == RELU_BACKWARD:
        zero = a.dtype.type(0)
        for i in range(n):
            out[i] = a[i] if b[i] > zero else zero
    elif function == SIGMOID_BACKWARD:
        one = a.dtype.type(1)
        for i in range(n):
            out[i] = a[i] * b[i] * (one - b[i])
    else:
        one = a.dtype.type(1)
        for i in range(n):
            out[i] = a[i] * (one - b[i] * b[i])


def run_binary(function: int, a, b, out: np.ndarray) -> None:
    """out = f(a, b) in float32 or float64; arrays of any strides and dtype, or numbers."""
    if out.size == 0:
        return
    if is_dense(out.shape, out.strides, out.itemsize):
        a, b, plan = operands(a, b, out)
        binary(function, a, b, out.ravel("K"), plan)
    else:
        result = np.empty_like(out)
        run_binary(function, a, b, result)
        np.copyto(out, result)


def _arithmetic(function: int, in_numpy, a, b, out) -> None:
    if out.dtype.kind == "f" and out.itemsize >= 4:
        run_binary(function, a, b, out)
    else:
        in_numpy(a, b, out)


@implements
def add(a, b, out):
    _arithmetic(ADD, numpy.add, a, b, out)


@implements
def subtract(a, b, out):
    _arithmetic(SUBTRACT, numpy.subtract, a, b, out)


@implements
def multiply(a, b, out):
    _arithmetic(MULTIPLY, numpy.multiply, a, b, out)


@implements
def divide(a, b, out):
    _arithmetic(DIVIDE, numpy.divide, a, b, out)


@implements
def maximum(a, b, out):
    _arithmetic(MAXIMUM, numpy.maximum, a, b, out)


@implements
def minimum(a, b, out):
    _arithmetic(MINIMUM, numpy.minimum, a, b, out)


@implements
def square(x, out):
    _arithmetic(MULTIPLY, lambda a, b, out: numpy.square(a, out), x, x, out)


@implements
def negative(x, out):
    _arithmetic(MULTIPLY, lambda a, b, out: numpy.negative(a, out), x, -1, out)


@implements
def clamp(x, minimum, maximum, out):
    if out.dtype.kind != "f" or out.itemsize < 4:
        return numpy.clamp(x, minimum, maximum, out)
    if minimum is not None:
        run_binary(MAXIMUM, x, minimum, out)
    if maximum is not None:
        run_binary(MINIMUM, x if minimum is None else out, maximum, out)


def _unary(function: int, in_numpy, x, out) -> None:
    if x.dtype.name == "float32":
        pointwise.run_forward(function, x, out)
    else:
        in_numpy(x, out)


@implements
def absolute(x, out):
    _unary(pointwise.ABSOLUTE, numpy.absolute, x, out)


@implements
def exp(x, out):
    _unary(pointwise.EXP, numpy.exp, x, out)


@implements
def expm1(x, out):
    _unary(pointwise.EXPM1, numpy.expm1, x, out)


@implements
def log(x, out):
    _unary(pointwise.LOG, numpy.log, x, out)


@implements
def log1p(x, out):
    _unary(pointwise.LOG1P, numpy.log1p, x, out)


@implements
def sqrt(x, out):
    _unary(pointwise.SQRT, numpy.sqrt, x, out)


@implements
def rsqrt(x, out):
    _unary(pointwise.RSQRT, numpy.rsqrt, x, out)


@implements
def reciprocal(x, out):
    _arithmetic(DIVIDE, lambda a, b, out: numpy.reciprocal(b, out), 1, x, out)


@implements
def erf(x, out):
    _unary(pointwise.ERF, numpy.erf, x, out)


@implements
def copy(x, out):
    if x.dtype == out.dtype and x.strides == out.strides and is_dense(out.shape, out.strides, out.itemsize):
        np.copyto(out.ravel("K"), x.ravel("K"))         # one run: NumPy does not always see that a permuted array is one
    else:
        copy_into(x, out)


for _function in (numpy.floor_divide, numpy.remainder, numpy.power, numpy.equal, numpy.not_equal, numpy.less, numpy.less_equal,
                  numpy.greater, numpy.greater_equal, numpy.logical_and, numpy.logical_or, numpy.logical_xor, numpy.logical_not,
                  numpy.isnan, numpy.isinf, numpy.isfinite, numpy.sign, numpy.floor, numpy.ceil, numpy.round, numpy.trunc, numpy.sin,
                  numpy.cos, numpy.tan, numpy.where, numpy.cast, numpy.full):
    implements(_function)
