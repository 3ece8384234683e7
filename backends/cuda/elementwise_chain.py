"""Elementwise chains: one kernel that interprets them. A thread holds an element, or a piece of four, in registers, and walks the steps.

    value = x[i];  for each step: value = f(value, other[i]), f and other being those of the step's row in a table

All threads take the same branch. The functions are those of the plain primitives; float16 and bfloat16 are rounded at the end only.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.elementwise_chain import VALUE, Place
from numbanet.backends.cuda import activation, elementwise, mathematics
from numbanet.backends.cuda.compile import SIMULATED, Helper, Sizes, device, kernel, lanewise
from numbanet.backends.cuda.constants import on_device
from numbanet.backends.cuda.index import grid_stride, narrow, offset, split
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.layout import broadcast_steps, merged
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces
from numbanet.dtypes import is_floating_point

if SIMULATED:
    from numbanet.backends.cuda.simulator import element
else:
    from numbanet.backends.cuda.pieces import element

OF_VALUE, OF_NUMBER = -1, -2    # in place of the number of an operand
COLUMNS = 3                     # of a row of the program: function, operand, whether the operand comes first


def _of_one(f: Helper) -> Helper:
    @device
    def function_of_one(function, a, b, p, q):
        return f(a)
    return function_of_one


def _of_one_with_numbers(f: Helper) -> Helper:
    @device
    def function_of_one_with_numbers(function, a, b, p, q):
        return f(a, (p, q))
    return function_of_one_with_numbers


def _of_two(f: Helper) -> Helper:
    @device
    def function_of_two(function, a, b, p, q):
        return f(a, b)
    return function_of_two


def _of_two_with_numbers(f: Helper) -> Helper:
    @device
    def function_of_two_with_numbers(function, a, b, p, q):
        return f(a, b, (p, q))
    return function_of_two_with_numbers


def _functions() -> dict[str, Helper]:
    """What a step may be, by name, as a function of (its own number, a, b, p, q)."""
    of_elements = {name: getattr(elementwise, f"_{name}") for name in ("negative", "absolute", "square", "expm1", "log", "log1p", "rsqrt",
                                                                       "reciprocal", "erf")}
    of_elements |= {"exp": mathematics.exponential, "sqrt": mathematics.square_root}
    found = {name: _of_one(f) for name, f in of_elements.items()}
    found |= {name: _of_two(getattr(elementwise, f"_{name}")) for name in ("add", "subtract", "multiply", "divide")}
    found |= {"maximum": _of_two(mathematics.larger), "minimum": _of_two(mathematics.smaller)}
    for name in ("relu", "sigmoid", "tanh", "silu", "gelu", "gelu_tanh", "hardsigmoid", "hardswish", "mish", "log_sigmoid", "softsign"):
        found[f"{name}_forward"] = _of_one(activation.sigmoid if name == "sigmoid" else getattr(activation, f"_{name}"))
        found[f"{name}_backward_input"] = _of_two(getattr(activation, f"_{name}_backward"))
    for name in ("hardtanh", "leaky_relu", "elu", "softplus"):
        found[f"{name}_forward"] = _of_one_with_numbers(getattr(activation, f"_{name}"))
        found[f"{name}_backward_input"] = _of_two_with_numbers(getattr(activation, f"_{name}_backward"))
    return found


FUNCTIONS = _functions()
NUMBERS = {name: i for i, name in enumerate(FUNCTIONS)}


def _tree(first: int, functions: list[Helper]) -> Helper:
    """The function that does what the function of the given number does; these are numbered from `first` on."""
    if len(functions) == 1:
        return functions[0]
    border = first + len(functions) // 2
    low, high = _tree(first, functions[:border - first]), _tree(border, functions[border - first:])

    @device
    def one_of(function, a, b, p, q):
        return low(function, a, b, p, q) if function < border else high(function, a, b, p, q)
    return one_of


applied = lanewise(_tree(0, list(FUNCTIONS.values())))


@device
def part_of(k, i, arrays, single, count, places, shape):
    """Position i of operand k, of which the first `count` are `arrays`; the others have one element for a whole piece."""
    at, rest = narrow(0, i), i
    for last in range(1, len(shape)):
        rest, here = split(rest, shape[len(shape) - last])
        at += here * places[(k + 1) * len(shape) - last]
    at += rest * places[k * len(shape)]
    return arrays[k][at] if k < count else element(arrays[0], single[k - count][at])


@kernel
def interpreted(arrays, single, out, program, numbers, places, count, x, steps, total, shape: Sizes, out_steps):
    for i in grid_stride(total):
        value = part_of(x, i, arrays, single, count, places, shape)
        for s in range(steps):
            function, k, is_first = program[3 * s], program[3 * s + 1], program[3 * s + 2]
            p, q = numbers[2 * s], numbers[2 * s + 1]
            other = value
            if k >= 0:
                other = part_of(k, i, arrays, single, count, places, shape)
            elif k == -2:
                other = element(arrays[0], p)
            if is_first:
                value = applied(function, other, value, p, q)
            else:
                value = applied(function, value, other, p, q)
        out[offset(i, shape, out_steps)] = value


def _rows(name: str, *arguments):
    """(function, operand, whether it comes first, numbers) of what the kernel does for a step."""
    if name == "clamp":
        for function, limit in zip(("maximum", "minimum"), arguments[1:]):
            if limit is not None:
                yield NUMBERS[function], OF_NUMBER, 0, limit
        return
    if name.startswith("gelu_"):
        *arguments, approximate = arguments
        name = name if approximate == "none" else name.replace("gelu_", "gelu_tanh_")
    takes_two = name in ("add", "subtract", "multiply", "divide", "maximum", "minimum") or name.endswith("_backward_input")
    if not takes_two:
        yield NUMBERS[name], OF_VALUE, 0, *arguments[1:]
        return
    a, b, *parameters = arguments
    is_first = a != VALUE
    other = a if is_first else b
    if isinstance(other, Place):
        yield NUMBERS[name], other.index, int(is_first), *parameters
    else:
        yield NUMBERS[name], OF_NUMBER, int(is_first), other


@implements
def elementwise_chain(x, operands, steps, out):
    arrays, allocator = [x, *operands], out.lease.allocator
    places = merged(out.shape, out.steps, *[broadcast_steps(a, out.shape) for a in arrays])
    total, (shape, out_steps, *steps_of), (out, *given) = pieces(places, out, *arrays)
    if total == 0:
        return
    own = [k for k, a in enumerate(given) if type(a) is type(out)]      # in a wide launch those that lie along its pieces
    order = own + [k for k in range(len(given)) if k not in own]
    rows = [row for step in steps for row in _rows(*step)]
    program = [(f, order.index(k) if k >= 0 else k, first) for f, k, first, *_ in rows]
    real = np.float32 if arrays[0].dtype.itemsize == 2 and is_floating_point(arrays[0].dtype) else arrays[0].dtype
    integers = np.int32 if all(abs(n) < 2**31 for of in steps_of for n in of) else np.int64
    launch(interpreted, total, [given[k] for k in own] or [out], [given[k] for k in order[len(own):]] or arrays[:1], out,
           on_device(allocator, np.array(program, np.int32)), on_device(allocator, np.array([(*r[3:], 0.0, 0.0)[:2] for r in rows], real)),
           on_device(allocator, np.array([steps_of[k] for k in order], integers)), len(own), order.index(0), len(rows), total, shape,
           out_steps)
