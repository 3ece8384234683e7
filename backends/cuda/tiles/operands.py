"""Copying an operand's tile from global to shared memory: matrices, pixels, windows (implicit im2col) and filters.

Each builder returns what a tile program calls:

    prepare(state, thread, first, count, parameters)             once: the addresses that stay, of rows `first` to `count` of the matrix
    issue(shared, state, thread, k, last, pointer, parameters)    for each tile: asynchronous copies of the depth k to `last`

and the number of int32 that a thread keeps in `state`. What lies outside of the matrix, or of the map (padding), is filled with zeros.
`parameters` are int32, offsets and strides in elements:

    matrix    stride of rows
    pixels    strides of n, h, w; OH * OW with its magic, OW with its magic; step, offset of h, w; H, W
    windows   those of pixels, then C with its magic, S with its magic, dilation of h, w
    filters   strides of k, r, s; K with its magic, S with its magic
    taps      the same, where K is a multiple of the depth of a step: a step has filters of one tap

A pixel (n, p, q) of OH x OW reads (n, p * step + offset + r * dilation, ...): forward, offset is minus the padding. Source of the method:
S. Chetlur et al., cuDNN, 2014, section 3.
"""

from __future__ import annotations

from numpy import int32

from numbanet.backends.cuda.tiles import layout
from numbanet.backends.cuda.tiles.shape import Copies, Operand, Tile, copies_of

OUTSIDE = -(1 << 30)         # a row that no map has, even twice; also an offset that no element has


def build_operand(operand: Operand, tile: Tile, side: int, machine):
    """(prepare, issue, size of the state) of an operand with `side` rows or columns in the tile."""
    copies = copies_of(operand, tile, side)
    if operand.along_depth:
        return (_windows_along_depth if operand.source == "windows" else _rows_along_depth)(operand, tile, copies, machine)
    return (_windows_across_depth if operand.source == "windows" else _rows_across_depth)(operand, tile, copies, machine)


