"""Where things are: swizzled shared memory, fragments in lanes, indices of pixels and taps. Plain functions of integers.

Kernels call them as device functions, the emulator with arrays of all threads, and tests with numbers.

**Shared memory.** An operand's tile is a table of rows, each of a power of two of 16-byte chunks. Rows are matrix rows with chunks
along the depth, or, where the operand is contiguous the other way, depth indices with chunks along the matrix rows. Chunk `c` of row `r` is
stored as chunk `swizzled(r, c, ...)` of the same row, so that the eight rows that one phase of `ldmatrix` reads at equal `c` meet
eight different groups of four banks.

**Fragments** (PTX ISA, matrix fragments of mma.m16n8k8 and m16n8k16): lane l holds rows l / 4 and l / 4 + 8 of A and of the result, column
l / 4 of B, and of the result the columns 2 * (l % 4) and the next.

**Division** by a number known at launch: n // d = (n * multiplier) >> shift, exact for 0 <= n < 2**30 (T. Granlund, P. Montgomery,
Division by invariant integers using multiplication, 1994).
"""

from __future__ import annotations

from numpy import int32, int64

LIMIT = 1 << 30          # of what is divided: rows, columns, depth


def magic(divisor: int) -> tuple[int, int]:
    """(multiplier, shift) for `divide`; both fit int32."""
    bits = (divisor - 1).bit_length()
    return (1 << (30 + bits)) // divisor + 1, 30 + bits


def divide(n, multiplier, shift):
    """n // d of 0 <= n < 2**30, by what `magic(d)` returned."""
    return int32((int64(n) * int64(multiplier)) >> int64(shift))


def swizzle_of(chunks: int, spread: bool = False) -> tuple[int, int, int]:
    """(shift, mask, scale) for `swizzled`, of rows of `chunks` chunks.

    Rows shorter than 128 bytes share the 32 banks, so that the swizzle changes with every second or fourth row. `spread` is for words
    read one by one, four rows of eight words at a time (32-bit operands that are contiguous along matrix rows): row r moves by
    2 * (r % 4) chunks.
    """
    if spread:
        return (0, min(chunks, 8) // 2 - 1, 1)
    kept = min(chunks, 8)
    return ((8 // kept).bit_length() - 1, kept - 1, 0)


def swizzled(row, chunk, shift, mask, scale):
    """Where chunk `chunk` of row `row` is stored, within the row."""
    return int32(chunk ^ (((row >> shift) & mask) << scale))


def fragment_row(lane, register):
    """Row of the 16 x 8 result that a lane holds in one of its four registers."""
    return int32((lane >> 2) + ((register >> 1) << 3))


def fragment_column(lane, register):
    """Column of the 16 x 8 result that a lane holds in one of its four registers."""
    return int32(((lane & 3) << 1) + (register & 1))


def matrix_low_row(lane):
    """Row whose address a lane gives to ldmatrix.x4, when matrices 0, 1 are rows 0-7, 8-15 at the first chunk, 2, 3 at the second."""
    return int32(lane & 15)


def matrix_low_chunk(lane):
    """The chunk that goes with `matrix_low_row`."""
    return int32(lane >> 4)


def matrix_high_row(lane):
    """Row for ldmatrix.x4 when matrices 0, 1 are the first and second chunk of rows 0-7, 2, 3 of rows 8-15."""
    return int32((lane & 7) + ((lane >> 4) << 3))


def matrix_high_chunk(lane):
    """The chunk that goes with `matrix_high_row`."""
    return int32((lane >> 3) & 1)


def raster_row(block, columns, multiplier, shift, log_group):
    """Tile row of a block: blocks walk down `2**log_group` rows before the next column, so that neighbours share operands in L2.

    multiplier, shift: `magic(columns << log_group)`, columns being the number of tile columns.
    """
    group = divide(block, multiplier, shift)
    return int32((group << log_group) + ((block - group * (columns << log_group)) & ((1 << log_group) - 1)))


def raster_column(block, columns, multiplier, shift, log_group):
    """Tile column of a block; see `raster_row`."""
    group = divide(block, multiplier, shift)
    return int32((block - group * (columns << log_group)) >> log_group)
