"""All inline PTX: instructions that Numba has no words for, each a function of kernels.

The tile programs (`tiles/`) take these functions from an argument, `machine`: this module when they are compiled, and the emulator
of the tests, which has functions of the same names over NumPy arrays, when they run without a GPU. So this module is also the list of
what a tile program may use.

Addresses of global memory are int64, of shared memory int32 (the offset in the shared window), both in bytes. Words are uint32: a
TF32 or float32 number, or two 16-bit ones, the one of lower index in the lower half. Everything that a lane gives to `ldmatrix_*` and
`mma_*` must be computed by all 32 lanes of its warp.

Source: Parallel Thread Execution ISA, the chapters on mma, ldmatrix, cp.async and cvt.
"""

from __future__ import annotations

from inspect import Parameter, Signature
from types import FunctionType

import llvmlite.ir as ir
from numba import cuda  # cuda.local.array(size, type): a thread's own numbers, in registers
from numba.cuda import types
from numba.cuda.extending import intrinsic

float32, int32, uint32 = types.float32, types.int32, types.uint32


def worker(function):
    """A function that kernels and other workers call, always inlined. Plain functions of its module that it calls become workers too."""
    if function.__closure__ is None and function in _made:
        return _made[function]
    called = {name: value for name in function.__code__.co_names if isinstance(value := function.__globals__.get(name), FunctionType)}
    if called:
        names = function.__globals__ | {name: worker(value) for name, value in called.items()}
        inside = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    else:
        inside = function
    made = cuda.jit(inside, device=True, forceinline=True)
    if function.__closure__ is None:                              # the same in every program: Numba types it once
        _made[function] = made
    return made


_made = {}


_LETTERS = {types.int32: "r", types.uint32: "r", types.int64: "l", types.float32: "f", types.boolean: "r"}
_LLVM = {types.int32: ir.IntType(32), types.uint32: ir.IntType(32), types.int64: ir.IntType(64), types.float32: ir.FloatType(),
         types.boolean: ir.IntType(32)}


def _instruction(text: str, results: tuple, operands: tuple, pure: bool = False):
    """A function of kernels from the text of one or more instructions: $0, $1, ... are the results, then the operands.

    An instruction that is not `pure` keeps its place among others and among barriers. A boolean operand arrives as 0 or 1.
    """
    returned = types.void if not results else results[0] if len(results) == 1 else types.UniTuple(results[0], len(results))
    constraints = ",".join(["=" + _LETTERS[t] for t in results] + [_LETTERS[t] for t in operands] + ([] if pure else ["~{memory}"]))
    inner = [_LLVM[t] for t in results]
    returned_llvm = ir.VoidType() if not inner else inner[0] if len(inner) == 1 else ir.LiteralStructType(inner)
    assembly = ir.InlineAsm(ir.FunctionType(returned_llvm, [_LLVM[t] for t in operands]), text, constraints, side_effect=not pure)

    def typed(typing_context, *given):
        def generate(context, builder, signature, values):
            values = [builder.zext(v, ir.IntType(32)) if t is types.boolean else v for v, t in zip(values, operands)]
            call = builder.call(assembly, values)
            call.attributes.add("convergent")
            if not results:
                return context.get_dummy_value()
            if len(results) == 1:
                return call
            return context.make_tuple(builder, signature.return_type, [builder.extract_value(call, i) for i in range(len(results))])
        return returned(*operands), generate
    names = ["typing_context", *[f"operand{i}" for i in range(len(operands))]]
    typed.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_ONLY) for name in names])     # Numba wants a fixed number
    made = intrinsic(typed)
    made.text, made.results, made.operands = text, results, operands       # what a test compiles and compares with the emulator's twin
    return made


# --- where a thread is ----------------------------------------------------------------------------------------------

thread_index = _instruction("mov.u32 $0, %tid.x;", (int32,), (), pure=True)
block_x = _instruction("mov.u32 $0, %ctaid.x;", (int32,), (), pure=True)
block_y = _instruction("mov.u32 $0, %ctaid.y;", (int32,), (), pure=True)
block_z = _instruction("mov.u32 $0, %ctaid.z;", (int32,), (), pure=True)
barrier = _instruction("bar.sync 0;", (), ())


@intrinsic
def shared_memory(typing_context):
    """Address of the block's dynamic shared memory, a multiple of 128."""
    def generate(context, builder, signature, values):
        module = builder.module
        memory = module.globals.get("dynamic_shared_memory")
        if memory is None:
            memory = ir.GlobalVariable(module, ir.ArrayType(ir.IntType(8), 0), "dynamic_shared_memory", addrspace=3)
            memory.linkage, memory.align = "external", 128
        return builder.trunc(builder.ptrtoint(memory, ir.IntType(64)), ir.IntType(32))
    return types.int32(), generate


# --- products -------------------------------------------------------------------------------------------------------

def _mma(shape_and_types: str):
    return _instruction(f"mma.sync.aligned.{shape_and_types} {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, {{$10,$11,$12,$13}};",
                        (float32,) * 4, (uint32,) * 6 + (float32,) * 4, pure=True)


