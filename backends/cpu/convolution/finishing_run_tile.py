"""The register tile over runs of steps, as in `run_tile.py`, with what begins and ends a sum, as in `finishing_tile.py`."""

from __future__ import annotations

from numbanet.backends.cpu.compile import JIT
from numbanet.backends.cpu.convolution.finishing_tile import ACCUMULATE, finishing_tile

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.convolution.finishing_tile import _FinishingGenerator
    from numbanet.backends.cpu.simd.memory import first_lanes, pointer
    from numbanet.backends.cpu.simd.types import I64

    @intrinsic(prefer_literal=True)
    def finishing_run_tile(typingctx, MR, NV, a, a_offset, a_row, a_run, b, b_offset, b_step, b_run, c, c_offset, c_row, runs, depth, bias,
                           bias_offset, residual, residual_offset, residual_row, low, high, steps, last_lanes):
        """As `finishing_tile`, for at least one run of `depth` steps; the next is `a_run` further in A and `b_run` in B."""
        if not (isinstance(MR, types.IntegerLiteral) and isinstance(NV, types.IntegerLiteral)):
            return None
        is_partial = not (isinstance(last_lanes, types.IntegerLiteral) and last_lanes.literal_value == 0)
        integer, number = types.int64, types.float32
        sig = types.void(MR, NV, a, *[integer] * 3, b, *[integer] * 3, c, *[integer] * 4, bias, integer, residual,
                         *[integer] * 2, number, number, integer, integer if is_partial else last_lanes)

        def codegen(context, builder, sig, args):
            (_, _, a, a_offset, a_row, a_run, b, b_offset, b_step, b_run, c, c_offset, c_row, runs, depth, bias, bias_offset, residual,
             residual_offset, residual_row, low, high, steps, last_lanes) = args
            mask = first_lanes(builder, last_lanes) if is_partial else None
            generator = _FinishingRunGenerator(builder, MR.literal_value, NV.literal_value, mask)
            generator.a = pointer(context, builder, sig.args[2], a, a_offset)
            generator.b = pointer(context, builder, sig.args[6], b, b_offset)
            generator.c = pointer(context, builder, sig.args[10], c, c_offset)
            generator.bias = pointer(context, builder, sig.args[15], bias, bias_offset)
            generator.residual = pointer(context, builder, sig.args[17], residual, residual_offset)
            generator.a_row, generator.a_step, generator.b_step, generator.c_row = a_row, I64(1), b_step, c_row
            generator.residual_row, generator.low, generator.high, generator.wanted = residual_row, low, high, steps
            generator.runs, generator.a_run, generator.b_run = runs, a_run, b_run
            generator.emit_finished(depth)
            return context.get_dummy_value()
        return sig, codegen

    class _FinishingRunGenerator(_FinishingGenerator):
        """Emits one tile. The state of the loop over runs is (u, address in A, address in B, accumulators)."""

        def _sums(self, depth: ir.Value, begin: list):
            builder = self.builder
            before = builder.block
            run, done = (builder.function.append_basic_block(f"tile.{name}") for name in ("run", "done"))
            builder.branch(run)

            builder.position_at_end(run)
            outer = self._phis(([I64(0), self.a, self.b, *begin], before))
            sums = super()._sums(depth, outer[3:], *outer[1:3])
            end = builder.block
            following = [builder.add(outer[0], I64(1)), builder.gep(outer[1], [self.a_run]), builder.gep(outer[2], [self.b_run]), *sums]
            for phi, value in zip(outer, following):
                phi.add_incoming(value, end)
            builder.cbranch(builder.icmp_signed("<", following[0], self.runs), run, done)
            builder.position_at_end(done)
            return sums
else:
    def finishing_run_tile(MR, NV, a, a_offset, a_row, a_run, b, b_offset, b_step, b_run, c, c_offset, c_row, runs, depth, bias,
                           bias_offset, residual, residual_offset, residual_row, low, high, steps, last_lanes):
        """The scalar twin."""
        for u in range(runs):
            here = (steps & ACCUMULATE if u == 0 else ACCUMULATE) | (steps & ~ACCUMULATE if u == runs - 1 else 0)
            finishing_tile(MR, NV, a, a_offset + u * a_run, a_row, b, b_offset + u * b_run, b_step, c, c_offset, c_row, depth, bias,
                           bias_offset, residual, residual_offset, residual_row, low, high, here, last_lanes, 0)
