"""The register tiles of depthwise convolution. Their sums stay in registers, over all taps or over a row of pixels.

Operands in memory stand at constant distances from pointers, never at an index, which takes twice as long (Zen 4).
Letters: `walk.py`.
"""

from __future__ import annotations

import contextlib

from numbanet.backends.cpu.compile import JIT

OVERLAPPING = ((3, 1), (3, 2), (5, 1), (5, 2))          # rows of a window, and stride

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.arithmetic import fma_value
    from numbanet.backends.cpu.simd.memory import first_lanes, load_masked, load_value, opaque, pointer, store_masked, store_value
    from numbanet.backends.cpu.simd.types import I64, L, f32xL, merged_values, splat_value

    integer, number = types.int64, types.float32

    def _literals(*values) -> bool:
        return all(isinstance(value, types.IntegerLiteral) for value in values)

    def _loop(builder: ir.IRBuilder, name: str, state: list[ir.Value], count: ir.Value, body) -> list[ir.Value]:
        """state = body(i, *state) for 0 <= i < count."""
        before, block, after = builder.block, *(builder.function.append_basic_block(f"depthwise.{part}") for part in (name, "after"))
        builder.cbranch(builder.icmp_signed(">", count, I64(0)), block, after)
        builder.position_at_end(block)
        phis = merged_values(builder, ([I64(0), *state], before))
        following = [builder.add(phis[0], I64(1)), *body(*phis)]
        for phi, value in zip(phis, following):
            phi.add_incoming(value, builder.block)
        last = builder.block
        builder.cbranch(builder.icmp_signed("<", following[0], count), block, after)
        builder.position_at_end(after)
        return merged_values(builder, (state, before), (following[1:], last))

    def _element(builder: ir.IRBuilder, array: ir.Value, index: ir.Value) -> ir.Value:
        return builder.load(builder.gep(array, [index]))

    @intrinsic(prefer_literal=True)
    def pixels_tiles(typingctx, PIXELS, VECTORS, count, vectors, lanes, taps, stride, x, at, x_next, pixel, r_step, s_step, R, S,
                     weight, w, w_r, w_s, shift, y, target, y_next, y_pixel, residual, added, r_next, r_pixel, low, high):
        """`count` tiles, `x_next`, `y_next` and `r_next` floats apart, of each of which

            y[i] = limited(bias + sum over r < R, s < S of weight[r, s] * x[i, r, s] + residual[i])       for i < PIXELS.

        The channels are `vectors` <= VECTORS whole vectors, or `lanes` < L of one; of weights whole vectors are read. x[i, r, s] is at
        x[at + i * pixel + r * r_step + s * s_step:], weight[r, s] at weight[w + r * w_r + s * w_s:], the bias at weight[shift:],
        y[i] at y[target + i * y_pixel:]; an empty residual adds nothing. `taps` = R and `stride` as in OVERLAPPING say that pixel
        is stride * r_step: windows overlap by rows, and what they share is loaded once. `taps` is 0 otherwise.
        """
        if not _literals(PIXELS, VECTORS):
            return None
        sig = types.void(PIXELS, VECTORS, *[integer] * 5, x, *[integer] * 7, weight, *[integer] * 4, y, *[integer] * 3,
                         residual, *[integer] * 3, number, number)

        def codegen(context, builder, sig, args):
            (_, _, count, vectors, lanes, taps, stride, x, at, x_next, pixel, r_step, s_step, R, S, weight, w, w_r, w_s, shift,
             y, target, y_next, y_pixel, residual, added, r_next, r_pixel, low, high) = args
            generator = _PixelsGenerator(builder, PIXELS.literal_value)
            generator.x = pointer(context, builder, sig.args[7], x, at)
            generator.weight = pointer(context, builder, sig.args[15], weight, w)
            generator.shift = pointer(context, builder, sig.args[15], weight, shift)
            generator.y = pointer(context, builder, sig.args[20], y, target)
            generator.size = context.make_array(sig.args[24])(context, builder, residual).nitems
            generator.residual = pointer(context, builder, sig.args[24], residual, added)
            generator.pixel, generator.r_step, generator.s_step, generator.R, generator.S = pixel, r_step, s_step, R, S
            generator.count, generator.nexts = count, (x_next, y_next, r_next)
            generator.w_r, generator.w_s, generator.y_pixel, generator.r_pixel = w_r, w_s, y_pixel, r_pixel
            generator.low, generator.high = splat_value(builder, f32xL, low), splat_value(builder, f32xL, high)
            end = builder.function.append_basic_block("depthwise.end")
            with _only_if(builder, builder.icmp_signed("<", lanes, I64(L)), end):
                generator.emit(1, 0, 0, first_lanes(builder, lanes))
            for known in range(1, VECTORS.literal_value + 1):
                for known_taps, known_stride in ((0, 0), *OVERLAPPING):
                    wanted = builder.and_(builder.icmp_signed("==", vectors, I64(known)), builder.icmp_signed("==", taps, I64(known_taps)))
                    if known_taps:
                        wanted = builder.and_(wanted, builder.icmp_signed("==", stride, I64(known_stride)))
                    with _only_if(builder, wanted, end):
                        generator.emit(known, known_taps, known_stride, None)
            builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()
        return sig, codegen

    @contextlib.contextmanager
    def _only_if(builder: ir.IRBuilder, condition: ir.Value, end: ir.Block):
        """What is emitted inside runs where the condition holds, and leads to `end`."""
        inside, other = (builder.function.append_basic_block(f"depthwise.{name}") for name in ("inside", "other"))
        builder.cbranch(condition, inside, other)
        builder.position_at_end(inside)
        yield
        builder.branch(end)
        builder.position_at_end(other)

    class _PixelsGenerator:
        """Emits `pixels_tiles` for a number of vectors."""

        def __init__(self, builder: ir.IRBuilder, pixels: int):
            self.builder, self.pixels = builder, pixels

        def emit(self, vectors: int, taps: int, stride: int, mask: ir.Value | None) -> None:
            builder = self.builder
            self.vectors, self.taps, self.stride, self.mask = vectors, taps, stride, mask
            self.positions = [(i, v) for i in range(self.pixels) for v in range(vectors)]
            self.bias = self._vectors(self.shift)
            _loop(builder, "tile", [self.x, self.y, self.residual], self.count, self._tile)

        def _tile(self, _tile, x, y, residual):
            builder = self.builder
            begin = [x, self.weight, *[self.bias[v] for _, v in self.positions]]
            if self.taps:
                sums = _loop(builder, "column", begin, self.S, self._column_of_taps)[2:]
            else:
                sums = _loop(builder, "row", begin, self.R, self._row_of_taps)[2:]
            before = builder.block
            inside, after = (builder.function.append_basic_block(f"depthwise.{name}") for name in ("residual", "limits"))
            builder.cbranch(builder.icmp_signed(">", self.size, I64(0)), inside, after)
            builder.position_at_end(inside)
            raised = [builder.fadd(total, self._load(builder.gep(residual, [builder.mul(self.r_pixel, I64(i))]), v))
                      for (i, v), total in zip(self.positions, sums)]
            builder.branch(after)
            builder.position_at_end(after)
            for (i, v), value in zip(self.positions, merged_values(builder, (sums, before), (raised, inside))):
                value = builder.select(builder.fcmp_ordered("<", value, self.low), self.low, value)
                value = builder.select(builder.fcmp_ordered(">", value, self.high), self.high, value)
                address = builder.gep(y, [builder.add(builder.mul(self.y_pixel, I64(i)), I64(L * v))])
                if self.mask is None:
                    store_value(builder, address, value)
                else:
                    store_masked(builder, f32xL, address, value, self.mask)
            return [builder.gep(pointer, [distance]) for pointer, distance in zip((x, y, residual), self.nexts)]

        def _load(self, address: ir.Value, v: int) -> ir.Value:
            address = self.builder.gep(address, [I64(L * v)])
            if self.mask is None:
                return load_value(self.builder, f32xL, address)
            return load_masked(self.builder, f32xL, address, self.mask)

        def _vectors(self, weights: ir.Value) -> list[ir.Value]:
            return [load_value(self.builder, f32xL, self.builder.gep(weights, [I64(L * v)])) for v in range(self.vectors)]

        def _row_of_taps(self, _r, source, weights, *sums):
            """One tap after the other, for all pixels."""
            builder = self.builder

            def tap(_s, source, weights, *sums):
                factors, places = self._vectors(weights), [source]
                for _ in range(1, self.pixels):
                    places.append(opaque(builder, builder.gep(places[-1], [self.pixel])))
                sums = [fma_value(builder, self._load(places[i], v), factors[v], total)
                        for (i, v), total in zip(self.positions, sums)]
                return [builder.gep(source, [self.s_step]), builder.gep(weights, [self.w_s]), *sums]
            sums = _loop(builder, "tap", [source, weights, *sums], self.S, tap)[2:]
            return [builder.gep(source, [self.r_step]), builder.gep(weights, [self.w_r]), *sums]

        def _column_of_taps(self, _s, source, weights, *sums):
            """All taps of a column, one row of x after the other."""
            builder, sums, place = self.builder, list(sums), source
            factors = [self._vectors(builder.gep(weights, [builder.mul(self.w_r, I64(r))])) for r in range(self.taps)]
            for row in range((self.pixels - 1) * self.stride + self.taps):
                values = [self._load(place, v) for v in range(self.vectors)]
                for position, (i, v) in enumerate(self.positions):
                    if 0 <= row - i * self.stride < self.taps:
                        sums[position] = fma_value(builder, values[v], factors[row - i * self.stride][v], sums[position])
                place = opaque(builder, builder.gep(place, [self.r_step]))
            return [builder.gep(source, [self.s_step]), builder.gep(weights, [self.w_s]), *sums]

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
                pointers = [opaque(builder, value) for value in state[:len(positions)]]
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

    def pixels_tiles(PIXELS, VECTORS, count, vectors, lanes, taps, stride, x, at, x_next, pixel, r_step, s_step, R, S,
                     weight, w, w_r, w_s, shift, y, target, y_next, y_pixel, residual, added, r_next, r_pixel, low, high):
        """The scalar twin."""
        for tile in range(count):
            for i in range(PIXELS):
                for v in range(0, vectors * L, L):
                    total = load(weight, shift + v)
                    for r in range(R):
                        for s in range(S):
                            value = load_partial(x, at + tile * x_next + i * pixel + r * r_step + s * s_step + v, lanes)
                            total = fma(value, load(weight, w + r * w_r + s * w_s + v), total)
                    if residual.size:
                        total = total + load_partial(residual, added + tile * r_next + i * r_pixel + v, lanes)
                    store_partial(y, target + tile * y_next + i * y_pixel + v, limited(total, low, high), lanes)

    def gradient_tile(ROWS, COLUMNS, x, table, first, taps, dilation_h, grad_y, g, g_w, lanes, count, sums, at, row):
        """The scalar twin."""
        for i in range(ROWS):
            for j in range(COLUMNS):
                place = at + i * row + j * L
                for ow in range(count):
                    value = load(x, table[first + i * dilation_h] + table[taps + j] + ow * L)
                    store(sums, place, fma(value, load_partial(grad_y, g + ow * g_w, lanes), load(sums, place)))
