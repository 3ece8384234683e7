"""Elementwise chains in float32: every step over a block of elements that stays in the L1 cache, then the next block.

    value[i] = f_s(value[i], other_s[i])    for each step s, for i in a block of the output's memory

Steps are rows of a table, so that one compiled kernel runs every chain. Each is the loop that the plain primitive runs over its whole
array (`elementwise.py`, `pointwise.py`), so that the bits are the same. Operands that do not lie as the output does are gathered to a
buffer, as there; one that repeats itself, as a number a channel does, once for many blocks. float64 goes through the plain primitives.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import prange

from numbanet.backends.contract.elementwise_chain import MOST_OPERANDS, VALUE, Place, arguments_of, words_of
from numbanet.backends.cpu import elementwise, pointwise
from numbanet.backends.cpu.broadcast import ALL, FLAT, SAME, dense, flat_like, gather, is_dense, merged
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.elementwise import ADD, DIVIDE, MAXIMUM, MINIMUM, MULTIPLY, SUBTRACT, apply_vectors, brought_into_order
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.pointwise import FIRST, TASK, backward_range, forward_range
from numbanet.backends.cpu.prepared import prepares
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L, load, store, store_partial
from numbanet.backends.cpu.simd import maximum as larger
from numbanet.backends.cpu.simd import minimum as smaller

# What a step does: a function of the value; of value and other; of other and value; the gradient `value` of the function of other; the
# gradient other of the function of the value; of value and a number
FORWARD, BINARY, SWAPPED, GRADIENT, GRADIENT_AT_VALUE, WITH_NUMBER = range(6)
OF_VALUE, OF_NUMBER = -1, -2    # in place of the number of an operand

BLOCK, SHORT = 1024, 512        # elements; the short ones where all steps are so quick that reading ahead must not end with each
LINE = 16                       # floats of a cache line
ROOM = 2 * BLOCK + 2 * LINE     # floats of a row of buffers: for each operand, then for a number, then for the running value
NUMBER, RUNNING = np.int64((MOST_OPERANDS + 1) * ROOM), np.int64((MOST_OPERANDS + 2) * ROOM)
AS_OUT = (1, ALL, 0, 0, 1, FLAT, 0)
STEPS, SPAN, PERIOD = np.int64(2), 5, 6     # where they stand in a row of `plans`

ARITHMETIC = {"add": ADD, "subtract": SUBTRACT, "multiply": MULTIPLY, "divide": DIVIDE, "maximum": MAXIMUM, "minimum": MINIMUM,
              "relu_backward_input": elementwise.RELU_BACKWARD, "sigmoid_backward_input": elementwise.SIGMOID_BACKWARD,
              "tanh_backward_input": elementwise.TANH_BACKWARD}
FUNCTIONS = {name: getattr(pointwise, name.upper()) for name in (
    "absolute", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "erf", "hardtanh", "leaky_relu", "elu", "sigmoid", "tanh", "silu",
    "hardsigmoid", "hardswish", "softplus", "mish", "log_sigmoid", "softsign")}


@worker
def with_number(function, number, value, begin, out, out_begin, count):
    """out[i] = f(value[i], number) for whole vectors."""
    out_of_line()
    if function == ADD:
        for i in range(0, count, L):
            store(out, out_begin + i, load(value, begin + i) + number)
    elif function == SUBTRACT:
        for i in range(0, count, L):
            store(out, out_begin + i, load(value, begin + i) - number)
    elif function == MULTIPLY:
        for i in range(0, count, L):
            store(out, out_begin + i, load(value, begin + i) * number)
    elif function == DIVIDE:
        for i in range(0, count, L):
            store(out, out_begin + i, load(value, begin + i) / number)
    elif function == MAXIMUM:
        for i in range(0, count, L):
            store(out, out_begin + i, larger(load(value, begin + i), number))
    else:
        for i in range(0, count, L):
            store(out, out_begin + i, smaller(load(value, begin + i), number))


@worker(borrows=True)
def repeat(buffer, begin, filled, count):
    """The first `filled` elements from `begin` on, again and again, up to `count` of them; whole vectors are written."""
    while filled < count:
        for i in range(0, min(filled, count - filled), L):
            store(buffer, begin + filled + i, load(buffer, begin + i))
        filled += min(filled, count - filled)


@worker(inline=True, borrows=True)
def part_of(k, operands, plans, begin, count, buffers, held):
    """Where in row k of the buffers elements begin, ..., begin + count - 1 of operand k are; what is periodic is gathered once."""
    row, span = k * ROOM, plans[k, SPAN]
    if span > 0 and begin // span == (begin + count - 1) // span:
        if held[k] != begin // span:
            held[k] = begin // span
            gather(operands[k], plans[k], STEPS, held[k] * span, plans[k, PERIOD], buffers[row:row + ROOM])
            repeat(buffers, row, plans[k, PERIOD], plans[k, PERIOD] + BLOCK)
        return row + begin % plans[k, PERIOD]
    held[k] = -1
    gather(operands[k], plans[k], STEPS, begin, count, buffers[row:row + ROOM])
    return row


@worker(borrows=True)
def run_blocks(program, numbers, plans, operands, out, first, last, block, buffers, held):
    """All steps over elements first, ..., last - 1, a block at a time; one that does not fill its vectors is copied to those that do."""
    out_of_line()
    steps = len(program)
    for begin in range(first, last, block):
        count = min(block, last - begin)
        is_whole, vectors = count % L == 0, (count + L - 1) // L * L
        value, value_begin = operands[0], begin
        if not is_whole or plans[0, SPAN] != FLAT:
            value, value_begin = buffers, part_of(FIRST, operands, plans, begin, count, buffers, held)
        for s in range(steps):
            kind, function, k = program[s, 0], program[s, 1], program[s, 2]
            p, q = numbers[s, 0], numbers[s, 1]
            target, target_begin = buffers, RUNNING
            if is_whole and s == steps - 1:
                target, target_begin = out, begin
            other, other_begin = value, value_begin
            if k >= 0:
                if is_whole and plans[k, SPAN] == FLAT:
                    other, other_begin = operands[k], begin
                else:
                    other, other_begin = buffers, part_of(k, operands, plans, begin, count, buffers, held)
            elif k == OF_NUMBER:
                buffers[NUMBER] = p
                repeat(buffers, NUMBER, FIRST + 1, vectors)
                other, other_begin = buffers, NUMBER
            if kind == BINARY:
                apply_vectors(function, value, value_begin, other, other_begin, target, target_begin, vectors)
            elif kind == SWAPPED:
                apply_vectors(function, other, other_begin, value, value_begin, target, target_begin, vectors)
            elif kind == WITH_NUMBER:
                with_number(function, p, value, value_begin, target, target_begin, vectors)
            else:
                values, others = value[value_begin:value_begin + vectors], other[other_begin:other_begin + vectors]
                targets = target[target_begin:target_begin + vectors]
                if kind == FORWARD:
                    forward_range(function, p, q, values, targets, FIRST, vectors)
                elif kind == GRADIENT:
                    backward_range(function, p, q, values, others, targets, FIRST, vectors)
                else:
                    backward_range(function, p, q, others, values, targets, FIRST, vectors)
            value, value_begin = buffers, RUNNING
        if not is_whole:
            for i in range(0, count, L):
                store_partial(out, begin + i, load(buffers, RUNNING + i), count - i)


@worker
def run_range(program, numbers, plans, operands, out, first, last, block):
    """Elements first, ..., last - 1."""
    out_of_line()
    memory, held = np.empty((MOST_OPERANDS + 3) * ROOM + LINE, np.float32), np.full(MOST_OPERANDS + 1, -1)
    buffers = memory[(-memory.ctypes.data // 4) % LINE:]        # a vector across two cache lines takes twice as long
    run_blocks(program, numbers, plans, operands, out, first, last, block, buffers, held)


@kernel("void(const i8[:,::1], const f4[:,::1], const i8[:,::1], const T[::1], const T[::1], const T[::1], const T[::1], const T[::1], "
        "const T[::1], T[::1], i8)", parallel=True)
def elementwise_chain_blocks(program, numbers, plans, x, a, b, c, d, e, out, block):
    tasks = (out.size + TASK - 1) // TASK
    if tasks == 1:
        run_range(program, numbers, plans, (x, a, b, c, d, e), out, FIRST, out.size, block)
    else:
        for task in prange(tasks):
            run_range(program, numbers, plans, (x, a, b, c, d, e), out, task * TASK, min(task * TASK + TASK, out.size),
                      block)


class Steps:
    """The tables of a chain, and what was last found of the operands, which in a plan are always the same."""

    def __init__(self, steps: tuple):
        rows = [row for step in steps for row in _rows(*step)]
        self.program = np.array([row[:3] for row in rows], np.int64)
        self.numbers = np.array([(*row[3:], 0.0, 0.0)[:2] for row in rows], np.float32)
        self.block = SHORT if all(row[0] in (BINARY, SWAPPED, WITH_NUMBER) for row in rows) else BLOCK
        self._known, self._others, self._plan = (), (), None

    def arguments(self, x: np.ndarray, operands, out: np.ndarray) -> tuple:
        """Those of the kernel, for `out` without gaps."""
        arrays = (*operands, out)
        if len(arrays) != len(self._known) or any(a is not b for a, b in zip(arrays, self._known)):
            self._others = [_flat(a, out) for a in operands], out.ravel("K")
            self._known = () if any(not np.may_share_memory(a, flat) for a, (flat, _) in zip(operands, self._others[0])) else arrays
            self._plan = None
        others, flat_out = self._others
        flat, plan = _flat(x, out)
        if plan != self._plan:
            self._plan, self._plans = plan, np.array([plan, *[row for _, row in others]], np.int64)
        flats = [flat, *[other for other, _ in others]]
        return self.program, self.numbers, self._plans, *flats, *flats[:1] * (MOST_OPERANDS + 1 - len(flats)), flat_out, self.block

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
    """(flat memory, its row of `plans`)."""
    x = brought_into_order(x, out)
    if x.strides == out.strides and x.shape == out.shape:
        return x.ravel("K"), AS_OUT
    x = x if x.size == 1 else dense(x)
    row = _row(x.shape, x.strides, out.shape, out.strides)
    return (x.ravel("K"), row) if row is not None else (flat_like(np.broadcast_to(x, out.shape), out), AS_OUT)


@lru_cache(maxsize=4096)
def _row(shape: tuple, strides: tuple, out_shape: tuple, out_strides: tuple) -> tuple | None:
    """Of a dense operand: Q, R, the steps (see `broadcast.py`), over how many elements it has a period, and that; None where more than
    three axes are left."""
    lead = len(out_shape) - len(shape)
    repeated = (0,) * lead + tuple([0 if n == 1 else s for n, s in zip(shape, strides)])
    plan = merged(out_shape, out_strides, 4, repeated, SAME, False, True)
    if plan is None:
        return None
    Q, R, step_p, step_q, step_r = plan[:5].tolist()
    span, period = (R, 1) if step_r == 0 else (Q * R, R) if step_q == 0 and R <= BLOCK else (0, 0)
    return Q, R, step_p, step_q, step_r, span, period


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
