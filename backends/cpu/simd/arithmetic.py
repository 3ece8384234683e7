"""Lane-wise arithmetic on SIMD vectors beyond the operators, and reductions over the lanes. Twins: `scalar.py`."""
import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.backends.cpu import hardware
from numbanet.backends.cpu.simd.types import (
    I32,
    L,
    as_vectors,
    constant,
    f32xL,
    i32xL,
    llvm_type,
    maskxL,
    operand_types,
    splat_value,
)

VECTOR, INTEGERS = llvm_type(f32xL), llvm_type(i32xL)


def call_llvm(builder: ir.IRBuilder, name: str, *values: ir.Value) -> ir.Value:
    """Call the LLVM intrinsic `name` on float vectors."""
    function_type = ir.FunctionType(VECTOR, [VECTOR] * len(values))
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.v{L}f32"), values)


def fma_value(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x * y + z; without FMA hardware rounded twice, as llvm.fma would be a library call for each lane."""
    return call_llvm(builder, "fma" if hardware.has_fma() else "fmuladd", x, y, z)


def _floating(arguments, instruction):
    """Signature and code of an operation on float vectors and numbers."""
    taken = operand_types(f32xL, arguments)
    if taken is None:
        return None

    def codegen(context, builder, sig, args):
        return instruction(builder, *as_vectors(builder, f32xL, sig.args, args))
    return f32xL(*taken), codegen


@intrinsic
def splat(typingctx, number):
    """A float vector whose lanes all hold `number`."""
    def codegen(context, builder, sig, args):
        return splat_value(builder, f32xL, args[0])
    return f32xL(types.float32), codegen


@intrinsic
def splat_int(typingctx, number):
    """An integer vector whose lanes all hold `number`."""
    def codegen(context, builder, sig, args):
        return splat_value(builder, i32xL, args[0])
    return i32xL(types.int32), codegen


@intrinsic
def lane_indices(typingctx):
    """The integer vector (0, 1, ..., L - 1)."""
    def codegen(context, builder, sig, args):
        return constant(i32xL, list(range(L)))
    return i32xL(), codegen


@intrinsic
def fma(typingctx, x, y, z):
    """x * y + z, rounded once where the CPU can."""
    return _floating((x, y, z), fma_value)


@intrinsic
def select(typingctx, mask, x, y):
    """x where the mask is true, otherwise y; both float or both integer."""
    for vector_type in (f32xL, i32xL):
        taken = operand_types(vector_type, (x, y))
        if mask == maskxL and taken is not None:
            def codegen(context, builder, sig, args, vector_type=vector_type):
                return builder.select(args[0], *as_vectors(builder, vector_type, sig.args[1:], args[1:]))
            return vector_type(maskxL, *taken), codegen
    return None


def minimum_value(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """min(x, y), NaN where either is."""
    return _propagate_nan(builder, x, builder.select(builder.fcmp_ordered("<", x, y), x, y))


def maximum_value(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """max(x, y), NaN where either is."""
    return _propagate_nan(builder, x, builder.select(builder.fcmp_ordered(">", x, y), x, y))


def _propagate_nan(builder, x, smaller_or_larger):
    # the comparison is false for NaN and chose y: right when y is NaN, wrong when x is
    return builder.select(builder.fcmp_unordered("uno", x, x), x, smaller_or_larger)


@intrinsic
def minimum(typingctx, x, y):
    """The smaller lane; NaN where either lane is NaN, as numpy.minimum; y of -0.0 and 0.0."""
    return _floating((x, y), minimum_value)


@intrinsic
def maximum(typingctx, x, y):
    """The larger lane; NaN where either lane is NaN, as numpy.maximum; y of -0.0 and 0.0."""
    return _floating((x, y), maximum_value)


@intrinsic
def absolute(typingctx, x):
    """|x|, also of NaN and -0.0."""
    return _floating((x,), lambda builder, value: call_llvm(builder, "fabs", value))


@intrinsic
def sqrt(typingctx, x):
    """The square root, correctly rounded; NaN below zero."""
    return _floating((x,), lambda builder, value: call_llvm(builder, "sqrt", value))


@intrinsic
def floor(typingctx, x):
    """The largest whole number that is not above x."""
    return _floating((x,), lambda builder, value: call_llvm(builder, "floor", value))


@intrinsic
def round_even(typingctx, x):
    """The nearest whole number, of two the even one."""
    return _floating((x,), lambda builder, value: call_llvm(builder, "nearbyint", value))


@intrinsic
def copysign(typingctx, magnitude, sign):
    """|magnitude| with the sign bit of `sign`."""
    return _floating((magnitude, sign), lambda builder, x, y: call_llvm(builder, "copysign", x, y))


@intrinsic
def times_power_of_two(typingctx, x, n):
    """x * 2^n, rounded once, of whole numbers n; only where `hardware.scales_in_one_instruction`."""
    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(VECTOR, [VECTOR, VECTOR, VECTOR, ir.IntType(L), I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.mask.scalef.ps.512")
        current_rounding = I32(4)
        return builder.call(function, [*args, ir.Constant(VECTOR, ir.Undefined), ir.Constant(ir.IntType(L), -1), current_rounding])
    return (f32xL(f32xL, f32xL), codegen) if x == n == f32xL else None


# --- between float and integer lanes --------------------------------------------------------------------------------

@intrinsic
def to_int(typingctx, x):
    """Integer lanes, truncated towards zero; unspecified outside of int32."""
    def codegen(context, builder, sig, args):
        return builder.fptosi(args[0], INTEGERS)
    return (i32xL(f32xL), codegen) if x == f32xL else None


@intrinsic
def to_float(typingctx, x):
    """Float lanes nearest to the integer ones."""
    def codegen(context, builder, sig, args):
        return builder.sitofp(args[0], VECTOR)
    return (f32xL(i32xL), codegen) if x == i32xL else None


@intrinsic
def bits(typingctx, x):
    """The float lanes' bits as integers."""
    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], INTEGERS)
    return (i32xL(f32xL), codegen) if x == f32xL else None


