"""What happens to accumulators: scale, shift, residual, limits, the store, and statistics of columns.

    y[row, column] = limited(accumulator * scale[column] + shift[column] + residual[row, column])

in float32, rounded once to the type of y. scale and shift are float32, one number a column; an address of 0 leaves a term out. A bias
is a shift; a folded batch norm is both. Where rows and columns of y lie:

    matrix     stride of rows; columns have unit stride
    pixels     strides of n, h, w, then OH * OW with its magic, OW with its magic; columns are channels
    filters    strides of k, r, s, c, then C with its magic, S with its magic: gradients of weights, rows k, columns (r, s, c)
    partial    float32, one dense array a split and batch; `reduce.py` adds them up in order

**Statistics** (`sums`): (4, blocks of rows, columns), float32: of each block and column how many elements of y it has, their mean, the rest
that rounding took from it, and the sum of their squared differences from it, as `../normalization/moments.py` has them of parts, and
merges them. y counts as it is stored, rounded to its type. The mean of a plain sum has lost digits where numbers are large beside their
deviation: the mean of the differences from it corrects it, and of the squares of the differences from that none is lost to cancellation.
"""

from __future__ import annotations

from numpy import int32, int64

from numbanet.backends.cuda.tiles import layout
from numbanet.backends.cuda.tiles.multiply import fragments
from numbanet.backends.cuda.tiles.shape import Program


def build_result_locator(result: str, machine):
    """(row_offset(row, parameters), column_offset(column, parameters)), in elements; their sum is the place of an element."""
    divide = machine.worker(layout.divide)

    @machine.worker
    def own_column(column, parameters):
        return int32(column)

    if result in ("matrix", "partial"):
        @machine.worker
        def row_offset(row, parameters):
            return int64(row) * int64(parameters[0])
        return row_offset, own_column
    if result == "pixels":
        @machine.worker
        def row_offset(row, parameters):
            n_stride, h_stride, w_stride, per_image, image_magic, image_shift, width, width_magic, width_shift = parameters
            n = divide(row, image_magic, image_shift)
            pixel = int32(row - n * per_image)
            p = divide(pixel, width_magic, width_shift)
            return int64(n) * int64(n_stride) + int64(int32(p * h_stride + (pixel - p * width) * w_stride))
        return row_offset, own_column

    @machine.worker
    def row_offset(row, parameters):
        return int64(row) * int64(parameters[0])

    @machine.worker
    def column_offset(column, parameters):
        k_stride, r_stride, s_stride, c_stride, channels, channels_magic, channels_shift, taps, taps_magic, taps_shift = parameters
        at = divide(column, channels_magic, channels_shift)
        r = divide(at, taps_magic, taps_shift)
        return int32((column - at * channels) * c_stride + r * r_stride + (at - r * taps) * s_stride)
    return row_offset, column_offset


def build_element(math: str, machine):
    """(item bytes, load pair, store pair) of y's type; a pair is loaded and stored at once, or one by one where `pairs` is 0."""
    if math in ("tf32", "float32"):
        load_float, load_float2, store_float, store_float2 = (
            machine.load_float, machine.load_float2, machine.store_float, machine.store_float2)

        @machine.worker
        def load_pair(address, next_address, pairs, first, second):
            if pairs:
                return load_float2(address, second)
            return load_float(address, first), load_float(next_address, second)

        @machine.worker
        def store_pair(address, next_address, low, high, pairs, first, second):
            if pairs:
                store_float2(address, low, high, second)
            else:
                store_float(address, low, first)
                store_float(next_address, high, second)
        return 4, load_pair, store_pair

    pack, unpack = (machine.pack_bf16, machine.unpack_bf16) if math == "bf16" else (machine.pack_fp16, machine.unpack_fp16)
    load_half, load_word, store_half, store_word, uint32 = (
        machine.load_half, machine.load_word, machine.store_half, machine.store_word, machine.uint32)

    @machine.worker
    def load_pair(address, next_address, pairs, first, second):
        if pairs:
            return unpack(load_word(address, second))
        return unpack(uint32(load_half(address, first) | (load_half(next_address, second) << 16)))

    @machine.worker
    def store_pair(address, next_address, low, high, pairs, first, second):
        word = pack(low, high)
        if pairs:
            store_word(address, word, second)
        else:
            store_half(address, word, first)
            store_half(next_address, uint32(word >> 16), second)
    return 2, load_pair, store_pair