mma_tf32 = _mma("m16n8k8.row.col.f32.tf32.tf32.f32")         # d0..d3 = a0..a3 (16x8) * b0, b1 (8x8) + c0..c3
mma_bf16 = _mma("m16n8k16.row.col.f32.bf16.bf16.f32")        # a (16x16), b (16x8), two numbers a word
mma_fp16 = _mma("m16n8k16.row.col.f32.f16.f16.f32")
fma = _instruction("fma.rn.f32 $0, $1, $2, $3;", (float32,), (float32,) * 3, pure=True)
maximum = _instruction("max.NaN.f32 $0, $1, $2;", (float32,), (float32,) * 2, pure=True)       # a NaN stays one
minimum = _instruction("min.NaN.f32 $0, $1, $2;", (float32,), (float32,) * 2, pure=True)

# --- conversions ----------------------------------------------------------------------------------------------------

round_tf32 = _instruction("cvt.rna.tf32.f32 $0, $1;", (uint32,), (uint32,), pure=True)         # of a float32's bits
pack_bf16 = _instruction("cvt.rn.bf16x2.f32 $0, $2, $1;", (uint32,), (float32,) * 2, pure=True)     # (low, high) -> word
pack_fp16 = _instruction("cvt.rn.f16x2.f32 $0, $2, $1;", (uint32,), (float32,) * 2, pure=True)
unpack_bf16 = _instruction("shl.b32 $0, $2, 16;\n\tand.b32 $1, $2, 0xffff0000;", (float32,) * 2, (uint32,), pure=True)
unpack_fp16 = _instruction("{\n\t.reg .b16 low, high;\n\tmov.b32 {low, high}, $2;\n\tcvt.f32.f16 $0, low;\n\tcvt.f32.f16 $1, high;\n\t}",
                           (float32,) * 2, (uint32,), pure=True)

# --- of elements, for intrinsics that make LLVM's instructions themselves; a compiler may move and repeat them like any arithmetic ---

def _arithmetic(text: str, result, operands: tuple):
    """A function (builder, LLVM values) -> LLVM value."""
    letters = {ir.FloatType(): "f", ir.IntType(64): "l", ir.IntType(32): "r", ir.IntType(16): "h"}
    constraints = ",".join([f"={letters[result]}"] + [letters[t] for t in operands])
    assembly = ir.InlineAsm(ir.FunctionType(result, operands), text, constraints, side_effect=False)
    return lambda builder, *values: builder.call(assembly, values, attrs=("readnone", "nounwind"))


_FLOAT, _WORD = ir.FloatType(), ir.IntType(32)
larger_float = _arithmetic("max.NaN.f32 $0, $1, $2;", _FLOAT, (_FLOAT, _FLOAT))
smaller_float = _arithmetic("min.NaN.f32 $0, $1, $2;", _FLOAT, (_FLOAT, _FLOAT))
bfloat16_pair = _arithmetic("cvt.rn.bf16x2.f32 $0, $2, $1;", _WORD, (_FLOAT, _FLOAT))          # (low, high) -> word
float16_pair = _arithmetic("cvt.rn.f16x2.f32 $0, $2, $1;", _WORD, (_FLOAT, _FLOAT))
wide_product = _arithmetic("mul.wide.u32 $0, $1, $2;", ir.IntType(64), (_WORD, _WORD))       # LLVM forgets that both are of 32 bits
_SHUFFLE = ir.InlineAsm(ir.FunctionType(_WORD, (_WORD, _WORD)), "shfl.sync.bfly.b32 $0, $1, $2, 0x1f, 0xffffffff;", "=r,r,r",
                        side_effect=True)


def of_other_lane(builder, word, distance):
    """The word that the lane whose number differs by the bits of `distance` gives; all lanes of the warp have to come here."""
    call = builder.call(_SHUFFLE, (word, distance))
    call.attributes.add("convergent")
    return call


bfloat16_number = _arithmetic("cvt.rn.bf16.f32 $0, $1;", ir.IntType(16), (_FLOAT,))

# --- shared memory --------------------------------------------------------------------------------------------------

def _ldmatrix(count: int, trans: str = ""):
    registers = ",".join(f"${i}" for i in range(count))
    return _instruction(f"ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{registers}}}, [${count}];", (uint32,) * count, (int32,))


ldmatrix_x1, ldmatrix_x2, ldmatrix_x4 = _ldmatrix(1), _ldmatrix(2), _ldmatrix(4)
ldmatrix_x1_trans, ldmatrix_x2_trans, ldmatrix_x4_trans = _ldmatrix(1, ".trans"), _ldmatrix(2, ".trans"), _ldmatrix(4, ".trans")
load_shared_word = _instruction("ld.shared.b32 $0, [$1];", (uint32,), (int32,))
load_shared_float = _instruction("ld.shared.f32 $0, [$1];", (float32,), (int32,))
load_shared_float2 = _instruction("ld.shared.v2.f32 {$0,$1}, [$2];", (float32,) * 2, (int32,))
load_shared_float4 = _instruction("ld.shared.v4.f32 {$0,$1,$2,$3}, [$4];", (float32,) * 4, (int32,))
store_shared_float = _instruction("{\n\t.reg .pred wanted;\n\tsetp.ne.s32 wanted, $2, 0;\n\t@wanted st.shared.f32 [$0], $1;\n\t}",
                                  (), (int32, float32, types.boolean))

