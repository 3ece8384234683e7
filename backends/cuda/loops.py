"""Loops of kernels: `range`, and positions that threads or blocks share.

Numba's `range` takes any step, so that each of its loops begins with a division, and counts its turns in a way that costs six instructions
a turn. Steps of kernels are positive. `range(n)` and `range(first, end)` compare the position with the end here; `range(first, end, step)`
counts its turns beforehand, so that the compiler can make several one; `strided` does not, for loops of few turns.
"""

from __future__ import annotations

from llvmlite import ir
from numba.cuda import cgutils, types
from numba.cuda.core.imputils import RefType, iternext_impl
from numba.cuda.extending import lower_builtin, models, register_model
from numba.cuda.typing.templates import AbstractTemplate, infer_global, signature

from numbanet.errors import BackendError


class Numbers(types.SimpleIterableType):
    """first, first + step, ... below an end; `is_counted`: so many of them."""

    def __init__(self, dtype, is_counted: bool):
        self.dtype, self.is_counted = dtype, is_counted
        super().__init__(f"numbers({dtype}, {is_counted})", NumbersIterator(dtype, is_counted))


class NumbersIterator(types.SimpleIteratorType):
    def __init__(self, dtype, is_counted: bool):
        self.dtype, self.is_counted = dtype, is_counted
        super().__init__(f"numbers_iterator({dtype}, {is_counted})", dtype)


@register_model(Numbers)
class _Model(models.StructModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, [("first", kind.dtype), ("end", kind.dtype), ("step", kind.dtype)])


@register_model(NumbersIterator)
class _IteratorModel(models.StructModel):
    """`left` is the number of turns to come, or the end."""

    def __init__(self, manager, kind):
        slot = types.EphemeralPointer(kind.dtype)
        super().__init__(manager, kind, [("place", slot), ("left", slot if kind.is_counted else kind.dtype), ("step", kind.dtype)])


def range_of(*numbers):
    """What `range` is in kernels."""
    raise NotImplementedError


def strided(first, end, step):
    """The same numbers as range(first, end, step), not counted."""
    raise NotImplementedError


def _common(kinds):
    small = [types.int32 == kind or isinstance(kind, types.IntegerLiteral) and abs(kind.literal_value) < 1 << 31 for kind in kinds]
    return types.int32 if all(small) and types.int32 in kinds else types.int64


def _define(function) -> None:
    class Template(AbstractTemplate):
        prefer_literal = True

        def generic(self, args, kws):
            if len(args) == 3 and isinstance(args[2], types.IntegerLiteral) and args[2].literal_value < 1:
                raise BackendError(f"range: a step of {args[2].literal_value}, expected a positive one; count from the end instead")
            if all(isinstance(kind, types.Integer) for kind in args):
                dtype = _common(args)
                return signature(Numbers(dtype, len(args) == 3 and function is range_of), *[dtype] * len(args))
    infer_global(function)(type(f"{function.__name__}_template", (Template,), {}))

    def lower(context, builder, of_numbers, arguments):
        kind = of_numbers.return_type
        made = cgutils.create_struct_proxy(kind)(context, builder)
        number = context.get_constant
        first, end, step = (arguments if len(arguments) == 3 else (*arguments, number(kind.dtype, 1)) if len(arguments) == 2
                            else (number(kind.dtype, 0), *arguments, number(kind.dtype, 1)))
        made.first, made.end, made.step = first, end, step
        return made._getvalue()
    for count in (1, 2, 3):
        lower_builtin(function, *[types.Integer] * count)(lower)


_define(range_of)
_define(strided)


@lower_builtin("getiter", Numbers)
def _getiter(context, builder, of_iterator, arguments):
    kind = of_iterator.args[0]
    given = cgutils.create_struct_proxy(kind)(context, builder, arguments[0])
    made = cgutils.create_struct_proxy(kind.iterator_type)(context, builder)
    made.place, made.step = cgutils.alloca_once_value(builder, given.first), given.step
    if not kind.is_counted:
        made.left = given.end
    else:
        distance = builder.sub(given.end, given.first)
        zero, one = (ir.Constant(distance.type, n) for n in (0, 1))
        turns = builder.udiv(builder.add(distance, builder.sub(given.step, one)), given.step)
        made.left = cgutils.alloca_once_value(builder, builder.select(builder.icmp_signed(">", distance, zero), turns, zero))
    return made._getvalue()


@lower_builtin("iternext", NumbersIterator)
@iternext_impl(RefType.UNTRACKED)
def _iternext(context, builder, of_next, arguments, result):
    kind = of_next.args[0]
    iterator = cgutils.create_struct_proxy(kind)(context, builder, arguments[0])
    place = builder.load(iterator.place)
    result.yield_(place)
    builder.store(builder.add(place, iterator.step, flags=["nsw"]), iterator.place)
    if kind.is_counted:
        left = builder.load(iterator.left)
        builder.store(builder.sub(left, ir.Constant(left.type, 1)), iterator.left)
        result.set_valid(builder.icmp_signed(">", left, ir.Constant(left.type, 0)))
    else:
        result.set_valid(builder.icmp_signed("<", place, iterator.left))