def build_rounding(math: str, machine):
    """rounded(low, high): two numbers as elements of y's type, read again."""
    if math in ("tf32", "float32"):
        @machine.worker
        def rounded(low, high):
            return low, high
        return rounded

    pack, unpack = (machine.pack_bf16, machine.unpack_bf16) if math == "bf16" else (machine.pack_fp16, machine.unpack_fp16)

    @machine.worker
    def rounded(low, high):
        return unpack(pack(low, high))
    return rounded


def build_epilogue(program: Program, machine):
    """finish(accumulators, ...): the accumulators of a warp become elements of y."""
    tile = program.tile
    MT, NT = fragments(tile)
    warp_rows_size, warp_columns_size, columns_a_lane = 16 * MT, 8 * NT, 2 * NT
    partial = program.result == "partial"
    row_offset, column_offset = build_result_locator(program.result, machine)
    item, load_pair, store_pair = build_element("float32" if partial else tile.math, machine)
    load_float, minimum, maximum = machine.load_float, machine.minimum, machine.maximum
    fragment_row, fragment_column = machine.worker(layout.fragment_row), machine.worker(layout.fragment_column)
    cuda, float32, fma = machine.cuda, machine.float32, machine.fma
    collect = build_statistics(program, machine) if program.sums else None
    sums, rounded = program.sums, build_rounding(tile.math, machine)

    @machine.worker
    def finish(accumulators, pointers, sizes, limits, batch, split, tile_row, first_row, first_column, lane, warp_row, warp_column, shared,
               y_parameters, residual_parameters):
        y_pointer, residual_pointer, scale_pointer, shift_pointer, sums_pointer, y_batch, residual_batch = pointers[2:9]
        rows, columns, pairs, channels = sizes[0], sizes[1], sizes[4], sizes[5]
        y_pointer += int64(batch) * y_batch
        if partial:
            y_pointer += int64(split) * pointers[9]
        else:
            residual_pointer += int64(batch) * residual_batch
        scale = cuda.local.array(columns_a_lane, float32)
        shift = cuda.local.array(columns_a_lane, float32)
        for j in range(columns_a_lane):
            scale[j] = float32(1)
            shift[j] = float32(0)
        first = int32(first_row + warp_row * warp_rows_size)
        left = int32(first_column + warp_column * warp_columns_size)
        if not partial:
            if scale_pointer != 0:
                for j in range(columns_a_lane):
                    column = int32(left + 8 * (j >> 1) + fragment_column(lane, j & 1))
                    scale[j] = load_float(scale_pointer + int64(batch * channels + column) * 4, column < columns)
            if shift_pointer != 0:
                for j in range(columns_a_lane):
                    column = int32(left + 8 * (j >> 1) + fragment_column(lane, j & 1))
                    shift[j] = load_float(shift_pointer + int64(batch * channels + column) * 4, column < columns)
        for i in range(2 * MT):
            row = int32(first + ((i >> 1) << 4) + fragment_row(lane, (i & 1) << 1))
            y_row = row_offset(row, y_parameters)
            residual_row = row_offset(row, residual_parameters)
            for j in range(NT):
                o = 4 * ((i >> 1) * NT + j) + 2 * (i & 1)
                column = int32(left + 8 * j + fragment_column(lane, 0))
                has_first = (row < rows) & (column < columns)
                has_second = (row < rows) & (column + 1 < columns)
                low, high = accumulators[o], accumulators[o + 1]
                if not partial:
                    low, high = fma(low, scale[2 * j], shift[2 * j]), fma(high, scale[2 * j + 1], shift[2 * j + 1])
                    if residual_pointer != 0:
                        place = residual_pointer + (residual_row + int64(column_offset(column, residual_parameters))) * item
                        after = residual_pointer + (residual_row + int64(column_offset(column + 1, residual_parameters))) * item
                        more_low, more_high = load_pair(place, after, pairs, has_first, has_second)
                        low, high = low + more_low, high + more_high
                    low = minimum(maximum(low, limits[0]), limits[1])
                    high = minimum(maximum(high, limits[0]), limits[1])
                place = y_pointer + (y_row + int64(column_offset(column, y_parameters))) * item
                after = y_pointer + (y_row + int64(column_offset(column + 1, y_parameters))) * item
                store_pair(place, after, low, high, pairs, has_first, has_second)
                if sums:
                    accumulators[o], accumulators[o + 1] = rounded(low, high)
        if sums:
            collect(accumulators, sums_pointer, sizes, batch, tile_row, first_row, first_column, lane, warp_row, warp_column, shared)
    return finish


