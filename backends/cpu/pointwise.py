"""Functions of one float32 operand, and their gradients: y[o] = f(x[o]), grad_x[o] = grad_y[o] * f'(x[o]).

SIMD over flat memory, the function as a runtime switch outside of the loop: one kernel for all functions, one for all
gradients. p and q are the function's parameters. The formulas are those of `contract/activation.py`, in forms that neither
overflow nor cancel. Every vector is masked at the end of the array: that is nearly free, and half the code to compile.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from numbanet.backends.cpu.broadcast import flat_like, is_dense
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import (
    L,
    absolute,
    erf,
    exp,
    expm1,
    fma,
    load_partial,
    log,
    log1p,
    maximum,
    minimum,
    select,
    sigmoid,
    sqrt,
    store_partial,
    tanh,
)

TASK = 16384            # elements; what is smaller than one task runs without a parallel region

FIRST = np.int64(0)     # a literal 0 would be a type of its own, and the worker be compiled twice

(ABSOLUTE, EXP, EXPM1, LOG, LOG1P, SQRT, RSQRT, ERF, HARDTANH, LEAKY_RELU, ELU, SIGMOID, TANH, SILU, GELU, GELU_TANH,
 HARDSIGMOID, HARDSWISH, SOFTPLUS, MISH, LOG_SIGMOID, SOFTSIGN) = range(22)

SQRT_HALF = math.sqrt(0.5)
INVERSE_SQRT_2PI = 1 / math.sqrt(2 * math.pi)
GELU_A, GELU_B = math.sqrt(2 / math.pi), 0.044715
SIXTH = 1 / 6


@worker(inline=True)
def _softplus(x):
    """log(1 + exp(x))."""
    return maximum(x, 0.0) + log1p(exp(-absolute(x)))


@worker(inline=True)
def _tanh_softplus(x):
    """tanh(log(1 + exp(x))) = e (e + 2) / (e (e + 2) + 2) with e = exp(x); 1 in float32 from x = 20 on."""
    e = exp(minimum(x, 20.0))
    product = e * (e + 2.0)
    return product / (product + 2.0)


@worker(inline=True)
def _gelu_tanh(x):
    return tanh(GELU_A * fma(GELU_B * x * x, x, x))


@worker(inline=True)
def silu(x):
    return x * sigmoid(x)


@worker(inline=True)
def gelu(x):
    return 0.5 * x * (1.0 + erf(x * SQRT_HALF))


@worker(inline=True)
def gelu_tanh(x):
    return 0.5 * x * (1.0 + _gelu_tanh(x))


@worker(inline=True)
def hardsigmoid(x):
    return minimum(maximum(fma(x, SIXTH, 0.5), 0.0), 1.0)


@worker(inline=True)
def hardswish(x):
    return x * hardsigmoid(x)


@worker(inline=True)
def mish(x):
    return x * _tanh_softplus(x)


@worker
def forward_range(function, p, q, x, out, first, last):
    """Elements first, ..., last - 1."""
    out_of_line()
    if function == ABSOLUTE:
        for i in range(first, last, L):
            store_partial(out, i, absolute(load_partial(x, i, last - i)), last - i)
    elif function == EXP:
        for i in range(first, last, L):
            store_partial(out, i, exp(load_partial(x, i, last - i)), last - i)
    elif function == EXPM1:
        for i in range(first, last, L):
            store_partial(out, i, expm1(load_partial(x, i, last - i)), last - i)
    elif function == LOG:
        for i in range(first, last, L):
            store_partial(out, i, log(load_partial(x, i, last - i)), last - i)
    elif function == LOG1P:
        for i in range(first, last, L):
            store_partial(out, i, log1p(load_partial(x, i, last - i)), last - i)
    elif function == SQRT:
        for i in range(first, last, L):
            store_partial(out, i, sqrt(load_partial(x, i, last - i)), last - i)
    elif function == RSQRT:
        for i in range(first, last, L):
            store_partial(out, i, 1.0 / sqrt(load_partial(x, i, last - i)), last - i)
    elif function == ERF:
        for i in range(first, last, L):
            store_partial(out, i, erf(load_partial(x, i, last - i)), last - i)
    elif function == HARDTANH:
        for i in range(first, last, L):
            store_partial(out, i, minimum(maximum(load_partial(x, i, last - i), p), q), last - i)
    elif function == LEAKY_RELU:
        for i in range(first, last, L):
            v = load_partial(x, i, last - i)
            store_partial(out, i, select(v > 0.0, v, v * p), last - i)
    elif function == ELU:
        for i in range(first, last, L):
            v = load_partial(x, i, last - i)
            store_partial(out, i, select(v > 0.0, v, expm1(minimum(v, 0.0)) * p) * q, last - i)
    elif function == SIGMOID:
        for i in range(first, last, L):
            store_partial(out, i, sigmoid(load_partial(x, i, last - i)), last - i)
    elif function == TANH:
        for i in range(first, last, L):
            store_partial(out, i, tanh(load_partial(x, i, last - i)), last - i)
    elif function == SILU:
        for i in range(first, last, L):
            store_partial(out, i, silu(load_partial(x, i, last - i)), last - i)
    elif function == GELU:
        for i in range(first, last, L):
            store_partial(out, i, gelu(load_partial(x, i, last - i)), last - i)
    elif function == GELU_TANH:
        for i in range(first, last, L):
            store_partial(out, i, gelu_tanh(load_partial(x, i, last - i)), last - i)
    elif function == HARDSIGMOID:
        for i in range(first, last, L):
            store_partial(out, i, hardsigmoid(load_partial(x, i, last - i)), last - i)
    elif function == HARDSWISH:
        for i in range(first, last, L):
            store_partial(out, i, hardswish(load_partial(x, i, last - i)), last - i)
    elif function == SOFTPLUS:
        for i in range(first, last, L):
            v = load_partial(x, i, last - i)
            store_partial(out, i, select(v * p > q, v, _softplus(v * p) / p), last - i)
    elif function == MISH:
        for i in range(first, last, L):
            store_partial(out, i, mish(load_partial(x, i, last - i)), last - i)
    elif function == LOG_SIGMOID:
        for i in range(first, last, L):
            store_partial(out, i, -_softplus(-load_partial(x, i, last - i)), last - i)
    else:                                               # SOFTSIGN
        for i in range(first, last, L):
            v = load_partial(x, i, last - i)
            store_partial(out, i, v / (1.0 + absolute(v)), last - i)


@worker
def backward_range(function, p, q, grad, x, out, first, last):
    """Elements first, ..., last - 1; hardtanh reads y in place of x."""
    out_of_line()
    if function == HARDTANH:
        for i in range(first, last, L):
            v = load_partial(x, i, last - i)
            store_partial(out, i, select((v > p) & (v < q), load_partial(grad, i, last - i), 0.0), last - i)
    elif function == LEAKY_RELU:
        for i in range(first, last, L):
            g = load_partial(grad, i, last - i)
            store_partial(out, i, select(load_partial(x, i, last - i) > 0.0, g, g * p), last - i)
    elif function == ELU:
        for i in range(first, last, L):
            v = load_partial(x, i, last - i)
            store_partial(out, i, load_partial(grad, i, last - i) * select(v > 0.0, q, exp(minimum(v, 0.0)) * p * q), last - i)
    elif function == SILU:
        for i in range(first, last, L):
            v = load_partial(x, i, last - i)
            s = sigmoid(v)
            store_partial(out, i, load_partial(grad, i, last - i) * s * fma(v, 1.0 - s, 1.0), last - i)
    elif function == GELU:
        for i in range(first, last, L):
            v = load_partial(x, i, last - i)
            slope = exp(-0.5 * v * v) * INVERSE_SQRT_2PI
            store_partial(out, i, load_partial(grad, i, last - i) * fma(v, slope, 0.5 * (1.0 + erf(v * SQRT_HALF))), last - i)
    elif function == GELU_TANH:
        for i in range(first, last, L):
            v = load_partial(x, i, last - i)
            t = _gelu_tanh(v)
            slope = 0.5 * (1.0 - t * t) * GELU_A * (1.0 + 3.0 * GELU_B * v * v)
            store_partial(out, i, load_partial(grad, i, last - i) * fma(v, slope, 0.5 * (1.0 + t)), last - i)
    elif function == HARDSIGMOID:
        for i in range(first, last, L):
            v = load_partial(x, i, last - i)
            store_partial(out, i, select((v > -3.0) & (v < 3.0), load_partial(grad, i, last - i) * SIXTH, 0.0), last - i)
    elif function == HARDSWISH:
        for i in range(first, last, L):
            v, g = load_partial(x, i, last - i), load_partial(grad, i, last - i)
            store_partial(out, i, select(v <= -3.0, 0.0, select(v >= 3.0, g, g * fma(v, 2.0 * SIXTH, 0.5))), last - i)
    elif function == SOFTPLUS:
        for i in range(first, last, L):
            v, g = load_partial(x, i, last - i) * p, load_partial(grad, i, last - i)
            store_partial(out, i, select(v > q, g, g * sigmoid(v)), last - i)
    elif function == MISH:
        for i in range(first, last, L):
            v = load_partial(x, i, last - i)
            t = _tanh_softplus(v)
            store_partial(out, i, load_partial(grad, i, last - i) * fma(v * sigmoid(v), 1.0 - t * t, t), last - i)
    elif function == LOG_SIGMOID:
        for i in range(first, last, L):
            store_partial(out, i, load_partial(grad, i, last - i) * sigmoid(-load_partial(x, i, last - i)), last - i)
    else:                                               # SOFTSIGN
        for i in range(first, last, L):
            v = 1.0 + absolute(load_partial(x, i, last - i))
            store_partial(out, i, load_partial(grad, i, last - i) / (v * v), last - i)


@kernel("void(i8, f4, f4, const T[::1], T[::1])", parallel=True)
def forward(function, p, q, x, out):
    tasks = (out.size + TASK - 1) // TASK
    if tasks == 1:
        forward_range(function, p, q, x, out, FIRST, out.size)
    else:
        for task in prange(tasks):
            forward_range(function, p, q, x, out, task * TASK, min(task * TASK + TASK, out.size))


@kernel("void(i8, f4, f4, const T[::1], const T[::1], T[::1])", parallel=True)
def backward(function, p, q, grad, x, out):
    tasks = (out.size + TASK - 1) // TASK
    if tasks == 1:
        backward_range(function, p, q, grad, x, out, FIRST, out.size)
    else:
        for task in prange(tasks):
            backward_range(function, p, q, grad, x, out, task * TASK, min(task * TASK + TASK, out.size))


def run_forward(function: int, x: np.ndarray, out: np.ndarray, p: float = 0.0, q: float = 0.0) -> None:
    """out = f(x) in float32; both of any strides."""
    _run(lambda *flat: forward(function, p, q, *flat), out, x)


def run_backward(function: int, grad: np.ndarray, x: np.ndarray, out: np.ndarray, p: float = 0.0, q: float = 0.0) -> None:
    """out = grad * f'(x) in float32; all of any strides."""
    _run(lambda *flat: backward(function, p, q, *flat), out, grad, x)


def _run(launch, out, *arrays) -> None:
    if out.size == 0:
        return
    if is_dense(out.shape, out.strides, out.itemsize):
        launch(*[flat_like(x, out) for x in arrays], out.ravel("K"))
    else:
        result = np.empty_like(out)
        _run(launch, result, *arrays)
        np.copyto(out, result)
