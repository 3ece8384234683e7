"""Kernels around a function of elements, and conversion between dtypes: what families of elementwise primitives share.

An element is a piece where the launch is wide (`wide.py`).
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cuda.compile import Sizes, kernel, lanewise
from numbanet.backends.cuda.index import grid_stride, offset
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import broadcast_steps, merged
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.transposing import copy_transposed, is_transposed
from numbanet.backends.cuda.wide import pieces
from numbanet.backends.interface import like

BOOL = np.dtype(np.bool_)


class Unary:
    """out = f(x), for x of any steps."""

    def __init__(self, function):
        function = lanewise(function)

        @kernel
        def unary(x, out, total, shape: Sizes, x_steps, out_steps):
            for i in grid_stride(total):
                out[offset(i, shape, out_steps)] = function(x[offset(i, shape, x_steps)])
        self.kernel = unary

    def __call__(self, x: DeviceArray, out: DeviceArray) -> None:
        total, (shape, out_steps, x_steps), (out, x) = pieces(merged(out.shape, out.steps, x.steps), out, x)
        launch(self.kernel, total, x, out, total, shape, x_steps, out_steps)


class UnaryWith:
    """out = f(x, parameters), for numbers in a tuple."""

    def __init__(self, function):
        function = lanewise(function)

        @kernel
        def unary_with(x, out, parameters, total, shape: Sizes, x_steps, out_steps):
            for i in grid_stride(total):
                out[offset(i, shape, out_steps)] = function(x[offset(i, shape, x_steps)], parameters)
        self.kernel = unary_with

    def __call__(self, x: DeviceArray, out: DeviceArray, *parameters: float) -> None:
        scalars = numbers(parameters, out.dtype)
        total, (shape, out_steps, x_steps), (out, x) = pieces(merged(out.shape, out.steps, x.steps), out, x)
        launch(self.kernel, total, x, out, scalars, total, shape, x_steps, out_steps)


class Binary:
    """out = f(a, b) for arrays of one dtype."""

    def __init__(self, function):
        function = lanewise(function)

        @kernel
        def binary(a, b, out, total, shape: Sizes, a_steps, b_steps, out_steps):
            for i in grid_stride(total):
                out[offset(i, shape, out_steps)] = function(a[offset(i, shape, a_steps)], b[offset(i, shape, b_steps)])
        self.kernel = binary

    def __call__(self, a: DeviceArray, b: DeviceArray, out: DeviceArray) -> None:
        """a and b broadcast to out's shape."""
        places = merged(out.shape, out.steps, broadcast_steps(a, out.shape), broadcast_steps(b, out.shape))
        total, (shape, out_steps, a_steps, b_steps), (out, a, b) = pieces(places, out, a, b)
        launch(self.kernel, total, a, b, out, total, shape, a_steps, b_steps, out_steps)


class Arithmetic(Binary):
    """The same for arrays of any dtype, or an array and a number."""

    def __init__(self, function):
        super().__init__(function)
        function = lanewise(function)

        @kernel
        def binary_left(value, b, out, total, shape: Sizes, b_steps, out_steps):
            for i in grid_stride(total):
                out[offset(i, shape, out_steps)] = function(value, b[offset(i, shape, b_steps)])

        @kernel
        def binary_right(a, value, out, total, shape: Sizes, a_steps, out_steps):
            for i in grid_stride(total):
                out[offset(i, shape, out_steps)] = function(a[offset(i, shape, a_steps)], value)
        self.left, self.right = binary_left, binary_right

    def __call__(self, a, b, out: DeviceArray, dtype: np.dtype | None = None) -> None:
        """`dtype` is that of the arithmetic: out's, unless given."""
        dtype = dtype or out.dtype
        a, b = converted(a, dtype), converted(b, dtype)
        if type(b) is not DeviceArray:
            total, (shape, out_steps, a_steps), (out, a) = pieces(merged(out.shape, out.steps, broadcast_steps(a, out.shape)), out, a)
            return launch(self.right, total, a, b, out, total, shape, a_steps, out_steps)
        if type(a) is not DeviceArray:
            total, (shape, out_steps, b_steps), (out, b) = pieces(merged(out.shape, out.steps, broadcast_steps(b, out.shape)), out, b)
            return launch(self.left, total, a, b, out, total, shape, b_steps, out_steps)
        return super().__call__(a, b, out)


class BinaryWith:
    """out = f(a, b, parameters), for arrays of out's shape and numbers in a tuple."""

    def __init__(self, function):
        function = lanewise(function)

        @kernel
        def binary_with(a, b, out, parameters, total, shape: Sizes, a_steps, b_steps, out_steps):
            for i in grid_stride(total):
                out[offset(i, shape, out_steps)] = function(a[offset(i, shape, a_steps)], b[offset(i, shape, b_steps)], parameters)
        self.kernel = binary_with

    def __call__(self, a: DeviceArray, b: DeviceArray, out: DeviceArray, *parameters: float) -> None:
        scalars = numbers(parameters, out.dtype)
        total, (shape, out_steps, a_steps, b_steps), (out, a, b) = pieces(merged(out.shape, out.steps, a.steps, b.steps), out, a, b)
        launch(self.kernel, total, a, b, out, scalars, total, shape, a_steps, b_steps, out_steps)


def numbers(values, dtype: np.dtype) -> tuple[np.generic, ...]:
    """Parameters of a kernel, in `dtype`."""
    return tuple([number(v, dtype) for v in values])


def converted(x, dtype: np.dtype):
    """x in `dtype`: an array, cast where it has another, or a NumPy scalar."""
    if type(x) is not DeviceArray:
        return number(x, dtype)
    if x.dtype == dtype:
        return x
    made = new_like(x, dtype)
    convert(x, made)
    return made


def new_like(x: DeviceArray, dtype: np.dtype | None = None) -> DeviceArray:
    """An uninitialised array of x's shape and memory order on its device."""
    return x.lease.allocator.empty(*like(x, dtype))


@kernel
def cast_kernel(x, out, total, shape: Sizes, x_steps, out_steps):
    for i in grid_stride(total):
        out[offset(i, shape, out_steps)] = x[offset(i, shape, x_steps)]


@lanewise
def _is_not_zero(x):
    return x != 0


is_not_zero = Unary(_is_not_zero)


def convert(x: DeviceArray, out: DeviceArray) -> None:
    """out = x in out's dtype; numbers are True where not 0."""
    if out.dtype == BOOL and x.dtype != BOOL:
        return is_not_zero(x, out)
    places = merged(out.shape, out.steps, x.steps)
    if is_transposed(places, x, out):
        return copy_transposed(x, out, places)
    total, (shape, out_steps, x_steps), (out, x) = pieces(places, out, x)
    return launch(cast_kernel, total, x, out, total, shape, x_steps, out_steps)


def on_host(x: DeviceArray) -> np.ndarray:
    """The values as a NumPy array, waiting for them."""
    if not x.is_dense:
        dense = new_like(x)
        convert(x, dense)
        x = dense
    return x.lease.allocator.to_numpy(x)
