"""The register tile with what begins and ends a sum: a bias or the sums of an earlier pass, a residual, and limits.

    C[i, j] = limited(start[i, j] + sum over k of A[i, k] * B[k, j] + residual[i, j])

`steps` says which of them there are: ACCUMULATE starts from C, otherwise from bias[bias_offset + j]; RESIDUAL adds
residual[residual_offset + i * residual_row + j], and LIMITS limits to [low, high], a NaN staying NaN. All of it happens in
registers, so that an epilogue costs no pass over C. Otherwise as `tile_partial` of the SIMD vocabulary.
"""

from __future__ import annotations

from numbanet.backends.cpu.compile import JIT
from numbanet.backends.cpu.simd import L

ACCUMULATE, RESIDUAL, LIMITS = 1, 2, 4
AHEAD = 4       # tiles that together ask for a whole strip of B: as many as the loop has steps in a turn, of which each asks for one


if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.memory import first_lanes, pointer
    from numbanet.backends.cpu.simd.prefetch import prefetch_value
    from numbanet.backends.cpu.simd.tiles import UNROLL, TileGenerator
    from numbanet.backends.cpu.simd.types import I64, f32xL, splat_value

    assert AHEAD == UNROLL

    @intrinsic(prefer_literal=True)
    def finishing_tile(typingctx, MR, NV, a, a_offset, a_row, b, b_offset, b_step, c, c_offset, c_row, depth, bias,
                       bias_offset, residual, residual_offset, residual_row, low, high, steps, last_lanes, ahead):
        """C[:MR, :(NV - 1) * L + last_lanes]; a literal 0 as `last_lanes` stands for all L, without masks."""
        if not (isinstance(MR, types.IntegerLiteral) and isinstance(NV, types.IntegerLiteral)):
            return None
        is_partial = not (isinstance(last_lanes, types.IntegerLiteral) and last_lanes.literal_value == 0)
        integer, number = types.int64, types.float32
        sig = types.void(MR, NV, a, *[integer] * 2, b, *[integer] * 2, c, *[integer] * 3, bias, integer, residual,
                         *[integer] * 2, number, number, integer, integer if is_partial else last_lanes, integer)

        def codegen(context, builder, sig, args):
            (_, _, a, a_offset, a_row, b, b_offset, b_step, c, c_offset, c_row, depth, bias, bias_offset, residual,
             residual_offset, residual_row, low, high, steps, last_lanes, ahead) = args
            mask = first_lanes(builder, last_lanes) if is_partial else None
            generator = _FinishingGenerator(builder, MR.literal_value, NV.literal_value, mask)
            generator.a = pointer(context, builder, sig.args[2], a, a_offset)
            generator.b = pointer(context, builder, sig.args[5], b, b_offset)
            generator.c = pointer(context, builder, sig.args[8], c, c_offset)
            generator.bias = pointer(context, builder, sig.args[12], bias, bias_offset)
            generator.residual = pointer(context, builder, sig.args[14], residual, residual_offset)
            generator.a_row, generator.a_step, generator.b_step, generator.c_row = a_row, I64(1), b_step, c_row
            generator.residual_row, generator.low, generator.high, generator.wanted = residual_row, low, high, steps
            generator.ahead = ahead
            generator.emit_finished(depth)
            return context.get_dummy_value()
        return sig, codegen

    class _FinishingGenerator(TileGenerator):
        """Emits one tile; the sums pass through one block a step."""

        def emit_finished(self, depth: ir.Value):
            builder = self.builder
            reload, shift, start = (builder.function.append_basic_block(f"tile.{name}") for name in ("reload", "shift", "start"))
            self._prefetch()
            builder.cbranch(self._wants(ACCUMULATE), reload, shift)

            builder.position_at_end(reload)
            old = [self._load(self._c_address(i, j), j) for i, j in self._positions()]
            builder.branch(start)

            builder.position_at_end(shift)
            row = [self._load(builder.gep(self.bias, [I64(j * L)]), j) for j in range(self.vectors)]
            builder.branch(start)

            builder.position_at_end(start)
            sums = self._sums(depth, self._phis((old, reload), ([row[j] for _, j in self._positions()], shift)))
            sums = self._step(RESIDUAL, sums, self._with_residual)
            sums = self._step(LIMITS, sums, self._limited)
            for (i, j), value in zip(self._positions(), sums):
                self._store(self._c_address(i, j), value, j)

        def _prefetch(self):
            """Rows of C and of the residual, which are needed when the sums are complete."""
            builder = self.builder
            for i in range(self.rows):
                for line in range(0, self.vectors * L, 16):
                    at = builder.add(builder.mul(self.c_row, I64(i)), I64(line))
                    prefetch_value(builder, builder.gep(self.c, [at]), for_writing=True)
            inside, after = (builder.function.append_basic_block(f"tile.{name}") for name in ("fetch", "fetched"))
            builder.cbranch(self._wants(RESIDUAL), inside, after)
            builder.position_at_end(inside)
            for i in range(self.rows):
                for line in range(0, self.vectors * L, 16):
                    at = builder.add(builder.mul(self.residual_row, I64(i)), I64(line))
                    prefetch_value(builder, builder.gep(self.residual, [at]))
            builder.branch(after)
            builder.position_at_end(after)

        def _positions(self):
            return [(i, j) for i in range(self.rows) for j in range(self.vectors)]

        def _wants(self, step: int) -> ir.Value:
            return self.builder.icmp_signed("!=", self.builder.and_(self.wanted, I64(step)), I64(0))

        def _step(self, step, sums, change):
            """The sums after a step, where it is wanted."""
            before = self.builder.block
            inside, after = (self.builder.function.append_basic_block(f"tile.{name}") for name in ("step", "after"))
            self.builder.cbranch(self._wants(step), inside, after)
            self.builder.position_at_end(inside)
            changed = change(sums)
            self.builder.branch(after)
            self.builder.position_at_end(after)
            return self._phis((sums, before), (changed, inside))

        def _with_residual(self, sums):
            builder = self.builder
            changed = []
            for (i, j), value in zip(self._positions(), sums):
                at = builder.add(builder.mul(self.residual_row, I64(i)), I64(L * j))
                changed.append(builder.fadd(value, self._load(builder.gep(self.residual, [at]), j)))
            return changed

        def _limited(self, sums):
            builder = self.builder
            low, high = splat_value(builder, f32xL, self.low), splat_value(builder, f32xL, self.high)
            raised = [builder.select(builder.fcmp_ordered("<", value, low), low, value) for value in sums]
            return [builder.select(builder.fcmp_ordered(">", value, high), high, value) for value in raised]
else:
    from numbanet.backends.cpu.limits import limited
    from numbanet.backends.cpu.simd import load_partial, store_partial, tile_partial

    def finishing_tile(MR, NV, a, a_offset, a_row, b, b_offset, b_step, c, c_offset, c_row, depth, bias, bias_offset,
                       residual, residual_offset, residual_row, low, high, steps, last_lanes, ahead):
        """The scalar twin."""
        last = last_lanes or L
        for i in range(MR):
            for j in range(NV):
                at, count = c_offset + i * c_row + j * L, L if j < NV - 1 else last
                if not steps & ACCUMULATE:
                    store_partial(c, at, load_partial(bias, bias_offset + j * L, count), count)
        tile_partial(MR, NV, a, a_offset, a_row, 1, b, b_offset, b_step, c, c_offset, c_row, depth, 1, last)
        for i in range(MR):
            for j in range(NV):
                at, count = c_offset + i * c_row + j * L, L if j < NV - 1 else last
                value = load_partial(c, at, count)
                if steps & RESIDUAL:
                    value = value + load_partial(residual, residual_offset + i * residual_row + j * L, count)
                store_partial(c, at, limited(value, low, high) if steps & LIMITS else value, count)
