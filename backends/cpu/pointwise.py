"""Functions of one float32 operand, and their gradients: y[o] = f(x[o]), grad_x[o] = grad_y[o] * f'(x[o]).

SIMD over flat memory, the function as a runtime switch outside of the loop: one kernel for all functions, one for all
gradients. p and q are the function's parameters. The formulas are those of `contract/activation.py`, in forms that neither
overflow nor cancel.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from numbanet.backends.cpu.broadcast import flat_like, is_dense
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.simd import (
    L,
    absolute,
    erf,
    exp,
    expm1,
    fma,
    load,
    log,
    log1p,
    maximum,
    minimum,
    select,
    sigmoid,
    sqrt,
    store,
    tanh,
)

TASK = 16384            # elements, a multiple of L; what is smaller than one task runs without a parallel region

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


@worker
def forward_range(function, p, q, x, out, first, last):
    """Elements first, ..., last - 1, a multiple of L of them."""
    if function == ABSOLUTE:
        for i in range(first, last, L):
            store(out, i, absolute(load(x, i)))
    elif function == EXP:
        for i in range(first, last, L):
            store(out, i, exp(load(x, i)))
    elif function == EXPM1:
        for i in range(first, last, L):
            store(out, i, expm1(load(x, i)))
    elif function == LOG:
        for i in range(first, last, L):
            store(out, i, log(load(x, i)))
    elif function == LOG1P:
        for i in range(first, last, L):
            store(out, i, log1p(load(x, i)))
    elif function == SQRT:
        for i in range(first, last, L):
            store(out, i, sqrt(load(x, i)))
    elif function == RSQRT:
        for i in range(first, last, L):
            store(out, i, 1.0 / sqrt(load(x, i)))
    elif function == ERF:
        for i in range(first, last, L):
            store(out, i, erf(load(x, i)))
    elif function == HARDTANH:
        for i in range(first, last, L):
            store(out, i, minimum(maximum(load(x, i), p), q))
    elif function == LEAKY_RELU:
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, select(v > 0.0, v, v * p))
    elif function == ELU:
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, select(v > 0.0, v, expm1(minimum(v, 0.0)) * p) * q)
    elif function == SIGMOID:
        for i in range(first, last, L):
            store(out, i, sigmoid(load(x, i)))
    elif function == TANH:
        for i in range(first, last, L):
            store(out, i, tanh(load(x, i)))
    elif function == SILU:
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, v * sigmoid(v))
    elif function == GELU:
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, 0.5 * v * (1.0 + erf(v * SQRT_HALF)))
    elif function == GELU_TANH:
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, 0.5 * v * (1.0 + _gelu_tanh(v)))
    elif function == HARDSIGMOID:
        for i in range(first, last, L):
            store(out, i, minimum(maximum(fma(load(x, i), SIXTH, 0.5), 0.0), 1.0))
    elif function == HARDSWISH:
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, v * minimum(maximum(fma(v, SIXTH, 0.5), 0.0), 1.0))
    elif function == SOFTPLUS:
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, select(v * p > q, v, _softplus(v * p) / p))
    elif function == MISH:
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, v * _tanh_softplus(v))
    elif function == LOG_SIGMOID:
        for i in range(first, last, L):
            store(out, i, -_softplus(-load(x, i)))
    else:                                               # SOFTSIGN
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, v / (1.0 + absolute(v)))


@worker
def backward_range(function, p, q, grad, x, out, first, last):
    """Elements first, ..., last - 1, a multiple of L of them; hardtanh reads y in place of x."""
    if function == HARDTANH:
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, select((v > p) & (v < q), load(grad, i), 0.0))
    elif function == LEAKY_RELU:
        for i in range(first, last, L):
            g = load(grad, i)
            store(out, i, select(load(x, i) > 0.0, g, g * p))
    elif function == ELU:
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, load(grad, i) * select(v > 0.0, q, exp(minimum(v, 0.0)) * p * q))
    elif function == SILU:
        for i in range(first, last, L):
            v = load(x, i)
            s = sigmoid(v)
            store(out, i, load(grad, i) * s * fma(v, 1.0 - s, 1.0))
    elif function == GELU:
        for i in range(first, last, L):
            v = load(x, i)
            slope = exp(-0.5 * v * v) * INVERSE_SQRT_2PI
            store(out, i, load(grad, i) * fma(v, slope, 0.5 * (1.0 + erf(v * SQRT_HALF))))
    elif function == GELU_TANH:
        for i in range(first, last, L):
            v = load(x, i)
            t = _gelu_tanh(v)
            slope = 0.5 * (1.0 - t * t) * GELU_A * (1.0 + 3.0 * GELU_B * v * v)
            store(out, i, load(grad, i) * fma(v, slope, 0.5 * (1.0 + t)))
    elif function == HARDSIGMOID:
        for i in range(first, last, L):
            v = load(x, i)
            store(out, i, select((v > -3.0) & (v < 3.0), load(grad, i) * SIXTH, 0.0))
    elif function == HARDSWISH:
        for i in range(first, last, L):
            v, g = load(x, i), load(grad, i)
            store(out, i, select(v <= -3.0, 0.0, select(v >= 3.0, g, g * fma(v, 2.0 * SIXTH, 0.5))))
    elif function == SOFTPLUS:
        for i in range(first, last, L):
            v, g = load(x, i) * p, load(grad, i)
            store(out, i, select(v > q, g, g * sigmoid(v)))
    elif function == MISH:
        for i in range(first, last, L):
            v = load(x, i)
            t = _tanh_softplus(v)
            store(out, i, load(grad, i) * fma(v * sigmoid(v), 1.0 - t * t, t))
    elif function == LOG_SIGMOID:
        for i in range(first, last, L):
            store(out, i, load(grad, i) * sigmoid(-load(x, i)))
    else:                                               # SOFTSIGN
        for i in range(first, last, L):
            v = 1.0 + absolute(load(x, i))
            store(out, i, load(grad, i) / (v * v))


@worker
def forward_task(function, p, q, x, out, first, last):
    """Any number of elements: those that do not fill a vector pass through one of their own."""
    whole = last - (last - first) % L
    forward_range(function, p, q, x, out, first, whole)
    if whole < last:
        rest = np.zeros(L, x.dtype)
        rest[:last - whole] = x[whole:last]
        forward_range(function, p, q, rest, rest, 0, L)
        out[whole:last] = rest[:last - whole]


@worker
def backward_task(function, p, q, grad, x, out, first, last):
    """As `forward_task`."""
    whole = last - (last - first) % L
    backward_range(function, p, q, grad, x, out, first, whole)
    if whole < last:
        rest, grad_rest = np.zeros(L, x.dtype), np.zeros(L, x.dtype)
        rest[:last - whole], grad_rest[:last - whole] = x[whole:last], grad[whole:last]
        backward_range(function, p, q, grad_rest, rest, rest, 0, L)
        out[whole:last] = rest[:last - whole]


@kernel("void(i8, f4, f4, const T[::1], T[::1])", parallel=True)
def forward(function, p, q, x, out):
    tasks = (out.size + TASK - 1) // TASK
    if tasks == 1:
        forward_task(function, p, q, x, out, 0, out.size)
    else:
        for task in prange(tasks):
            forward_task(function, p, q, x, out, task * TASK, min(task * TASK + TASK, out.size))


@kernel("void(i8, f4, f4, const T[::1], const T[::1], T[::1])", parallel=True)
def backward(function, p, q, grad, x, out):
    tasks = (out.size + TASK - 1) // TASK
    if tasks == 1:
        backward_task(function, p, q, grad, x, out, 0, out.size)
    else:
        for task in prange(tasks):
            backward_task(function, p, q, grad, x, out, task * TASK, min(task * TASK + TASK, out.size))


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
