"""The product of two tiles in shared memory, added to the accumulators of a warp: tensor cores, or plain float32 arithmetic.

A warp owns `rows` x `columns` of the block's tile: MT fragments of 16 rows by NT of 8 columns, 4 accumulators a lane and fragment, at
`layout.fragment_row` and `fragment_column`. One step is 32 bytes of depth: 8 TF32 or 16 half-precision numbers, so that `ldmatrix`
reads the fragments of all kinds in the same way: a row of four 32-bit words is eight 16-bit numbers.

An operand that is contiguous across the depth is transposed on the way: 16-bit numbers by `ldmatrix.trans`; 32-bit ones are read word
by word, which the swizzle of `layout.swizzle_of(spread=True)` keeps free of conflicts.

The strict path computes the same elements in the same lanes, each a chain of fused multiply-adds in the order of the depth.
"""

from __future__ import annotations

from numpy import int32

from numbanet.backends.cuda.tiles import layout
from numbanet.backends.cuda.tiles.operands import table_swizzle
from numbanet.backends.cuda.tiles.shape import Program, Tile


def build_multiply(program: Program, machine):
    """multiply(accumulators, shared a, shared b, warp row, warp column, lane): adds the product of two tiles of full depth."""
    return (_plain if program.tile.math == "float32" else _tensor_core)(program, machine)


def fragments(tile: Tile) -> tuple[int, int]:
    """(MT, NT): fragments of 16 rows and of 8 columns a warp."""
    return tile.rows // tile.warp_rows // 16, tile.columns // tile.warp_columns // 8


def _tensor_core(program: Program, machine):
    tile = program.tile
    MT, NT = fragments(tile)
    mma = {"tf32": machine.mma_tf32, "bf16": machine.mma_bf16, "fp16": machine.mma_fp16}[tile.math]
    load_a = _fragment_reader(program, True, machine)
    load_b = _fragment_reader(program, False, machine)
    steps = tile.depth * tile.item // 32
    a_words, b_words = 4 * MT, 2 * NT
    cuda, uint32 = machine.cuda, machine.uint32

    @machine.worker
    def multiply(accumulators, shared_a, shared_b, warp_row, warp_column, lane):
        a = cuda.local.array(a_words, uint32)
        b = cuda.local.array(b_words, uint32)
        for step in range(steps):
            load_a(a, shared_a, int32(warp_row * (16 * MT)), step, lane)
            load_b(b, shared_b, int32(warp_column * (8 * NT)), step, lane)
            for i in range(MT):
                for j in range(NT):
                    o = 4 * (i * NT + j)
                    accumulators[o], accumulators[o + 1], accumulators[o + 2], accumulators[o + 3] = mma(
                        a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3], b[2 * j], b[2 * j + 1],
                        accumulators[o], accumulators[o + 1], accumulators[o + 2], accumulators[o + 3])
    return multiply


def _fragment_reader(program: Program, is_a: bool, machine):
    """load(words, shared, first, step, lane): the fragments of one step, beginning at matrix row (or column) `first` of the tile.

    Every ldmatrix.x4 brings 16 rows by 32 bytes: of A one fragment; of B, two fragments of 8 columns.
    """
    tile, operand = program.tile, program.a if is_a else program.b
    side = tile.rows if is_a else tile.columns
    count = fragments(tile)[0] if is_a else fragments(tile)[1] // 2
    shift, mask, scale = table_swizzle(operand, tile, side)
    row_bytes = (tile.depth if operand.along_depth else side) * tile.item
    swizzled = machine.worker(layout.swizzled)
    rounds, round_word = tile.math == "tf32", machine.round_tf32
    # Which of the two orders of the four matrices: B's are read in the order of its columns, and transposing swaps rows and chunks.
    low = is_a == operand.along_depth
    lane_row = machine.worker(layout.matrix_low_row if low else layout.matrix_high_row)
    lane_chunk = machine.worker(layout.matrix_low_chunk if low else layout.matrix_high_chunk)

    if operand.along_depth:
        ldmatrix = machine.ldmatrix_x4

        @machine.worker
        def load(words, shared, first, step, lane):
            for i in range(count):
                row = int32(first + 16 * i + lane_row(lane))
                chunk = swizzled(row, 2 * step + lane_chunk(lane), shift, mask, scale)
                words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = ldmatrix(
                    int32(shared + row * row_bytes + (chunk << 4)))
            if rounds:
                for i in range(4 * count):
                    words[i] = round_word(words[i])
    elif tile.item == 2:
        ldmatrix_trans = machine.ldmatrix_x4_trans

        @machine.worker
        def load(words, shared, first, step, lane):
            row = int32(16 * step + lane_row(lane))
            for i in range(count):
                chunk = swizzled(row, int32((first >> 3) + 2 * i + lane_chunk(lane)), shift, mask, scale)
                words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = ldmatrix_trans(
                    int32(shared + row * row_bytes + (chunk << 4)))
    else:
        load_word = machine.load_shared_word
        # What a lane adds to the address of a word depends on the lower three bits of the chunk alone where a warp begins at a multiple of
        # 8 chunks: a few registers, the same in every step, and constants.
        lower = 7 if side // (tile.warp_rows if is_a else tile.warp_columns) % 32 == 0 else 0

        @machine.worker
        def load(words, shared, first, step, lane):
            for i in range(count):
                for register in range(4):                      # A: rows g, g + 8 at t, then t + 4; B: columns g at t, t + 4, then g + 8
                    across, along = (register & 1, register >> 1) if is_a else (register >> 1, register & 1)
                    known = 4 * i + 2 * across
                    begin = int32((first >> 2) + (known & ~lower))
                    if lower:
                        chunk = int32(begin + swizzled(lane & 3, (known & lower) + (lane >> 4), shift, mask, scale))
                    else:
                        chunk = swizzled(lane & 3, begin + (lane >> 4), shift, mask, scale)
                    place = int32((lane & 3) * row_bytes + (chunk << 4) + ((lane >> 2) & 3) * 4)
                    words[4 * i + register] = round_word(load_word(int32(shared + place + (8 * step + 4 * along) * row_bytes)))
    return load


