"""Elementwise primitives one after the other, in one pass: each map is read once, and none in between is written.

A chain has one running value, which begins as x. Each step applies one primitive of `STEPS` to it and to scalars, other operands, or x
again, and gives the next running value. Of the 0.5 * x * (1 + tanh(x)) of a user, for one:

    elementwise_chain(x, [], (("tanh_forward", VALUE), ("add", VALUE, 1.0), ("multiply", Place(0), VALUE), ("multiply", VALUE, 0.5)))
"""

from __future__ import annotations

from typing import NamedTuple

from numbanet.backends.contract.checks import check_float
from numbanet.backends.interface import PRIMITIVES, Array, Arrays, dense_strides, primitive
from numbanet.errors import ShapeError, UsageError

ACTIVATIONS = ("relu", "hardtanh", "leaky_relu", "elu", "sigmoid", "tanh", "silu", "gelu", "hardsigmoid", "hardswish", "softplus", "mish",
               "log_sigmoid", "softsign")
STEPS = frozenset(("add", "subtract", "multiply", "divide", "maximum", "minimum", "negative", "absolute", "square", "exp", "expm1", "log",
                   "log1p", "sqrt", "rsqrt", "reciprocal", "erf", "clamp", *[f"{name}_forward" for name in ACTIVATIONS],
                   *[f"{name}_backward_input" for name in ACTIVATIONS]))
MOST_OPERANDS = 5           # besides x


class Place(NamedTuple):
    """An argument of a step that is an array: 0 is x, 1 the first of the operands, -1 the running value."""

    index: int


VALUE = Place(-1)


class _Shown(NamedTuple):
    """What declarations may see of a value in between."""

    shape: tuple
    dtype: object
    strides: tuple
    computes_16_bit: bool


def arguments_of(step: tuple, value, arrays) -> list:
    """The arguments of a step's primitive: `value` is the running one, `arrays` x and the operands."""
    return [(value if a == VALUE else arrays[a.index]) if isinstance(a, Place) else a for a in step[1:]]


@primitive(may_overwrite=("x", "operands"))
def elementwise_chain(x: Array, operands: Arrays, steps: tuple):
    """The value after the last of `steps`, each a tuple of a primitive's name and its arguments: scalars, and :class:`Place` for arrays.

    All arrays are of one floating-point dtype. Operands may be repeated along axes; every value has x's shape.
    """
    arrays = [x, *operands]
    check_float("elementwise_chain", x=x, **{f"operands[{i}]": a for i, a in enumerate(operands)})
    if not steps or len(operands) > MOST_OPERANDS:
        raise UsageError(f"elementwise_chain: expects one step at least and {MOST_OPERANDS} operands at most, received {len(steps)} steps "
                         f"and {len(operands)} operands")
    value = x
    for number, step in enumerate(steps):
        _check_step(number, step, len(arrays))
        spec = PRIMITIVES[step[0]].specification(*arguments_of(step, value, arrays))
        if spec.shape != x.shape or spec.dtype != x.dtype:
            raise ShapeError(f"elementwise_chain: step {number}, {step[0]}, gives shape {spec.shape} of {spec.dtype}; expected x's, "
                             f"{x.shape} of {x.dtype}")
        value = _Shown(spec.shape, spec.dtype, dense_strides(*spec), getattr(x, "computes_16_bit", False))
    return spec


def _check_step(number: int, step: tuple, arrays: int) -> None:
    name, *arguments = step
    if name not in STEPS:
        raise UsageError(f"elementwise_chain: step {number} is {name}, expected one of {', '.join(sorted(STEPS))}")
    declared = PRIMITIVES[name]
    if len(arguments) != len(declared.parameters):
        raise UsageError(f"elementwise_chain: step {number} gives {name} {len(arguments)} arguments, expected those of {declared!r}")
    places = [a for a in arguments if isinstance(a, Place)]
    if VALUE not in places:
        raise UsageError(f"elementwise_chain: step {number}, {name}, does not read the running value, VALUE")
    if any(not -1 <= a.index < arrays for a in places):
        raise UsageError(f"elementwise_chain: step {number}, {name}, reads places {[a.index for a in places]}, expected -1 to "
                         f"{arrays - 1}")


@elementwise_chain.composed
def _elementwise_chain(backend, x, operands, steps):
    value = x
    for step in steps:
        value = getattr(backend, step[0])(*arguments_of(step, value, [x, *operands]))
    return value


def words_of(steps: tuple) -> str:
    """What the steps do, in a few words: "multiply + tanh + add"."""
    return " + ".join([step[0].removesuffix("_forward").removesuffix("_input") for step in steps])

