"""Elementwise arithmetic in float32: out[o] = f(a[o], b[o]) over flat memory, the function as a runtime switch.

The switch stands outside of the loop over a block of elements, so it costs nothing, and one compilation serves all
functions. Operands that do not lie as the output does (broadcast, permuted, scalar) are gathered to a block in the L1 cache
first (see `broadcast.py`), so that each function is one loop over contiguous memory.

The functions of one operand that networks use are kernels of the same kind, in `pointwise.py`. All else goes through NumPy,
whose loops are the same: float64, which serves to check gradients, 16-bit floats, integers, booleans, comparisons, rounding
and trigonometry.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu import pointwise
from numbanet.backends.cpu.broadcast import A_STEPS, ALL, AS_OUTPUT, B_STEPS, FLAT, gather, is_dense, is_one, operands
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.layout import SMALL, copy_into, copy_kernels
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.pointwise import FIRST, TASK
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L, load, load_partial, select, splat, store, store_partial
from numbanet.backends.cpu.simd import maximum as larger
from numbanet.backends.cpu.simd import minimum as smaller
from numbanet.backends.reference import elementwise as numpy

LONG_ROWS = 4 * L       # elements for which a call is worth its time
BLOCK = 2048            # elements of a gathered operand: two of them and the output take half of an L1 cache

(ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM,
 RELU, RELU_BACKWARD, SIGMOID_BACKWARD, TANH_BACKWARD) = range(10)


@kernel("void(i8, const T[::1], const T[::1], T[::1], const i8[::1])", parallel=True)
def binary(function, a, b, out, plan):
    tasks = (out.size + TASK - 1) // TASK
    if tasks == 1:
        binary_range(function, a, b, out, plan, FIRST, out.size)
    else:
        for task in prange(tasks):
            binary_range(function, a, b, out, plan, task * TASK, min(task * TASK + TASK, out.size))


@worker
def binary_range(function, a, b, out, plan, first, last):
    """Elements first, ..., last - 1, a block at a time."""
    out_of_line()
    if plan[1] % L == 0 and plan[1] >= LONG_ROWS and (plan[4] == FLAT or plan[4] == 1) and (plan[7] == FLAT or plan[7] == 1):
        _binary_rows(function, a, b, out, plan, first, last)
        return
    a_block, b_block = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for begin in range(first, last, BLOCK):
        count = min(BLOCK, last - begin)
        a_part, a_offset, b_part, b_offset = a, begin, b, begin
        if plan[4] != FLAT:
            if begin == first or not is_one(plan, A_STEPS):
                gather(a, plan, A_STEPS, begin, count, a_block)
            a_part, a_offset = a_block, FIRST
        if plan[7] != FLAT:
            if begin == first or not is_one(plan, B_STEPS):
                gather(b, plan, B_STEPS, begin, count, b_block)
            b_part, b_offset = b_block, FIRST
        apply(function, a_part, a_offset, b_part, b_offset, out, begin, count)


@worker
def _binary_rows(function, a, b, out, plan, first, last):
    """As `binary_range`, where whole vectors of each row of R elements stand side by side in both operands, as scales a channel do."""
    Q, R = plan[0], plan[1]
    begin = first
    while begin < last:
        row = begin // R
        r = begin - row * R
        count = min(R - r, last - begin)
        p, q = row // Q, row % Q
        a_offset = begin if plan[4] == FLAT else p * plan[2] + q * plan[3] + r
        b_offset = begin if plan[7] == FLAT else p * plan[5] + q * plan[6] + r
        apply(function, a, a_offset, b, b_offset, out, begin, count)
        begin += count


@worker
def apply(function, a, a_offset, b, b_offset, out, offset, count):
    """out[i] = f(a[i], b[i]) for `count` elements, each array from its offset on."""
    out_of_line()
    whole = count - count % L
    apply_vectors(function, a, a_offset, b, b_offset, out, offset, whole)
    if whole < count:                                   # the rest through three vectors of scratch, so that no loop is masked
        rest = count - whole
        a_rest, b_rest, out_rest = np.empty(L, np.float32), np.empty(L, np.float32), np.empty(L, np.float32)
        store(a_rest, FIRST, load_partial(a, a_offset + whole, rest))
        store(b_rest, FIRST, load_partial(b, b_offset + whole, rest))
        apply_vectors(function, a_rest, FIRST, b_rest, FIRST, out_rest, FIRST, L)
        store_partial(out, offset + whole, load(out_rest, FIRST), rest)


@worker
def apply_vectors(function, a, a_offset, b, b_offset, out, offset, count):
    """As `apply`, for whole vectors."""
    out_of_line()
    if function == ADD:
        for i in range(0, count, L):
            x, y = load(a, a_offset + i), load(b, b_offset + i)
            store(out, offset + i, x + y)
    elif function == SUBTRACT:
        for i in range(0, count, L):
            x, y = load(a, a_offset + i), load(b, b_offset + i)
            store(out, offset + i, x - y)
    elif function == MULTIPLY:
        for i in range(0, count, L):
            x, y = load(a, a_offset + i), load(b, b_offset + i)
            store(out, offset + i, x * y)
    elif function == DIVIDE:
        for i in range(0, count, L):
            x, y = load(a, a_offset + i), load(b, b_offset + i)
            store(out, offset + i, x / y)
    elif function == MAXIMUM:
        for i in range(0, count, L):
            x, y = load(a, a_offset + i), load(b, b_offset + i)
            store(out, offset + i, larger(x, y))
    elif function == MINIMUM:
        for i in range(0, count, L):
            x, y = load(a, a_offset + i), load(b, b_offset + i)
            store(out, offset + i, smaller(x, y))
    elif function == RELU:                              # of a alone
        for i in range(0, count, L):
            store(out, offset + i, larger(load(a, a_offset + i), splat(np.float32(0))))
    elif function == RELU_BACKWARD:
        for i in range(0, count, L):
            x, y = load(a, a_offset + i), load(b, b_offset + i)
            store(out, offset + i, select(y <= 0.0, 0.0, x))           # a NaN lets the gradient pass, as in PyTorch
    elif function == SIGMOID_BACKWARD:
        for i in range(0, count, L):
            x, y = load(a, a_offset + i), load(b, b_offset + i)
            store(out, offset + i, x * y * (1.0 - y))
    else:                                               # TANH_BACKWARD
        for i in range(0, count, L):
            x, y = load(a, a_offset + i), load(b, b_offset + i)
            store(out, offset + i, x * (1.0 - y * y))


NOTHING_GATHERED = np.array([1, ALL, *AS_OUTPUT, *AS_OUTPUT], np.int64)


def _lies_like(x, out: np.ndarray) -> bool:
    return type(x) is np.ndarray and x.strides == out.strides and x.shape == out.shape and x.dtype == out.dtype


def _is_brought_into_order(x, out: np.ndarray) -> bool:
    return (type(x) is np.ndarray and x.strides != out.strides and x.shape == out.shape and x.dtype == out.dtype and x.ndim >= 3
            and x.size >= SMALL)


def brought_into_order(x, out: np.ndarray):
    """A map of out's shape in its memory order: a copy by a kernel takes less time than gathering element by element."""
    if not _is_brought_into_order(x, out):
        return x
    copy = np.empty_like(out)
    copy_into(x, copy)
    return copy


