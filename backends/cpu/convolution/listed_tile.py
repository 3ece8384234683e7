"""The register tile over listed places: sums of vectors that lie anywhere, each times a number.

    C[i, u, j] (+)= sum over p < count of  g[at + p * pitch + i] * b[base + o[place + p * pitch + i] + u * b_run + j]

for 0 <= i < ROWS, 0 <= u < RUNS and 0 <= j < NV * L, upwards; C[i, u] lies at c[c_offset + i * c_row + u * c_run]. All three are literal.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu.compile import JIT
from numbanet.backends.cpu.simd import L

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.arithmetic import fma_value
    from numbanet.backends.cpu.simd.memory import load_value, pointer, store_value
    from numbanet.backends.cpu.simd.types import I64, f32xL, llvm_type, splat_value

    @intrinsic(prefer_literal=True)
    def listed_tile(typingctx, ROWS, RUNS, NV, g, at, o, place, pitch, count, b, base, b_run, c, c_offset, c_row, c_run, accumulate):
        """C = the sums, or C + the sums where `accumulate` is not 0. o is int32, the other arrays float32."""
        if not all(isinstance(n, types.IntegerLiteral) for n in (ROWS, RUNS, NV)):
            return None
        integer = types.int64
        sig = types.void(ROWS, RUNS, NV, g, integer, o, *[integer] * 3, b, *[integer] * 2, c, *[integer] * 4)
        rows, runs, vectors = ROWS.literal_value, RUNS.literal_value, NV.literal_value
        cells = [(i, u, j) for i in range(rows) for u in range(runs) for j in range(vectors)]

        def codegen(context, builder, sig, args):
            _, _, _, g, at, o, place, pitch, count, b, base, b_run, c, c_offset, c_row, c_run, accumulate = args
            g = pointer(context, builder, sig.args[3], g, at)
            o = pointer(context, builder, sig.args[5], o, place)
            b = pointer(context, builder, sig.args[9], b, base)
            c = pointer(context, builder, sig.args[12], c, c_offset)
            targets = [builder.gep(c, [builder.add(builder.add(builder.mul(c_row, I64(i)), builder.mul(c_run, I64(u))), I64(j * L))])
                       for i, u, j in cells]
            before = builder.block
            reload, start, loop, done = (builder.function.append_basic_block(f"listed.{name}")
                                         for name in ("reload", "start", "loop", "done"))
            builder.cbranch(builder.icmp_signed("!=", accumulate, I64(0)), reload, start)
            builder.position_at_end(reload)
            old = [load_value(builder, f32xL, target) for target in targets]
            builder.branch(start)

            builder.position_at_end(start)
            zero = ir.Constant(llvm_type(f32xL), None)
            begin = [_phi(builder, (zero, before), (value, reload)) for value in old]
            builder.cbranch(builder.icmp_signed(">", count, I64(0)), loop, done)

            builder.position_at_end(loop)
            p = builder.phi(I64)
            p.add_incoming(I64(0), start)
            sums = []
            for value in begin:
                phi = builder.phi(value.type)
                phi.add_incoming(value, start)
                sums.append(phi)
            entry, made = builder.mul(p, pitch), list(sums)
            for i in range(rows):
                index = builder.add(entry, I64(i))
                where = builder.gep(b, [builder.sext(builder.load(builder.gep(o, [index])), I64)])
                number = splat_value(builder, f32xL, builder.load(builder.gep(g, [index])))
                for u in range(runs):
                    run = builder.gep(where, [builder.mul(b_run, I64(u))])
                    for j in range(vectors):
                        k = (i * runs + u) * vectors + j
                        made[k] = fma_value(builder, number, load_value(builder, f32xL, builder.gep(run, [I64(j * L)])), made[k])
            following = builder.add(p, I64(1))
            p.add_incoming(following, loop)
            for phi, value in zip(sums, made):
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, done)

            builder.position_at_end(done)
            final = [_phi(builder, (first, start), (value, loop)) for first, value in zip(begin, made)]
            for target, value in zip(targets, final):
                store_value(builder, target, value)
            return context.get_dummy_value()
        return sig, codegen

    def _phi(builder: ir.IRBuilder, *pairs) -> ir.Value:
        phi = builder.phi(pairs[0][0].type)
        for value, block in pairs:
            phi.add_incoming(value, block)
        return phi
else:
    from numbanet.backends.cpu.simd import fma, load, splat, store

    def listed_tile(ROWS, RUNS, NV, g, at, o, place, pitch, count, b, base, b_run, c, c_offset, c_row, c_run, accumulate):
        """The scalar twin."""
        numbers, places = np.ravel(g), np.ravel(o)
        for i in range(ROWS):
            for u in range(RUNS):
                for j in range(0, NV * L, L):
                    target = c_offset + i * c_row + u * c_run + j
                    total = load(c, target) if accumulate else splat(0)
                    for p in range(count):
                        entry = p * pitch + i
                        total = fma(splat(numbers[at + entry]), load(b, base + int(places[place + entry]) + u * b_run + j), total)
                    store(c, target, total)
