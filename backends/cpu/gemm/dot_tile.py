"""The register tile of dot products: rows of A by rows of W, both along memory.

    C[i, j] (+)= sum_k A[i, k] * W[j, k]        0 <= i < MR,  0 <= j < NW,  0 <= k < depth

    A[i, k] = a[a_offset + i * a_row + k],   W[j, k] = w[w_offset + j * w_row + k],   C[i, j] = c[c_offset + i * c_row + j]

MR * NW vectors are summed over all of `depth` in registers, lane by lane, and each is added up in the end; so the bits do not depend on
MR and NW, which are literal. W is float32, or bfloat16 as uint16.
"""

from __future__ import annotations

from numbanet.backends.cpu.compile import JIT

AHEAD = 256             # numbers of W: what is asked for ahead of the products, since a row's next page is what no prefetcher foresees

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.arithmetic import fma_value, sum_of_lanes
    from numbanet.backends.cpu.simd.memory import first_lanes, load_float_lanes, pointer
    from numbanet.backends.cpu.simd.prefetch import prefetch_value
    from numbanet.backends.cpu.simd.types import I64, L, f32xL, llvm_type, merged_values

    @intrinsic(prefer_literal=True)
    def dot_tile(typingctx, MR, NW, a, a_offset, a_row, w, w_offset, w_row, c, c_offset, c_row, depth, accumulate):
        """C[:MR, :NW] = A @ W^T, or += where `accumulate` is not 0."""
        if not (isinstance(MR, types.IntegerLiteral) and isinstance(NW, types.IntegerLiteral)):
            return None
        integer = types.int64
        sig = types.void(MR, NW, a, integer, integer, w, integer, integer, c, *[integer] * 4)

        def codegen(context, builder, sig, args):
            _, _, a, a_offset, a_row, w, w_offset, w_row, c, c_offset, c_row, depth, accumulate = args
            arrays = [pointer(context, builder, sig.args[at], array, offset) for at, array, offset in (
                (2, a, a_offset), (5, w, w_offset), (8, c, c_offset))]
            _emit(builder, MR.literal_value, NW.literal_value, *arrays, a_row, w_row, c_row, depth, accumulate)
            return context.get_dummy_value()
        return sig, codegen

    def _emit(builder, rows, columns, a, w, c, a_row, w_row, c_row, depth, accumulate):
        a_rows = [builder.gep(a, [builder.mul(a_row, I64(i))]) for i in range(rows)]
        w_rows = [builder.gep(w, [builder.mul(w_row, I64(j))]) for j in range(columns)]

        def step(k, sums, mask):
            """The sums with L more products each, or with those under the mask."""
            x = [load_float_lanes(builder, builder.gep(row, [k]), mask) for row in a_rows]
            result = []
            if mask is None:
                for row in w_rows:
                    prefetch_value(builder, builder.gep(row, [builder.add(k, I64(AHEAD))]))
            for j, row in enumerate(w_rows):
                v = load_float_lanes(builder, builder.gep(row, [k]), mask)
                result.append([fma_value(builder, x[i], v, sums[i * columns + j]) for i in range(rows)])
            return [result[j][i] for i in range(rows) for j in range(columns)]

        before, (loop, check, tail, done) = builder.block, [builder.function.append_basic_block(f"dots.{name}") for name in (
            "loop", "check", "tail", "done")]
        zeros = [ir.Constant(llvm_type(f32xL), None)] * (rows * columns)
        whole = builder.and_(depth, I64(-L))
        builder.cbranch(builder.icmp_signed(">", whole, I64(0)), loop, check)

        builder.position_at_end(loop)
        k = builder.phi(I64)
        sums = [builder.phi(llvm_type(f32xL)) for _ in zeros]
        following = builder.add(k, I64(L))
        more = step(k, sums, None)
        for phi, entry, value in zip((k, *sums), (I64(0), *zeros), (following, *more)):
            phi.add_incoming(entry, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, whole), loop, check)

        builder.position_at_end(check)
        sums = merged_values(builder, (zeros, before), (more, loop))
        builder.cbranch(builder.icmp_signed("<", whole, depth), tail, done)

        builder.position_at_end(tail)
        rest = step(whole, sums, first_lanes(builder, builder.sub(depth, whole)))
        builder.branch(done)

        builder.position_at_end(done)
        sums = merged_values(builder, (sums, check), (rest, tail))
        adds = builder.icmp_signed("!=", accumulate, I64(0))
        for i in range(rows):
            for j in range(columns):
                at = builder.gep(c, [builder.add(builder.mul(c_row, I64(i)), I64(j))])
                total = sum_of_lanes(builder, sums[i * columns + j])
                with builder.if_else(adds) as (then, otherwise):
                    with then:
                        builder.store(builder.fadd(total, builder.load(at)), at)
                    with otherwise:
                        builder.store(total, at)
else:
    from numbanet.backends.cpu.simd import L, fma, load_partial, reduce_add, splat, store_partial

    def dot_tile(MR, NW, a, a_offset, a_row, w, w_offset, w_row, c, c_offset, c_row, depth, accumulate):
        """The scalar twin."""
        for i in range(MR):
            for j in range(NW):
                total = splat(0.0)
                for k in range(0, depth, L):
                    x, v = load_partial(a, a_offset + i * a_row + k, depth - k), load_partial(w, w_offset + j * w_row + k, depth - k)
                    total = fma(x, v, total)
                at = c_offset + i * c_row + j
                result = reduce_add(total) + (load_partial(c, at, 1)[0] if accumulate else 0)
                store_partial(c, at, splat(result), 1)