def run_binary(function: int, a, b, out: np.ndarray) -> None:
    """out = f(a, b) in float32; arrays of any strides and dtype, or numbers."""
    if out.size == 0:
        return
    if is_dense(out.shape, out.strides, out.itemsize):
        same, a = b is a, brought_into_order(a, out)
        b = a if same else brought_into_order(b, out)
        if _lies_like(a, out) and (b is a or _lies_like(b, out)):       # the usual case, at a fraction of the Python
            flat = a.ravel("K")
            return binary(function, flat, flat if b is a else b.ravel("K"), out.ravel("K"), NOTHING_GATHERED)
        a, b, plan = operands(a, b, out)
        binary(function, a, b, out.ravel("K"), plan)
    else:
        result = np.empty_like(out)
        run_binary(function, a, b, result)
        np.copyto(out, result)


def _told(function: int):
    """What an operation of two operands runs where it copies none of them: see `program.joined`."""
    def kernels(a, b, out):
        arrays = [x for x in (a, b) if type(x) is np.ndarray]
        if out.dtype.char != "f" or not out.size or not all(x.dtype == out.dtype and is_dense(x.shape, x.strides, x.itemsize)
                                                            and not _is_brought_into_order(x, out) for x in (out, *arrays)):
            return None
        a_flat, b_flat, plan = operands(a, b, out)
        if not all(np.may_share_memory(flat, x) for flat, x in ((a_flat, a), (b_flat, b)) if type(x) is np.ndarray):
            return None
        return [(binary, (function, a_flat, b_flat, out.ravel("K"), plan), out.size > TASK)]
    return kernels


def _arithmetic(function: int, in_numpy, a, b, out) -> None:
    if out.dtype.char == "f":
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


for _operation, _function in ((add, ADD), (subtract, SUBTRACT), (multiply, MULTIPLY), (divide, DIVIDE), (maximum, MAXIMUM),
                              (minimum, MINIMUM)):
    _operation.kernels = _told(_function)


@implements
def square(x, out):
    _arithmetic(MULTIPLY, lambda a, b, out: numpy.square(a, out), x, x, out)


@implements
def negative(x, out):
    _arithmetic(MULTIPLY, lambda a, b, out: numpy.negative(a, out), x, -1, out)


@implements
def clamp(x, minimum, maximum, out):
    if out.dtype.char != "f":
        return numpy.clamp(x, minimum, maximum, out)
    if minimum is not None:
        run_binary(MAXIMUM, x, minimum, out)
    if maximum is not None:
        run_binary(MINIMUM, x if minimum is None else out, maximum, out)


def _unary(function: int, in_numpy, x, out) -> None:
    if x.dtype.char == "f":
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


copy.kernels = copy_kernels


for _function in (numpy.floor_divide, numpy.remainder, numpy.power, numpy.equal, numpy.not_equal, numpy.less, numpy.less_equal,
                  numpy.greater, numpy.greater_equal, numpy.logical_and, numpy.logical_or, numpy.logical_xor, numpy.logical_not,
                  numpy.isnan, numpy.isinf, numpy.isfinite, numpy.sign, numpy.floor, numpy.ceil, numpy.round, numpy.trunc, numpy.sin,
                  numpy.cos, numpy.tan, numpy.where, numpy.cast, numpy.full):
    implements(_function)