def table_swizzle(operand: Operand, tile: Tile, side: int) -> tuple[int, int, int]:
    """`layout.swizzle_of` the operand's tile in shared memory."""
    row_bytes = (tile.depth if operand.along_depth else side) * tile.item
    return layout.swizzle_of(row_bytes // 16, spread=not operand.along_depth and tile.item == 4)


def _placement(operand: Operand, tile: Tile, copies: Copies, machine):
    """(begin(thread, j), place(shared, begin, thread, i, j)): where a thread puts piece j of its first row, in bytes of the tile, and the
    address of that of its row i.

    Rows whose distance the swizzle repeats at lie a known number of bytes behind the first: the address is then a register and a
    constant, the same in every step.
    """
    shift, mask, scale = layout.swizzle_of(copies.row_bytes // 16, spread=not operand.along_depth and tile.item == 4)
    row_bytes, piece_bytes, lanes, step = copies.row_bytes, operand.piece, copies.lanes, copies.step
    log_lanes = lanes.bit_length() - 1
    swizzled = machine.worker(layout.swizzled)

    @machine.worker
    def at(row, piece):
        start = piece * piece_bytes
        return int32(row * row_bytes + (swizzled(row, start >> 4, shift, mask, scale) << 4) + (start & 15))

    @machine.worker
    def begin(thread, j):
        return at(int32(thread >> log_lanes), int32((thread & (lanes - 1)) + j * lanes))

    if step % ((mask + 1) << shift) == 0:
        @machine.worker
        def place(shared, first, thread, i, j):
            return int32(shared + first + i * (step * row_bytes))
    else:
        @machine.worker
        def place(shared, first, thread, i, j):
            return int32(shared + at(int32((thread >> log_lanes) + i * step), int32((thread & (lanes - 1)) + j * lanes)))
    return begin, place


def build_pixel_locator(machine):
    """locate(row, parameters): (offset of n, h, w; h; w) of the first tap of a pixel's window."""
    divide = machine.worker(layout.divide)

    @machine.worker
    def locate(row, parameters):
        (n_stride, h_stride, w_stride, per_image, image_magic, image_shift, width, width_magic, width_shift,
         h_step, w_step, h_offset, w_offset) = parameters[:13]
        n = divide(row, image_magic, image_shift)
        pixel = int32(row - n * per_image)
        p = divide(pixel, width_magic, width_shift)
        h = int32(p * h_step + h_offset)
        w = int32((pixel - p * width) * w_step + w_offset)
        return int32(n * n_stride + h * h_stride + w * w_stride), h, w
    return locate


def _tap_locator(machine):
    """tap(k, parameters of windows): (offset, dilated r, dilated s) of element k of a window, (r, s, c)."""
    divide = machine.worker(layout.divide)

    @machine.worker
    def tap(k, parameters):
        channels, channels_magic, channels_shift, taps, taps_magic, taps_shift, h_dilation, w_dilation = parameters[15:23]
        at = divide(k, channels_magic, channels_shift)
        r = divide(at, taps_magic, taps_shift)
        h, w = int32(r * h_dilation), int32((at - r * taps) * w_dilation)
        return int32(k - at * channels + h * parameters[1] + w * parameters[2]), h, w
    return tap


def _row_locator(source: str, machine):
    """offset(first, row, parameters): where row `first` + `row` without taps begins, or OUTSIDE; `first` is the same in all threads."""
    divide = machine.worker(layout.divide)
    if source == "matrix":
        @machine.worker
        def offset(first, row, parameters):
            return int32((first + row) * parameters[0])
    elif source in ("filters", "taps"):
        one_tap = source == "taps"

        @machine.worker
        def offset(first, row, parameters):
            k_stride, r_stride, s_stride, filters, filters_magic, filters_shift, taps, taps_magic, taps_shift = parameters
            at = divide(first if one_tap else int32(first + row), filters_magic, filters_shift)
            r = divide(at, taps_magic, taps_shift)
            return int32((first - at * filters) * k_stride + r * r_stride + (at - r * taps) * s_stride + row * k_stride)
    else:
        locate, inside, select = build_pixel_locator(machine), machine.inside, machine.select

        @machine.worker
        def offset(first, row, parameters):
            start, h, w = locate(int32(first + row), parameters)
            return select(inside(h, parameters[13]) & inside(w, parameters[14]), start, int32(OUTSIDE))
    return offset


def _rows_along_depth(operand: Operand, tile: Tile, copies: Copies, machine):
    lanes, pieces, rows, step = copies.lanes, copies.pieces, copies.rows, copies.step
    log_lanes = lanes.bit_length() - 1
    items = operand.piece // tile.item
    copy, select, advanced = machine.copy[operand.piece], machine.select, machine.advanced[tile.item]
    (begin, place), offset = _placement(operand, tile, copies, machine), _row_locator(operand.source, machine)

    @machine.worker
    def prepare(state, thread, first, count, parameters):
        for j in range(pieces):
            state[rows + j] = begin(thread, j)
        for i in range(rows):
            row = int32((thread >> log_lanes) + i * step)
            state[i] = select(first + row < count, offset(first, row, parameters), int32(OUTSIDE))

    @machine.worker
    def issue(shared, state, thread, k, last, pointer, parameters):
        for j in range(pieces):
            column = int32(k + ((thread & (lanes - 1)) + j * lanes) * items)
            source, exists = advanced(pointer, column), column < last
            for i in range(rows):
                copy(place(shared, state[rows + j], thread, i, j), advanced(source, state[i]), exists & (state[i] != OUTSIDE))
    return prepare, issue, rows + pieces


def _windows_along_depth(operand: Operand, tile: Tile, copies: Copies, machine):
    lanes, pieces, rows, step = copies.lanes, copies.pieces, copies.rows, copies.step
    log_lanes = lanes.bit_length() - 1
    items = operand.piece // tile.item
    copy, select, inside, advanced = machine.copy[operand.piece], machine.select, machine.inside, machine.advanced[tile.item]
    (begin, place), locate, tap = _placement(operand, tile, copies, machine), build_pixel_locator(machine), _tap_locator(machine)

    @machine.worker
    def prepare(state, thread, first, count, parameters):
        for j in range(pieces):
            state[3 * rows + j] = begin(thread, j)
        for i in range(rows):
            row = int32(first + (thread >> log_lanes) + i * step)
            start, h, w = locate(row, parameters)
            state[3 * i] = start
            state[3 * i + 1] = select(row < count, h, int32(OUTSIDE))
            state[3 * i + 2] = w

    @machine.worker
    def issue(shared, state, thread, k, last, pointer, parameters):
        height, width = parameters[13:15]
        for j in range(pieces):
            column = int32(k + ((thread & (lanes - 1)) + j * lanes) * items)
            start, h, w = tap(column, parameters)
            source = advanced(pointer, start)
            h = select(column < last, h, int32(OUTSIDE))
            for i in range(rows):
                within = inside(int32(state[3 * i + 1] + h), height) & inside(int32(state[3 * i + 2] + w), width)
                copy(place(shared, state[3 * rows + j], thread, i, j), advanced(source, state[3 * i]), within)
    return prepare, issue, 3 * rows + pieces


def _rows_across_depth(operand: Operand, tile: Tile, copies: Copies, machine):
    lanes, pieces, rows, step = copies.lanes, copies.pieces, copies.rows, copies.step
    log_lanes = lanes.bit_length() - 1
    items = operand.piece // tile.item
    copy, select, advanced = machine.copy[operand.piece], machine.select, machine.advanced[tile.item]
    (begin, place), offset = _placement(operand, tile, copies, machine), _row_locator(operand.source, machine)
    may_be_padding = operand.source == "pixels"

    @machine.worker
    def prepare(state, thread, first, count, parameters):
        for j in range(pieces):
            column = int32(first + ((thread & (lanes - 1)) + j * lanes) * items)
            state[2 * j] = select(column < count, column, int32(OUTSIDE))
            state[2 * j + 1] = begin(thread, j)

    @machine.worker
    def issue(shared, state, thread, k, last, pointer, parameters):
        for i in range(rows):
            row = int32((thread >> log_lanes) + i * step)
            start, exists = offset(k, row, parameters), row < last - k
            if may_be_padding:
                exists = exists & (start != OUTSIDE)
            source = advanced(pointer, start)
            for j in range(pieces):
                copy(place(shared, state[2 * j + 1], thread, i, j), advanced(source, state[2 * j]), exists & (state[2 * j] != OUTSIDE))
    return prepare, issue, 2 * pieces


def _windows_across_depth(operand: Operand, tile: Tile, copies: Copies, machine):
    lanes, pieces, rows, step = copies.lanes, copies.pieces, copies.rows, copies.step
    log_lanes = lanes.bit_length() - 1
    items = operand.piece // tile.item
    copy, select, inside, advanced = machine.copy[operand.piece], machine.select, machine.inside, machine.advanced[tile.item]
    (begin, place), locate, tap = _placement(operand, tile, copies, machine), build_pixel_locator(machine), _tap_locator(machine)

    @machine.worker
    def prepare(state, thread, first, count, parameters):
        for j in range(pieces):
            column = int32(first + ((thread & (lanes - 1)) + j * lanes) * items)
            start, h, w = tap(column, parameters)
            state[4 * j] = start
            state[4 * j + 1] = select(column < count, h, int32(OUTSIDE))
            state[4 * j + 2] = w
            state[4 * j + 3] = begin(thread, j)

    @machine.worker
    def issue(shared, state, thread, k, last, pointer, parameters):
        height, width = parameters[13:15]
        for i in range(rows):
            row = int32(k + (thread >> log_lanes) + i * step)
            start, h, w = locate(row, parameters)
            source = advanced(pointer, start)
            h = select(row < last, h, int32(OUTSIDE))
            for j in range(pieces):
                within = inside(int32(h + state[4 * j + 1]), height) & inside(int32(w + state[4 * j + 2]), width)
                copy(place(shared, state[4 * j + 3], thread, i, j), advanced(source, state[4 * j]), within)
    return prepare, issue, 4 * pieces
