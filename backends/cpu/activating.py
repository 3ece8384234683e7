"""Activations that kernels apply to results of theirs while these are still in a cache: y = f(y), a block at a time.

A kernel takes one more argument, the address of f's machine code, and calls it for each block that is complete; 0 means that there is
none. So any of these functions fits every kernel, and no kernel holds, or is compiled anew for, code of one.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.fused import ACTIVATIONS
from numbanet.backends.cpu.compile import JIT, kernel, worker
from numbanet.backends.cpu.pointwise import gelu, gelu_tanh, hardsigmoid, hardswish, mish, silu
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L, load_partial, sigmoid, store_partial, tanh

NONE = 0                        # in place of an address
BLOCK = "void(T[:,:])"          # rows of unit stride


@worker(inline=True)
def _apply(function, y):
    row, columns = y.strides[0] // 4, y.shape[1]
    for i in range(y.shape[0]):
        for j in range(0, columns, L):
            store_partial(y, i * row + j, function(load_partial(y, i * row + j, columns - j)), columns - j)


@kernel(BLOCK)
def sigmoid_block(y):
    _apply(sigmoid, y)


@kernel(BLOCK)
def tanh_block(y):
    _apply(tanh, y)


@kernel(BLOCK)
def silu_block(y):
    _apply(silu, y)


@kernel(BLOCK)
def gelu_block(y):
    _apply(gelu, y)


@kernel(BLOCK)
def gelu_tanh_block(y):
    _apply(gelu_tanh, y)


@kernel(BLOCK)
def hardsigmoid_block(y):
    _apply(hardsigmoid, y)


@kernel(BLOCK)
def hardswish_block(y):
    _apply(hardswish, y)


@kernel(BLOCK)
def mish_block(y):
    _apply(mish, y)


def run(name: str, y: np.ndarray) -> None:
    """y = f(y), of any strides and float dtype."""
    primitive, arguments = ACTIVATIONS[name]
    implements[primitive](y, *arguments, y)


BLOCKS = {"sigmoid": sigmoid_block, "tanh": tanh_block, "silu": silu_block, "gelu": gelu_block, "gelu_tanh": gelu_tanh_block,
          "hardsigmoid": hardsigmoid_block, "hardswish": hardswish_block, "mish": mish_block}

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.memory import pointer
    from numbanet.backends.cpu.simd.types import I64

    def address(name: str) -> int:
        """What kernels take for an activation, of those in `contract/fused.py`."""
        block = BLOCKS[name]
        block.compile("float32")
        return block.machine_code((np.empty((0, 0), np.float32),))[0]

    @intrinsic
    def activate(typingctx, function, y, offset, rows, row, columns):
        """Apply the function at this address, if any, to `rows` times `columns` floats of y from `offset` on; rows are `row` apart."""
        integer = types.int64
        sig = types.void(integer, y, integer, integer, integer, integer)

        def codegen(context, builder, sig, args):
            function, y, offset, rows, row, columns = args
            data = builder.ptrtoint(pointer(context, builder, sig.args[1], y, offset), I64)
            result, error = (builder.ptrtoint(cgutils.alloca_once(builder, I64), I64) for _ in range(2))
            # a compiled function takes an array field by field, here without an owner
            array = [I64(0), I64(0), builder.mul(rows, columns), I64(4), data, rows, columns, builder.mul(row, I64(4)), I64(4)]
            kind = ir.FunctionType(ir.IntType(32), [I64] * (2 + len(array)))
            with builder.if_then(builder.icmp_signed("!=", function, I64(0)), likely=False):
                builder.call(builder.inttoptr(function, kind.as_pointer()), [result, error, *array])
            return context.get_dummy_value()
        return sig, codegen
else:
    def address(name):
        """As with machine code; a number of the table in its place."""
        return 1 + list(BLOCKS).index(name)

    def activate(function, y, offset, rows, row, columns):
        """The scalar twin."""
        if function:
            flat = np.lib.stride_tricks.as_strided(y, (offset + (rows - 1) * row + columns,), (4,))[offset:] if rows and columns else y[:0]
            block = np.lib.stride_tricks.as_strided(flat, (rows, columns), (4 * row, 4))
            list(BLOCKS.values())[function - 1](block)
