"""Loads and stores of SIMD vectors. Twins: `scalar.py`.

An address is (array, offset): `offset` counts elements from the array's first one, in memory, whatever its shape; a
kernel computes it from the strides. Float32 arrays give `f32xL`, int32 arrays `i32xL`. Uint16 arrays hold bfloat16, the upper
halves of float32: `load` and `load_partial` give `f32xL` of them. No alignment is required.
"""
import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.backends.cpu.simd.types import I32, I64, L, constant, f32xL, i32xL, llvm_type, splat_value

ELEMENT_BYTES = 4
VECTOR_OF = {types.float32: f32xL, types.int32: i32xL}


def vector_type_of(array: types.Type):
    """The vector type that loads from an array of this type have, or None."""
    return VECTOR_OF.get(array.dtype) if isinstance(array, types.Array) else None


def pointer(context, builder: ir.IRBuilder, array_type: types.Array, array: ir.Value, offset: ir.Value) -> ir.Value:
    """The address of the element `offset` elements after the first."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def opaque(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """The same address, of unknown origin to LLVM, which would derive addresses from each other by registers that are needed otherwise."""
    return builder.asm(ir.FunctionType(address.type, [address.type]), "", "=r,0", [address], side_effect=False)


def load_value(builder: ir.IRBuilder, vector_type, address: ir.Value) -> ir.Value:
    """L consecutive elements."""
    value = builder.load(builder.bitcast(address, llvm_type(vector_type).as_pointer()))
    value.align = ELEMENT_BYTES
    return value


def store_value(builder: ir.IRBuilder, address: ir.Value, vector: ir.Value) -> None:
    """Write L consecutive elements."""
    builder.store(vector, builder.bitcast(address, vector.type.as_pointer())).align = ELEMENT_BYTES


def first_lanes(builder: ir.IRBuilder, count: ir.Value) -> ir.Value:
    """The mask that is true in the first `count` lanes; `count` is an int64."""
    wanted = splat_value(builder, i32xL, builder.trunc(count, I32))
    return builder.icmp_signed("<", constant(i32xL, list(range(L))), wanted)


def _suffix(vector_type) -> str:
    return f"v{L}{'f32' if vector_type == f32xL else 'i32'}.p0"


def load_masked(builder: ir.IRBuilder, vector_type, address: ir.Value, mask: ir.Value) -> ir.Value:
    """The elements under the mask, zero elsewhere; what is not under the mask is not touched."""
    vector = llvm_type(vector_type)
    function_type = ir.FunctionType(vector, [vector.as_pointer(), I32, mask.type, vector])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.masked.load.{_suffix(vector_type)}")
    address = builder.bitcast(address, vector.as_pointer())
    return builder.call(function, [address, I32(ELEMENT_BYTES), mask, ir.Constant(vector, None)])


def store_masked(builder: ir.IRBuilder, vector_type, address: ir.Value, vector: ir.Value, mask: ir.Value) -> None:
    """Write the elements under the mask; what is not under the mask is not touched."""
    pointer_type = vector.type.as_pointer()
    function_type = ir.FunctionType(ir.VoidType(), [vector.type, pointer_type, I32, mask.type])
    name = f"llvm.masked.store.{_suffix(vector_type)}"
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    builder.call(function, [vector, builder.bitcast(address, pointer_type), I32(ELEMENT_BYTES), mask])


HALVES = ir.VectorType(ir.IntType(16), L)


def _is_bfloat16(array: types.Type) -> bool:
    return isinstance(array, types.Array) and array.dtype == types.uint16


def _widened(builder: ir.IRBuilder, halves: ir.Value) -> ir.Value:
    """bfloat16 lanes as float32."""
    whole = builder.shl(builder.zext(halves, llvm_type(i32xL)), constant(i32xL, [16] * L))
    return builder.bitcast(whole, llvm_type(f32xL))


def load_float_lanes(builder: ir.IRBuilder, address: ir.Value, mask: ir.Value | None) -> ir.Value:
    """L floats, or those under the mask and zeros, of float32 or of bfloat16, as the address says."""
    if address.type.pointee != HALVES.element:
        return load_value(builder, f32xL, address) if mask is None else load_masked(builder, f32xL, address, mask)
    address = builder.bitcast(address, HALVES.as_pointer())
    if mask is None:
        halves = builder.load(address)
        halves.align = 2
    else:
        function_type = ir.FunctionType(HALVES, [HALVES.as_pointer(), I32, mask.type, HALVES])
        function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.masked.load.v{L}i16.p0")
        halves = builder.call(function, [address, I32(2), mask, ir.Constant(HALVES, None)])
    return _widened(builder, halves)


def _load_bfloat16(context, builder, sig, args):
    mask = first_lanes(builder, args[2]) if len(args) == 3 else None
    return load_float_lanes(builder, pointer(context, builder, sig.args[0], *args[:2]), mask)


@intrinsic
def load(typingctx, array, offset):
    """The vector of elements offset, ..., offset + L - 1."""
    vector = vector_type_of(array)
    if _is_bfloat16(array):
        return f32xL(array, types.int64), _load_bfloat16

    def codegen(context, builder, sig, args):
        return load_value(builder, vector, pointer(context, builder, sig.args[0], *args))
    return (vector(array, types.int64), codegen) if vector else None


@intrinsic
def store(typingctx, array, offset, value):
    """Write a vector to the elements offset, ..., offset + L - 1."""
    vector = vector_type_of(array)

    def codegen(context, builder, sig, args):
        store_value(builder, pointer(context, builder, sig.args[0], *args[:2]), args[2])
        return context.get_dummy_value()
    return (types.void(array, types.int64, vector), codegen) if vector and value == vector else None


@intrinsic
def store_streamed(typingctx, array, offset, value):
    """As `store`, past the caches, for what will not be read soon: memory is not read first. The address is aligned to a vector."""
    vector = vector_type_of(array)

    def codegen(context, builder, sig, args):
        address = pointer(context, builder, sig.args[0], *args[:2])
        stored = builder.store(args[2], builder.bitcast(address, args[2].type.as_pointer()))
        stored.align = ELEMENT_BYTES * L
        stored.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        return context.get_dummy_value()
    return (types.void(array, types.int64, vector), codegen) if vector and value == vector else None


@intrinsic
def load_partial(typingctx, array, offset, count):
    """The vector of elements offset, ..., offset + count - 1; the lanes from `count` on are zero and not read."""
    vector = vector_type_of(array)
    if _is_bfloat16(array):
        return f32xL(array, types.int64, types.int64), _load_bfloat16

    def codegen(context, builder, sig, args):
        address = pointer(context, builder, sig.args[0], *args[:2])
        return load_masked(builder, vector, address, first_lanes(builder, args[2]))
    return (vector(array, types.int64, types.int64), codegen) if vector else None


@intrinsic
def store_partial(typingctx, array, offset, value, count):
    """Write the first `count` lanes of a vector; what lies behind is not touched."""
    vector = vector_type_of(array)

    def codegen(context, builder, sig, args):
        address = pointer(context, builder, sig.args[0], *args[:2])
        store_masked(builder, vector, address, args[2], first_lanes(builder, args[3]))
        return context.get_dummy_value()
    return (types.void(array, types.int64, vector, types.int64), codegen) if vector and value == vector else None


@intrinsic
def load_strided(typingctx, array, offset, step):
    """The vector of elements offset, offset + step, ..., offset + (L - 1) * step."""
    vector = vector_type_of(array)

    def codegen(context, builder, sig, args):
        # L scalar loads: gather instructions are no faster on any CPU, and absent on many
        value = ir.Constant(llvm_type(vector), ir.Undefined)
        address = pointer(context, builder, sig.args[0], *args[:2])
        for lane in range(L):
            scalar = builder.load(builder.gep(address, [builder.mul(args[2], I64(lane))]))
            value = builder.insert_element(value, scalar, I32(lane))
        return value
    return (vector(array, types.int64, types.int64), codegen) if vector else None


@intrinsic
def store_strided(typingctx, array, offset, step, value):
    """Write a vector to the elements offset, offset + step, ..., offset + (L - 1) * step, in this order."""
    vector = vector_type_of(array)

    def codegen(context, builder, sig, args):
        address = pointer(context, builder, sig.args[0], *args[:2])
        for lane in range(L):
            scalar = builder.extract_element(args[3], I32(lane))
            builder.store(scalar, builder.gep(address, [builder.mul(args[2], I64(lane))]))
        return context.get_dummy_value()
    return (types.void(array, types.int64, types.int64, vector), codegen) if vector and value == vector else None


@intrinsic
def transpose_block(typingctx, source, offset, row, target, target_offset, target_row):
    """target[target_offset + i * target_row + j] = source[offset + j * row + i] for 0 <= i, j < L, in registers."""
    vector = vector_type_of(source)
    if vector is None or vector_type_of(target) != vector:
        return None

    def codegen(context, builder, sig, args):
        read = pointer(context, builder, sig.args[0], *args[:2])
        write = pointer(context, builder, sig.args[3], *args[3:5])
        rows = [load_value(builder, vector, builder.gep(read, [builder.mul(args[2], I64(i))])) for i in range(L)]
        for i, value in enumerate(_transposed(builder, rows)):
            store_value(builder, builder.gep(write, [builder.mul(args[5], I64(i))]), value)
        return context.get_dummy_value()
    return types.void(source, types.int64, types.int64, target, types.int64, types.int64), codegen


def _transposed(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """The columns of L vectors: in log2(L) rounds, two vectors `half` apart exchange blocks of `half` lanes."""
    half = L // 2
    while half:
        lower = [j + L - half if j & half else j for j in range(L)]           # from L on: lanes of the second vector
        upper = [j + L if j & half else j + half for j in range(L)]
        for i in range(L):
            if not i & half:
                pair = rows[i], rows[i + half]
                rows[i], rows[i + half] = (builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(I32, L), lanes))
                                           for lanes in (lower, upper))
        half //= 2
    return rows