def _plain(program: Program, machine):
    tile = program.tile
    MT, NT = fragments(tile)
    load_a = _vector_reader(program, True, machine)
    load_b = _vector_reader(program, False, machine)
    fma, cuda, float32 = machine.fma, machine.cuda, machine.float32
    quads = tile.depth // 4
    a_size, b_size = 2 * MT * 4, 2 * NT * 4

    @machine.worker
    def multiply(accumulators, shared_a, shared_b, warp_row, warp_column, lane):
        a = cuda.local.array(a_size, float32)                       # 2 * MT rows, 4 numbers of the depth each
        b = cuda.local.array(b_size, float32)                       # 2 * NT columns
        for quad in range(quads):
            load_a(a, shared_a, int32(warp_row * (16 * MT)), quad, lane)
            load_b(b, shared_b, int32(warp_column * (8 * NT)), quad, lane)
            for k in range(4):
                for i in range(2 * MT):
                    for j in range(2 * NT):
                        o = 4 * ((i >> 1) * NT + (j >> 1)) + 2 * (i & 1) + (j & 1)
                        accumulators[o] = fma(a[4 * i + k], b[4 * j + k], accumulators[o])
    return multiply


def _vector_reader(program: Program, is_a: bool, machine):
    """load(numbers, shared, first, quad, lane): a lane's rows of A (or columns of B) at four indices of the depth."""
    tile, operand = program.tile, program.a if is_a else program.b
    side = tile.rows if is_a else tile.columns
    count = 2 * fragments(tile)[0] if is_a else 2 * fragments(tile)[1]
    shift, mask, scale = table_swizzle(operand, tile, side)
    row_bytes = (tile.depth if operand.along_depth else side) * tile.item
    swizzled = machine.worker(layout.swizzled)
    load_float4, load_float2, load_float = machine.load_shared_float4, machine.load_shared_float2, machine.load_shared_float
    fragment_row, fragment_column = machine.worker(layout.fragment_row), machine.worker(layout.fragment_column)

    @machine.worker
    def position(lane, i):
        """Matrix row (or column) i of a lane, from the warp's first."""
        if is_a:
            return int32(((i >> 1) << 4) + fragment_row(lane, (i & 1) << 1))
        return int32(((i >> 1) << 3) + fragment_column(lane, i & 1))

    if operand.along_depth:
        @machine.worker
        def load(numbers, shared, first, quad, lane):
            for i in range(count):
                row = int32(first + position(lane, i))
                chunk = swizzled(row, quad, shift, mask, scale)
                numbers[4 * i], numbers[4 * i + 1], numbers[4 * i + 2], numbers[4 * i + 3] = load_float4(
                    int32(shared + row * row_bytes + (chunk << 4)))
    elif is_a:
        @machine.worker
        def load(numbers, shared, first, quad, lane):
            for i in range(count):
                column = int32(first + position(lane, i))
                for k in range(4):
                    row = int32(4 * quad + k)
                    chunk = swizzled(row, column >> 2, shift, mask, scale)
                    numbers[4 * i + k] = load_float(int32(shared + row * row_bytes + (chunk << 4) + ((column & 3) << 2)))
    else:
        @machine.worker
        def load(numbers, shared, first, quad, lane):
            for i in range(0, count, 2):                        # columns 2 * t and the next are neighbours
                column = int32(first + position(lane, i))
                for k in range(4):
                    row = int32(4 * quad + k)
                    chunk = swizzled(row, column >> 2, shift, mask, scale)
                    numbers[4 * i + k], numbers[4 * i + 4 + k] = load_float2(
                        int32(shared + row * row_bytes + (chunk << 4) + ((column & 3) << 2)))
    return load
