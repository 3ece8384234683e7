"""The register tiles of depthwise convolution. Their sums stay in registers, over all taps or over a row of pixels.

Operands in memory stand at constant distances from pointers, never at an index, which takes twice as long (Zen 4).
Letters: `walk.py`.
"""

from __future__ import annotations

from numbanet.backends.cpu.compile import JIT

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.arithmetic import fma_value
    from numbanet.backends.cpu.simd.memory import first_lanes, load_masked, load_value, pointer, store_masked, store_value
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
    def pixels_tile(typingctx, PIXELS, VECTORS, x, at, pixel, r_step, s_step, R, S, weight, w, w_r, w_s, shift,
                    y, target, y_pixel, residual, added, r_pixel, low, high, last_lanes):
        """y[i] = limited(bias + sum over r < R, s < S of weight[r, s] * x[i, r, s] + residual[i]) for i < PIXELS, VECTORS * L channels.

        x[i, r, s] is at x[at + i * pixel + r * r_step + s * s_step:], weight[r, s] at weight[w + r * w_r + s * w_s:], the bias at
        weight[shift:], y[i] at y[target + i * y_pixel:]; an empty residual adds nothing. A literal 0 as `last_lanes` stands for
        all L lanes of the last vector, without masks; of weights whole vectors are read.
        """
        if not _literals(PIXELS, VECTORS):
            return None
        is_partial = not (_literals(last_lanes) and last_lanes.literal_value == 0)
        sig = types.void(PIXELS, VECTORS, x, *[integer] * 6, weight, *[integer] * 4, y, *[integer] * 2, residual, *[integer] * 2,
                         number, number, integer if is_partial else last_lanes)
        pixels, vectors = PIXELS.literal_value, VECTORS.literal_value

        def codegen(context, builder, sig, args):
            (_, _, x, at, pixel, r_step, s_step, R, S, weight, w, w_r, w_s, shift, y, target, y_pixel, residual, added, r_pixel,
             low, high, last_lanes) = args
            mask = first_lanes(builder, last_lanes) if is_partial else None

            def load(address, v):
                address = builder.gep(address, [I64(L * v)])
                if mask is not None and v == vectors - 1:
                    return load_masked(builder, f32xL, address, mask)
                return load_value(builder, f32xL, address)

            size = context.make_array(sig.args[17])(context, builder, residual).nitems
            x, shift = pointer(context, builder, sig.args[2], x, at), pointer(context, builder, sig.args[9], weight, shift)
            weight, y = pointer(context, builder, sig.args[9], weight, w), pointer(context, builder, sig.args[14], y, target)
            residual = pointer(context, builder, sig.args[17], residual, added)
            positions = [(i, v) for i in range(pixels) for v in range(vectors)]

            def row_of_taps(r, source, weights, *sums):
                def tap(s, source, weights, *sums):
                    factors = [load_value(builder, f32xL, builder.gep(weights, [I64(L * v)])) for v in range(vectors)]
                    places = [source]
                    for _ in range(1, pixels):
                        places.append(_opaque(builder, builder.gep(places[-1], [pixel])))
                    sums = [fma_value(builder, load(places[i], v), factors[v], total) for (i, v), total in zip(positions, sums)]
                    return [builder.gep(source, [s_step]), builder.gep(weights, [w_s]), *sums]
                sums = _loop(builder, "tap", [source, weights, *sums], S, tap)[2:]
                return [builder.gep(source, [r_step]), builder.gep(weights, [w_r]), *sums]

            bias = [load_value(builder, f32xL, builder.gep(shift, [I64(L * v)])) for v in range(vectors)]
            sums = _loop(builder, "row", [x, weight, *[bias[v] for _, v in positions]], R, row_of_taps)[2:]
            before = builder.block
            inside, after = (builder.function.append_basic_block(f"depthwise.{name}") for name in ("residual", "limits"))
            builder.cbranch(builder.icmp_signed(">", size, I64(0)), inside, after)
            builder.position_at_end(inside)
            raised = [builder.fadd(total, load(builder.gep(residual, [builder.mul(r_pixel, I64(i))]), v))
                      for (i, v), total in zip(positions, sums)]
            builder.branch(after)
            builder.position_at_end(after)
            values = []
            for total, other in zip(sums, raised):
                value = builder.phi(total.type)
                value.add_incoming(total, before)
                value.add_incoming(other, inside)
                values.append(value)
            low, high = splat_value(builder, f32xL, low), splat_value(builder, f32xL, high)
            for (i, v), value in zip(positions, values):
                value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
                value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
                address = builder.gep(y, [builder.add(builder.mul(y_pixel, I64(i)), I64(L * v))])
                if mask is not None and v == vectors - 1:
                    store_masked(builder, f32xL, address, value, mask)
                else:
                    store_value(builder, address, value)
            return context.get_dummy_value()
        return sig, codegen

    @intrinsic(prefer_literal=True)
    def gradient_tile(typingctx, ROWS, COLUMNS, x, table, first, taps, dilation_h, grad_y, g, g_w, lanes, count, sums, at, row):
        """sums[i, j] += sum over ow < count of grad_y[ow] * x[table[first + i * dilation_h] + table[taps + j] + ow * L]

        Lines and taps of a line are at the offsets in `table`, neighbouring windows L floats apart: see `depthwise_gradient.py`.

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
    from numbanet.backends.cpu.simd import L, fma, load, load_partial, store, store_partial

    def pixels_tile(PIXELS, VECTORS, x, at, pixel, r_step, s_step, R, S, weight, w, w_r, w_s, shift,
                    y, target, y_pixel, residual, added, r_pixel, low, high, last_lanes):
        """The scalar twin."""
        for i in range(PIXELS):
            for v in range(0, VECTORS * L, L):
                lanes = last_lanes if last_lanes and v == (VECTORS - 1) * L else L
                total = load(weight, shift + v)
                for r in range(R):
                    for s in range(S):
                        value = load_partial(x, at + i * pixel + r * r_step + s * s_step + v, lanes)
                        total = fma(value, load(weight, w + r * w_r + s * w_s + v), total)
                if residual.size:
                    total = total + load_partial(residual, added + i * r_pixel + v, lanes)
                store_partial(y, target + i * y_pixel + v, limited(total, low, high), lanes)

    def gradient_tile(ROWS, COLUMNS, x, table, first, taps, dilation_h, grad_y, g, g_w, lanes, count, sums, at, row):
        """The scalar twin."""
        for i in range(ROWS):
            for j in range(COLUMNS):
                place = at + i * row + j * L
                for ow in range(count):
                    value = load(x, table[first + i * dilation_h] + table[taps + j] + ow * L)
                    store(sums, place, fma(value, load_partial(grad_y, g + ow * g_w, lanes), load(sums, place)))
