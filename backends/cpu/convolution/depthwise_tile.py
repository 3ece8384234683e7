"""Two register tiles of depthwise convolution, over lines of L channels.

A line is a row of the map, L channels of each pixel, zeros where the padding is; `lines[first + h]` is its offset in `x`.
Letters: `walk.py`. The sums stay in registers over all taps, each vector of weights serving all pixels of the tile.
"""

from __future__ import annotations

from numbanet.backends.cpu.compile import JIT

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

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

    def _element(builder: ir.IRBuilder, array: ir.Value, index: ir.Value) -> ir.Value:
        return builder.load(builder.gep(array, [index]))

    @intrinsic(prefer_literal=True)
    def forward_tile(typingctx, ROWS, COLUMNS, x, lines, first, stride_h, stride, dilation_h, dilation, weight, w, R, S,
                     y, at, y_h, y_w, residual, added, r_h, r_w, low, high):
        """y[i, j] = limited(bias + sum over r, s of weight[r, s] * line[i * stride_h + r * dilation_h][j * stride + s * dilation]
        + residual[i, j]) for i < ROWS, j < COLUMNS, whole vectors; weight[w:] is (R * S + 1, L), the last row the bias.

        `stride` and `dilation` along a line count floats; an empty residual adds nothing.
        """
        if not _literals(ROWS, COLUMNS):
            return None
        sig = types.void(ROWS, COLUMNS, x, lines, *[integer] * 5, weight, *[integer] * 3, y, *[integer] * 3, residual,
                         *[integer] * 3, number, number)
        rows, columns = ROWS.literal_value, COLUMNS.literal_value

        def codegen(context, builder, sig, args):
            (_, _, x, lines, first, stride_h, stride, dilation_h, dilation, weight, w, R, S, y, at, y_h, y_w, residual, added,
             r_h, r_w, low, high) = args
            x = pointer(context, builder, sig.args[2], x, I64(0))
            lines = pointer(context, builder, sig.args[3], lines, first)
            weight = pointer(context, builder, sig.args[9], weight, w)
            size = context.make_array(sig.args[17])(context, builder, residual).nitems
            residual = pointer(context, builder, sig.args[17], residual, added)
            y = pointer(context, builder, sig.args[13], y, at)
            positions = [(i, j) for i in range(rows) for j in range(columns)]

            def row_of_taps(r, weights, *sums):
                starts = [builder.gep(x, [_element(builder, lines, builder.add(builder.mul(r, dilation_h),
                                                                               builder.mul(stride_h, I64(i))))])
                          for i in range(rows)]

                def tap(s, offset, weights, *sums):
                    factor = load_value(builder, f32xL, weights)
                    offsets = [builder.add(offset, builder.mul(stride, I64(j))) for j in range(columns)]
                    sums = [fma_value(builder, load_value(builder, f32xL, builder.gep(starts[i], [offsets[j]])), factor, total)
                            for (i, j), total in zip(positions, sums)]
                    return [builder.add(offset, dilation), builder.gep(weights, [I64(L)]), *sums]
                return _loop(builder, "tap", [I64(0), weights, *sums], S, tap)[1:]

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
            for (i, j), value in zip(positions, sums):
                value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
                value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
                target = builder.gep(y, [builder.add(builder.mul(y_h, I64(i)), builder.mul(y_w, I64(j)))])
                store_value(builder, target, value)
            return context.get_dummy_value()
        return sig, codegen

    @intrinsic(prefer_literal=True)
    def gradient_tile(typingctx, ROWS, COLUMNS, x, lines, first, stride, dilation_h, dilation, grad_y, g, g_w, lanes, count,
                      sums, at, row):
        """sums[i, j] += sum over ow < count of grad_y[ow] * line[i * dilation_h][ow * stride + j * dilation], for ROWS x COLUMNS
        taps, vectors of L in sums[at + i * row + j * L:]. Of grad_y[g + ow * g_w:] only `lanes` lanes are read."""
        if not _literals(ROWS, COLUMNS):
            return None
        sig = types.void(ROWS, COLUMNS, x, lines, *[integer] * 4, grad_y, *[integer] * 4, sums, integer, integer)
        rows, columns = ROWS.literal_value, COLUMNS.literal_value

        def codegen(context, builder, sig, args):
            _, _, x, lines, first, stride, dilation_h, dilation, grad_y, g, g_w, lanes, count, sums, at, row = args
            x = pointer(context, builder, sig.args[2], x, I64(0))
            lines = pointer(context, builder, sig.args[3], lines, first)
            grad_y = pointer(context, builder, sig.args[8], grad_y, g)
            sums = pointer(context, builder, sig.args[13], sums, at)
            mask = first_lanes(builder, lanes)
            starts = [builder.gep(x, [_element(builder, lines, builder.mul(dilation_h, I64(i)))]) for i in range(rows)]
            places = [builder.gep(sums, [builder.add(builder.mul(row, I64(i)), I64(L * j))])
                      for i in range(rows) for j in range(columns)]

            def pixel(_ow, offset, gradients, *totals):
                gradient = load_masked(builder, f32xL, gradients, mask)
                offsets = [builder.add(offset, builder.mul(dilation, I64(j))) for j in range(columns)]
                values = [load_value(builder, f32xL, builder.gep(start, [o])) for start in starts for o in offsets]
                totals = [fma_value(builder, value, gradient, total) for value, total in zip(values, totals)]
                return [builder.add(offset, stride), builder.gep(gradients, [g_w]), *totals]

            totals = [load_value(builder, f32xL, place) for place in places]
            totals = _loop(builder, "pixel", [I64(0), grad_y, *totals], count, pixel)[2:]
            for place, total in zip(places, totals):
                store_value(builder, place, total)
            return context.get_dummy_value()
        return sig, codegen
else:
    from numbanet.backends.cpu.convolution.finishing_tile import limited
    from numbanet.backends.cpu.simd import L, fma, load, load_partial, store

    def forward_tile(ROWS, COLUMNS, x, lines, first, stride_h, stride, dilation_h, dilation, weight, w, R, S,
                     y, at, y_h, y_w, residual, added, r_h, r_w, low, high):
        """The scalar twin."""
        for i in range(ROWS):
            for j in range(COLUMNS):
                total = load(weight, w + R * S * L)
                for r in range(R):
                    line = lines[first + i * stride_h + r * dilation_h]
                    for s in range(S):
                        total = fma(load(x, line + j * stride + s * dilation), load(weight, w + (r * S + s) * L), total)
                if residual.size:
                    total = total + load(residual, added + i * r_h + j * r_w)
                store(y, at + i * y_h + j * y_w, limited(total, low, high))

    def gradient_tile(ROWS, COLUMNS, x, lines, first, stride, dilation_h, dilation, grad_y, g, g_w, lanes, count, sums, at, row):
        """The scalar twin."""
        for i in range(ROWS):
            for j in range(COLUMNS):
                place = at + i * row + j * L
                for ow in range(count):
                    value = load(x, lines[first + i * dilation_h] + ow * stride + j * dilation)
                    store(sums, place, fma(value, load_partial(grad_y, g + ow * g_w, lanes), load(sums, place)))
