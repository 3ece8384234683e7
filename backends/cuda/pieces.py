"""Elements that a kernel loads and stores together: 16 bytes with one instruction, computed lane by lane.

In a wide launch (`wide.py`) an array's pointer has pieces for elements: `x[i]` is the piece that begins at element i, and what is
computed from it is a piece again. A thread does what neighbouring threads do otherwise, by the same source and with the same bits:

- Arithmetic (+ - * / and -x) of pieces, or of a piece and a number, is that of each lane.
- A function with conditions, or one of `math`, is made by `@lanewise`: of numbers it is what it says, of pieces what it says of each lane.
- A number is a piece where one is needed: `value = 0.0` before a loop that adds pieces to it, `out[i] = value`.
- `element(x, value)` is a number as an element of the array x: a piece in a wide launch.
- `lanes(x)` is how many numbers x holds, 1 where it is one itself, and `lane_numbers(x)` the piece 0, 1, 2 ... of as many, or 0.
- `first_of(x)` is the number in the first lane, and `turned(x)` the piece whose lanes have moved one down, the first to the end.

In the simulator a piece is a NumPy array; here is what Numba has to know.
"""

from __future__ import annotations

import operator
from functools import cache
from inspect import Parameter, Signature

from llvmlite import ir
from numba.cuda import cgutils, types
from numba.cuda.extending import intrinsic, lower_builtin, lower_cast, models, register_model
from numba.cuda.typeconv import Conversion
from numba.cuda.typing.templates import AbstractTemplate, infer_global, signature


class Piece(types.Type):
    """`width` numbers of one type."""

    def __init__(self, dtype, width: int):
        self.dtype, self.width = dtype, width
        super().__init__(f"piece({dtype} x {width})")

    @property
    def key(self):
        return self.dtype, self.width

    def can_convert_from(self, context, other):
        """A number becomes a piece, and a piece one of another dtype, as numbers do."""
        if isinstance(other, Piece) and other.width != self.width or not isinstance(other, (Piece, types.Number, types.Boolean)):
            return None
        converted = context.can_convert(_of_lane(other), self.dtype)
        return None if converted is None else max(converted, Conversion.safe)


@register_model(Piece)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, piece):
        super().__init__(manager, piece, ir.ArrayType(manager.lookup(piece.dtype).get_value_type(), piece.width))


def _of_lane(kind):
    return kind.dtype if isinstance(kind, Piece) else kind


def _of_piece(kind, width: int):
    """What a lane's result is for all lanes: a piece, or a tuple of them."""
    return types.Tuple([Piece(t, width) for t in kind]) if isinstance(kind, types.BaseTuple) else Piece(kind, width)


def _width(kinds) -> int:
    """Of the pieces among these types; 0 where there is none."""
    return max([kind.width for kind in kinds if isinstance(kind, Piece)], default=0)


def lane(builder, value, kind, k: int):
    """Lane k of a value: the value itself where it is a number."""
    return builder.extract_value(value, k) if isinstance(kind, Piece) else value


def packed(builder, lanes: list):
    """A piece of these values."""
    return cgutils.pack_array(builder, lanes)


def _by_lanes(builder, kinds, arguments, width: int, call) -> list:
    """The results of `call` for the arguments of each lane."""
    return [call([lane(builder, value, kind, k) for value, kind in zip(arguments, kinds)]) for k in range(width)]


# --- arithmetic -----------------------------------------------------------------------------------------------------

def _define(function, in_place=None) -> None:
    class _OfPieces(AbstractTemplate):
        def generic(self, args, kws):
            if width := _width(args):
                of_lane = self.context.resolve_function_type(function, tuple([_of_lane(kind) for kind in args]), {})
                return signature(_of_piece(of_lane.return_type, width), *args)

    def lower(context, builder, of_pieces, arguments):
        kinds = of_pieces.args
        of_lane = context.typing_context.resolve_function_type(function, tuple([_of_lane(kind) for kind in kinds]), {})
        implementation = context.get_function(function, of_lane)
        return packed(builder, _by_lanes(builder, kinds, arguments, _width(kinds), lambda values: implementation(
            builder, [context.cast(builder, v, _of_lane(kind), t) for v, kind, t in zip(values, kinds, of_lane.args)])))

    for one in filter(None, (function, in_place)):
        infer_global(one)(type(f"{one.__name__}_of_pieces", (_OfPieces,), {}))
    for kinds in ((Piece,),) if function is operator.neg else ((Piece, types.Any), (types.Any, Piece), (Piece, Piece)):
        lower_builtin(function, *kinds)(lower)


for _function, _in_place in ((operator.add, operator.iadd), (operator.sub, operator.isub), (operator.mul, operator.imul),
                             (operator.truediv, operator.itruediv), (operator.neg, None)):
    _define(_function, _in_place)


@lower_cast(types.Any, Piece)
def _cast(context, builder, given, wanted, value):
    return packed(builder, [context.cast(builder, lane(builder, value, given, k), _of_lane(given), wanted.dtype)
                            for k in range(wanted.width)])


# --- lanes ----------------------------------------------------------------------------------------------------------

@intrinsic
def element(context, pointer, value):
    """A number as what `pointer` points to."""
    def generate(lowering, builder, _, arguments):
        return lowering.cast(builder, arguments[1], value, pointer.dtype)
    return pointer.dtype(pointer, value), generate


@intrinsic
def lanes(context, x):
    """How many numbers x holds."""
    count = _width([x]) or 1
    return types.int32(x), lambda lowering, builder, _, arguments: ir.Constant(ir.IntType(32), count)


@intrinsic
def lane_numbers(context, x):
    """The piece 0, 1, 2, ... of as many lanes as x has; 0 where it is a number."""
    width = _width([x])
    numbers = [ir.Constant(ir.IntType(32), k) for k in range(width or 1)]
    result = Piece(types.int32, width) if width else types.int32
    return result(x), lambda lowering, builder, _, arguments: packed(builder, numbers) if width else numbers[0]


@intrinsic
def first_of(context, x):
    """The number in the first lane."""
    return _of_lane(x)(x), lambda lowering, builder, _, arguments: lane(builder, arguments[0], x, 0)


@intrinsic
def turned(context, x):
    """The piece of lanes 1, 2, ... and 0."""
    width = _width([x])
    return x(x), lambda lowering, builder, _, arguments: (
        packed(builder, [lane(builder, arguments[0], x, (k + 1) % width) for k in range(width)]) if width else arguments[0])


# --- functions ------------------------------------------------------------------------------------------------------

@cache
def lanewise(function, count: int):
    """The function of kernels that applies `function`, a compiled helper of so many arguments, to each lane."""
    def typed(context, *given):
        kind, width = context.resolve_value_type(function), _width(given)
        of_lane = context.resolve_function_type(kind, tuple([_of_lane(one) for one in given]), {})
        result = _of_piece(of_lane.return_type, width) if width else of_lane.return_type

        def generate(lowering, builder, _, arguments):
            implementation = lowering.get_function(kind, of_lane)
            if not width:
                return implementation(builder, arguments)
            lanes = _by_lanes(builder, given, arguments, width, lambda values: implementation(builder, values))
            if not isinstance(of_lane.return_type, types.BaseTuple):
                return packed(builder, lanes)
            parts = [packed(builder, [builder.extract_value(one, part) for one in lanes]) for part in range(len(of_lane.return_type))]
            return lowering.make_tuple(builder, result, parts)
        return result(*given), generate
    names = ["context", *[f"argument{i}" for i in range(count)]]
    typed.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_ONLY) for name in names])     # Numba wants a fixed number
    return intrinsic(typed)
