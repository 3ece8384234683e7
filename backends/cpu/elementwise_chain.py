"""Elementwise chains in float32: every step over a block of elements that stays in the L1 cache, then the next block.

    value[i] = f_s(value[i], other_s[i])    for each step s, for i in a block of the output's memory

Steps are rows of a table, so that one compiled kernel runs every chain. Each is the loop that the plain primitive runs over its whole
array (`elementwise.py`, `pointwise.py`), so that the bits are the same. Operands that do not lie as the output does are gathered to a block,
as there. float64 goes through the plain primitives.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.contract.elementwise_chain import MOST_OPERANDS, VALUE, Place, arguments_of, words_of
from numbanet.backends.cpu import elementwise, pointwise
from numbanet.backends.cpu.broadcast import ALL, AS_OUTPUT, FLAT, SAME, dense, flat_like, gather, is_dense, merged
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.elementwise import ADD, BLOCK, DIVIDE, MAXIMUM, MINIMUM, MULTIPLY, SUBTRACT, apply, brought_into_order
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.pointwise import FIRST, TASK, backward_range, forward_range
from numbanet.backends.cpu.prepared import prepares
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L, load_partial, splat, store_partial
from numbanet.backends.cpu.simd import maximum as larger
from numbanet.backends.cpu.simd import minimum as smaller

# What a step does: a function of the value; of value and other; of other and value; the gradient `value` of the function of other; the
# gradient other of the function of the value; of value and a number
FORWARD, BINARY, SWAPPED, GRADIENT, GRADIENT_AT_VALUE, WITH_NUMBER = range(6)
STEPS = np.int64(2)             # where they stand in a row of `plans`
OF_VALUE, OF_NUMBER = -1, -2    # in place of the number of an operand

ARITHMETIC = {"add": ADD, "subtract": SUBTRACT, "multiply": MULTIPLY, "divide": DIVIDE, "maximum": MAXIMUM, "minimum": MINIMUM,
              "relu_backward_input": elementwise.RELU_BACKWARD, "sigmoid_backward_input": elementwise.SIGMOID_BACKWARD,
              "tanh_backward_input": elementwise.TANH_BACKWARD}
FUNCTIONS = {name: getattr(pointwise, name.upper()) for name in (
    "absolute", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "erf", "hardtanh", "leaky_relu", "elu", "sigmoid", "tanh", "silu",
    "hardsigmoid", "hardswish", "softplus", "mish", "log_sigmoid", "softsign")}


@worker
def with_number(function, number, value, out, count):
    """out[i] = f(value[i], number)."""
    out_of_line()
    if function == ADD:
        for i in range(0, count, L):
            store_partial(out, i, load_partial(value, i, count - i) + number, count - i)
    elif function == SUBTRACT:
        for i in range(0, count, L):
            store_partial(out, i, load_partial(value, i, count - i) - number, count - i)
    elif function == MULTIPLY:
        for i in range(0, count, L):
            store_partial(out, i, load_partial(value, i, count - i) * number, count - i)
    elif function == DIVIDE:
        for i in range(0, count, L):
            store_partial(out, i, load_partial(value, i, count - i) / number, count - i)
    elif function == MAXIMUM:
        for i in range(0, count, L):
            store_partial(out, i, larger(load_partial(value, i, count - i), number), count - i)
    else:
        for i in range(0, count, L):
            store_partial(out, i, smaller(load_partial(value, i, count - i), number), count - i)


@worker
def fill(number, buffer, count):
    for i in range(0, count, L):
        store_partial(buffer, i, splat(number), count - i)


@worker(borrows=True)
def run_block(program, numbers, plans, operands, out, begin, count, value_block, other_block):
    """All steps over elements begin, ..., begin + count - 1."""
    value, last = value_block[:count], len(program) - 1
    if plans[0, 4] == FLAT:
        value = operands[0][begin:begin + count]
    else:
        gather(operands[0], plans[0], STEPS, begin, count, value_block)
    for s in range(len(program)):
        kind, function, k = program[s, 0], program[s, 1], program[s, 2]
        p, q = numbers[s, 0], numbers[s, 1]
        target = out[begin:begin + count] if s == last else value_block[:count]
        other = value
        if k >= 0:
            if plans[k, 4] == FLAT:
                other = operands[k][begin:begin + count]
            else:
                gather(operands[k], plans[k], STEPS, begin, count, other_block)
                other = other_block[:count]
        elif k == OF_NUMBER:
            fill(p, other_block, count)
            other = other_block[:count]
        if kind == FORWARD:
            forward_range(function, p, q, value, target, FIRST, count)
        elif kind == BINARY:
            apply(function, value, FIRST, other, FIRST, target, FIRST, count)
        elif kind == SWAPPED:
            apply(function, other, FIRST, value, FIRST, target, FIRST, count)
        elif kind == GRADIENT:
            backward_range(function, p, q, value, other, target, FIRST, count)
        elif kind == GRADIENT_AT_VALUE:
            backward_range(function, p, q, other, value, target, FIRST, count)
        else:
            with_number(function, p, value, target, count)
        value = value_block[:count]


@worker
def run_range(program, numbers, plans, operands, out, first, last):
    """Elements first, ..., last - 1, a block at a time."""
    out_of_line()
    value, other = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for begin in range(first, last, BLOCK):
        run_block(program, numbers, plans, operands, out, begin, min(BLOCK, last - begin), value, other)


@kernel("void(const i8[:,::1], const f4[:,::1], const i8[:,::1], const T[::1], const T[::1], const T[::1], const T[::1], const T[::1], "
        "const T[::1], T[::1])", parallel=True)
def elementwise_chain_blocks(program, numbers, plans, x, a, b, c, d, e, out):
    tasks = (out.size + TASK - 1) // TASK
    if tasks == 1:
        run_range(program, numbers, plans, (x, a, b, c, d, e), out, FIRST, out.size)
    else:
        for task in prange(tasks):
            run_range(program, numbers, plans, (x, a, b, c, d, e), out, task * TASK, min(task * TASK + TASK, out.size))


class Steps:
    """The tables of a chain."""

    def __init__(self, steps: tuple):
        rows = [row for step in steps for row in _rows(*step)]
        self.program = np.array([row[:3] for row in rows], np.int64)
        self.numbers = np.array([(*row[3:], 0.0, 0.0)[:2] for row in rows], np.float32)

    def arguments(self, x, operands, out: np.ndarray) -> tuple:
        """Those of the kernel, for `out` without gaps."""
        flats, plans = zip(*[_flat(a, out) for a in (x, *operands)])
        missing = MOST_OPERANDS + 1 - len(flats)
        return self.program, self.numbers, np.array(plans, np.int64), *flats, *flats[:1] * missing, out.ravel("K")

    def run(self, x, operands, out: np.ndarray) -> None:
        """The chain, in float32."""
        if out.size == 0:
            return
        if is_dense(out.shape, out.strides, out.itemsize):
            elementwise_chain_blocks(*self.arguments(x, operands, out))
        else:
            result = np.empty_like(out)
            self.run(x, operands, result)
            np.copyto(out, result)

    def kernels(self, x, operands, out: np.ndarray) -> list | None:
        """What `run` runs, where that needs no copies: see `program.joined`."""
        if out.size == 0 or not is_dense(out.shape, out.strides, out.itemsize):
            return None
        arguments = self.arguments(x, operands, out)
        if not all(np.may_share_memory(a, flat) for a, flat in zip((x, *operands), arguments[3:])):
            return None
        return [(elementwise_chain_blocks, arguments, out.size > TASK)]


def _rows(name: str, *arguments):
    """(kind, function, operand, numbers) of what the kernel does for a step."""
    if name in ARITHMETIC:
        a, b = arguments
        function = ARITHMETIC[name]
        if a == VALUE and not isinstance(b, Place):
            yield WITH_NUMBER, function, OF_VALUE, b
        elif a == VALUE:
            yield BINARY, function, b.index
        elif isinstance(a, Place):
            yield SWAPPED, function, a.index
        else:
            yield SWAPPED, function, OF_NUMBER, a
    elif name == "clamp":
        for function, limit in zip((MAXIMUM, MINIMUM), arguments[1:]):
            if limit is not None:
                yield WITH_NUMBER, function, OF_VALUE, limit
    elif name == "negative":
        yield WITH_NUMBER, MULTIPLY, OF_VALUE, -1
    elif name == "reciprocal":
        yield SWAPPED, DIVIDE, OF_NUMBER, 1
    elif name in ("square", "relu_forward"):
        yield BINARY, MULTIPLY if name == "square" else elementwise.RELU, OF_VALUE
    elif name.endswith("_backward_input"):
        grad, saved, *parameters = arguments
        function, parameters = _function(name.removesuffix("_backward_input"), parameters)
        yield (GRADIENT, function, saved.index, *parameters) if grad == VALUE else (GRADIENT_AT_VALUE, function, grad.index, *parameters)
    else:
        function, parameters = _function(name.removesuffix("_forward"), arguments[1:])
        yield FORWARD, function, OF_VALUE, *parameters


def _function(name: str, parameters) -> tuple[int, tuple]:
    if name == "gelu":
        return pointwise.GELU if parameters[0] == "none" else pointwise.GELU_TANH, ()
    return FUNCTIONS[name], tuple(parameters)


def _flat(x: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, tuple]:
    """(flat memory, its row of `plans`: Q, R and the steps, see `broadcast.py`)."""
    x = brought_into_order(x, out)
    if x.strides == out.strides and x.shape == out.shape:
        return x.ravel("K"), (1, ALL, *AS_OUTPUT)
    if x.size == 1:
        return x.reshape(1), (1, ALL, *SAME)
    x = dense(x)
    repeated = np.broadcast_to(x, out.shape)
    plan = merged(out.shape, out.strides, out.itemsize, repeated.strides, SAME, False, True)
    return (x.ravel("K"), tuple(plan[:5])) if plan is not None else (flat_like(repeated, out), (1, ALL, *AS_OUTPUT))


@implements
def elementwise_chain(x, operands, steps, out):
    if out.dtype.char == "f":
        Steps(steps).run(x, operands, out)
        return
    value = x
    for step in steps:
        target = out if step is steps[-1] else np.empty_like(out)
        implements[step[0]](*arguments_of(step, value, [x, *operands]), target)
        value = target


@prepares("elementwise_chain")
def _prepared(arguments, constant):
    x, _, steps = arguments
    if x.dtype.char != "f":
        return None
    tables = Steps(steps)

    def call(x, operands, steps, out):
        tables.run(x, operands, out)
    call.kernels = lambda x, operands, steps, out: tables.kernels(x, operands, out)
    call.kernel = words_of(steps)
    return call