# --- from global to shared memory: (shared address, global address, whether the piece exists; otherwise it becomes 0) -----------------

def _copy_async(cache: str, size: int):
    return _instruction(f"{{\n\t.reg .pred absent;\n\tsetp.eq.s32 absent, $2, 0;\n\t"
                        f"cp.async.{cache}.shared.global [$0], [$1], {size}, absent;\n\t}}", (), (int32, types.int64, types.boolean))


copy_async_16, copy_async_8, copy_async_4 = _copy_async("cg", 16), _copy_async("ca", 8), _copy_async("ca", 4)
copy_2 = _instruction(                                       # no asynchronous copy is so small: done when it returns
    "{\n\t.reg .pred exists;\n\t.reg .b16 value;\n\tsetp.ne.s32 exists, $2, 0;\n\tmov.b16 value, 0;\n\t"
    "@exists ld.global.b16 value, [$1];\n\tst.shared.b16 [$0], value;\n\t}", (), (int32, types.int64, types.boolean))
commit_copies = _instruction("cp.async.commit_group;", (), ())
wait_copies_0 = _instruction("cp.async.wait_group 0;", (), ())      # all groups but the youngest 0, 1, 2, 3 have arrived, for this thread
wait_copies_1 = _instruction("cp.async.wait_group 1;", (), ())
wait_copies_2 = _instruction("cp.async.wait_group 2;", (), ())
wait_copies_3 = _instruction("cp.async.wait_group 3;", (), ())

# --- global memory: (address, whether to access it); what is not loaded is 0 ---------------------------------------------------------

def _load(text: str, result, count: int, zero: str):
    names = [f"${i}" for i in range(count)]
    target = names[0] if count == 1 else "{" + ",".join(names) + "}"
    clear = "".join(f"mov.b32 {name}, {zero};\n\t" for name in names)
    return _instruction(
        f"{{\n\t.reg .pred wanted;\n\tsetp.ne.s32 wanted, ${count + 1}, 0;\n\t{clear}@wanted {text} {target}, [${count}];\n\t}}",
        (result,) * count, (types.int64, types.boolean))


def _store(text: str, operand, count: int):
    names = [f"${i}" for i in range(1, count + 1)]
    source = names[0] if count == 1 else "{" + ",".join(names) + "}"
    return _instruction(f"{{\n\t.reg .pred wanted;\n\tsetp.ne.s32 wanted, ${count + 1}, 0;\n\t@wanted {text} [$0], {source};\n\t}}",
                        (), (types.int64,) + (operand,) * count + (types.boolean,))


load_float = _load("ld.global.f32", float32, 1, "0")
load_float2 = _load("ld.global.v2.f32", float32, 2, "0")
load_float4 = _load("ld.global.v4.f32", float32, 4, "0")
load_word = _load("ld.global.b32", uint32, 1, "0")
load_half = _instruction("{\n\t.reg .pred wanted;\n\t.reg .b16 value;\n\tsetp.ne.s32 wanted, $2, 0;\n\tmov.b16 value, 0;\n\t"
                         "@wanted ld.global.b16 value, [$1];\n\tcvt.u32.u16 $0, value;\n\t}", (uint32,), (types.int64, types.boolean))
store_float = _store("st.global.f32", float32, 1)
store_float2 = _store("st.global.v2.f32", float32, 2)
store_float4 = _store("st.global.v4.f32", float32, 4)
store_word = _store("st.global.b32", uint32, 1)
store_half = _instruction(                                   # the lower half of a word
    "{\n\t.reg .pred wanted;\n\t.reg .b16 value;\n\tsetp.ne.s32 wanted, $2, 0;\n\tcvt.u16.u32 value, $1;\n\t"
    "@wanted st.global.b16 [$0], value;\n\t}", (), (types.int64, uint32, types.boolean))


# --- addresses: (address, elements beyond it), one instruction each --------------------------------------------------------------------

advanced_2 = _instruction("mad.wide.s32 $0, $2, 2, $1;", (types.int64,), (types.int64, int32), pure=True)
advanced_4 = _instruction("mad.wide.s32 $0, $2, 4, $1;", (types.int64,), (types.int64, int32), pure=True)


# --- what PTX is not needed for -------------------------------------------------------------------------------------

copy = {16: copy_async_16, 8: copy_async_8, 4: copy_async_4, 2: copy_2}        # by the bytes of a piece
advanced = {2: advanced_2, 4: advanced_4}                                       # by the bytes of an element
wait_copies = (wait_copies_0, wait_copies_1, wait_copies_2, wait_copies_3)      # by how many groups may be on their way


@worker
def select(condition, first, second):
    """first where the condition holds, else second; both are evaluated."""
    return first if condition else second


@worker
def absolute(value):
    """|value| of an int32."""
    return types.int32(value if value >= 0 else -value)


@worker
def inside(index, size):
    """0 <= index < size."""
    return types.uint32(index) < types.uint32(size)
