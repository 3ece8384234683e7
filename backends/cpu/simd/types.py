"""The SIMD vector types that kernels are written over, as Numba types, and their operators.

`f32xL` holds L float32 lanes, `i32xL` L int32 lanes, `maskxL` L truth values; L is `hardware.simd_width()`. A number
on either side of an operator stands for a vector of it: ``x * 0.5``.
"""
import operator

import llvmlite.ir as ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from numbanet.backends.cpu import hardware

L = hardware.simd_width()

F32, I32, I64, BIT = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(1)


class VectorType(types.Type):
    """L lanes of one scalar type."""

    def __init__(self, scalar: types.Type):
        self.scalar = scalar
        super().__init__(name=f"{scalar}x{L}")


class VectorModel(models.PrimitiveModel):
    """A vector is one LLVM value, which lives in a register."""

    def __init__(self, manager, vector_type):
        super().__init__(manager, vector_type, llvm_type(vector_type))


register_model(VectorType)(VectorModel)

f32xL = VectorType(types.float32)
i32xL = VectorType(types.int32)
maskxL = VectorType(types.boolean)

LLVM_SCALARS = {f32xL: F32, i32xL: I32, maskxL: BIT}


def llvm_type(vector_type: VectorType) -> ir.VectorType:
    """The LLVM type of a vector type."""
    return ir.VectorType(LLVM_SCALARS[vector_type], L)


def constant(vector_type: VectorType, lanes: list) -> ir.Constant:
    """A vector constant from its lanes."""
    return ir.Constant(llvm_type(vector_type), lanes)


def splat_value(builder: ir.IRBuilder, vector_type: VectorType, scalar: ir.Value) -> ir.Value:
    """A vector whose lanes all hold `scalar`."""
    undefined = ir.Constant(llvm_type(vector_type), ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, L), [0] * L))


def merged_values(builder: ir.IRBuilder, *pairs) -> list[ir.Value]:
    """One phi for each value; a pair is (values, the block they come from)."""
    merged = []
    for values in zip(*(values for values, _ in pairs)):
        phi = builder.phi(values[0].type)
        for value, (_, block) in zip(values, pairs):
            phi.add_incoming(value, block)
        merged.append(phi)
    return merged


def as_vectors(builder: ir.IRBuilder, vector_type: VectorType, argument_types, values) -> list[ir.Value]:
    """The arguments of an operation, scalars among them turned into vectors."""
    return [value if argument == vector_type else splat_value(builder, vector_type, value)
            for argument, value in zip(argument_types, values)]


def operand_types(vector_type: VectorType, arguments) -> list[types.Type] | None:
    """The types in which an operation takes its arguments: vectors, or numbers cast to the lanes' type; None if not."""
    if vector_type not in arguments:
        return None
    taken = [argument if argument == vector_type else vector_type.scalar if isinstance(argument, types.Number) else None
             for argument in arguments]
    return None if None in taken else taken


# --- operators ------------------------------------------------------------------------------------------------------

def _define_binary(function, vector_type: VectorType, result: VectorType, instruction) -> None:
    """Let `function(x, y)` be `instruction(builder, x, y)` on vectors and numbers."""
    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args, kws):
            taken = operand_types(vector_type, args) if len(args) == 2 else None
            return signature(result, *taken) if taken else None

    def lower(context, builder, sig, args):
        return instruction(builder, *as_vectors(builder, vector_type, sig.args, args))

    for pair in ((vector_type, vector_type), (vector_type, vector_type.scalar), (vector_type.scalar, vector_type)):
        lower_builtin(function, *pair)(lower)


def _define_unary(function, vector_type: VectorType, instruction) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args, kws):
            return signature(vector_type, vector_type) if tuple(args) == (vector_type,) else None

    lower_builtin(function, vector_type)(lambda context, builder, sig, args: instruction(builder, *args))


def _comparison(method: str, symbol: str):
    return lambda builder, x, y: getattr(builder, method)(symbol, x, y)


_ARITHMETIC = {
    f32xL: {operator.add: ir.IRBuilder.fadd, operator.sub: ir.IRBuilder.fsub, operator.mul: ir.IRBuilder.fmul,
            operator.truediv: ir.IRBuilder.fdiv},
    i32xL: {operator.add: ir.IRBuilder.add, operator.sub: ir.IRBuilder.sub, operator.mul: ir.IRBuilder.mul,
            operator.and_: ir.IRBuilder.and_, operator.or_: ir.IRBuilder.or_, operator.xor: ir.IRBuilder.xor,
            operator.lshift: ir.IRBuilder.shl, operator.rshift: ir.IRBuilder.ashr},
    maskxL: {operator.and_: ir.IRBuilder.and_, operator.or_: ir.IRBuilder.or_, operator.xor: ir.IRBuilder.xor},
}
_COMPARISONS = {operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=",
                operator.eq: "==", operator.ne: "!="}

for _type, _operators in _ARITHMETIC.items():
    for _operator, _instruction in _operators.items():
        _define_binary(_operator, _type, _type, _instruction)

for _operator, _symbol in _COMPARISONS.items():
    # ordered, so that comparisons with NaN are false, except that NaN != x is true
    _method = "fcmp_unordered" if _operator is operator.ne else "fcmp_ordered"
    _define_binary(_operator, f32xL, maskxL, _comparison(_method, _symbol))
    _define_binary(_operator, i32xL, maskxL, _comparison("icmp_signed", _symbol))

_define_unary(operator.neg, f32xL, ir.IRBuilder.fneg)
_define_unary(operator.neg, i32xL, ir.IRBuilder.neg)
_define_unary(operator.invert, maskxL, ir.IRBuilder.not_)
