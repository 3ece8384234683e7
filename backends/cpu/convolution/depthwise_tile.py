"""Two register tiles of depthwise convolution, over lines of L channels.

A line is a row of the map, L channels of each pixel, zeros where the padding is; its offset in `x` is in a table, and so is
that of each tap in a line. Neighbouring windows lie L floats apart whatever the stride is (see `depthwise.py`), as operands
in memory are fast at constant distances only: twice as fast as at an index (Zen 4). Letters: `walk.py`. The sums stay in
registers over all taps, each vector of weights serving all pixels of the tile.
"""

from __future__ import annotations

from numbanet.backends.cpu.compile import JIT

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.convolution.prefetch import prefetch_value
    from numbanet.backends.cpu.simd.arithmetic import fma_value
    from numbanet.backends.cpu.simd.memory import first_lanes, load_masked, load_value, pointer, store_value
    from numbanet.backends.cpu.simd.types import I64, L, f32xL, splat_value

    integer, number = types.int64, types.float32

    def _literals(*values) -> bool:
        return all(isinstance(value, types.IntegerLiteral) for value in values)

    def _loop(builder: ir.IRBuilder, name: str, state: list[ir.Value], count: ir.Value, body) -> list[ir.Value]:
        """state = body(i, *state) for 0 <= i < count, once at least."""
        before, block, after = builder.block, *(builder.function.append_basic_block(f"depthwise.{part}") for part in (name, "after"))
        builder.branch(block)
        builder.position_at_end(block)
        phis = [builder.phi(value.type) for value in (I64(0), *state)]
        for phi, value in zip(phis, (I64(0), *state)):
            phi.add_incoming(value, before)
        following = [builder.add(phis[0], I64(1)), *body(*phis)]
        for phi, value in zip(phis, following):
            phi.add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed("<", following[0], count), block, after)
        builder.position_at_end(after)
        return following[1:]

    def _opaque(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        """The value, of unknown origin to LLVM, which would address everything by one index otherwise."""
        return builder.asm(ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], False)

    def _element(builder: ir.IRBuilder, array: ir.Value, index: ir.Value) -> ir.Value:
        return builder.load(builder.gep(array, [index]))

    @intrinsic(prefer_literal=True)
    def forward_tile(typingctx, ROWS, COLUMNS, x, start, table, first, taps, stride_h, dilation_h, weight, w, R, S,
                     y, at, y_h, y_w, residual, added, r_h, r_w, low, high):
        """y[i, j] = limited(bias + residual[i, j]
                    + sum over r, s of weight[r, s] * x[start + table[first + i * stride_h + r * dilation_h] + table[taps + s] + j * L])

        for i < ROWS, j < COLUMNS, whole vectors; weight[w:] is (R * S + 1, L), the last row the bias. An empty residual adds
        nothing.
        """
        if not _literals(ROWS, COLUMNS):
            return None
        sig = types.void(ROWS, COLUMNS, x, integer, table, *[integer] * 4, weight, *[integer] * 3, y, *[integer] * 3, residual,
                         *[integer] * 3, number, number)
        rows, columns = ROWS.literal_value, COLUMNS.literal_value

        def codegen(context, builder, sig, args):
            (_, _, x, start, table, first, taps, stride_h, dilation_h, weight, w, R, S, y, at, y_h, y_w, residual, added,
             r_h, r_w, low, high) = args
            x = pointer(context, builder, sig.args[2], x, start)
            lines = pointer(context, builder, sig.args[4], table, first)
            taps = pointer(context, builder, sig.args[4], table, taps)
            weight = pointer(context, builder, sig.args[9], weight, w)
            size = context.make_array(sig.args[17])(context, builder, residual).nitems
            residual = pointer(context, builder, sig.args[17], residual, added)
            y = pointer(context, builder, sig.args[13], y, at)
            positions = [(i, j) for i in range(rows) for j in range(columns)]

            targets = [builder.gep(y, [builder.add(builder.mul(y_h, I64(i)), builder.mul(y_w, I64(j)))]) for i, j in positions]
            for target in targets:
                prefetch_value(builder, target, for_writing=True)

            def row_of_taps(r, weights, *sums):
                starts = [builder.gep(x, [_element(builder, lines, builder.add(builder.mul(r, dilation_h),
                                                                               builder.mul(stride_h, I64(i))))])
                          for i in range(rows)]

                def tap(s, weights, *sums):
                    factor, offset = load_value(builder, f32xL, weights), _element(builder, taps, s)
                    places = [_opaque(builder, builder.gep(start, [offset])) for start in starts]
                    sums = [fma_value(builder, load_value(builder, f32xL, builder.gep(places[i], [I64(L * j)])), factor, total)
                            for (i, j), total in zip(positions, sums)]
                    return [builder.gep(weights, [I64(L)]), *sums]
                return _loop(builder, "tap", [weights, *sums], S, tap)

            bias = load_value(builder, f32xL, builder.gep(weight, [builder.mul(builder.mul(R, S), I64(L))]))
            sums = _loop(builder, "row", [weight, *[bias] * len(positions)], R, row_of_taps)[1:]
            before = builder.block
            inside, after = (builder.function.append_basic_block(f"depthwise.{name}") for name in ("residual", "limits"))
            builder.cbranch(builder.icmp_signed(">", size, I64(0)), inside, after)
            builder.position_at_end(inside)
            raised = [builder.fadd(total, load_value(builder, f32xL, builder.gep(residual, [builder.add(
                builder.mul(r_h, I64(i)), builder.mul(r_w, I64(j)))]))) for (i, j), total in zip(positions, sums)]
            builder.branch(after)
            builder.position_at_end(after)
            for (i, j), total, other in zip(positions, sums, raised):
                value = builder.phi(total.type)
                value.add_incoming(total, before)
                value.add_incoming(other, inside)
                sums[i * columns + j] = value
            low, high = splat_value(builder, f32xL, low), splat_value(builder, f32xL, high)
            for target, value in zip(targets, sums):
                value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
                value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
                store_value(builder, target, value)
            return context.get_dummy_value()
        return sig, codegen

    @intrinsic(prefer_literal=True)
    def gradient_tile(typingctx, ROWS, COLUMNS, x, table, first, taps, dilation_h, grad_y, g, g_w, lanes, count, sums, at, row):
        """sums[i, j] += sum over ow < count of grad_y[ow] * x[table[first + i * dilation_h] + table[taps + j] + ow * L]

        for ROWS x COLUMNS taps, vectors of L at sums[at + i * row + j * L]. Of grad_y[g + ow * g_w:] only `lanes` lanes are read.
        """
        if not _literals(ROWS, COLUMNS):
            return None
        sig = types.void(ROWS, COLUMNS, x, table, *[integer] * 3, grad_y, *[integer] * 4, sums, integer, integer)
        rows, columns = ROWS.literal_value, COLUMNS.literal_value

        def codegen(context, builder, sig, args):
            _, _, x, table, first, taps, dilation_h, grad_y, g, g_w, lanes, count, sums, at, row = args
            x = pointer(context, builder, sig.args[2], x, I64(0))
            lines = pointer(context, builder, sig.args[3], table, first)
            taps = pointer(context, builder, sig.args[3], table, taps)
            grad_y = pointer(context, builder, sig.args[7], grad_y, g)
            sums = pointer(context, builder, sig.args[12], sums, at)
            mask = first_lanes(builder, lanes)
            positions = [(i, j) for i in range(rows) for j in range(columns)]
            starts = [builder.gep(x, [builder.add(_element(builder, lines, builder.mul(dilation_h, I64(i))),
                                                  _element(builder, taps, I64(j)))]) for i, j in positions]
            places = [builder.gep(sums, [builder.add(builder.mul(row, I64(i)), I64(L * j))]) for i, j in positions]

            def pixel(_ow, gradients, *state):
                gradient = load_masked(builder, f32xL, gradients, mask)
                pointers = [_opaque(builder, value) for value in state[:len(positions)]]
                totals = [fma_value(builder, load_value(builder, f32xL, start), gradient, total)
                          for start, total in zip(pointers, state[len(positions):])]
                return [builder.gep(gradients, [g_w]), *[builder.gep(start, [I64(L)]) for start in pointers], *totals]

            totals = [load_value(builder, f32xL, place) for place in places]
            totals = _loop(builder, "pixel", [grad_y, *starts, *totals], count, pixel)[1 + len(positions):]
            for place, total in zip(places, totals):
                store_value(builder, place, total)
            return context.get_dummy_value()
        return sig, codegen