def build_statistics(program: Program, machine):
    """collect(values, ...): count, mean, rest and squared differences of the columns of a block.

    Each lane adds up what it has of a column, all lanes of a column put that into shared memory, and one thread adds it up in order.
    """
    tile = program.tile
    MT, NT = fragments(tile)
    threads, tile_rows, tile_columns, log_rows = tile.threads, tile.rows, tile.columns, tile.rows.bit_length() - 1
    columns_a_lane, columns_a_thread, lanes = 2 * NT, -(-tile.columns // tile.threads), 8 * tile.warp_rows
    row_size, sum_size = tile.statistics_row_bytes, tile.statistics_bytes // 3
    select, barrier, thread_index = machine.select, machine.barrier, machine.thread_index
    load_shared_float, store_shared_float, store_float = machine.load_shared_float, machine.store_shared_float, machine.store_float
    fragment_row, fragment_column = machine.worker(layout.fragment_row), machine.worker(layout.fragment_column)
    float32 = machine.float32

    @machine.worker
    def sum_of(place):
        """What the lanes of a column have put there."""
        total = load_shared_float(place)
        for lane in range(1, lanes):
            total = total + load_shared_float(int32(place + lane * row_size))
        return total

    @machine.worker
    def collect(values, sums_pointer, sizes, batch, tile_row, first_row, first_column, lane, warp_row, warp_column, shared):
        rows, columns, channels, all_channels = sizes[0], sizes[1], sizes[5], sizes[6]
        count = float32(min(rows - first_row, tile_rows))
        share = float32(1) / count
        squares_shared, means_shared = int32(shared + sum_size), int32(shared + 2 * sum_size)
        barrier()                                       # all have read the operands that lay here
        for turn in range(2):                           # sums, then those of differences from the mean, and of their squares
            for j in range(columns_a_lane):
                column = int32(4 * (warp_column * (8 * NT) + 8 * (j >> 1) + fragment_column(lane, j & 1)))
                mean = load_shared_float(int32(means_shared + column)) if turn == 1 else float32(0)
                total, squares = float32(0), float32(0)
                for i in range(2 * MT):
                    row = int32(first_row + warp_row * (16 * MT) + ((i >> 1) << 4) + fragment_row(lane, (i & 1) << 1))
                    value = select(row < rows, values[4 * ((i >> 1) * NT + (j >> 1)) + 2 * (i & 1) + (j & 1)] - mean, float32(0))
                    total = total + value
                    squares = squares + value * value
                place = int32((8 * warp_row + fragment_row(lane, 0)) * row_size + column)
                store_shared_float(int32(shared + place), total, True)
                if turn == 1:
                    store_shared_float(int32(squares_shared + place), squares, True)
            barrier()
            if turn == 0:
                for part in range(columns_a_thread):
                    column = int32(thread_index() + part * threads)
                    place = int32(4 * select(column < tile_columns, column, int32(0)))
                    store_shared_float(int32(means_shared + place), sum_of(int32(shared + place)) * share, column < tile_columns)
                barrier()
        row_bytes = int64((rows + tile_rows - 1) >> log_rows) * int64(all_channels) * 4
        for part in range(columns_a_thread):
            column = int32(thread_index() + part * threads)
            wanted = (column < tile_columns) & (first_column + column < columns)
            place = int32(4 * select(wanted, column, int32(0)))
            differences = sum_of(int32(shared + place))
            rest = differences * share                  # what rounding took from the mean
            target = sums_pointer + (int64(tile_row) * int64(all_channels) + int64(batch * channels + first_column + column)) * 4
            store_float(target, count, wanted)
            store_float(target + row_bytes, load_shared_float(int32(means_shared + place)), wanted)
            store_float(target + 2 * row_bytes, rest, wanted)
            store_float(target + 3 * row_bytes, sum_of(int32(squares_shared + place)) - differences * rest, wanted)
    return collect
