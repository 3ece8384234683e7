"""The register tile over runs of steps: a matrix product whose operands lie in several pieces, such as rows of an image.

    C[i, j] (+)= sum over u, k of  a[a_offset + i * a_row + u * a_run + k * a_step] * b[b_offset + u * b_run + k * b_step + j]

for 0 <= u < runs and 0 <= k < depth, upwards; otherwise as `tile_partial` of the SIMD vocabulary. A window of an image
is R runs of S * C neighbouring numbers, so that the whole window is summed in registers and nothing is gathered.
"""

from __future__ import annotations

from numbanet.backends.cpu.compile import JIT

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.memory import first_lanes, pointer
    from numbanet.backends.cpu.simd.tiles import TileGenerator
    from numbanet.backends.cpu.simd.types import I64, f32xL, llvm_type

    @intrinsic(prefer_literal=True)
    def run_tile(typingctx, MR, NV, a, a_offset, a_row, a_step, a_run, b, b_offset, b_step, b_run, c, c_offset, c_row,
                 runs, depth, accumulate, last_lanes):
        """C[:MR, :(NV - 1) * L + last_lanes] = A @ B, or += where `accumulate` is not 0."""
        if not (isinstance(MR, types.IntegerLiteral) and isinstance(NV, types.IntegerLiteral)):
            return None
        integer = types.int64
        sig = types.void(MR, NV, a, *[integer] * 4, b, *[integer] * 3, c, *[integer] * 6)

        def codegen(context, builder, sig, args):
            (_, _, a, a_offset, a_row, a_step, a_run, b, b_offset, b_step, b_run, c, c_offset, c_row, runs, depth,
             accumulate, last_lanes) = args
            generator = _RunGenerator(builder, MR.literal_value, NV.literal_value, first_lanes(builder, last_lanes))
            generator.a = pointer(context, builder, sig.args[2], a, a_offset)
            generator.b = pointer(context, builder, sig.args[7], b, b_offset)
            generator.c = pointer(context, builder, sig.args[11], c, c_offset)
            generator.a_row, generator.a_step, generator.b_step, generator.c_row = a_row, a_step, b_step, c_row
            generator.emit_runs(runs, a_run, b_run, depth, accumulate)
            return context.get_dummy_value()
        return sig, codegen

    class _RunGenerator(TileGenerator):
        """Emits one tile. The state of the loop over runs is (u, address in A, address in B, accumulators)."""

        def emit_runs(self, runs: ir.Value, a_run: ir.Value, b_run: ir.Value, depth: ir.Value, accumulate: ir.Value):
            builder = self.builder
            before = builder.block
            reload, start, run, done = (builder.function.append_basic_block(f"tile.{name}") for name in ("reload", "start", "run", "done"))
            builder.cbranch(builder.icmp_signed("!=", accumulate, I64(0)), reload, start)

            builder.position_at_end(reload)
            old = [self._load(self._c_address(i, j), j) for i in range(self.rows) for j in range(self.vectors)]
            builder.branch(start)

            builder.position_at_end(start)
            zeros = [ir.Constant(llvm_type(f32xL), None)] * len(old)
            first = [I64(0), self.a, self.b, *self._phis((zeros, before), (old, reload))]
            builder.cbranch(builder.icmp_signed(">", runs, I64(0)), run, done)

            builder.position_at_end(run)
            outer = self._phis((first, start))
            sums = self._sums(depth, outer[3:], *outer[1:3])
            end = builder.block
            following = [builder.add(outer[0], I64(1)), builder.gep(outer[1], [a_run]), builder.gep(outer[2], [b_run]), *sums]
            for phi, value in zip(outer, following):
                phi.add_incoming(value, end)
            builder.cbranch(builder.icmp_signed("<", following[0], runs), run, done)

            builder.position_at_end(done)
            final = self._phis((first, start), (following, end))[3:]
            for i in range(self.rows):
                for j in range(self.vectors):
                    self._store(self._c_address(i, j), final[i * self.vectors + j], j)
else:
    from numbanet.backends.cpu.simd import tile_partial

    def run_tile(MR, NV, a, a_offset, a_row, a_step, a_run, b, b_offset, b_step, b_run, c, c_offset, c_row, runs, depth,
                 accumulate, last_lanes):
        """The scalar twin."""
        tile_partial(MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, 0, accumulate, last_lanes)
        for u in range(runs):
            tile_partial(MR, NV, a, a_offset + u * a_run, a_row, a_step, b, b_offset + u * b_run, b_step, c, c_offset,
                         c_row, depth, 1, last_lanes)