else:
    from numbanet.backends.cpu.limits import limited
    from numbanet.backends.cpu.simd import L, fma, load, load_partial, store

    def forward_tile(ROWS, COLUMNS, x, start, table, first, taps, stride_h, dilation_h, weight, w, R, S,
                     y, at, y_h, y_w, residual, added, r_h, r_w, low, high):
        """The scalar twin."""
        for i in range(ROWS):
            for j in range(COLUMNS):
                total = load(weight, w + R * S * L)
                for r in range(R):
                    line = start + table[first + i * stride_h + r * dilation_h] + j * L
                    for s in range(S):
                        total = fma(load(x, line + table[taps + s]), load(weight, w + (r * S + s) * L), total)
                if residual.size:
                    total = total + load(residual, added + i * r_h + j * r_w)
                store(y, at + i * y_h + j * y_w, limited(total, low, high))

    def gradient_tile(ROWS, COLUMNS, x, table, first, taps, dilation_h, grad_y, g, g_w, lanes, count, sums, at, row):
        """The scalar twin."""
        for i in range(ROWS):
            for j in range(COLUMNS):
                place = at + i * row + j * L
                for ow in range(count):
                    value = load(x, table[first + i * dilation_h] + table[taps + j] + ow * L)
                    store(sums, place, fma(value, load_partial(grad_y, g + ow * g_w, lanes), load(sums, place)))
