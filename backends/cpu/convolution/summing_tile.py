"""The register tile that adds to C at its end: sums of many steps, taken block by block, round less than one long chain.

    C[i, j] (+)= sum over k of A[i, k] * B[k, j]

as `tile` of the SIMD vocabulary, but the sum starts at 0 also where it is added to C. With blocks of d steps the rounding
error grows like that of d + (steps / d) additions instead of `steps`, and nothing waits for C at the start.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu.compile import JIT

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.memory import load_value, pointer, store_value
    from numbanet.backends.cpu.simd.tiles import TileGenerator
    from numbanet.backends.cpu.simd.types import I64, f32xL, llvm_type

    @intrinsic(prefer_literal=True)
    def summing_tile(typingctx, MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate):
        """C[:MR, :NV*L] = A @ B, or C + (A @ B) where `accumulate` is not 0."""
        if not (isinstance(MR, types.IntegerLiteral) and isinstance(NV, types.IntegerLiteral)):
            return None
        integer = types.int64
        sig = types.void(MR, NV, a, *[integer] * 3, b, *[integer] * 2, c, *[integer] * 4)

        def codegen(context, builder, sig, args):
            _, _, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate = args
            generator = _SummingGenerator(builder, MR.literal_value, NV.literal_value, None)
            generator.a = pointer(context, builder, sig.args[2], a, a_offset)
            generator.b = pointer(context, builder, sig.args[6], b, b_offset)
            generator.c = pointer(context, builder, sig.args[9], c, c_offset)
            generator.a_row, generator.a_step, generator.b_step, generator.c_row = a_row, a_step, b_step, c_row
            generator.emit(depth, accumulate)
            return context.get_dummy_value()
        return sig, codegen

    class _SummingGenerator(TileGenerator):
        def emit(self, depth: ir.Value, accumulate: ir.Value) -> None:
            builder = self.builder
            zeros = [ir.Constant(llvm_type(f32xL), None)] * (self.rows * self.vectors)
            sums = self._sums(depth, zeros)
            finish = builder.block
            add, write = (builder.function.append_basic_block(f"tile.{name}") for name in ("add", "write"))
            addresses = [self._c_address(i, j) for i in range(self.rows) for j in range(self.vectors)]
            builder.cbranch(builder.icmp_signed("!=", accumulate, I64(0)), add, write)

            builder.position_at_end(add)
            added = [builder.fadd(value, load_value(builder, f32xL, address)) for value, address in zip(sums, addresses)]
            builder.branch(write)

            builder.position_at_end(write)
            for value, address in zip(self._phis((sums, finish), (added, add)), addresses):
                store_value(builder, address, value)
else:
    from numbanet.backends.cpu.simd import L, load, store, tile

    def summing_tile(MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate):
        """The scalar twin."""
        sums = np.empty((MR, NV * L), np.float32)
        tile(MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, sums, 0, NV * L, depth, 0)
        for i in range(MR):
            for j in range(0, NV * L, L):
                at, total = c_offset + i * c_row + j, load(sums, i * NV * L + j)
                store(c, at, load(c, at) + total if accumulate else total)