@intrinsic
def from_bits(typingctx, x):
    """The float lanes that have these bits."""
    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], VECTOR)
    return (f32xL(i32xL), codegen) if x == i32xL else None


# --- over the lanes -------------------------------------------------------------------------------------------------

def _reduce(builder: ir.IRBuilder, vector: ir.Value, combine) -> ir.Value:
    """Combine the upper half with the lower one until one lane is left: log2(L) steps, and always in the same order."""
    lanes = L
    while lanes > 1:
        lanes //= 2
        halves = [ir.Constant(ir.VectorType(I32, lanes), list(range(first, first + lanes))) for first in (0, lanes)]
        undefined = ir.Constant(vector.type, ir.Undefined)
        vector = combine(builder, *[builder.shuffle_vector(vector, undefined, half) for half in halves])
    return builder.extract_element(vector, I32(0))


def sum_of_lanes(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """What `reduce_add` gives."""
    return _reduce(builder, vector, ir.IRBuilder.fadd)


def _reduction(x, combine):
    def codegen(context, builder, sig, args):
        return _reduce(builder, args[0], combine)
    return (types.float32(f32xL), codegen) if x == f32xL else None


@intrinsic
def reduce_add(typingctx, x):
    """The sum of the lanes, in a fixed order: halves are added until one lane is left."""
    return _reduction(x, ir.IRBuilder.fadd)


@intrinsic
def reduce_max(typingctx, x):
    """The largest lane, NaN if any is."""
    return _reduction(x, maximum_value)


@intrinsic
def reduce_min(typingctx, x):
    """The smallest lane, NaN if any is."""
    return _reduction(x, minimum_value)


@intrinsic
def any_lane(typingctx, mask):
    """Whether the mask is true in any lane."""
    def codegen(context, builder, sig, args):
        lanes = ir.IntType(L)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], lanes), lanes(0))
    return (types.boolean(maskxL), codegen) if mask == maskxL else None
